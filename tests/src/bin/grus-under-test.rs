//! `grus` under a second name, so that cargo builds it fresh for the tests of this crate alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    grus_cli::main()
}
