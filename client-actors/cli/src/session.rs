//! What the commands that talk to a broker share: the runtime, the client, what it warns of.

use std::future::Future;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use grus_client::{Client, ClientConfig};
use tracing_subscriber::EnvFilter;

use crate::args::Common;
use crate::failure::Failure;

/// Runs a command to its end. The client has threads of its own; this one only waits.
///
/// # Errors
/// The command's, or told when there can be no runtime.
pub fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::because("cannot start", error))?.block_on(command)
}

/// Lets the client's warnings (it waits for a broker, say) appear on standard error.
pub fn show_warnings() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let shown = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .without_time()
        .with_target(false)
        .try_init();
    drop(shown); // a second command in one process finds it set already
}

/// Connects to the brokers of the command line; waits `wait_max` for one to answer, or for ever.
///
/// # Errors
/// Told, when none has answered.
pub async fn connect(common: &Common, wait_max: Option<Duration>) -> Result<Client, Failure> {
    let mut config = ClientConfig::new(common.bootstrap.iter().map(String::as_str));
    config.client_id = format!("grus-cli-{}", std::process::id());
    config.connect_wait_max = wait_max;
    Client::connect(config).await.map_err(|error| {
        Failure::because(format!("no broker at {}", common.bootstrap.join(", ")), error)
    })
}
