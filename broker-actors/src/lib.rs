//! The broker: accept, order, store, deliver.

mod codec;
pub mod commands;
pub mod error;
pub mod machine;
pub mod retention;
pub mod shard;
pub mod topic_queue;
