//! Messages that wait to be delivered again, in buckets: each bucket is a part of the state.

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{Offset, TimestampMs};

use crate::codec::{CodecError, Decoder, put_varint};

/// Offsets of a bucket have all but this many bits in common.
const BUCKET_BITS: u32 = 8;
const VERSION: u8 = 1;

/// Stands for "delivered, and not answered": due at no time.
pub const IN_HANDS: TimestampMs = TimestampMs(u64::MAX);

/// A message that was not handled, and is neither settled nor a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Which.
    pub offset: Offset,
    /// When it is delivered again; [`IN_HANDS`] while a member has it.
    pub due: TimestampMs,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// The number of the bucket that an offset belongs to.
pub(in crate::machine) const fn bucket_of(offset: Offset) -> u64 {
    offset.0 >> BUCKET_BITS
}

/// Retries of neighbouring offsets, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::machine) struct Bucket {
    retries: Vec<Retry>,
}

impl Bucket {
    fn place(&self, offset: Offset) -> Result<usize, usize> {
        self.retries.binary_search_by_key(&offset, |retry| retry.offset)
    }

    pub(in crate::machine) fn get(&self, offset: Offset) -> Option<&Retry> {
        self.place(offset).ok().map(|at| &self.retries[at])
    }

    /// Puts one in; the one that was there of the same offset.
    pub(in crate::machine) fn put(&mut self, retry: Retry) -> Option<Retry> {
        match self.place(retry.offset) {
            Ok(at) => Some(std::mem::replace(&mut self.retries[at], retry)),
            Err(at) => {
                self.retries.insert(at, retry);
                None
            }
        }
    }

    pub(in crate::machine) fn take(&mut self, offset: Offset) -> Option<Retry> {
        self.place(offset).ok().map(|at| self.retries.remove(at))
    }

    pub(in crate::machine) fn all(&self) -> &[Retry] {
        &self.retries
    }

    pub(in crate::machine) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(3 + 12 * self.retries.len());
        out.put_u8(VERSION);
        out.put_u16_le(u16::try_from(self.retries.len()).expect("a bucket is bounded"));
        for retry in &self.retries {
            out.put_u8(retry.offset.0.to_le_bytes()[0]);
            put_varint(&mut out, u64::from(retry.deliveries));
            // In hands is the most common, and short so.
            put_varint(&mut out, retry.due.0.wrapping_add(1));
        }
        out.freeze()
    }

    /// Reads bucket `number` back.
    pub(in crate::machine) fn decode(number: u64, bytes: Bytes) -> Result<Self, CodecError> {
        let bad = CodecError::Value("retries");
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let count = decoder.u16()?;
        let first = number.checked_mul(1 << BUCKET_BITS).ok_or(bad)?;
        let mut retries: Vec<Retry> = Vec::new();
        for _ in 0..count {
            let offset = Offset(first | u64::from(decoder.u8()?));
            let deliveries = decoder.varint_u32("deliveries")?;
            let due = TimestampMs(decoder.varint("due time")?.wrapping_sub(1));
            if retries.last().is_some_and(|last| last.offset >= offset) {
                return Err(bad);
            }
            retries.push(Retry { offset, due, deliveries });
        }
        decoder.finish()?;
        if retries.is_empty() {
            return Err(bad); // an empty one is never saved
        }
        Ok(Self { retries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reads_back_as_it_was_written_and_nothing_else_is_one() {
        let mut bucket = Bucket::default();
        for (offset, due) in [(513, 7), (512, IN_HANDS.0), (767, 1 << 41)] {
            let retry = Retry { offset: Offset(offset), due: TimestampMs(due), deliveries: 300 };
            assert_eq!(bucket.put(retry), None);
            assert_eq!(bucket_of(Offset(offset)), 2);
        }
        let bytes = bucket.encode();
        assert_eq!(
            bytes[..],
            *b"\x01\x03\0\0\xac\x02\0\x01\xac\x02\x08\xff\xac\x02\x81\x80\x80\x80\x80\x40"
                .as_slice()
        );
        assert_eq!(Bucket::decode(2, bytes.clone()), Ok(bucket));
        for length in 0..bytes.len() {
            assert!(Bucket::decode(2, bytes.slice(..length)).is_err());
        }
        assert!(Bucket::decode(u64::MAX, bytes.clone()).is_err(), "beyond the last offset");
        let mut twice = bytes.to_vec();
        twice[7] = 0;
        assert!(Bucket::decode(2, twice.into()).is_err(), "not in order");
        assert!(Bucket::decode(0, Bucket::default().encode()).is_err());
    }

    #[test]
    fn there_is_one_of_each_offset() {
        let mut bucket = Bucket::default();
        let first = Retry { offset: Offset(3), due: TimestampMs(1), deliveries: 1 };
        let again = Retry { deliveries: 2, ..first };
        assert_eq!(bucket.put(first), None);
        assert_eq!(bucket.put(again), Some(first));
        assert_eq!(bucket.get(Offset(3)), Some(&again));
        assert_eq!((bucket.take(Offset(4)), bucket.take(Offset(3))), (None, Some(again)));
        assert!(bucket.all().is_empty());
    }
}
