//! A small machine for tests: queues whose offsets are given at apply.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use grus_consensus::{
    ApplyContext, IndexSink, Item, NewItem, Part, RestoreError, Run, StateMachine,
};
use grus_log::Position;
use grus_protocol::ids::{Offset, QueueId, QueueKey, Term, TimestampMs, TopicId};

/// Kind of the item that appends to a queue.
pub const APPEND: u16 = 64;
/// Kind of an item the machine knows only from feature level 1 on.
pub const NEWER: u16 = 65;
/// Kind of an item that makes the machine panic.
pub const PANIC: u16 = 66;

pub fn queue_key(queue: u32) -> QueueKey {
    QueueKey { topic: TopicId(1), queue: QueueId(queue) }
}

/// An append of message `id` to `queue`, with a body that can be checked.
pub fn append(queue: u32, id: u64, body_bytes: usize) -> NewItem {
    let mut head = BytesMut::new();
    head.put_u32_le(queue);
    head.put_u64_le(id);
    NewItem { kind: APPEND, bytes: vec![head.freeze(), body(id, body_bytes)] }
}

/// The body of message `id`.
pub fn body(id: u64, bytes: usize) -> Bytes {
    let fill = |at: usize| id.wrapping_mul(31).wrapping_add(at as u64).to_le_bytes()[0];
    (0..bytes).map(fill).collect::<Vec<u8>>().into()
}

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub queue: u32,
    pub offset: u64,
    pub crc: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Queue {
    next: u64,
    chain: u32,
}

/// Queues by number; each has a next offset and a checksum over all it was ever given.
#[derive(Debug, Default)]
pub struct Queues {
    by_number: BTreeMap<u32, Queue>,
    dirty: BTreeSet<u32>,
    /// Turned on by a test to make this replica differ.
    pub wrong: bool,
    /// Everything applied since the start: index, time.
    pub applied: Vec<(u64, TimestampMs)>,
    /// What a checkpoint is still to be given, and its digest.
    frozen: Vec<Part>,
    frozen_digest: u64,
    /// Slices given since the start: how much had been applied at each.
    pub slices: Vec<usize>,
}

fn key(queue: u32) -> Bytes {
    Bytes::from(format!("q/{queue}"))
}

impl Queues {
    pub fn next(&self, queue: u32) -> u64 {
        self.by_number.get(&queue).map_or(0, |queue| queue.next)
    }

    pub fn numbers(&self) -> Vec<u32> {
        self.by_number.keys().copied().collect()
    }

    fn part(&self, queue: u32) -> Part {
        let mut value = BytesMut::new();
        let state = &self.by_number[&queue];
        value.put_u64_le(state.next);
        value.put_u32_le(state.chain);
        Part { key: key(queue), value: Some(value.freeze()) }
    }
}

impl StateMachine for Queues {
    type Reply = Placed;

    fn apply(&mut self, context: &ApplyContext, item: Item, index: &mut dyn IndexSink) -> Placed {
        assert!(item.kind != PANIC, "told to panic");
        self.applied.push((context.index, context.time));
        let mut head = item.bytes.clone();
        let queue = head.get_u32_le();
        let state = self.by_number.entry(queue).or_default();
        let offset = state.next;
        state.next += 1;
        let crc = crc32c::crc32c(&item.bytes);
        state.chain = crc32c::crc32c_append(state.chain, &crc.to_le_bytes());
        if self.wrong {
            state.chain ^= 1;
        }
        self.dirty.insert(queue);
        index.add(Run {
            queue: queue_key(queue),
            base: Offset(offset),
            count: 1,
            at: Position { index: context.index, byte: item.byte },
            length: u32::try_from(item.bytes.len()).unwrap(),
            term: Term(context.term),
            stored: context.time,
            born_max: context.time,
            tag_bloom: 0,
        });
        Placed { queue, offset, crc }
    }

    fn knows(&self, kind: u16, level: u16) -> bool {
        kind == APPEND || kind == PANIC || (kind == NEWER && level >= 1)
    }

    fn dirty_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.dirty).into_iter().map(|queue| self.part(queue)).collect()
    }

    fn all_parts(&self) -> Vec<Part> {
        self.by_number.keys().map(|queue| self.part(*queue)).collect()
    }

    fn freeze(&mut self, whole: bool) -> bool {
        self.frozen = self.dirty_parts();
        if whole {
            self.frozen = self.all_parts();
        }
        self.frozen_digest = self.digest();
        true
    }

    /// One part per slice.
    fn frozen_parts(&mut self, parts: &mut Vec<Part>) -> Option<u64> {
        self.slices.push(self.applied.len());
        parts.extend(self.frozen.pop());
        self.frozen.is_empty().then_some(self.frozen_digest)
    }

    fn restore(&mut self, parts: Vec<Part>) -> Result<(), RestoreError> {
        self.by_number.clear();
        self.dirty.clear();
        self.frozen.clear();
        for part in parts {
            let bad = || RestoreError::new(&part.key, "not a queue");
            let name = std::str::from_utf8(&part.key).ok().and_then(|key| key.strip_prefix("q/"));
            let queue = name.and_then(|name| name.parse().ok()).ok_or_else(bad)?;
            let mut value = part.value.clone().ok_or_else(bad)?;
            let state = Queue { next: value.get_u64_le(), chain: value.get_u32_le() };
            self.by_number.insert(queue, state);
        }
        Ok(())
    }

    fn digest(&self) -> u64 {
        let fold = |digest: u64, (queue, state): (&u32, &Queue)| {
            let mut bytes = BytesMut::new();
            bytes.put_u32_le(*queue);
            bytes.put_u64_le(state.next);
            bytes.put_u32_le(state.chain);
            digest.rotate_left(5) ^ u64::from(crc32c::crc32c(&bytes))
        };
        self.by_number.iter().fold(0, fold)
    }
}
