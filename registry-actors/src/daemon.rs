//! What every daemon of Grus does alike: arguments, log lines, signals, descriptors, exit code.

mod program;

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

pub use program::Program;
use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::configuration::{ConfigError, Loaded, Schema};

/// What the command line of a daemon says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonArgs {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Keys of the configuration (`section.key`) and their values, over the file's and the
    /// environment's.
    pub overrides: Vec<(String, String)>,
    /// Print every setting in force, and end.
    pub print_config: bool,
}

impl DaemonArgs {
    /// Sets a key of the configuration.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.overrides.push((key.to_owned(), value.into()));
    }

    /// How each daemon begins: reads its configuration, and prints it if that is all that is
    /// asked (then nothing is returned), or else sets up log lines on standard error by the
    /// filter that the configuration has.
    ///
    /// # Errors
    /// [`RunError::Config`]; [`RunError::System`] when log lines cannot be set up.
    pub fn begin<C: Default, S>(
        &self,
        schema: &Schema<C>,
        logging_filter: impl FnOnce(&C) -> &str,
    ) -> Result<Option<Loaded<C>>, RunError<S>> {
        let loaded = schema.load(self.config.as_deref(), &self.overrides)?;
        if self.print_config {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(schema.print(&loaded).as_bytes()); // the reader may have left
            return Ok(None);
        }
        start_log_lines(logging_filter(&loaded.config)).map_err(RunError::System)?;
        Ok(Some(loaded))
    }
}

/// Why a daemon ends early. One line for the operator. `S` is why this kind could not start.
#[derive(Debug, Error)]
pub enum RunError<S> {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon could not start.
    #[error("{0}")]
    Start(S),
    /// The system refused something a process needs.
    #[error("{0}")]
    System(String),
}

impl<S> RunError<S> {
    /// The exit code: 2 for a refused configuration, 1 for all else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Start(_) | Self::System(_) => 1,
        }
    }
}

/// Writes log lines to standard error, those that `filter` lets through.
///
/// # Errors
/// What is wrong with the filter, or that log lines are set up already; in words.
pub fn start_log_lines(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("logging.filter: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| format!("log lines: {error}"))
}

/// Lets the process have as many descriptors as it may: each connection and each file of a log
/// takes one, and shells often allow 1,024 only.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The signals that end a daemon.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on signals are heard, and end nothing by themselves.
    ///
    /// # Errors
    /// What the system said.
    pub fn listen() -> Result<Self, String> {
        let of = |kind| signal(kind).map_err(|error| error.to_string());
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
