//! Reads numbers and slices off a record, never beyond its end.

use super::RecordError;

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next field begins.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], RecordError> {
        if length > self.remaining() {
            return Err(RecordError::Truncated { field });
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let chunk = self.bytes[self.at..].first_chunk::<N>();
        let array = *chunk.ok_or(RecordError::Truncated { field })?;
        self.at += N;
        Ok(array)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, RecordError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, RecordError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn id(&mut self) -> Result<[u8; 16], RecordError> {
        self.array("id")
    }

    /// An unsigned LEB128 number: 7 bits a byte, least significant first, in its shortest form.
    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for place in 0..10 {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            let beyond = place == 9 && bits > 1;
            let padded = place > 0 && byte == 0;
            if beyond || padded {
                return Err(RecordError::Number { field });
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Number { field })
    }

    pub(super) fn varint_u32(&mut self, field: &'static str) -> Result<u32, RecordError> {
        u32::try_from(self.varint(field)?).map_err(|_| RecordError::Number { field })
    }

    /// A signed number: 0, -1, 1, -2, ... travel as 0, 1, 2, 3, ...
    pub(super) fn zigzag(&mut self, field: &'static str) -> Result<i64, RecordError> {
        let folded = self.varint(field)?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }
}

/// Bytes of a number as [`Cursor::varint`] reads it.
pub(super) const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The unsigned number that stands for a signed one.
pub(super) const fn fold_zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

pub(super) fn put_varint(out: &mut bytes::BytesMut, value: u64) {
    let mut encoded = [0; 10];
    let count = write_varint(&mut encoded, value);
    out.extend_from_slice(&encoded[..count]);
}

/// Writes a number at the start of `into`, which has room for it; answers its bytes.
pub(super) fn write_varint(into: &mut [u8], value: u64) -> usize {
    let mut rest = value;
    let count = varint_bytes(value);
    for byte in &mut into[..count] {
        *byte = rest.to_le_bytes()[0] | 0x80;
        rest >>= 7;
    }
    into[count - 1] &= 0x7f;
    count
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(value: u64, signed: i64) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_bytes(value));
            put_varint(&mut out, fold_zigzag(signed));
            let mut cursor = Cursor::new(&out, 0);
            prop_assert_eq!(cursor.varint("a"), Ok(value));
            prop_assert_eq!(cursor.zigzag("b"), Ok(signed));
            prop_assert_eq!(cursor.remaining(), 0);
        }
    }

    #[test]
    fn only_the_shortest_form_within_64_bits_is_a_number() {
        let read = |bytes: &[u8]| Cursor::new(bytes, 0).varint("n");
        let number = Err(RecordError::Number { field: "n" });
        let truncated = Err(RecordError::Truncated { field: "n" });
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0x80, 1]), Ok(128));
        assert_eq!(read(&[0x80, 0]), number, "padded");
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), number);
        assert_eq!(read(&[0xff; 11]), number);
        assert_eq!(read(&[0xff]), truncated);
        assert_eq!(read(&[]), truncated);
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x10], 0).varint_u32("n").ok(), None);
    }
}
