//! What a member's program is handed. No clock, no I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grus_protocol::message::{OffsetRange, Redelivered};
use grus_protocol::{Offset, QueueId, RecordBatch, TimestampMs, TopicName};

/// Whether what was delivered under a claim may still be handed out. The program's side looks at it
/// before it hands out a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimFlag(Arc<AtomicBool>);

impl ClaimFlag {
    /// Nothing more of it is to be handed out.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether nothing more of it is to be handed out.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A batch with the messages of it that are the member's. It is decompressed when the program takes
/// it.
#[derive(Debug, Clone)]
pub(crate) struct HandItem {
    /// Which of the member's queues, counted from its first one.
    pub(crate) slot: u64,
    /// Which of the slot's items.
    pub(crate) number: u64,
    pub(crate) claim: ClaimFlag,
    pub(crate) topic: TopicName,
    pub(crate) queue: QueueId,
    pub(crate) stored: TimestampMs,
    pub(crate) base_offset: Offset,
    pub(crate) batch: RecordBatch,
    /// The offsets that are to be handed out, in order.
    pub(crate) wanted: Vec<OffsetRange>,
    /// How often some of them were delivered before.
    pub(crate) redelivered: Vec<Redelivered>,
}

impl HandItem {
    /// How many messages are to be handed out.
    pub(crate) fn len(&self) -> u64 {
        self.wanted.iter().map(OffsetRange::len).sum()
    }

    /// Keeps the first so many messages; the others, if there are more.
    pub(super) fn split_off(&mut self, messages_max: u64) -> Option<Self> {
        let (mut left, mut kept, mut rest) = (messages_max, Vec::new(), Vec::new());
        for range in std::mem::take(&mut self.wanted) {
            let cut = Offset(range.from.0 + left.min(range.len()));
            left -= cut.0 - range.from.0;
            kept.extend((cut > range.from).then_some(OffsetRange { to: cut, ..range }));
            rest.extend((cut < range.to).then_some(OffsetRange { from: cut, ..range }));
        }
        self.wanted = kept;
        (!rest.is_empty()).then(|| Self { wanted: rest, ..self.clone() })
    }

    /// How often a message of it was delivered before.
    pub(crate) fn deliveries(&self, offset: Offset) -> u32 {
        let of = |one: &&Redelivered| one.from <= offset && offset < one.to;
        self.redelivered.iter().find(of).map_or(0, |one| one.deliveries)
    }
}
