//! Replicated groups: one Raft log per shard, which is its commit log. The only crate that names
//! openraft. docs/CONSENSUS.md says which rules this crate keeps and what each of them prevents.
//!
//! * [`StateMachine`] is what a shard replicates; [`Group`] runs it, alone or with others.
//! * [`JobPort`] takes the log's blocking work away; [`Peers`] carries messages between members.

mod alone;
mod applier;
mod apply;
mod ballot;
mod change;
mod codec;
mod config;
mod fault;
mod floor;
mod flushes;
mod give_back;
mod group;
mod hand_over;
mod handle;
#[cfg(test)]
mod handle_tests;
mod intake;
mod jobs;
mod keeper;
mod log_sink;
mod log_store;
mod machine;
mod members;
mod own;
pub mod payload;
mod peers;
mod pipeline;
mod replica;
mod runtime;
mod shared;
mod snapshot;
mod status;
#[cfg(test)]
mod suite_tests;
mod transfer;
mod types;
mod whole;
mod window;
mod wire;
#[cfg(test)]
mod wire_golden;
mod withheld;

pub use alone::others_have_come;
pub use ballot::Standing;
pub use change::{Approach, Members, ask_members};
pub use codec::CodecError;
#[doc(hidden)]
pub use config::Sabotage;
pub use config::{APPEND_BYTES_MAX, GroupConfig, Timings};
pub use fault::{Fault, StartError};
pub use give_back::GivenBack;
pub use group::{Group, ProposeError};
pub use grus_log::{Part, Run};
pub use jobs::{InlineJobs, JobPort, Reading};
pub use machine::{
    AppliedReply, ApplyContext, IndexSink, Item, MACHINE_KIND_MIN, NewItem, RestoreError,
    StateMachine,
};
pub use members::{ChangeError, PROMOTE_LAG_ENTRIES_MAX};
pub use own::SealPoint;
pub use peers::{NoPeers, PeerError, Peers, is_install};
pub use runtime::GroupRuntime;
#[doc(hidden)]
pub use runtime::seed_chances;
pub use status::{Leadership, MemberLag, Status};
pub use transfer::SNAPSHOT_CHUNK_BYTES;
pub use types::{Member, NodeId, TypeConfig};
