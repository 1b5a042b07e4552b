//! Batches that have no sequence yet.

use std::collections::VecDeque;

/// A closed batch: `B` is its payload, `M` whoever awaits it.
#[derive(Debug)]
pub(crate) struct Batch<B, M> {
    pub(crate) payload: B,
    pub(crate) members: M,
    pub(crate) records: u32,
    /// About how many bytes the payload has.
    pub(crate) bytes: u64,
    /// When its callers are told of a timeout.
    pub(crate) deadline_ms: u64,
}

/// A refused batch, taken apart.
#[derive(Debug)]
pub(crate) struct Divided<B, M> {
    /// Whoever is to hear of the refusal.
    pub(crate) failed: Option<M>,
    /// The others, in their order.
    pub(crate) rest: Vec<Batch<B, M>>,
}

impl<B, M> Divided<B, M> {
    /// One that stays whole: all its callers are to hear.
    pub(crate) fn whole(batch: Batch<B, M>) -> Self {
        Self { failed: Some(batch.members), rest: Vec::new() }
    }
}

/// Batches in the order they are to be sent in, and how much they are together: a choice of queues
/// asks for that with each message.
#[derive(Debug)]
pub(super) struct Waiting<B, M> {
    batches: VecDeque<Batch<B, M>>,
    bytes: u64,
}

impl<B, M> Waiting<B, M> {
    pub(super) fn new() -> Self {
        Self { batches: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push_back(&mut self, batch: Batch<B, M>) {
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
    }

    pub(super) fn push_front(&mut self, batch: Batch<B, M>) {
        self.bytes += batch.bytes;
        self.batches.push_front(batch);
    }

    pub(super) fn front(&self) -> Option<&Batch<B, M>> {
        self.batches.front()
    }

    pub(super) fn pop_front(&mut self) -> Option<Batch<B, M>> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.bytes;
        Some(batch)
    }

    /// All of them, in order.
    pub(super) fn take(&mut self) -> VecDeque<Batch<B, M>> {
        self.bytes = 0;
        std::mem::take(&mut self.batches)
    }
}
