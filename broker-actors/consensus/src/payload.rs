//! The payload of a Normal or Seal entry: a time and a list of items.
//!
//! Format, little endian: time u64 (milliseconds since 1970), count u32, then `count` items:
//! kind u16, length u32, bytes. A proposal is a list of slices in this format that the log gathers
//! into its mapping; reading gives one slice of the mapping, cut into items without a copy.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::TimestampMs;
use thiserror::Error;

use crate::machine::NewItem;

/// Bytes before the first item: time and count.
pub const PAYLOAD_HEAD_BYTES: usize = 12;
/// Bytes before an item's own bytes: kind and length.
pub const ITEM_HEAD_BYTES: usize = 6;
/// Most items one entry may hold.
pub const ITEMS_MAX: u32 = 1 << 20;

/// What an entry holds, before it is written (many slices) or after it was read (one).
#[derive(Clone)]
pub struct Command {
    /// Whether this entry closes its segment.
    pub(crate) seal: bool,
    /// The payload, in order.
    pub(crate) chunks: Chunks,
    /// Room set aside for it in the log, until it is appended or refused.
    pub(crate) room: Option<Rc<Reserved>>,
}

/// Bytes set aside out of a common total; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    total: Rc<Cell<u64>>,
    bytes: u64,
}

impl Reserved {
    pub(crate) fn take(total: &Rc<Cell<u64>>, bytes: u64) -> Self {
        total.set(total.get().saturating_add(bytes));
        Self { total: Rc::clone(total), bytes }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.total.set(self.total.get().saturating_sub(self.bytes));
    }
}

/// A payload in one or several slices.
#[derive(Clone)]
pub(crate) enum Chunks {
    /// One slice, as read from the log.
    One(Bytes),
    /// Slices to gather, as proposed.
    Many(Vec<Bytes>),
}

impl Command {
    /// An entry read from the log or from a peer.
    pub(crate) fn stored(seal: bool, payload: Bytes) -> Self {
        Self { seal, chunks: Chunks::One(payload), room: None }
    }

    /// The slices, in order.
    pub(crate) fn slices(&self) -> &[Bytes] {
        match &self.chunks {
            Chunks::One(bytes) => std::slice::from_ref(bytes),
            Chunks::Many(list) => list,
        }
    }

    /// The payload as one slice; copies only when it was never written.
    pub(crate) fn contiguous(&self) -> Bytes {
        match &self.chunks {
            Chunks::One(bytes) => bytes.clone(),
            Chunks::Many(list) => {
                let mut all = BytesMut::with_capacity(self.len_bytes());
                for part in list {
                    all.extend_from_slice(part);
                }
                all.freeze()
            }
        }
    }

    /// Length of the payload in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.slices().iter().map(Bytes::len).sum()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.seal { "seal" } else { "normal" };
        write!(f, "{kind}({} bytes)", self.len_bytes())
    }
}

/// A payload that is not in this format.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// The payload ends before its items do.
    #[error("payload of {length} bytes ends before its items do")]
    Short {
        /// Length of the payload in bytes.
        length: usize,
    },
    /// More items than an entry may hold.
    #[error("{count} items in one entry")]
    TooMany {
        /// Items the head announces.
        count: u32,
    },
    /// Bytes are left behind the last item.
    #[error("{left} bytes behind the last item")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// Lays items out as the slices of one entry. All heads share one buffer; bodies are not copied.
///
/// # Panics
/// With more than [`ITEMS_MAX`] items or an item of 4 GiB: the caller's limits are far below.
pub fn encode(time: TimestampMs, items: &[NewItem], seal: bool) -> Command {
    let count = u32::try_from(items.len()).expect("items fit u32");
    assert!(count <= ITEMS_MAX, "{count} items in one entry");
    let heads_bytes = PAYLOAD_HEAD_BYTES + items.len() * ITEM_HEAD_BYTES;
    let mut heads = BytesMut::with_capacity(heads_bytes);
    heads.put_u64_le(time.0);
    heads.put_u32_le(count);
    for item in items {
        heads.put_u16_le(item.kind);
        heads.put_u32_le(u32::try_from(item.len_bytes()).expect("item fits u32"));
    }
    let mut heads = heads.freeze();
    let slices = 1 + items.len() + items.iter().map(|item| item.bytes.len()).sum::<usize>();
    let mut chunks = Vec::with_capacity(slices);
    // The first item's head lies right behind the entry's: one slice for both.
    let first_bytes = PAYLOAD_HEAD_BYTES + if items.is_empty() { 0 } else { ITEM_HEAD_BYTES };
    chunks.push(heads.split_to(first_bytes));
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            chunks.push(heads.split_to(ITEM_HEAD_BYTES));
        }
        chunks.extend(item.bytes.iter().filter(|slice| !slice.is_empty()).cloned());
    }
    Command { seal, chunks: Chunks::Many(chunks), room: None }
}

/// One item as it stands in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawItem {
    /// Kind of the item.
    pub kind: u16,
    /// Where its bytes start in the payload.
    pub byte: u32,
    /// Its bytes, a slice of the payload.
    pub bytes: Bytes,
}

/// The items of a payload, checked as a whole before the first is handed out.
#[derive(Debug)]
pub struct Items {
    payload: Bytes,
    at: usize,
    left: u32,
}

impl Iterator for Items {
    type Item = RawItem;

    fn next(&mut self) -> Option<RawItem> {
        if self.left == 0 {
            return None;
        }
        let (kind, length) = item_head(&self.payload, self.at)?;
        let start = self.at + ITEM_HEAD_BYTES;
        self.at = start + length;
        self.left -= 1;
        let byte = u32::try_from(start).ok()?;
        Some(RawItem { kind, byte, bytes: self.payload.slice(start..start + length) })
    }
}

fn item_head(payload: &[u8], at: usize) -> Option<(u16, usize)> {
    let head = payload.get(at..at + ITEM_HEAD_BYTES)?;
    let kind = u16::from_le_bytes([head[0], head[1]]);
    let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
    let end = at.checked_add(ITEM_HEAD_BYTES)?.checked_add(length)?;
    (end <= payload.len()).then_some((kind, length))
}

/// Reads a payload: its time and its items.
///
/// # Errors
/// [`PayloadError`] when it is not whole or not in this format.
pub fn decode(payload: &Bytes) -> Result<(TimestampMs, Items), PayloadError> {
    let short = PayloadError::Short { length: payload.len() };
    let head: &[u8; PAYLOAD_HEAD_BYTES] =
        payload.get(..PAYLOAD_HEAD_BYTES).and_then(|head| head.try_into().ok()).ok_or(short)?;
    let [t0, t1, t2, t3, t4, t5, t6, t7, c0, c1, c2, c3] = *head;
    let time = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    let count = u32::from_le_bytes([c0, c1, c2, c3]);
    if count > ITEMS_MAX {
        return Err(PayloadError::TooMany { count });
    }
    let mut at = PAYLOAD_HEAD_BYTES;
    for _ in 0..count {
        let (_, length) = item_head(payload, at).ok_or(short)?;
        at += ITEM_HEAD_BYTES + length;
    }
    if at != payload.len() {
        return Err(PayloadError::Trailing { left: payload.len() - at });
    }
    let items = Items { payload: payload.clone(), at: PAYLOAD_HEAD_BYTES, left: count };
    Ok((TimestampMs(time), items))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items_of(lists: &[(u16, Vec<Vec<u8>>)]) -> Vec<NewItem> {
        lists
            .iter()
            .map(|(kind, parts)| NewItem {
                kind: *kind,
                bytes: parts.iter().cloned().map(Bytes::from).collect(),
            })
            .collect()
    }

    #[test]
    fn the_format_is_what_the_doc_says() {
        let items = [NewItem::new(64, Bytes::from_static(b"ab")), NewItem::new(65, Bytes::new())];
        let bytes = encode(TimestampMs(7), &items, false).contiguous();
        let golden = [7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 64, 0, 2, 0, 0, 0, b'a', b'b', 65, 0];
        assert_eq!(bytes[..22], golden);
        assert_eq!(bytes[22..], [0, 0, 0, 0]);
    }

    #[test]
    fn bodies_are_not_copied_on_the_way_in_or_out() {
        let body = Bytes::from(vec![9; 100]);
        let command = encode(TimestampMs(1), &[NewItem::new(70, body.clone())], false);
        assert_eq!(command.slices()[1].as_ptr(), body.as_ptr());
        let stored = command.contiguous();
        let (_, mut items) = decode(&stored).unwrap();
        let item = items.next().unwrap();
        assert_eq!(item.bytes.as_ptr(), stored[item.byte as usize..].as_ptr());
    }

    #[test]
    fn room_set_aside_comes_back_when_the_last_copy_is_gone() {
        let total = Rc::new(Cell::new(0));
        let mut command = encode(TimestampMs(1), &[], false);
        command.room = Some(Rc::new(Reserved::take(&total, 100)));
        let copy = command.clone();
        drop(command);
        assert_eq!(total.get(), 100);
        drop(copy);
        assert_eq!(total.get(), 0);
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let items = items_of(&[(64, vec![vec![1; 5]]), (65, vec![vec![2], vec![3; 9]])]);
        let whole = encode(TimestampMs(3), &items, true).contiguous();
        for cut in 0..whole.len() {
            assert!(decode(&whole.slice(..cut)).is_err(), "a cut at {cut} was accepted");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert_eq!(decode(&longer.into()).unwrap_err(), PayloadError::Trailing { left: 1 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_goes_in_comes_out(
            time: u64,
            lists in prop::collection::vec(
                (any::<u16>(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4)),
                0..6,
            ),
        ) {
            let command = encode(TimestampMs(time), &items_of(&lists), false);
            let (read, items) = decode(&command.contiguous()).unwrap();
            prop_assert_eq!(read, TimestampMs(time));
            let got: Vec<(u16, Vec<u8>)> = items.map(|i| (i.kind, i.bytes.to_vec())).collect();
            let want: Vec<(u16, Vec<u8>)> =
                lists.into_iter().map(|(kind, parts)| (kind, parts.concat())).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, items)) = decode(&Bytes::from(bytes)) {
                items.for_each(drop);
            }
        }
    }
}
