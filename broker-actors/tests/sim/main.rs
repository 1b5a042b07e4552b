//! Whole shards with all their actors in one thread, on simulated disks and paused time: a group of
//! three members, and one alone whose power goes at one step after the other.

#![allow(clippy::unwrap_used)]

mod every_step;
mod later;
mod net;
mod recurring;
mod references;
mod world;
