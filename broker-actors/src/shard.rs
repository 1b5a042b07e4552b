//! Shard: one replicated log and the queues that live in it.

pub mod gather;
pub mod messages;

pub use crate::commands::TopicConfig;
pub use crate::machine::InitializedProducer;
pub use messages::{QueueTable, ShardHandle, ShardRequest, ShardStatus, TopicOpened};
