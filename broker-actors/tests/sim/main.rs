//! Whole shards with all their actors in one thread, on simulated disks and paused time: a group of
//! three members, one alone whose power goes at one step after the other, a consumer group's life on two
//! brokers, and all of it at once under mishaps of every kind.

#![allow(clippy::unwrap_used)]

mod cuts;
mod every_step;
mod group_replicas;
mod group_steps;
mod groups;
mod later;
mod recurring;
mod references;
mod reigns;
mod whole;
mod world;

#[path = "../../consensus/tests/common/net.rs"]
#[allow(dead_code, reason = "the simulations of consensus need more of it")]
mod net;
#[path = "../../consensus/tests/common/seeds.rs"]
mod seeds;
#[path = "../../consensus/tests/common/trace.rs"]
mod trace;
