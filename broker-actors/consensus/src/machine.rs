//! What a group replicates: a deterministic state machine, and the items it is fed.

use std::fmt;

use bytes::Bytes;
use grus_log::{Part, Run};
use grus_protocol::ids::{TimestampMs, TopicId};
use thiserror::Error;

/// Item kinds below this are consensus's own; the machine's kinds start here.
pub const MACHINE_KIND_MIN: u16 = 64;

/// The entry an item is applied from. The only source of time there is in `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyContext {
    /// Term of the entry.
    pub term: u64,
    /// Log index of the entry.
    pub index: u64,
    /// Time of the entry: the proposing leader's clock, never behind any earlier entry's time.
    pub time: TimestampMs,
}

/// One item of an entry, as it is handed to the machine.
#[derive(Debug, Clone)]
pub struct Item {
    /// Kind, [`MACHINE_KIND_MIN`] or more.
    pub kind: u16,
    /// Where `bytes` start within the entry's payload: with the log index, a position that is the
    /// same on every replica.
    pub byte: u32,
    /// The item, a slice of the log's mapping.
    pub bytes: Bytes,
}

/// One item to propose. The slices are gathered into the log, not copied before.
#[derive(Debug, Clone)]
pub struct NewItem {
    /// Kind, [`MACHINE_KIND_MIN`] or more.
    pub kind: u16,
    /// The item's bytes, in order.
    pub bytes: Vec<Bytes>,
}

impl NewItem {
    /// Makes an item of one slice.
    pub fn new(kind: u16, bytes: Bytes) -> Self {
        Self { kind, bytes: vec![bytes] }
    }

    /// Length of the item in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.iter().map(Bytes::len).sum()
    }
}

/// Where the machine reports what it put where, so that readers find it again.
pub trait IndexSink {
    /// Adds a run of records of one queue, in apply order.
    fn add(&mut self, run: Run);
    /// Forgets every run of a topic.
    fn drop_topic(&mut self, topic: TopicId);
}

/// The answers to one applied entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedReply<R> {
    /// Term of the entry.
    pub term: u64,
    /// Log index of the entry.
    pub index: u64,
    /// Time of the entry.
    pub time: TimestampMs,
    /// One answer per proposed item, in order.
    pub replies: Vec<R>,
}

/// State that could not be taken back from a checkpoint.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("state part {key} cannot be restored: {reason}")]
pub struct RestoreError {
    /// The part, as text.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl RestoreError {
    /// Names a part and what is wrong with it.
    pub fn new(key: &[u8], reason: impl fmt::Display) -> Self {
        Self { key: String::from_utf8_lossy(key).into_owned(), reason: reason.to_string() }
    }
}

/// A deterministic state machine: the same entries give the same state on every replica.
///
/// `apply` must use no clock, no local configuration, no random source, no float and no order of
/// a hash map. What goes wrong is an answer, never a panic: every replica would panic, for ever.
pub trait StateMachine: 'static {
    /// What one applied item answers.
    type Reply: 'static;

    /// Applies one item.
    fn apply(
        &mut self,
        context: &ApplyContext,
        item: Item,
        index: &mut dyn IndexSink,
    ) -> Self::Reply;

    /// Whether this build knows items of `kind` at feature level `level`. An item it does not
    /// know stops the replica: skipping it would make the replicas differ.
    fn knows(&self, kind: u16, level: u16) -> bool {
        let _ = level;
        kind >= MACHINE_KIND_MIN
    }

    /// Told once per entry, after its last item, so that per-entry effects can be finished.
    fn entry_applied(&mut self, context: &ApplyContext) {
        let _ = context;
    }

    /// The parts changed since the last call (value `None`: the part is gone), and marks them
    /// clean. Keys must not start with a zero byte; those are consensus's own.
    fn dirty_parts(&mut self) -> Vec<Part>;

    /// All parts, whether dirty or not.
    fn all_parts(&self) -> Vec<Part>;

    /// Begins a checkpoint in slices: fixes what [`StateMachine::frozen_parts`] gives to the state
    /// as it is now, all parts or those changed since the last checkpoint began, which count as
    /// clean. Items may be applied before all of it is given. False when the machine is so small
    /// that it gives its parts in one go instead.
    fn freeze(&mut self, whole: bool) -> bool {
        let _ = whole;
        false
    }

    /// Adds the next slice of the frozen state to `parts`: work of at most 500 us. With the last
    /// one comes the digest of the state as it was frozen.
    fn frozen_parts(&mut self, parts: &mut Vec<Part>) -> Option<u64> {
        let _ = parts;
        Some(self.digest())
    }

    /// Replaces the whole state by `parts` (all values are there), clean.
    ///
    /// # Errors
    /// A part that this build cannot read.
    fn restore(&mut self, parts: Vec<Part>) -> Result<(), RestoreError>;

    /// A digest of the whole state; replicas compare it at every seal.
    fn digest(&self) -> u64;
}
