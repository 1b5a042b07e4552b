//! A registry as a process: log lines, signals, what it says. Both `grus-registry` and
//! `grus registry` are this.

use grus_mailbox::{Process, System};

use crate::config::{REGISTRY_SCHEMA, RegistryConfig};
use crate::configuration::Loaded;
use crate::daemon::{DaemonArgs, RunError, Signals, raise_descriptor_limit};
use crate::process::{RegistryProcess, StartError};

/// Why a registry process ends early.
pub type RegistryRunError = RunError<StartError>;

/// Runs a registry until it is told to stop, by SIGTERM or Ctrl-C. Sets up log lines on standard
/// error; blocks the thread.
///
/// # Errors
/// [`RunError`] when it could not start.
pub fn run_from(args: &DaemonArgs) -> Result<(), RegistryRunError> {
    let Some(loaded) = args.begin(&REGISTRY_SCHEMA, |config| &config.logging_filter)? else {
        return Ok(());
    };
    raise_descriptor_limit();
    System::new().block_on(run(loaded))
}

async fn run(loaded: Loaded<RegistryConfig>) -> Result<(), RegistryRunError> {
    let mut signals = Signals::listen().map_err(RunError::System)?;
    let registry =
        RegistryProcess::start(loaded, Process::system()).await.map_err(RunError::Start)?;
    let http = registry.http_address().map_or("off".into(), |address| address.to_string());
    tracing::info!(
        listen = %registry.address(),
        http = %http,
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
