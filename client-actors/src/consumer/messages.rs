//! What a consumer is asked by its program, and how it hears of what it asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use grus_mailbox::{Dropped, Port, Weigh};
use grus_protocol::message::{GroupSubscription, OffsetRange};
use grus_protocol::{Frame, Offset};

use super::queue::HandItem;
use super::settling::Verdict;
use crate::error::Refusal;

/// Until when messages may be handed out: looked at by the program's side before each of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<AtomicU64>);

impl Gate {
    pub(super) fn open_until(&self, at_ms: u64) {
        // Once opened it is never 0 again, which says that it never was.
        let least_ms = u64::from(self.was_open());
        self.0.store(at_ms.max(least_ms), Ordering::Release);
    }

    /// Whether it has ever been opened: the consumer was a member.
    pub(crate) fn was_open(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// Whether a message may be handed out at this time of the process's clock.
    pub(crate) fn is_open(&self, now_ms: u64) -> bool {
        now_ms < self.0.load(Ordering::Acquire)
    }
}

/// Why the program is handed nothing more, or not what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoMore {
    /// The group does not take it.
    Refused(Refusal),
    /// It is no member, and does not wait to be one any longer; what it waited for.
    NotJoined(Arc<str>),
}

/// Gives what is ready to be handed out, as soon as there is something.
#[derive(Debug)]
pub(crate) struct Take {
    /// The program has messages in hand: it waits only until it may hand them out.
    pub(crate) only_open: bool,
    /// Most messages to be acked before they are handed out, where they are.
    pub(crate) messages_max: u64,
    pub(crate) reply: Port<Result<Vec<HandItem>, NoMore>>,
}

impl Weigh for Take {}

/// The program has answered for a message.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) slot: u64,
    pub(crate) item: u64,
    pub(crate) offset: Offset,
    pub(crate) verdict: Verdict,
    /// Hears when the broker knows.
    pub(crate) done: Option<Port<()>>,
}

impl Weigh for Settle {}

/// The program is done with messages of an item.
#[derive(Debug)]
pub(crate) struct AckRanges {
    pub(crate) slot: u64,
    pub(crate) item: u64,
    pub(crate) ranges: Vec<OffsetRange>,
    /// Hears when the broker knows.
    pub(crate) done: Option<Port<()>>,
}

impl Weigh for AckRanges {}

/// The program wants other topics, or other messages of them.
#[derive(Debug)]
pub(crate) struct Resubscribe {
    pub(crate) subscriptions: Vec<GroupSubscription>,
}

impl Weigh for Resubscribe {}

/// Stops, once what is in work is settled, or after so long.
#[derive(Debug)]
pub(crate) struct StopConsumer {
    pub(crate) wait_ms_max: u64,
    pub(crate) done: Port<()>,
}

impl Weigh for StopConsumer {}

/// The coordinator answered, or its connection was lost.
#[derive(Debug)]
pub(crate) struct MemberAnswered {
    pub(super) number: u64,
    pub(super) kind: MemberKind,
    pub(super) answer: Result<Frame, Dropped>,
}

impl Weigh for MemberAnswered {}

#[derive(Debug, Clone, Copy)]
pub(super) enum MemberKind {
    Join,
    Heartbeat,
    Leave,
    Assign,
}

/// The leader of a queue answered, or its connection was lost.
#[derive(Debug)]
pub(crate) struct QueueAnswered {
    pub(super) slot: u64,
    pub(super) number: u64,
    pub(super) kind: QueueKind,
    pub(super) answer: Result<Frame, Dropped>,
}

impl Weigh for QueueAnswered {}

#[derive(Debug, Clone, Copy)]
pub(super) enum QueueKind {
    Claim,
    Subscribe,
    Ack,
}
