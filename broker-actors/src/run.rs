//! A broker as a process: log lines, signals, what it says. Both `grus-broker` and
//! `grus broker` are this.

use grus_mailbox::{Clock, FatalPort, Process, System};
use grus_registry::configuration::Loaded;
use grus_registry::daemon::{DaemonArgs, RunError, Signals, raise_descriptor_limit};

use crate::broker::{Broker, StartError};
use crate::config::{BROKER_SCHEMA, BrokerConfig};
use crate::dispatch::fault_switches;

/// Why a broker process ends early.
pub type BrokerRunError = RunError<StartError>;

/// Runs a broker until it is told to stop, by SIGTERM or Ctrl-C. Sets up log lines on standard
/// error; blocks the thread.
///
/// # Errors
/// [`RunError`] when it could not start.
pub fn run_from(args: &DaemonArgs) -> Result<(), BrokerRunError> {
    let Some(loaded) = args.begin(&BROKER_SCHEMA, |config| &config.logging_filter)? else {
        return Ok(());
    };
    Broker::run(loaded)
}

/// This process; its clock can be moved where faults can be injected.
fn process() -> Process {
    let clock = Clock::system();
    if !fault_switches() {
        return Process::new(clock, FatalPort::exit());
    }
    tracing::warn!("GRUS_FAULT_SWITCHES=1: faults can be injected by anybody");
    Process::new(clock.with_hand(), FatalPort::exit())
}

impl Broker {
    /// Runs a broker in this process until it is told to stop, by SIGTERM or Ctrl-C. Blocks the
    /// thread; leaves log lines to the caller.
    ///
    /// # Errors
    /// [`RunError`] when it could not start.
    pub fn run(config: impl Into<Loaded<BrokerConfig>>) -> Result<(), BrokerRunError> {
        raise_descriptor_limit();
        System::new().block_on(async {
            let mut signals = Signals::listen().map_err(RunError::System)?;
            let broker = tokio::select! {
                started = Broker::start(config, process()) => started.map_err(RunError::Start)?,
                // Nothing is served yet; what was begun is recovered at the next start.
                name = signals.next() => {
                    tracing::info!(signal = name, "stopped before it was ready");
                    return Ok(());
                }
            };
            let addresses = broker.addresses();
            let http = addresses.http.map_or("off".into(), |address| address.to_string());
            tracing::info!(
                listen = %addresses.listen,
                http = %http,
                data = %broker.data().display(),
                pid = std::process::id(),
                "ready"
            );
            let name = signals.next().await;
            tracing::info!(signal = name, "stopping");
            tokio::select! {
                _reports = broker.stop() => tracing::info!("stopped"),
                name = signals.next() => {
                    tracing::warn!(signal = name, "second signal: stopping at once");
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn arguments_win_over_the_file() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("broker.toml");
        std::fs::write(&file, "[listen]\naddress = \"a:1\"\n[http]\naddress = \"b:2\"\n").unwrap();
        let mut args = DaemonArgs { config: Some(file), ..DaemonArgs::default() };
        args.set("broker.data", "/d");
        args.set("listen.address", "c:3");
        let config = BROKER_SCHEMA.load(args.config.as_deref(), &args.overrides).unwrap().config;
        assert_eq!(config.listen_address, "c:3");
        assert_eq!(config.http_address, "b:2");
        assert_eq!(config.data, PathBuf::from("/d"));
    }

    #[test]
    fn a_refused_configuration_has_an_exit_code_of_its_own() {
        let args = DaemonArgs { config: Some("/nonexistent.toml".into()), ..DaemonArgs::default() };
        let error = run_from(&args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("/nonexistent.toml"));
    }
}
