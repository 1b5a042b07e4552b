//! The registry: which topics there are, which shard holds which queue, which broker leads which
//! shard.
//!
//! [`machine`] is the logic: a deterministic state machine over its own replicated log. The log is
//! the truth; [`disk_store`] keeps a copy of the state in sled.

pub mod command;
pub mod disk_store;
pub mod error;
pub mod machine;
pub mod part;
pub mod routing;
pub mod state;

pub use error::RegistryError;
pub use machine::RegistryMachine;
pub use routing::{RouteSpan, RoutingTable, ShardPlace, TopicRoutes};
