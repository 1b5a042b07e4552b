//! Replies on their way to the peer: written together, copied never. Pure.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Most slices handed to one vectored write (Linux takes 1,024).
pub const SLICES_MAX: usize = 64;
/// Bodies up to this size are copied behind their header instead of standing as a slice of their
/// own: a slice costs more than so many bytes.
const INLINE_BODY_BYTES_MAX: usize = 256;

/// Bytes to write, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Heads and small bodies are encoded here, one behind the other.
    open: BytesMut,
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

impl Output {
    /// Nothing to write.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what `encode` appends to its buffer; nothing when it fails.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn encode<E>(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.open.len();
        let encoded = encode(&mut self.open);
        if encoded.is_err() {
            self.open.truncate(before);
        }
        self.bytes += (self.open.len() - before) as u64;
        encoded
    }

    /// Appends `body` without copying it, unless it is tiny.
    pub fn push(&mut self, body: Bytes) {
        self.bytes += body.len() as u64;
        if body.len() <= INLINE_BODY_BYTES_MAX {
            self.open.extend_from_slice(&body);
            return;
        }
        self.close_piece();
        self.pieces.push_back(body);
    }

    /// Bytes not written yet.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether all is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The next slices to write, at most [`SLICES_MAX`].
    pub fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        self.close_piece();
        let mut count = 0;
        for piece in self.pieces.iter().take(SLICES_MAX) {
            slices[count] = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// `written` bytes have left.
    ///
    /// # Panics
    /// When more have left than there were.
    pub fn advance(&mut self, written: usize) {
        self.bytes = self.bytes.checked_sub(written as u64).expect("more written than there was");
        let mut left = written;
        while left > 0 {
            let piece = self.pieces.front_mut().expect("bytes are counted");
            if left < piece.len() {
                piece.advance(left);
                return;
            }
            left -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// All of it as one piece, copied if it is in several.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        self.close_piece();
        if self.pieces.len() == 1 {
            return self.pieces.pop_front().unwrap_or_default();
        }
        self.pieces.iter().flatten().copied().collect()
    }

    fn close_piece(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(self.open.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(output: &mut Output, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = output.slices(&mut slices);
            let written: Vec<u8> =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
            out.extend_from_slice(&written);
            output.advance(written.len());
        }
        out
    }

    #[test]
    fn a_large_body_is_not_copied() {
        let body = Bytes::from(vec![7; 10_000]);
        let mut output = Output::new();
        output
            .encode::<()>(|buffer| {
                buffer.extend_from_slice(b"head");
                Ok(())
            })
            .unwrap();
        output.push(body.clone());
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!(output.slices(&mut slices), 2);
        assert_eq!(slices[1].as_ptr(), body.as_ptr());
    }

    #[test]
    fn what_fails_to_encode_leaves_nothing() {
        let mut output = Output::new();
        let failed = output.encode(|buffer| {
            buffer.extend_from_slice(b"half");
            Err("no")
        });
        assert_eq!(failed, Err("no"));
        assert!(output.is_empty());
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_whatever_each_write_takes(
            sizes in proptest::collection::vec(0_usize..700, 0..150),
            step in 1_usize..5_000,
        ) {
            let mut output = Output::new();
            let mut expected = Vec::new();
            for (n, size) in sizes.into_iter().enumerate() {
                let bytes = vec![u8::try_from(n % 251).unwrap(); size];
                expected.extend_from_slice(&bytes);
                if n % 3 == 0 {
                    output.encode::<()>(|buffer| {
                        buffer.extend_from_slice(&bytes);
                        Ok(())
                    }).unwrap();
                } else {
                    output.push(Bytes::from(bytes));
                }
            }
            prop_assert_eq!(output.bytes(), expected.len() as u64);
            prop_assert_eq!(drain(&mut output, step), expected);
        }
    }
}
