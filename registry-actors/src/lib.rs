//! The registry: which topics there are, which shard holds which queue, which broker leads which
//! shard.
//!
//! [`machine`] is the logic: a deterministic state machine over its own
//! replicated log. The log is the truth; [`disk_store`] keeps a copy of the state in sled. Those who
//! ask send a [`RegistryRequest`]; those who route send a [`Watch`] and are told every change.

pub mod command;
pub mod disk_store;
pub mod error;
pub mod machine;
#[allow(dead_code, reason = "its sender comes with the registry's actor")]
mod materialiser;
pub mod part;
pub mod request;
pub mod routing;
pub mod state;
#[allow(dead_code, reason = "its sender comes with the registry's actor")]
pub mod watch;

pub use error::RegistryError;
pub use machine::RegistryMachine;
pub use materialiser::CopyStats;
pub use request::{RegistryHandle, RegistryRequest, TopicCreated};
pub use routing::{RouteSpan, RoutingTable, ShardPlace, TopicRoutes};
pub use watch::{RoutingChanged, Watch};
