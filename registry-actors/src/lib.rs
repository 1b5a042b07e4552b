//! The registry: which topics there are, which shard holds which queue, which broker leads which
//! shard.
//!
//! [`service`] starts it. [`machine`] is the logic: a deterministic state machine over its own
//! replicated log. The log is the truth; [`disk_store`] keeps a copy of the state in sled. Those who
//! ask send a [`RegistryRequest`]; those who route send a [`Watch`] and are told every change.

pub mod command;
pub mod configuration;
pub mod disk_store;
pub mod error;
mod flush;
pub mod machine;
mod materialiser;
pub mod part;
pub mod registry;
pub mod request;
pub mod routing;
pub mod service;
pub mod state;
pub mod watch;

pub use error::RegistryError;
pub use machine::RegistryMachine;
pub use materialiser::CopyStats;
pub use request::{RegistryHandle, RegistryRequest, TopicCreated};
pub use routing::{RouteSpan, RoutingTable, ShardPlace, TopicRoutes};
pub use service::{RegistryPlaces, RegistryService, RegistrySettings, RegistryStartError};
pub use watch::{RoutingChanged, Watch};
