//! `grus`: see `grus --help` and docs/CLI.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    grus_cli::main()
}
