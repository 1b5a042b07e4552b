//! Whole shards with all their actors in one thread, on simulated disks and paused time.

#![allow(clippy::unwrap_used)]

mod later;
mod net;
mod recurring;
mod world;
