//! grus-registry: a registry and nothing else. `grus registry` is the same.

use std::ffi::OsString;
use std::process::ExitCode;

use grus_registry::{RegistryArgs, run_from};

const USAGE: &str = "\
Run a Grus registry in the foreground.

Usage: grus-registry [OPTIONS]

Options:
  --config <FILE>   Configuration file (TOML); GRUS__SECTION__KEY variables win over it
  --data <DIR>      Folder of the data [default: ./grus-registry-data]
  --listen <ADDR>   Where brokers and clients connect [default: 127.0.0.1:11111]
  --print-config    Print every setting in force and where it came from, and end
  -h, --help        Print this
  -V, --version     Print the version
";

enum Command {
    Run(RegistryArgs),
    Say(String),
}

fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("grus-registry: {message}; see grus-registry --help");
            return ExitCode::from(2);
        }
    };
    let args = match command {
        Command::Say(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Command::Run(args) => args,
    };
    match run_from(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grus-registry: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn parse(words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut args = RegistryArgs::default();
    let mut words = words;
    while let Some(word) = words.next() {
        let word = word.into_string().map_err(|word| format!("{} is not text", word.display()))?;
        let (name, mut given) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (word, None),
        };
        let mut value =
            || given.take().or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"));
        let text = |value: OsString| value.into_string().map_err(|_| "not text".to_owned());
        match name.as_str() {
            "--config" => args.config = Some(value()?.into()),
            "--data" => args.data = Some(value()?.into()),
            "--listen" => args.listen = Some(text(value()?)?),
            "--print-config" => args.print_config = true,
            "-h" | "--help" => return Ok(Command::Say(USAGE.to_owned())),
            "-V" | "--version" => {
                let version = concat!("grus-registry ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Command::Say(version.to_owned()));
            }
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(Command::Run(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<RegistryArgs, String> {
        match parse(words.iter().map(OsString::from))? {
            Command::Run(args) => Ok(args),
            Command::Say(text) => Err(text),
        }
    }

    #[test]
    fn values_stand_behind_their_names_or_an_equals_sign() {
        let expected = RegistryArgs {
            data: Some("d".into()),
            listen: Some("a:1".into()),
            print_config: true,
            ..RegistryArgs::default()
        };
        assert_eq!(args(&["--data", "d", "--listen=a:1", "--print-config"]), Ok(expected));
        assert!(args(&["--data"]).unwrap_err().contains("needs a value"));
        assert!(args(&["--bogus"]).unwrap_err().contains("--bogus"));
        assert_eq!(args(&["--help"]), Err(USAGE.to_owned()));
    }
}
