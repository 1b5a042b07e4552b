//! A broker as a process: arguments, log lines, signals, exit code. Both `grus-broker` and
//! `grus broker` are this.

use std::io::Write as _;
use std::path::PathBuf;

use grus_mailbox::{Process, System};
use grus_registry::configuration::{ConfigError, Loaded};
use grus_registry::daemon::{Signals, raise_descriptor_limit, start_log_lines};
use thiserror::Error;

use crate::broker::{Broker, StartError};
use crate::config::{BROKER_SCHEMA, BrokerConfig};

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerArgs {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Folder of the data, over the configuration's.
    pub data: Option<PathBuf>,
    /// Where clients connect, over the configuration's.
    pub listen: Option<String>,
    /// Where HTTP is served, over the configuration's.
    pub http: Option<String>,
    /// Print every setting in force, and end.
    pub print_config: bool,
}

/// Why a broker process ends early. One line for the operator.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker could not start.
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

impl BrokerArgs {
    /// Reads the configuration that the arguments name, under their own values.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self) -> Result<Loaded<BrokerConfig>, ConfigError> {
        let data = self.data.as_ref().map(|data| data.to_string_lossy().into_owned());
        let given = [
            ("broker.data", data),
            ("listen.address", self.listen.clone()),
            ("http.address", self.http.clone()),
        ];
        let overrides: Vec<_> =
            given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        BROKER_SCHEMA.load(self.config.as_deref(), &overrides)
    }
}

/// Runs a broker until it is told to stop, by SIGTERM or Ctrl-C. Sets up log lines on standard
/// error; blocks the thread.
///
/// # Errors
/// [`RunError`] when it could not start.
pub fn run_from(args: &BrokerArgs) -> Result<(), RunError> {
    let loaded = args.load()?;
    if args.print_config {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(BROKER_SCHEMA.print(&loaded).as_bytes()); // the reader may have left
        return Ok(());
    }
    start_log_lines(&loaded.config.logging_filter).map_err(RunError::System)?;
    Broker::run(loaded)
}

impl Broker {
    /// Runs a broker in this process until it is told to stop, by SIGTERM or Ctrl-C. Blocks the
    /// thread; leaves log lines to the caller.
    ///
    /// # Errors
    /// [`RunError`] when it could not start.
    pub fn run(config: impl Into<Loaded<BrokerConfig>>) -> Result<(), RunError> {
        raise_descriptor_limit();
        System::new().block_on(async {
            let mut signals = Signals::listen().map_err(RunError::System)?;
            let broker = tokio::select! {
                started = Broker::start(config, Process::system()) => started?,
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
    use super::*;

    #[test]
    fn arguments_win_over_the_file() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("broker.toml");
        std::fs::write(&file, "[listen]\naddress = \"a:1\"\n[http]\naddress = \"b:2\"\n").unwrap();
        let args = BrokerArgs {
            config: Some(file),
            data: Some("/d".into()),
            listen: Some("c:3".into()),
            ..BrokerArgs::default()
        };
        let config = args.load().unwrap().config;
        assert_eq!(config.listen_address, "c:3");
        assert_eq!(config.http_address, "b:2");
        assert_eq!(config.data, PathBuf::from("/d"));
    }

    #[test]
    fn a_refused_configuration_has_an_exit_code_of_its_own() {
        let args = BrokerArgs { config: Some("/nonexistent.toml".into()), ..BrokerArgs::default() };
        let error = run_from(&args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("/nonexistent.toml"));
    }
}
