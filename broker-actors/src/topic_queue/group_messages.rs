//! What a queue is asked for consumer groups, and what it answers.

use grus_mailbox::{Port, Weigh};
use grus_protocol::ids::{Generation, GroupId, MemberId, Offset, QueueKey, TimestampMs};
use grus_protocol::message::MessageFilter;

use super::messages::At;
use super::subscriber::Subscriber;
use super::subscription::{Account, SubscriptionKey};
use super::{ListedOffset, QueueError};
use crate::commands::groups::{GroupItem, HandBack, Holding, RetryTerms, Span};
use crate::machine::groups::progress::Counts;
use crate::machine::groups::{Claimed, Moved, Settled};

/// Bytes of requests of groups that one queue may have on their way.
pub const GROUP_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// A message that was handled in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub offset: Offset,
    /// How long it waits, in milliseconds; none: as the ladder says.
    pub retry_after_ms: Option<u64>,
    /// Why, for people.
    pub reason: String,
}

/// A message that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Which.
    pub offset: Offset,
    /// Why, for people.
    pub reason: String,
}

/// What a member has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who.
    pub holding: Holding,
    /// Done with.
    pub acks: Vec<Span>,
    /// Handled in vain.
    pub failed: Vec<Failed>,
    /// Given up.
    pub given_up: Vec<GivenUp>,
    /// It lets go of the queue.
    pub hands_back: Option<HandBack>,
}

impl Answered {
    /// Leaves out what it says of messages from `end` on.
    pub fn cut(&mut self, end: Offset) {
        for span in &mut self.acks {
            span.to = span.to.min(end);
        }
        self.acks.retain(|span| span.from < span.to);
        self.failed.retain(|failed| failed.offset < end);
        self.given_up.retain(|given_up| given_up.offset < end);
    }

    /// All messages that it names, in order.
    #[must_use]
    pub fn named(&self) -> Vec<Span> {
        let one = |offset: Offset| Span { from: offset, to: Offset(offset.0.saturating_add(1)) };
        let failed = self.failed.iter().map(|failed| one(failed.offset));
        let given_up = self.given_up.iter().map(|given_up| one(given_up.offset));
        let mut named: Vec<Span> =
            self.acks.iter().copied().chain(failed).chain(given_up).collect();
        named.sort_unstable();
        named
    }
}

/// Answers are in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswersTaken {
    /// What became of them.
    pub settled: Settled,
    /// Those that found no room, in order: ranges of which not all is settled, and single messages.
    pub left: Vec<Span>,
}

/// A queue was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimTaken {
    /// Where the group goes on.
    pub claimed: Claimed,
    /// The first offset there is.
    pub log_start: Offset,
    /// The offset the next record gets.
    pub end_offset: Offset,
}

/// How a group stands in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressStatus {
    /// The queue.
    pub queue: QueueKey,
    /// All before it is settled or waits for its retry.
    pub floor: Offset,
    /// The first offset there is.
    pub log_start: Offset,
    /// The offset the next record gets.
    pub end_offset: Offset,
    /// All before it was delivered.
    pub delivered_to: Offset,
    /// Messages that are not settled.
    pub lag: u64,
    /// Those of them that wait for their retry, or are in hands again.
    pub retries: u64,
    /// When the next of them is due.
    pub next_retry: Option<TimestampMs>,
    /// When the oldest message that is not settled was stored.
    pub oldest: Option<TimestampMs>,
    /// Who has claimed it; 0: nobody.
    pub member: MemberId,
    /// By which generation.
    pub generation: Generation,
    /// How often it was reset.
    pub round: u32,
    /// What has become of messages.
    pub counts: Counts,
}

/// Where a group goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// At a place.
    At(At),
    /// At an offset.
    Offset(Offset),
}

/// Something about a group.
pub enum GroupAsk {
    /// A member takes the queue.
    Claim {
        /// Who.
        holding: Holding,
        /// Where a group begins that has not been here.
        start: At,
        /// How it delivers again.
        terms: RetryTerms,
        /// Gets where it goes on.
        reply: Port<Result<ClaimTaken, QueueError>>,
    },
    /// A member has answered.
    Settle {
        /// What.
        answered: Answered,
        /// Gets the word that it is in the log.
        reply: Port<Result<AnswersTaken, QueueError>>,
    },
    /// A member wants what is not settled.
    Subscribe {
        /// The subscription: from then on one as all others.
        key: SubscriptionKey,
        /// Who.
        holding: Holding,
        /// What of it.
        filter: MessageFilter,
        /// What may be sent at first.
        account: Account,
        /// Where to send it.
        subscriber: Box<dyn Subscriber>,
        /// Gets the first offset that may be sent, before anything is.
        reply: Port<Result<ListedOffset, QueueError>>,
    },
    /// How a group stands.
    Status {
        /// Which.
        group: GroupId,
        /// Gets it; none if it has never been here.
        reply: Port<Result<Option<ProgressStatus>, QueueError>>,
    },
    /// Which messages of this queue, of a group's dead letters, are neither sent back nor removed.
    Open {
        /// The group.
        group: GroupId,
        /// From here on.
        from: Offset,
        /// Gets their offsets, in order.
        reply: Port<Result<Vec<Span>, QueueError>>,
    },
    /// Propose an item about dead letters in this queue.
    Letters {
        /// It.
        item: GroupItem,
        /// Gets how many it concerned.
        reply: Port<Result<u64, QueueError>>,
    },
    /// Go on elsewhere.
    Reset {
        /// Which group.
        group: GroupId,
        /// Where.
        to: ResetTo,
        /// Gets where it goes on.
        reply: Port<Result<Moved, QueueError>>,
    },
}

impl Weigh for GroupAsk {
    fn weight(&self) -> u32 {
        const EACH_BYTES: usize = 64;
        let bytes = match self {
            Self::Settle { answered, .. } => {
                let failed = answered.failed.iter().map(|one| one.reason.len() + EACH_BYTES);
                let given_up = answered.given_up.iter().map(|one| one.reason.len() + EACH_BYTES);
                let in_work = answered.hands_back.as_ref().map_or(0, |back| back.in_work.len());
                (answered.acks.len() + in_work) * size_of::<Span>()
                    + failed.sum::<usize>()
                    + given_up.sum::<usize>()
            }
            _ => 0,
        };
        u32::try_from(bytes + EACH_BYTES).unwrap_or(u32::MAX)
    }
}

impl std::fmt::Debug for GroupAsk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Claim { .. } => "Claim",
            Self::Settle { .. } => "Settle",
            Self::Subscribe { .. } => "Subscribe",
            Self::Status { .. } => "Status",
            Self::Open { .. } => "Open",
            Self::Letters { .. } => "Letters",
            Self::Reset { .. } => "Reset",
        })
    }
}
