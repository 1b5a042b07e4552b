//! Messages between the actors of one process.
//!
//! The only crate that names actix. An actor is a [`Resident`]: plain state that
//! [receives](Receive) messages on one arbiter. A [`Host`] keeps it alive, an [`Inbox`] is the
//! only door into it, and its [`Room`] is all it sees of the rest.
//!
//! | module | what |
//! |---|---|
//! | [`inbox`], [`credit`] | bounded, first in first out, one way |
//! | [`resident`], [`room`], [`host`] | what an actor is, can do, and how it survives a panic |
//! | [`reply`] | how an actor is asked |
//! | [`ticker`], [`clock`] | time as a message |
//! | [`place`], [`shutdown`] | which thread, and how all of it ends |
//! | [`census`] | what `/actors` shows |
//! | [`fatal`], [`restart`] | when the process gives up |
//!
//! docs/ACTORS.md says how actors are drawn, and lists them.

pub mod census;
pub mod clock;
pub mod credit;
pub mod fatal;
pub mod foreign;
pub mod host;
pub mod inbox;
mod line;
mod panics;
pub mod place;
pub mod reply;
pub mod resident;
pub mod restart;
pub mod room;
pub mod shutdown;
pub mod ticker;

pub use actix::System;

pub use census::{ActorReport, Census, InboxReport, KindReport};
pub use clock::{Clock, ClockHand};
pub use credit::{Credit, Weigh};
pub use fatal::{FATAL_EXIT_CODE, Fatal, FatalPort, FatalReason};
pub use host::{ActorSpec, Host, HostHandle, Stopped};
pub use inbox::{Inbox, Outlet, PutError, outlet};
pub use place::{Place, Places, Process};
pub use reply::{Answer, Dropped, Port};
pub use resident::{Drained, Receive, Resident};
pub use restart::RestartPolicy;
pub use room::Room;
pub use shutdown::{Shutdown, StageReport};
pub use ticker::{Tick, Ticker};
