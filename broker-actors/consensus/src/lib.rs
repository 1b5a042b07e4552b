//! Replicated groups: one Raft log per shard. The only crate that names openraft.
