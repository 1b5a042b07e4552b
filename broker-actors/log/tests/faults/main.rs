//! The log on a disk that loses what was not synced, flips bits, and fills up.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod crash;
mod flips;
mod full;
mod harness;
mod missing;
mod model;
mod notes;
mod numbers;
mod rules;
