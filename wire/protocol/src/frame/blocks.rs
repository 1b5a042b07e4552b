//! The memory a socket is read into: blocks that are used again once their frames are gone. Pure.
//!
//! Frames are slices of the block they were read into, so a block is free when the last of its
//! frames is dropped. Given back to the allocator, large blocks would return to the system and
//! cost a page fault for every 4 KiB when they are asked for again; so a connection keeps some, as
//! far as the [`Allowance`] goes that all connections of a process share. A quiet connection keeps
//! nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;

/// Most bytes of blocks kept for use again, by all connections of a process together.
pub const KEPT_BYTES_MAX: usize = 16 << 20;
/// Blocks are multiples of this, so that frames of about one size fit each other's blocks.
const BLOCK_STEP_BYTES: usize = 64 << 10;

/// Bytes that connections may keep together. A clone is the same allowance.
#[derive(Debug, Clone)]
pub struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// Of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Bytes nobody keeps now.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self::new(KEPT_BYTES_MAX)
    }
}

/// Bytes read and not yet cut into frames, and the blocks they are read into.
#[derive(Debug)]
pub struct Blocks {
    /// What was read.
    pub bytes: BytesMut,
    /// Of the block that `bytes` lies in; 0 when it lies in none.
    block_bytes: usize,
    /// Blocks whose frames are still about, each with its size.
    kept: VecDeque<(BytesMut, usize)>,
    kept_bytes: usize,
    allowance: Allowance,
}

impl Blocks {
    /// No memory at all, and none kept beyond `allowance`.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        let (bytes, kept) = (BytesMut::new(), VecDeque::new());
        Self { bytes, block_bytes: 0, kept, kept_bytes: 0, allowance }
    }

    /// Adds what was read elsewhere; memory is taken for these bytes alone.
    pub fn append(&mut self, read: &[u8]) {
        if self.bytes.is_empty() && self.block_bytes == 0 {
            self.bytes = BytesMut::from(read);
        } else {
            self.bytes.extend_from_slice(read);
        }
    }

    /// Drops the hold on memory that has no block's size, once all of it is cut into frames.
    pub fn let_go(&mut self) {
        if self.bytes.is_empty() && self.block_bytes == 0 {
            self.bytes = BytesMut::new();
        }
    }

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
        if full_bytes > 0 && self.allowance.take(full_bytes) {
            self.kept_bytes += full_bytes;
            self.kept.push_back((full, full_bytes));
        }
    }

    /// Gives all memory back that holds nothing.
    pub fn give_back(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.block_bytes = 0;
        }
        self.kept = VecDeque::new();
        self.allowance.give(std::mem::take(&mut self.kept_bytes));
    }

    /// A block of at least `needed` bytes whose frames are gone.
    fn take_kept(&mut self, needed: usize) -> Option<(BytesMut, usize)> {
        for _ in 0..self.kept.len() {
            let (mut block, block_bytes) = self.kept.pop_front()?;
            if block_bytes >= needed && block.try_reclaim(needed) {
                self.kept_bytes -= block_bytes;
                self.allowance.give(block_bytes);
                return Some((block, block_bytes));
            }
            self.kept.push_back((block, block_bytes));
        }
        None
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.give_back();
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
        let mut blocks = Blocks::new(Allowance::default());
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
        let mut blocks = Blocks::new(Allowance::default());
        let held: Vec<_> = (0..60).map(|n| frame(&mut blocks, 1 << 20, n)).collect();
        assert!(blocks.kept_bytes <= KEPT_BYTES_MAX);
        assert!(held.iter().zip(0..).all(|(frame, n)| frame.iter().all(|byte| *byte == n)));
        blocks.give_back();
        assert_eq!((blocks.kept.len(), blocks.bytes.capacity()), (0, 0));
    }

    #[test]
    fn many_connections_keep_no_more_than_one_may() {
        let allowance = Allowance::default();
        let mut all: Vec<_> = (0..20).map(|_| Blocks::new(allowance.clone())).collect();
        let mut held = Vec::new();
        for round in 0..10 {
            held.extend(all.iter_mut().map(|blocks| frame(blocks, 1 << 20, round)));
        }
        let kept: usize = all.iter().map(|blocks| blocks.kept_bytes).sum();
        assert_eq!(kept + allowance.left(), KEPT_BYTES_MAX);
        assert!(allowance.left() < 2 << 20, "most of it is used");
        all.truncate(10);
        all.iter_mut().for_each(Blocks::give_back);
        assert_eq!(allowance.left(), KEPT_BYTES_MAX, "quiet or gone, they keep nothing");
    }

    #[test]
    fn a_small_read_takes_its_own_bytes_and_no_block() {
        let mut blocks = Blocks::new(Allowance::default());
        blocks.append(b"one");
        blocks.append(b"two");
        assert!(blocks.bytes.capacity() < 64, "{}", blocks.bytes.capacity());
        let whole = blocks.bytes.split_to(6).freeze();
        blocks.let_go();
        assert_eq!((&whole[..], blocks.bytes.capacity()), (&b"onetwo"[..], 0));
        assert!(whole.is_unique(), "nobody else holds its memory");
        blocks.append(b"half of a large fra");
        blocks.make_room(200_000);
        blocks.bytes.put_slice(b"me");
        assert_eq!(blocks.bytes, &b"half of a large frame"[..]);
    }

    proptest! {
        #[test]
        fn frames_keep_their_bytes_whatever_is_read_behind_them(
            steps in proptest::collection::vec((1_usize..300_000, 0_usize..4), 1..60),
        ) {
            let mut blocks = Blocks::new(Allowance::default());
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
