//! The broker: accept, order, store, deliver.

mod codec;
pub mod commands;
pub mod error;
pub mod flush;
pub mod machine;
pub mod reader;
pub mod retention;
pub mod shard;
pub mod storage;
pub mod topic_queue;
