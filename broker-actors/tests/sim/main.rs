//! Whole shards with all their actors in one thread, on simulated disks and paused time: a group of
//! three members, one alone whose power goes at one step after the other, and a consumer group's
//! life on two brokers.

#![allow(clippy::unwrap_used)]

mod cuts;
mod every_step;
mod group_replicas;
mod group_steps;
mod groups;
mod later;
mod net;
mod recurring;
mod references;
mod reigns;
mod world;
