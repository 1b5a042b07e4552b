//! A shard and its queues on a real log: what producers and readers see of it.

#![allow(clippy::unwrap_used)]

mod bench;
mod cold;
mod delays;
mod full_disk;
mod groups;
mod produce;
mod recovery;
mod retention;
mod supervision;
mod temporary;
mod wait;
