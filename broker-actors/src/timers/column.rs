//! Columns: a number for each row, in as few bytes as all of them fit.
//!
//! In memory a column is a straight line, or numbers of one width from its least one on. Saved it is
//!
//! ```text
//! form u8 = 0:    stretches until there are enough numbers: start, step, how many more; all varints
//! form u8 = 1..8: least number varint, then for each number what is added to it, in so many bytes
//! ```
//! whichever is shorter. A start is told by its distance to the number before (0 before the first), a
//! step and a distance as the difference times two, or less one where it is below 0.

use bytes::{BufMut, BytesMut};

use crate::codec::{CodecError, Decoder, put_varint};

/// Numbers that do not change any more.
#[derive(Debug, Clone)]
pub(super) struct Column {
    base: u64,
    /// From one to the next; 0 where they are not on a line.
    step: u64,
    /// Bytes of what is added.
    width: usize,
    added: Box<[u8]>,
}

impl Column {
    /// Those of `all`.
    pub(super) fn of(all: &[u64]) -> Self {
        let first = all.first().copied().unwrap_or(0);
        let step = all.get(1).map_or(0, |second| second.wrapping_sub(first));
        if all.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
            return Self { base: first, step, width: 0, added: Box::default() };
        }
        let (base, width) = least_and_width(all);
        let mut added = BytesMut::with_capacity(all.len() * width);
        put_added(&mut added, all, base, width);
        Self { base, step: 0, width, added: added.as_ref().into() }
    }

    /// The number at a position, which must be one of those there were.
    pub(super) fn get(&self, position: usize) -> u64 {
        let line = self.base.wrapping_add(self.step.wrapping_mul(position as u64));
        line.wrapping_add(number_of(&self.added[position * self.width..][..self.width]))
    }
}

/// The least of them, and the bytes that the greatest distance to it takes: 1 at least.
fn least_and_width(all: &[u64]) -> (u64, usize) {
    let base = all.iter().copied().min().unwrap_or(0);
    let span = all.iter().copied().max().unwrap_or(0) - base;
    let bits = u64::BITS - span.leading_zeros();
    (base, bits.div_ceil(8).max(1) as usize)
}

fn put_added(out: &mut BytesMut, all: &[u64], base: u64, width: usize) {
    for number in all {
        out.put_slice(&(number - base).to_le_bytes()[..width]);
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

/// Saves a column.
pub(super) fn put_column(out: &mut BytesMut, all: &[u64]) {
    let (base, width) = least_and_width(all);
    let mut packed = BytesMut::with_capacity(12);
    packed.put_u8(u8::try_from(width).expect("8 at most"));
    put_varint(&mut packed, base);
    let packed_bytes = packed.len() + all.len() * width;
    if !put_stretches(out, all, packed_bytes) {
        out.put_slice(&packed);
        put_added(out, all, base, width);
    }
}

/// Saves a column as stretches, unless that is longer than `bytes_max`: then nothing was written.
fn put_stretches(out: &mut BytesMut, all: &[u64], bytes_max: usize) -> bool {
    let begin = out.len();
    out.put_u8(0);
    let (mut left, mut last) = (all, 0);
    while let Some(&start) = left.first() {
        let step = left.get(1).map_or(0, |second| second.wrapping_sub(start));
        let on_line = left.windows(2).take_while(|pair| pair[1].wrapping_sub(pair[0]) == step);
        let more = on_line.count();
        put_varint(out, fold(start.wrapping_sub(last)));
        put_varint(out, fold(step));
        put_varint(out, more as u64);
        if out.len() - begin > bytes_max {
            out.truncate(begin);
            return false;
        }
        last = left[more];
        left = &left[more + 1..];
    }
    true
}

/// Reads a column of `count` numbers; `count` is bounded by the caller.
pub(super) fn read_column(decoder: &mut Decoder, count: usize) -> Result<Vec<u64>, CodecError> {
    let width = usize::from(decoder.u8()?);
    match width {
        0 => read_stretches(decoder, count),
        1..=8 => {
            let base = decoder.varint("least number")?;
            let added = decoder.take(count * width)?;
            let number = |bytes| base.checked_add(number_of(bytes));
            let all: Option<Vec<u64>> = added.chunks_exact(width).map(number).collect();
            all.ok_or(CodecError::Value("least number"))
        }
        _ => Err(CodecError::Value("form of a column")),
    }
}

fn read_stretches(decoder: &mut Decoder, count: usize) -> Result<Vec<u64>, CodecError> {
    let mut all = Vec::with_capacity(count);
    let mut last = 0_u64;
    while all.len() < count {
        let mut number = last.wrapping_add(unfold(decoder.varint("start of a stretch")?));
        let step = unfold(decoder.varint("step of a stretch")?);
        let more = usize::try_from(decoder.varint("length of a stretch")?).ok();
        let more = more.filter(|more| *more < count - all.len());
        let more = more.ok_or(CodecError::Value("length of a stretch"))?;
        all.push(number);
        for _ in 0..more {
            number = number.wrapping_add(step);
            all.push(number);
        }
        last = number;
    }
    Ok(all)
}

/// A difference of two numbers as one that is small where they are close, in either direction.
pub(super) const fn fold(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

/// Takes [`fold`] back.
pub(super) const fn unfold(folded: u64) -> u64 {
    (folded >> 1) ^ (folded & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let start = prop_oneof![0_u64..300, any::<u64>()];
        let step = prop_oneof![Just(0_u64), 0_u64..2_000, any::<u64>()];
        let stretch = (start, step, 1_usize..20);
        prop::collection::vec(stretch, 0..20).prop_map(|stretches| {
            let line = |(start, step, count): (u64, u64, usize)| {
                (0..count as u64).map(move |nth| start.wrapping_add(step.wrapping_mul(nth)))
            };
            stretches.into_iter().flat_map(line).collect()
        })
    }

    fn saved(all: &[u64]) -> bytes::Bytes {
        let mut out = BytesMut::new();
        put_column(&mut out, all);
        out.freeze()
    }

    proptest! {
        #[test]
        fn numbers_are_what_they_were_in_memory_and_saved(all in numbers()) {
            let column = Column::of(&all);
            let kept: Vec<u64> = (0..all.len()).map(|position| column.get(position)).collect();
            prop_assert_eq!(&kept, &all);
            let bytes = saved(&all);
            let (_, width) = least_and_width(&all);
            prop_assert!(bytes.len() <= 11 + all.len() * width);
            let mut decoder = Decoder::new(bytes.clone());
            prop_assert_eq!(&read_column(&mut decoder, all.len()).unwrap(), &all);
            prop_assert_eq!(decoder.left(), 0);
            for length in 0..bytes.len() {
                let cut = read_column(&mut Decoder::new(bytes.slice(..length)), all.len());
                prop_assert!(cut.is_err(), "at {}", length);
            }
        }

        #[test]
        fn bytes_of_no_column_are_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60), form in 0_u8..10, count in 0_usize..9,
        ) {
            let bytes = [vec![form], bytes].concat();
            if let Ok(all) = read_column(&mut Decoder::new(bytes.into()), count) {
                prop_assert_eq!(all.len(), count);
            }
        }
    }

    #[test]
    fn the_shorter_form_is_taken() {
        let line: Vec<u64> = (0..1_000).map(|nth| 40 + nth * 1_100).collect();
        assert_eq!(saved(&line)[..], [0, 80, 0x98, 0x11, 0xe7, 7]);
        assert_eq!(Column::of(&line).added.len(), 0);
        let packed = [2, 7, 0, 0, 0x59, 0xea, 2, 0, 0x39, 0x9c];
        assert_eq!(saved(&[7, 60_000, 9, 40_000])[..], packed);
        assert_eq!(saved(&[])[..], [0]);
    }
}
