//! How a request fails: stable numbers, and what a caller can do about each.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod detail;

pub use detail::ErrorDetail;

use crate::wire::wire_message;

macro_rules! error_codes {
    ($( $(#[$meta:meta])* $name:ident = $number:literal, $retry:ident; )*) => {
        /// Why a request failed. The number is the wire form; it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $( $(#[$meta])* $name, )*
            /// A number this version does not know.
            Other(u16),
        }

        impl ErrorCode {
            /// All that this version knows.
            pub const ALL: &'static [Self] = &[$( Self::$name ),*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $( Self::$name => $number, )*
                    Self::Other(number) => number,
                }
            }

            /// The code of a number.
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $( $number => Self::$name, )*
                    other => Self::Other(other),
                }
            }

            /// Its name as documented.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                    Self::Other(_) => "Other",
                }
            }

            /// Whether the same request may succeed later, perhaps on another connection or at
            /// another broker (see [`ErrorCode::wants_metadata`]).
            pub const fn is_retriable(self) -> bool {
                match self {
                    $( Self::$name => error_codes!(@ $retry), )*
                    Self::Other(_) => false,
                }
            }
        }
    };
    (@ retry) => { true };
    (@ final) => { false };
}

error_codes! {
    /// The frame's bytes contradict themselves.
    MalformedFrame = 1, final;
    /// The frame is longer than `frame_bytes_max`; the connection is closed after this reply.
    FrameTooLarge = 2, final;
    /// The frame's version, or every version of a Hello, is not spoken here.
    UnsupportedVersion = 3, final;
    /// The opcode is not known here.
    UnknownOpcode = 4, final;
    /// The MessagePack header is not the array this opcode asks for.
    MalformedHeader = 5, final;
    /// The header is longer than `header_bytes_max`.
    HeaderTooLarge = 6, final;
    /// A request came before Hello; the connection is closed after this reply.
    HelloRequired = 7, final;
    /// A flag, feature or field is known to the format but not served here.
    UnsupportedFeature = 8, final;
    /// The connection has not proved who it is.
    Unauthenticated = 9, final;
    /// Who it is may not do this.
    Unauthorized = 10, final;
    /// The broker takes no more connections.
    TooManyConnections = 11, retry;

    /// A bug in the broker; nothing is known about the outcome.
    Internal = 20, final;
    /// Not done within the request's time; it may still be done. A retry with the same sequence
    /// numbers is safe.
    Timeout = 21, retry;
    /// The broker has no room for the request now.
    Overloaded = 22, retry;
    /// The broker is stopping.
    ShuttingDown = 23, retry;
    /// What would serve the request is starting, recovering or without a leader.
    Unavailable = 24, retry;
    /// A field has a value that makes no sense.
    InvalidRequest = 25, final;
    /// The broker lost leadership, or stopped, with the request under way: it may have been carried
    /// out, or may yet be. With a producer id, the same bytes may be sent again; without one, that
    /// may store them twice.
    OutcomeUnknown = 26, final;

    /// There is no such topic, and it may not be created.
    UnknownTopic = 40, final;
    /// The topic has no such queue.
    UnknownQueue = 41, final;
    /// The topic id is that of an earlier incarnation: the topic was deleted and made again.
    StaleTopic = 42, final;
    /// The topic exists.
    TopicExists = 43, final;
    /// A name breaks the rule of names.
    InvalidName = 44, final;
    /// A topic setting is out of its bounds, or may not be changed that way.
    InvalidSettings = 45, final;
    /// Another broker leads this queue; nothing was stored.
    NotLeader = 46, retry;
    /// A limit on the number of topics, queues, producers, groups or members is reached.
    TooManyTopics = 47, final;
    /// The queue has no schedule of this name.
    UnknownSchedule = 48, final;
    /// The queue has a schedule of this name.
    ScheduleExists = 49, final;

    /// The body is not a record batch, or its counts, lengths or times contradict its records.
    MalformedBatch = 60, final;
    /// The batch's checksum is not that of its bytes: damaged on the way.
    BatchChecksum = 61, retry;
    /// The batch has more bytes or records than the broker takes.
    BatchTooLarge = 62, final;
    /// A record's body is longer than `message_bytes_max`.
    MessageTooLarge = 63, final;
    /// A record breaks a limit or a rule; the detail names its index.
    InvalidRecord = 64, final;
    /// The batch is compressed in a way that was not agreed on in Hello.
    UnsupportedCompression = 65, final;
    /// The batch's first sequence is not the next one: one before it is missing.
    OutOfSequence = 66, final;
    /// The producer id is not known, or its state has expired: ask for a new one.
    UnknownProducer = 67, final;
    /// A later life of this producer is at work.
    ProducerFenced = 68, final;
    /// The batch was stored before, too long ago to repeat its receipt.
    DuplicateForgotten = 69, final;
    /// The disk is full; readers are served.
    StorageFull = 70, retry;
    /// The queue has reached its cap and refuses more.
    QueueFull = 71, retry;
    /// The topic's kind does not take such a record.
    RecordNotAllowed = 72, final;
    /// The message is not scheduled: it was released or recalled before, or never was.
    NotScheduled = 73, final;

    /// The offset is below the first or beyond the end.
    OffsetOutOfRange = 80, final;
    /// The record before the offset is of another term than the reader says: the reader has read
    /// what was never committed.
    Diverged = 81, final;
    /// The stored bytes of this range are damaged; the rest is served.
    CorruptRange = 82, final;
    /// There is no such subscription on this connection: it has ended, or never was.
    UnknownSubscription = 83, final;

    /// The registry cannot be reached: topics cannot be made, changed or removed now. Messages go
    /// on with the last known routes. Nothing was changed.
    RegistryUnavailable = 90, retry;
    /// Another data folder, or another process, has this broker's id.
    BrokerIdTaken = 91, final;
    /// The registry does not know this session of the broker: it registers again.
    UnknownBroker = 92, final;
    /// The shard belongs to another broker.
    ShardTaken = 93, final;
    /// Another broker, or another data folder, than the one that was meant.
    WrongBroker = 94, final;

    /// There is no such group, or not this incarnation of it: join it again.
    UnknownGroup = 100, final;
    /// It is no member of the group any more: join again.
    UnknownMember = 101, final;
    /// The queue is not the member's: another one has claimed it by a greater generation, or it
    /// never claimed it.
    Fenced = 102, final;
    /// The group's progress in the queue was reset: claim it again, by the same generation.
    ProgressReset = 103, final;
    /// The group has members.
    GroupNotEmpty = 104, final;
    /// The group's members must subscribe to the same, and this one does not.
    SubscriptionsDiffer = 105, final;
}

impl ErrorCode {
    /// Whether the caller should ask for [`Metadata`](crate::message::Metadata) before it goes on.
    pub const fn wants_metadata(self) -> bool {
        matches!(
            self,
            Self::NotLeader
                | Self::ShuttingDown
                | Self::Unavailable
                | Self::OutcomeUnknown
                | Self::UnknownTopic
                | Self::UnknownQueue
                | Self::StaleTopic
        )
    }

    /// Whether the request may have been carried out all the same. After any other code nothing
    /// was stored or changed, except that [`ErrorCode::DuplicateForgotten`] says it was before.
    pub const fn outcome_unknown(self) -> bool {
        matches!(
            self,
            Self::Internal
                | Self::Timeout
                | Self::ShuttingDown
                | Self::Unavailable
                | Self::OutcomeUnknown
                | Self::Other(_)
        )
    }

    /// Whether the connection is closed after a reply with this code.
    pub const fn closes_connection(self) -> bool {
        matches!(
            self,
            Self::FrameTooLarge
                | Self::HelloRequired
                | Self::Unauthenticated
                | Self::TooManyConnections
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(out, "error code {number}"),
            known => out.write_str(known.name()),
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        u16::deserialize(input).map(Self::from_number)
    }
}

wire_message! {
    /// The header of a reply whose error flag is set.
    pub struct ErrorReply {
        /// Why.
        pub code: ErrorCode,
        /// One line for a person: lower case, no promise about its words.
        pub message: String = String::new(),
        /// Whether the same request may succeed later; so that a client can act on a code that it
        /// does not know.
        pub retriable: bool = false,
        /// How long to wait before a retry, in milliseconds; 0: the client's own choice.
        pub retry_after_ms: u32 = 0,
        /// What a program needs to act on the error.
        pub detail: Option<ErrorDetail> = None,
    }
}

impl ErrorReply {
    /// An error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retriable = code.is_retriable();
        Self { code, message: message.into(), retriable, retry_after_ms: 0, detail: None }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_detail(self, detail: ErrorDetail) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The same error with a time to wait, in milliseconds.
    #[must_use]
    pub fn with_retry_after_ms(self, retry_after_ms: u32) -> Self {
        Self { retry_after_ms, ..self }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return fmt::Display::fmt(&self.code, out);
        }
        write!(out, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ErrorReply {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::frame::decode_header;

    #[test]
    fn numbers_are_unique_and_read_back() {
        let numbers: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), *code);
        }
        assert_eq!(ErrorCode::from_number(0), ErrorCode::Other(0));
    }

    #[test]
    fn a_code_from_the_future_keeps_its_number_and_its_retriability() {
        let reply = ErrorReply { retriable: true, ..ErrorReply::new(ErrorCode::Other(9999), "x") };
        let bytes = rmp_serde::to_vec(&reply).unwrap();
        assert_eq!(decode_header::<ErrorReply>(&bytes).unwrap(), reply);
    }

    #[test]
    fn an_error_may_be_a_bare_code() {
        let reply: ErrorReply = decode_header(&[0x91, 21]).unwrap();
        assert_eq!((reply.code, reply.detail), (ErrorCode::Timeout, None));
    }
}
