//! grus-registry: a registry and nothing else. `grus registry` is the same.

use std::process::ExitCode;

use grus_registry::daemon::Program;
use grus_registry::run_from;

const USAGE: &str = "\
Run a Grus registry in the foreground.

Usage: grus-registry [OPTIONS]

Options:
  --config <FILE>   Configuration file (TOML); GRUS__SECTION__KEY variables win over it
  --data <DIR>      Folder of the data [default: ./grus-registry-data]
  --listen <ADDR>   Where brokers and clients connect [default: 127.0.0.1:11111]
  --http <ADDR>     Where health, actors and metrics are served, or off [default: 127.0.0.1:11112]
  --print-config    Print every setting in force and where it came from, and end
  -h, --help        Print this
  -V, --version     Print the version
";

const PROGRAM: Program = Program {
    name: "grus-registry",
    version: env!("CARGO_PKG_VERSION"),
    usage: USAGE,
    flags: &[
        ("--data", "registry.data"),
        ("--listen", "listen.address"),
        ("--http", "http.address"),
    ],
};

fn main() -> ExitCode {
    PROGRAM.main(run_from)
}
