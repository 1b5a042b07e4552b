//! grus-broker: a broker and nothing else. `grus broker` is the same.

use std::process::ExitCode;

use grus_broker::run_from;
use grus_registry::daemon::Program;

const USAGE: &str = "\
Run a Grus broker in the foreground.

Usage: grus-broker [OPTIONS]

Options:
  --config <FILE>   Configuration file (TOML); GRUS__SECTION__KEY variables win over it
  --data <DIR>      Folder of the data [default: ./grus-data]
  --listen <ADDR>   Where clients connect [default: 127.0.0.1:6086]
  --http <ADDR>     Where the page and its API are served, or `off`
                    [default: 127.0.0.1:7654]
  --print-config    Print every setting in force and where it came from, and end
  -h, --help        Print this
  -V, --version     Print the version
";

const PROGRAM: Program = Program {
    name: "grus-broker",
    version: env!("CARGO_PKG_VERSION"),
    usage: USAGE,
    flags: &[("--data", "broker.data"), ("--listen", "listen.address"), ("--http", "http.address")],
};

fn main() -> ExitCode {
    PROGRAM.main(run_from)
}
