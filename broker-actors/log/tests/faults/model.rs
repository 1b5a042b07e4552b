//! What a log must still hold after a cut: kept beside the real one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grus_log::{CheckpointData, EntryId, EntryKind, Part, Position, Run, Seeded};
use grus_protocol::ids::{Offset, QueueId, QueueKey, Term, TimestampMs, TopicId};

/// Queues that entries are spread over.
pub const QUEUES: u64 = 3;

/// The model.
#[derive(Debug, Default, Clone)]
pub struct Model {
    /// The log as it stands, by index.
    pub live: BTreeMap<u64, (u64, EntryKind)>,
    /// Every entry that was ever appended, with the term of the one before it.
    pub history: BTreeSet<(u64, u64, u64)>,
    /// Entries up to here have been acknowledged.
    pub durable: Option<u64>,
    pub committed: Option<u64>,
    pub term: u64,
    pub vote_written: u64,
    pub vote_durable: u64,
    pub purged_written: Option<EntryId>,
    pub purged_durable: Option<EntryId>,
    pub checkpoint_durable: Option<u64>,
    pub appended: u64,
}

fn payload_bytes(random: &mut Seeded) -> u64 {
    match random.below(8) {
        0 => random.below(32),
        1..=5 => 100 + random.below(900),
        _ => 2_000 + random.below(3_000),
    }
}

fn seeded(id: EntryId) -> Seeded {
    Seeded::new(id.index << 20 ^ id.term)
}

/// The payload of an entry follows from its identity, which is used once.
pub fn payload(id: EntryId) -> Bytes {
    let mut random = seeded(id);
    let length = payload_bytes(&mut random);
    let mut bytes = Vec::with_capacity(length as usize + 32);
    while bytes.len() < length as usize {
        let word = random.draw();
        for turn in [0, 7, 21, 43] {
            bytes.extend_from_slice(&word.rotate_left(turn).to_le_bytes());
        }
    }
    bytes.truncate(length as usize);
    bytes.into()
}

/// The run of an entry: its whole payload is one batch of one record.
pub fn run(id: EntryId) -> Run {
    let queue = QueueKey { topic: TopicId(1 + id.index % QUEUES), queue: QueueId(0) };
    Run {
        queue,
        base: Offset(id.index),
        count: 1,
        at: Position { index: id.index, byte: 0 },
        length: payload_bytes(&mut seeded(id)) as u32,
        term: Term(id.term),
        stored: TimestampMs(id.index),
        born_max: TimestampMs(0),
        tag_bloom: 0,
    }
}

/// The checkpoint after an entry.
pub fn checkpoint(id: EntryId, full: bool) -> CheckpointData {
    let part = Part { key: "state".into(), value: Some(payload(id)) };
    CheckpointData {
        index: id.index,
        term: id.term,
        membership: "members".into(),
        full,
        parts: vec![part],
        digest: id.index ^ id.term,
    }
}

impl Model {
    pub fn last(&self) -> Option<EntryId> {
        let last = self
            .live
            .last_key_value()
            .map(|(index, (term, _))| EntryId { term: *term, index: *index });
        last.max(self.purged_written)
    }

    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.live.get(&index).map(|(term, _)| *term)
    }

    pub fn append(&mut self, id: EntryId, kind: EntryKind) {
        let before = self.last().map_or(0, |last| last.term);
        self.history.insert((id.index, before, id.term));
        self.live.insert(id.index, (id.term, kind));
        self.appended += 1;
    }

    pub fn truncate_after(&mut self, last: Option<u64>) {
        self.live.retain(|index, _| Some(*index) <= last);
        self.durable = self.durable.min(last);
        self.term += 1;
    }

    pub fn was_appended(&self, before: u64, id: EntryId) -> bool {
        self.history.contains(&(id.index, before, id.term))
    }

    /// The first entry of the log may follow anything.
    pub fn was_ever(&self, id: EntryId) -> bool {
        self.history
            .range((id.index, 0, 0)..=(id.index, u64::MAX, u64::MAX))
            .any(|e| e.2 == id.term)
    }
}
