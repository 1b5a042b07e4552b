//! The memory a socket is read into: blocks that are used again once their frames are gone. Pure.
//!
//! Frames are slices of the block they were read into, so a block is free when the last of its
//! frames is dropped. Given back to the allocator, large blocks would return to the system and
//! cost a page fault for every 4 KiB when they are asked for again; so a connection keeps some.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Most bytes of blocks kept for use again, by one connection.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Blocks are multiples of this, so that frames of about one size fit each other's blocks.
const BLOCK_STEP_BYTES: usize = 64 << 10;

/// Bytes read and not yet cut into frames, and the blocks they are read into.
#[derive(Debug, Default)]
pub struct Blocks {
    /// What was read.
    pub bytes: BytesMut,
    block_bytes: usize,
    /// Blocks whose frames are still about, each with its size.
    kept: VecDeque<(BytesMut, usize)>,
    kept_bytes: usize,
}

impl Blocks {
    /// Room behind what was read, in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Makes room for at least `room` more bytes; what was read stays.
    pub fn make_room(&mut self, room: usize) {
        if self.room() >= room || self.bytes.try_reclaim(room) {
            return;
        }
        let needed = room + self.bytes.len();
        let (mut next, block_bytes) = self.take_kept(needed).unwrap_or_else(|| {
            let block_bytes = needed.next_multiple_of(BLOCK_STEP_BYTES);
            (BytesMut::with_capacity(block_bytes), block_bytes)
        });
        next.extend_from_slice(&self.bytes);
        let mut full = std::mem::replace(&mut self.bytes, next);
        let full_bytes = std::mem::replace(&mut self.block_bytes, block_bytes);
        full.clear();
        if full_bytes > 0 && self.kept_bytes + full_bytes <= KEPT_BYTES_MAX {
            self.kept_bytes += full_bytes;
            self.kept.push_back((full, full_bytes));
        }
    }

    /// Gives all memory back that holds nothing.
    pub fn give_back(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::default();
        }
    }

    /// A block of at least `needed` bytes whose frames are gone.
    fn take_kept(&mut self, needed: usize) -> Option<(BytesMut, usize)> {
        for _ in 0..self.kept.len() {
            let (mut block, block_bytes) = self.kept.pop_front()?;
            if block_bytes >= needed && block.try_reclaim(needed) {
                self.kept_bytes -= block_bytes;
                return Some((block, block_bytes));
            }
            self.kept.push_back((block, block_bytes));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};
    use proptest::prelude::*;

    use super::*;

    /// Reads `count` bytes of `value` and cuts them off as a frame.
    fn frame(blocks: &mut Blocks, count: usize, value: u8) -> Bytes {
        blocks.make_room(count);
        blocks.bytes.put_bytes(value, count);
        blocks.bytes.split_to(count).freeze()
    }

    #[test]
    fn blocks_are_used_again_when_their_frames_are_gone() {
        let mut blocks = Blocks::default();
        let size = 1 << 20;
        let mut places = std::collections::BTreeSet::new();
        let mut in_flight = VecDeque::new();
        for n in 0..100_u8 {
            in_flight.push_back(frame(&mut blocks, size, n));
            places.insert(in_flight[in_flight.len() - 1].as_ptr() as usize);
            if in_flight.len() > 4 {
                in_flight.pop_front();
            }
        }
        assert!(places.len() <= 7, "{} blocks for five frames in flight", places.len());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut blocks = Blocks::default();
        let held: Vec<_> = (0..60).map(|n| frame(&mut blocks, 1 << 20, n)).collect();
        assert!(blocks.kept_bytes <= KEPT_BYTES_MAX);
        assert!(held.iter().zip(0..).all(|(frame, n)| frame.iter().all(|byte| *byte == n)));
        blocks.give_back();
        assert_eq!((blocks.kept.len(), blocks.bytes.capacity()), (0, 0));
    }

    proptest! {
        #[test]
        fn frames_keep_their_bytes_whatever_is_read_behind_them(
            steps in proptest::collection::vec((1_usize..300_000, 0_usize..4), 1..60),
        ) {
            let mut blocks = Blocks::default();
            let mut held: VecDeque<(Bytes, u8)> = VecDeque::new();
            for (n, (size, drops)) in steps.into_iter().enumerate() {
                let value = u8::try_from(n).unwrap();
                // Half of it first: the rest must follow it, though the block may change.
                blocks.make_room(size / 2);
                blocks.bytes.put_bytes(value, size / 2);
                blocks.make_room(size - size / 2);
                blocks.bytes.put_bytes(value, size - size / 2);
                held.push_back((blocks.bytes.split_to(size).freeze(), value));
                for _ in 0..drops.min(held.len()) {
                    let (frame, value) = held.pop_front().unwrap();
                    prop_assert!(frame.iter().all(|byte| *byte == value));
                }
            }
            for (frame, value) in held {
                prop_assert!(frame.iter().all(|byte| *byte == value));
            }
        }
    }
}
