//! Recurring messages: when a schedule runs, and what becomes of runs that were missed.
//!
//! Pure logic. A leader works out by the clock what is to be done ([`step`]) and proposes it; the
//! log decides: a [`Step`] counts only while its time is still the schedule's next one. So a
//! replica needs no clock, no cron and no time zones to apply it.

mod cadence;
mod message;
mod plan;

pub use cadence::{
    CRON_BYTES_MAX, Cadence, CadenceError, CadenceText, EVERY_MS_MAX, EVERY_MS_MIN, ZONE_BYTES_MAX,
};
pub use message::run_batch;
pub use plan::{MADE_UP_MAX, MISSED_AFTER_MS, NEVER, Progress, Step, Timing, step};
