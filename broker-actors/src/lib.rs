//! The broker: accept, order, store, deliver.
//!
//! | what | where |
//! |---|---|
//! | the process: arguments, signals, exit code | [`run`] |
//! | what lives where, start and stop | [`broker`] |
//! | the door: sockets, frames, requests | [`listener`], [`connection`], [`socket`], [`dispatch`] |
//! | routes and topics | [`registry_link`] |
//! | one queue; one log and its queues | [`topic_queue`], [`shard`], [`machine`] |
//! | other brokers: members of replicated shards | [`peer`], [`network`], [`member`] |
//! | what is shown | [`http`], [`metrics`] |
//! | what it can be told | [`config`], [`settings`], [`data_folder`] |

// An actor's head names its messages, which nobody outside can send.
#![allow(rustdoc::private_intra_doc_links)]

pub mod begun;
pub mod broker;
pub mod clients;
pub mod cluster;
mod codec;
pub mod commands;
pub mod config;
pub mod connection;
pub mod consumer_group;
pub mod data_folder;
pub mod dead_letters;
pub mod delay_wheel;
pub mod disk_pace;
pub mod disk_turns;
pub mod dispatch;
pub mod drained;
pub mod error;
pub mod find;
pub mod finder;
pub mod flush;
pub mod group_tallies;
pub mod group_ties;
pub mod groups;
pub mod http;
pub mod kept;
pub mod listener;
pub mod machine;
pub mod member;
pub mod metrics;
pub mod neighbours;
pub mod network;
pub mod peer;
pub mod reader;
mod refused_copy;
pub mod registry_link;
pub mod replicas;
pub mod retention;
pub mod rings;
mod route_feed;
pub mod run;
pub mod schedule;
pub mod scheduled;
pub mod settings;
pub mod shard;
pub mod socket;
pub mod statuses;
pub mod storage;
mod stray;
pub mod timers;
pub mod topic_queue;

pub use broker::{Addresses, Broker, StartError};
pub use config::BrokerConfig;
pub use run::{BrokerRunError, run_from};
