//! The registry: which topics there are, which shard holds which queue, which broker leads which
//! shard.
//!
//! [`service`] starts it. [`machine`] is the logic: a deterministic state machine over its own
//! replicated log. The log is the truth; [`disk_store`] keeps a copy of the state in sled. Those who
//! ask send a [`RegistryRequest`]; those who route send a [`Watch`] and are told every change.

pub mod broker_table;
pub mod command;
pub mod config;
pub mod configuration;
pub mod daemon;
pub mod disk_store;
pub mod door;
pub mod error;
mod flush;
pub mod folder;
mod frames;
pub mod http;
pub mod machine;
mod materialiser;
pub mod part;
pub mod policy;
pub mod ports;
pub mod process;
pub mod rebalance;
pub mod registry;
pub mod remote;
mod replies;
pub mod request;
pub mod routing;
pub mod run;
pub mod service;
mod session;
pub mod state;
pub mod watch;

pub use config::{REGISTRY_SCHEMA, RegistryConfig};
pub use error::RegistryError;
pub use machine::RegistryMachine;
pub use materialiser::CopyStats;
pub use policy::TopicPolicy;
pub use remote::{Claims, RemoteService, RemoteSettings, RemoteState};
pub use request::{Enrolled, RefusedTopics, RegistryHandle, RegistryRequest, TopicCreated};
pub use routing::{BrokerPlace, RouteSpan, RoutingTable, ShardClass, ShardPlace, TopicRoutes};
pub use run::{RegistryRunError, run_from};
pub use service::{
    RegistryPlaces, RegistryService, RegistrySettings, RegistryStartError, draw_number,
};
pub use watch::{RoutingChanged, Watch};
