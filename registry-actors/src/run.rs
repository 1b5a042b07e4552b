//! A registry as a process: arguments, log lines, signals, exit code. Both `grus-registry` and
//! `grus registry` are this.

use std::io::Write as _;
use std::path::PathBuf;

use grus_mailbox::{Process, System};
use thiserror::Error;

use crate::config::{REGISTRY_SCHEMA, RegistryConfig};
use crate::configuration::{ConfigError, Loaded};
use crate::daemon::{Signals, raise_descriptor_limit, start_log_lines};
use crate::process::{RegistryProcess, StartError};

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryArgs {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Folder of the data, over the configuration's.
    pub data: Option<PathBuf>,
    /// Where brokers and clients connect, over the configuration's.
    pub listen: Option<String>,
    /// Print every setting in force, and end.
    pub print_config: bool,
}

/// Why a registry process ends early. One line for the operator.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registry could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system refused something a process needs.
    #[error("{0}")]
    System(String),
}

impl RunError {
    /// The exit code: 2 for a refused configuration, 1 for all else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Start(_) | Self::System(_) => 1,
        }
    }
}

impl RegistryArgs {
    /// Reads the configuration that the arguments name, under their own values.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self) -> Result<Loaded<RegistryConfig>, ConfigError> {
        let data = self.data.as_ref().map(|data| data.to_string_lossy().into_owned());
        let given = [("registry.data", data), ("listen.address", self.listen.clone())];
        let overrides: Vec<_> =
            given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        REGISTRY_SCHEMA.load(self.config.as_deref(), &overrides)
    }
}

/// Runs a registry until it is told to stop, by SIGTERM or Ctrl-C. Sets up log lines on standard
/// error; blocks the thread.
///
/// # Errors
/// [`RunError`] when it could not start.
pub fn run_from(args: &RegistryArgs) -> Result<(), RunError> {
    let loaded = args.load()?;
    if args.print_config {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(REGISTRY_SCHEMA.print(&loaded).as_bytes()); // the reader may have left
        return Ok(());
    }
    start_log_lines(&loaded.config.logging_filter).map_err(RunError::System)?;
    raise_descriptor_limit();
    System::new().block_on(run(loaded.config))
}

async fn run(config: RegistryConfig) -> Result<(), RunError> {
    let mut signals = Signals::listen().map_err(RunError::System)?;
    let registry = RegistryProcess::start(config, Process::system()).await?;
    tracing::info!(
        listen = %registry.address(),
        data = %registry.data().display(),
        registry = registry.registry(),
        pid = std::process::id(),
        "ready"
    );
    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    tokio::select! {
        _reports = registry.stop() => tracing::info!("stopped"),
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal: stopping at once");
        }
    }
    Ok(())
}
