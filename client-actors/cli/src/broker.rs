//! `grus broker`: the same code as `grus-broker`.

use crate::args::BrokerArgs;
use crate::failure::Failure;

/// Runs a broker in the foreground until it is told to end.
///
/// # Errors
/// Told: a port that is taken, a folder in use, a format that is newer, a setting that is wrong.
pub fn run(args: BrokerArgs) -> Result<(), Failure> {
    let BrokerArgs { config, data, listen, http, print_config } = args;
    let args = grus_broker::BrokerArgs { config, data, listen, http, print_config };
    grus_broker::run_from(&args).map_err(|error| match error {
        grus_broker::RunError::Config(error) => Failure::Configuration(error.to_string()),
        other => Failure::Told(other.to_string()),
    })
}
