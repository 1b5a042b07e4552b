//! The end of the process, as a port: what cannot go on is reported here, and nowhere else.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

/// Exit code of a process that gave up (`EX_SOFTWARE` of sysexits.h).
pub const FATAL_EXIT_CODE: i32 = 70;

/// Why a process cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FatalReason {
    /// An actor that must never be rebuilt panicked.
    Panicked,
    /// An actor panicked more often than its restart policy allows.
    RestartLimit,
    /// The disk refused what must not fail, such as an fsync.
    Storage,
    /// The consensus core stopped.
    Consensus,
    /// The registry's log or state cannot be trusted.
    Registry,
}

/// A process that cannot go on: who says so, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// Kind and name of the actor, as in `Flush/shard-0`.
    pub actor: String,
    /// Why.
    pub reason: FatalReason,
    /// The panic or error in words.
    pub detail: String,
}

impl fmt::Display for Fatal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} cannot go on ({:?}): {}", self.actor, self.reason, self.detail)
    }
}

/// Where a [`Fatal`] is reported. The default ends the process, tests bring their own.
#[derive(Clone)]
pub struct FatalPort(Arc<dyn Fn(Fatal) + Send + Sync>);

impl FatalPort {
    /// Logs the fatal and exits with [`FATAL_EXIT_CODE`]: recovery is a restart.
    #[must_use]
    pub fn exit() -> Self {
        Self::new(|fatal| {
            tracing::error!(actor = %fatal.actor, reason = ?fatal.reason, detail = %fatal.detail,
                "process cannot go on");
            std::process::exit(FATAL_EXIT_CODE);
        })
    }

    /// Calls `report` instead; the actor that reported stays dead.
    pub fn new(report: impl Fn(Fatal) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// A port for tests, whose reports arrive at the receiver.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Fatal>) {
        let (to, from) = mpsc::unbounded_channel();
        let port = Self::new(move |fatal| {
            let _ = to.send(fatal); // a test that does not look does not care
        });
        (port, from)
    }

    /// Reports that the process cannot go on. With the default port this does not return.
    pub fn report(&self, fatal: Fatal) {
        (self.0)(fatal);
    }
}

impl fmt::Debug for FatalPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FatalPort")
    }
}
