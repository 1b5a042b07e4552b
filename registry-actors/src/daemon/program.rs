//! A binary that is one daemon and nothing else: its command line and its exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use super::{DaemonArgs, RunError};

/// A daemon's binary.
#[derive(Debug)]
pub struct Program {
    /// Its name, as in `grus-broker`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What `--help` prints.
    pub usage: &'static str,
    /// Flags that set one key of the configuration each, and that key.
    pub flags: &'static [(&'static str, &'static str)],
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run(DaemonArgs),
    Say(String),
}

impl Program {
    /// Reads the process's command line, does what it says by `run`, and tells the exit code. What
    /// goes wrong is one line on standard error.
    pub fn main<S: Display>(
        &self,
        run: impl FnOnce(&DaemonArgs) -> Result<(), RunError<S>>,
    ) -> ExitCode {
        let name = self.name;
        match self.parse(std::env::args_os().skip(1)) {
            Err(message) => {
                eprintln!("{name}: {message}; see {name} --help");
                ExitCode::from(2)
            }
            Ok(Command::Say(text)) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Ok(Command::Run(args)) => match run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{name}: {error}");
                    ExitCode::from(error.exit_code())
                }
            },
        }
    }

    fn parse(&self, mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
        let mut args = DaemonArgs::default();
        while let Some(word) = words.next() {
            let word = text(word)?;
            let (name, mut given) = match word.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (word.as_str(), None),
            };
            let mut value = || {
                given.take().or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "--config" => args.config = Some(value()?.into()),
                "--print-config" => args.print_config = true,
                "-h" | "--help" => return Ok(Command::Say(self.usage.to_owned())),
                "-V" | "--version" => {
                    return Ok(Command::Say(format!("{} {}\n", self.name, self.version)));
                }
                other => match self.flags.iter().find(|(flag, _)| *flag == other) {
                    Some((_, key)) => args.set(key, text(value()?)?),
                    None => return Err(format!("unknown argument {other}")),
                },
            }
        }
        Ok(Command::Run(args))
    }
}

fn text(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| format!("{} is not text", word.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    const PROGRAM: Program = Program {
        name: "grus-thing",
        version: "1.2.3",
        usage: "Usage: grus-thing\n",
        flags: &[("--data", "thing.data"), ("--listen", "listen.address")],
    };

    fn parse(words: &[&str]) -> Result<Command, String> {
        PROGRAM.parse(words.iter().map(OsString::from))
    }

    #[test]
    fn values_stand_behind_their_names_or_an_equals_sign() {
        let mut expected = DaemonArgs {
            config: Some("c.toml".into()),
            print_config: true,
            ..DaemonArgs::default()
        };
        expected.set("thing.data", "d");
        expected.set("listen.address", "a:1");
        let words = ["--config", "c.toml", "--data", "d", "--listen=a:1", "--print-config"];
        assert_eq!(parse(&words), Ok(Command::Run(expected)));
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert!(parse(&["--data"]).unwrap_err().contains("--data needs a value"));
        assert!(parse(&["--bogus"]).unwrap_err().contains("--bogus"));
        let odd = OsString::from_vec(b"/\xff".to_vec());
        let refused = PROGRAM.parse(["--data".into(), odd].into_iter()).unwrap_err();
        assert!(refused.contains("is not text"), "{refused}");
    }

    #[test]
    fn help_and_version_are_said() {
        assert_eq!(parse(&["--help"]), Ok(Command::Say(PROGRAM.usage.to_owned())));
        assert_eq!(parse(&["-V"]), Ok(Command::Say("grus-thing 1.2.3\n".to_owned())));
    }
}
