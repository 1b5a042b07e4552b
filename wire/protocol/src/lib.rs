//! Grus protocol: bytes to values and back. Pure: no I/O, no async, no clock.
//!
//! * [`frame`] is what travels on a connection: a fixed head, a MessagePack header, a raw body.
//! * [`opcode`] and [`message`] say what each frame asks or answers; [`error`] how one fails.
//! * [`batch`] is the record batch: encoded once by the producer, checked at the edge, stored and
//!   sent as is.
//! * [`checksum`] is CRC32C, which guards all of it.
//! * [`names`], [`ids`] and [`limits`] are the values they are all made of.
//!
//! Every decoder takes bytes from a stranger: a length is compared with its limit and with the
//! bytes at hand before anything is allocated, and no input makes one panic. The format itself is
//! written down in `docs/PROTOCOL.md`.

mod wire;

pub mod batch;
pub mod checksum;
pub mod error;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod message;
pub mod names;
pub mod opcode;

pub use batch::{BatchBuilder, BatchError, NewRecord, Record, RecordBatch, RecordError};
pub use error::{ErrorCode, ErrorDetail, ErrorReply};
pub use frame::{Frame, FrameError, FrameHead, FrameKind};
pub use ids::{
    BrokerId, Durability, Generation, GroupId, MemberId, MessageId, Offset, ProducerEpoch,
    ProducerId, QueueId, QueueKey, Sequence, ShardId, SubscriptionId, Term, TimestampMs, TopicId,
};
pub use limits::{BatchLimits, FrameLimits};
pub use names::{GroupName, InstanceName, ProducerName, ScheduleName, TopicName, TopicPattern};
pub use opcode::Opcode;
