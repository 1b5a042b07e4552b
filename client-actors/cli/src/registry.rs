//! `grus registry`: the same code as `grus-registry`.

use crate::args::RegistryArgs;
use crate::failure::Failure;

/// Runs a registry in the foreground until it is told to end.
///
/// # Errors
/// Told: a port that is taken, a folder in use, a format that is newer, a setting that is wrong.
pub fn run(args: RegistryArgs) -> Result<(), Failure> {
    let RegistryArgs { config, data, listen, print_config } = args;
    let args = grus_registry::RegistryArgs { config, data, listen, print_config };
    grus_registry::run_from(&args).map_err(|error| match error {
        grus_registry::run::RunError::Config(error) => Failure::Configuration(error.to_string()),
        other => Failure::Told(other.to_string()),
    })
}
