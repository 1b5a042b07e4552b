//! How a command fails: one clear line on standard error, and exit code 1; 2 for a daemon's setting.

use std::fmt::Display;
use std::io;

use clap::error::ErrorKind;

/// Why a command ends.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something the caller is told in one line.
    #[error("{0}")]
    Told(String),
    /// A setting of a daemon is refused: exit code 2, so that a supervisor can tell that a restart
    /// will not help.
    #[error("{0}")]
    Configuration(String),
    /// The reader of standard output has left; nothing more to say, and nothing is wrong.
    #[error("standard output was closed")]
    OutputClosed,
}

impl Failure {
    /// A failure told as `what: why`.
    pub fn because(what: impl Display, why: impl Display) -> Self {
        Self::Told(format!("{what}: {why}"))
    }

    /// A failure to write to standard output.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::because("cannot write to standard output", error),
        }
    }

    /// What is printed: one line, whatever the parts held. Nothing for [`Failure::OutputClosed`].
    pub fn line(&self, json: bool) -> Option<String> {
        let (Self::Told(text) | Self::Configuration(text)) = self else { return None };
        let one: Vec<&str> =
            text.split(['\n', '\r']).map(str::trim).filter(|t| !t.is_empty()).collect();
        let one = one.join(" ");
        Some(if json {
            serde_json::json!({ "error": one }).to_string()
        } else {
            format!("grus: {one}")
        })
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Told(_) => 1,
            Self::Configuration(_) => 2,
            Self::OutputClosed => 0,
        }
    }
}

/// The one line that clap's complaint about a command line becomes.
pub fn usage(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::Told("a command is missing; see grus --help".to_owned());
    }
    let text = error.to_string();
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let said = said.join(" ");
    Failure::Told(format!("{}; see grus --help", said.trim_start_matches("error: ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::because("cannot reach a broker", "refused\n  at all\r\n");
        let line = failure.line(false);
        assert_eq!(line.as_deref(), Some("grus: cannot reach a broker: refused at all"));
        assert_eq!(
            failure.line(true).as_deref(),
            Some(r#"{"error":"cannot reach a broker: refused at all"}"#)
        );
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        let failure = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.line(false), failure.code()), (None, 0));
        let full = Failure::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.code(), 1);
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        for wrong in
            ["grus consume", "grus nonsense", "grus consume t --from noon", "grus topic create"]
        {
            let error = Cli::try_parse_from(wrong.split(' ')).unwrap_err();
            let line = usage(&error).line(false).unwrap();
            assert!(line.starts_with("grus: ") && line.ends_with("; see grus --help"), "{line}");
            assert!(!line.contains('\n') && !line.contains("error:"), "{line}");
        }
    }
}
