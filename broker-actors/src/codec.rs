//! Reading and writing of the small fixed layouts of a shard's log: little endian, checked.
//!
//! Used by the item codec ([`crate::commands`]) and by the parts of a checkpoint
//! ([`crate::machine`]). Nothing here panics on bad input.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Most bytes of a number in groups of seven bits.
const VARINT_BYTES_MAX: usize = 10;

/// Why a layout could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The bytes end before the layout does.
    #[error("bytes end early: {wanted} more wanted, {left} left")]
    Short {
        /// Bytes the next field needs.
        wanted: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The layout ends before the bytes do.
    #[error("{left} bytes too many")]
    Trailing {
        /// Bytes after the end of the layout.
        left: usize,
    },
    /// The layout is of a version this build does not know.
    #[error("unknown version {0}")]
    Version(u8),
    /// A field holds what it must never hold.
    #[error("bad value of {0}")]
    Value(&'static str),
    /// The kind of an item or part is not known to this build.
    #[error("unknown kind {0}")]
    Kind(u16),
}

/// Reads fields one after another.
#[derive(Debug)]
pub(crate) struct Decoder {
    rest: Bytes,
}

impl Decoder {
    /// Starts at the first of `bytes`.
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// Takes `count` bytes, sharing the buffer.
    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, CodecError> {
        let left = self.rest.len();
        if left < count {
            return Err(CodecError::Short { wanted: count, left });
        }
        Ok(self.rest.split_to(count))
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    // Not by `take`: to share the buffer and let go of it again costs 20 ns a field.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let left = self.rest.len();
        let field = *self.rest.first_chunk::<N>().ok_or(CodecError::Short { wanted: N, left })?;
        self.rest.advance(N);
        Ok(field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number in groups of seven bits, the lowest first, in its shortest form.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, CodecError> {
        let mut number = 0_u64;
        for (shift, (place, byte)) in (0..u64::BITS).step_by(7).zip(self.rest.iter().enumerate()) {
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (*byte == 0 && shift > 0) {
                return Err(CodecError::Value(field));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.rest.advance(place + 1);
                return Ok(number);
            }
        }
        let left = self.rest.len();
        if left < VARINT_BYTES_MAX {
            return Err(CodecError::Short { wanted: left + 1, left });
        }
        Err(CodecError::Value(field))
    }

    /// A [`Decoder::varint`] that fits 32 bits.
    pub(crate) fn varint_u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        u32::try_from(self.varint(field)?).map_err(|_| CodecError::Value(field))
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// A version byte that must be `known`.
    pub(crate) fn version(&mut self, known: u8) -> Result<(), CodecError> {
        match self.u8()? {
            version if version == known => Ok(()),
            version => Err(CodecError::Version(version)),
        }
    }

    /// Text with its length in a u16 before it.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, CodecError> {
        let length = usize::from(self.u16()?);
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Value(field))
    }

    /// Ends reading: nothing may be left.
    pub(crate) fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing { left }),
        }
    }
}

/// Writes a number as [`Decoder::varint`] reads it.
pub(crate) fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.put_u8(number.to_le_bytes()[0]);
}

/// Writes text with its length in a u16 before it.
///
/// # Panics
/// When `text` is longer than a u16 can say; callers bound it long before.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    let length = u16::try_from(text.len()).expect("texts in the log are bounded at the edge");
    out.put_u16_le(length);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_only_in_their_shortest_form() {
        for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut out = BytesMut::new();
            put_varint(&mut out, number);
            let bytes = out.freeze();
            for length in 0..bytes.len() {
                assert!(Decoder::new(bytes.slice(..length)).varint("n").is_err());
            }
            assert_eq!(Decoder::new(bytes).varint("n"), Ok(number));
        }
        let bad = Err(CodecError::Value("n"));
        assert_eq!(Decoder::new(Bytes::from_static(&[0x80, 0])).varint("n"), bad);
        assert_eq!(Decoder::new(Bytes::from_static(&[0xff; 11])).varint("n"), bad);
        let mut beyond = [0xff; 10];
        beyond[9] = 2;
        assert_eq!(Decoder::new(Bytes::copy_from_slice(&beyond)).varint("n"), bad);
    }
}
