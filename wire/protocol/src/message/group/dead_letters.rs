//! Messages that a group gave up: its dead letters.

use super::OffsetRange;
use crate::ids::{GroupId, Offset, QueueId, TimestampMs};
use crate::names::{GroupName, TopicName};
use crate::wire::wire_message;

/// Most dead letters on one page, whatever is asked for.
pub const DEAD_LETTERS_PAGE_MAX: u32 = 1_000;
/// Dead letters on a page when it is not said how many are wanted.
pub const DEAD_LETTERS_PAGE_DEFAULT: u32 = 100;

/// Names of the headers that a dead letter has in addition to those of its message. Their values
/// are text; numbers are decimal.
pub mod headers {
    /// The topic that it came from.
    pub const ORIGIN_TOPIC: &str = "grus-origin-topic";
    /// The queue that it came from.
    pub const ORIGIN_QUEUE: &str = "grus-origin-queue";
    /// Its offset there.
    pub const ORIGIN_OFFSET: &str = "grus-origin-offset";
    /// Why it was given up.
    pub const REASON: &str = "grus-reason";
    /// How often it was delivered.
    pub const DELIVERIES: &str = "grus-deliveries";
    /// The group that gave it up.
    pub const GROUP: &str = "grus-group";
    /// When it was given up for the first time, in milliseconds since 1970.
    pub const DEAD_SINCE: &str = "grus-dead-since";
    /// All of them.
    pub const ALL: [&str; 7] =
        [ORIGIN_TOPIC, ORIGIN_QUEUE, ORIGIN_OFFSET, REASON, DELIVERIES, GROUP, DEAD_SINCE];
}

wire_message! {
    /// Sends dead letters of one queue back to the queues that they came from, each once.
    pub struct RedriveDeadLetters {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub group_id: GroupId,
        /// The queue of the dead-letter topic.
        pub queue: QueueId,
        /// Which of them, at most [`ACK_RANGES_MAX`](super::ACK_RANGES_MAX) ranges; none: all
        /// that are there.
        pub offsets: Vec<OffsetRange>,
        /// Most of them at once; 0: the broker's own maximum.
        pub messages_max: u32 = 0,
    }
}

wire_message! {
    /// They are back.
    pub struct RedriveDeadLettersReply {
        /// How many.
        pub redriven: u64,
        /// Ask again for those from this offset on; nil: these were all.
        pub next: Option<Offset> = None,
    }
}

wire_message! {
    /// Removes dead letters of one queue.
    pub struct PurgeDeadLetters {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub group_id: GroupId,
        /// The queue of the dead-letter topic.
        pub queue: QueueId,
        /// Which of them, at most [`ACK_RANGES_MAX`](super::ACK_RANGES_MAX) ranges; none: all
        /// that are there.
        pub offsets: Vec<OffsetRange>,
    }
}

wire_message! {
    /// They are gone.
    pub struct PurgeDeadLettersReply {
        /// How many.
        pub purged: u64,
    }
}

wire_message! {
    /// A place in a listing of dead letters.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct DeadLetterPlace {
        /// The queue of the dead-letter topic.
        pub queue: QueueId,
        /// The offset there.
        pub offset: Offset,
    }
}

wire_message! {
    /// Lists the dead letters of a group in the queues that the broker leads, without those that
    /// were sent back or removed.
    pub struct ListDeadLetters {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub group_id: GroupId,
        /// Only those behind this place; nil: from the start.
        pub after: Option<DeadLetterPlace> = None,
        /// Most of them on a page; 0: [`DEAD_LETTERS_PAGE_DEFAULT`], at most
        /// [`DEAD_LETTERS_PAGE_MAX`].
        pub messages_max: u32 = 0,
        /// Whether the messages themselves are wanted.
        pub with_bodies: bool = false,
    }
}

wire_message! {
    /// A page of dead letters. The messages that were wanted and can be read are the frame's
    /// body, each as a record batch of one that is not compressed.
    pub struct ListDeadLettersReply {
        /// By queue and offset.
        pub letters: Vec<DeadLetter>,
        /// Behind which place the next page begins; nil: this was the last one. A page may be
        /// empty and not the last.
        pub next: Option<DeadLetterPlace> = None,
    }
}

wire_message! {
    /// A dead letter.
    pub struct DeadLetter {
        /// Its queue of the dead-letter topic.
        pub queue: QueueId,
        /// Its offset there.
        pub offset: Offset,
        /// When it became one.
        pub stored: TimestampMs,
        /// The topic that it came from.
        pub origin_topic: TopicName,
        /// The queue that it came from.
        pub origin_queue: QueueId,
        /// Its offset there.
        pub origin_offset: Offset,
        /// Why it was given up.
        pub reason: String,
        /// How often it was delivered.
        pub deliveries: u32,
        /// Its bytes in the body; 0: it is not there.
        pub length: u32 = 0,
    }
}
