//! grus: the one binary. Tools, and the broker and registry daemons.

pub mod args;
pub mod failure;
pub mod lines;
pub mod message;
pub mod output;
pub mod units;
