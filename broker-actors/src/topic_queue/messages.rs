//! What a queue is asked, and what it answers.

use bytes::Bytes;
use grus_mailbox::{Inbox, Port, Weigh};
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Durability, Offset, QueueKey, ShardId, Term, TimestampMs};
use grus_protocol::message::SubscribeAt;
use grus_protocol::names::TopicName;

use super::group_messages::GroupAsk;
use super::subscriber::Subscriber;
use super::subscription::{Account, SubscriptionKey};
use crate::commands::DedupKey;
use crate::error::QueueError;
use crate::timers::TimerId;

/// Bytes of batches that one queue may have accepted and not yet answered.
pub const PRODUCE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Fetches that one queue may have parked: more, and those that have waited longest are answered.
pub const PARKED_MAX: u32 = 4096;
/// Fetches that it may have in all, those on their way included.
pub const FETCHES_MAX: u32 = 2 * PARKED_MAX;
/// Questions that one queue may have on their way.
pub const ASKS_MAX: u32 = 256;
/// Requests about subscriptions that one queue may have on their way.
pub const SUBSCRIPTION_ASKS_MAX: u32 = 16_384;
/// The longest a fetch is parked.
pub const FETCH_WAIT_MS_MAX: u32 = 60_000;
/// The most bytes of batches in one answer, but for a single larger batch.
pub const FETCH_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// How long a producer waits before it repeats what was refused for want of room.
pub const OVERLOADED_RETRY_MS: u32 = 20;

/// A queue as connections see it.
#[derive(Debug, Clone)]
pub struct QueueHandle {
    /// The queue.
    pub key: QueueKey,
    /// Its topic's name.
    pub topic: TopicName,
    /// The shard that hosts it.
    pub shard: ShardId,
    /// What its receipts promise.
    pub durability: Durability,
    /// Takes batches; the credit (bytes) is held until the receipt has left.
    pub produce: Inbox<Produce>,
    /// Takes fetches; the credit is held while one is parked.
    pub fetch: Inbox<Fetch>,
    /// Takes what concerns subscriptions.
    pub subscribe: Inbox<SubscriptionAsk>,
    /// Takes what concerns groups; the credit (bytes) is held until the answer has left.
    pub group: Inbox<GroupAsk>,
    /// Takes questions.
    pub ask: Inbox<QueueAsk>,
}

/// Stores a batch. A dropped reply port means the outcome is not known: a retry with the same
/// sequences is safe.
#[derive(Debug)]
pub struct Produce {
    /// The batch, checked at the edge.
    pub batch: RecordBatch,
    /// The key of its records by which it is stored once.
    pub dedup_key: Option<DedupKey>,
    /// When its records are due, in order: one time for all, or one for each. None: now.
    pub due: Option<Vec<TimestampMs>>,
    /// Gets the receipt once the batch is applied, or why it was not stored.
    pub reply: Port<Result<Receipt, QueueError>>,
}

impl Weigh for Produce {
    fn weight(&self) -> u32 {
        self.batch.len_bytes()
    }
}

/// The batch is stored, as durable as its topic promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Offset of its first record; 0 when it was scheduled.
    pub base_offset: Offset,
    /// The timer of its first record, when it was scheduled; the others' follow.
    pub timer: Option<TimerId>,
    /// Records in it.
    pub count: u32,
    /// The term it was stored in.
    pub term: Term,
    /// When it was stored.
    pub stored: TimestampMs,
    /// What is promised.
    pub durability: Durability,
    /// True if it had been stored before: this repeats the first receipt.
    pub duplicate: bool,
}

/// Reads batches from an offset on, or waits for some.
#[derive(Debug)]
pub struct Fetch {
    /// The first offset wanted.
    pub offset: Offset,
    /// The term of the batch that the reader saw before it; 0 if it saw none.
    pub last_term: Term,
    /// The most bytes wanted; at least one batch is given if there is one.
    pub bytes_max: u32,
    /// How long to wait at the end of the queue; 0 answers at once.
    pub wait_ms: u32,
    /// Gets the batches; none if the wait was in vain.
    pub reply: Port<Result<Fetched, QueueError>>,
}

impl Weigh for Fetch {}

/// What a fetch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The first offset there is.
    pub log_start: Offset,
    /// The offset the next record gets.
    pub end_offset: Offset,
    /// Batches in order. The first may begin before the offset asked for.
    pub batches: Vec<FetchedBatch>,
}

/// A batch as stored, with what is not inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Records in it.
    pub count: u32,
    /// The term it was stored in.
    pub term: Term,
    /// When it was stored.
    pub stored: TimestampMs,
    /// Its bytes: a slice of the segment's mapping. None when its time to live is over.
    pub bytes: Bytes,
}

impl FetchedBatch {
    /// Whether it has been left out, because its time to live is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Something about a subscription.
pub enum SubscriptionAsk {
    /// Begins one.
    Subscribe {
        /// Which.
        key: SubscriptionKey,
        /// Where to begin.
        at: SubscribeAt,
        /// What may be sent at first.
        account: Account,
        /// Where to send it.
        subscriber: Box<dyn Subscriber>,
        /// Gets the first offset that will be sent, before anything is.
        reply: Port<Result<ListedOffset, QueueError>>,
    },
    /// Gives more credit.
    Credit {
        /// To which.
        key: SubscriptionKey,
        /// How much.
        more: Account,
        /// Hears whether it is there.
        reply: Port<Result<(), QueueError>>,
    },
    /// Goes on at another place.
    Seek {
        /// Which.
        key: SubscriptionKey,
        /// Where.
        at: SubscribeAt,
        /// What may be sent from there on.
        account: Account,
        /// Gets the first offset that will be sent; all that was sent before it is from before.
        reply: Port<Result<ListedOffset, QueueError>>,
    },
    /// Ends one.
    Unsubscribe {
        /// Which.
        key: SubscriptionKey,
        /// Hears whether it was there; nothing is sent after it.
        reply: Port<Result<(), QueueError>>,
    },
}

impl Weigh for SubscriptionAsk {}

impl std::fmt::Debug for SubscriptionAsk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, key) = match self {
            Self::Subscribe { key, .. } => ("Subscribe", key),
            Self::Credit { key, .. } => ("Credit", key),
            Self::Seek { key, .. } => ("Seek", key),
            Self::Unsubscribe { key, .. } => ("Unsubscribe", key),
        };
        out.debug_tuple(name).field(key).finish()
    }
}

/// A question about the queue.
#[derive(Debug)]
pub enum QueueAsk {
    /// Where to begin reading.
    ListOffset {
        /// The place asked for.
        at: At,
        /// Gets the offset.
        reply: Port<Result<ListedOffset, QueueError>>,
    },
    /// The numbers of the queue.
    Status {
        /// Gets them.
        reply: Port<Result<QueueStatus, QueueError>>,
    },
    /// Makes the actor panic, as a bug would. For tests of supervision; nothing that a client can
    /// send becomes this unless the operator has switched fault injection on.
    Panic,
}

impl Weigh for QueueAsk {}

/// A place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The first record there is.
    First,
    /// Behind the last record.
    Last,
    /// The first batch stored at that time or later.
    Time(TimestampMs),
    /// Behind the last record, for who came at that time; at the first, where each record that there
    /// ever was came later.
    New(TimestampMs),
}

/// Where a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset of the place.
    pub offset: Offset,
    /// The first offset there is.
    pub log_start: Offset,
    /// The offset the next record gets.
    pub end_offset: Offset,
}

/// The numbers of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStatus {
    /// The queue.
    pub key: QueueKey,
    /// Its topic's name.
    pub topic: TopicName,
    /// The first offset there is.
    pub log_start: Offset,
    /// The write pointer: the offset the next record gets.
    pub end_offset: Offset,
    /// The flush pointer: what lies before it is on disk here.
    pub durable_end: Offset,
    /// Messages that can be read.
    pub messages: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// When a batch was last stored; 0 if never.
    pub last_modified: TimestampMs,
}
