//! `grus broker` and `grus registry`: the same code as `grus-broker` and `grus-registry`.

use std::fmt::Display;

use grus_registry::daemon::{self, RunError};

use crate::args::DaemonArgs;
use crate::failure::Failure;

/// Runs a broker in the foreground until it is told to end.
///
/// # Errors
/// Told: a port that is taken, a folder in use, a format that is newer, a setting that is wrong.
pub fn broker(args: DaemonArgs) -> Result<(), Failure> {
    grus_broker::run_from(&given(args, "broker.data")).map_err(failure)
}

/// Runs a registry in the foreground until it is told to end.
///
/// # Errors
/// As [`broker`].
pub fn registry(args: DaemonArgs) -> Result<(), Failure> {
    grus_registry::run_from(&given(args, "registry.data")).map_err(failure)
}

fn given(args: DaemonArgs, data_key: &str) -> daemon::DaemonArgs {
    let DaemonArgs { config, data, listen, http, print_config } = args;
    let mut given = daemon::DaemonArgs { config, print_config, ..daemon::DaemonArgs::default() };
    for (key, value) in [(data_key, data), ("listen.address", listen), ("http.address", http)] {
        if let Some(value) = value {
            given.set(key, value);
        }
    }
    given
}

fn failure<S: Display>(error: RunError<S>) -> Failure {
    match error {
        RunError::Config(error) => Failure::Configuration(error.to_string()),
        RunError::Start(_) | RunError::System(_) => Failure::Told(error.to_string()),
    }
}
