//! The words behind the name of a part.

use grus_cli::units;

/// `--name value` pairs; the first word without dashes is the part.
#[derive(Debug)]
pub(crate) struct Options {
    words: Vec<String>,
}

impl Options {
    /// Those of the command line, without what cargo adds.
    pub(crate) fn of_command_line() -> Self {
        Self { words: std::env::args().skip(1).filter(|word| word != "--bench").collect() }
    }

    /// What is to be measured.
    pub(crate) fn part(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The value of `--name`.
    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        let at = self.words.iter().position(|word| word.strip_prefix("--") == Some(name));
        let value = at.and_then(|at| self.words.get(at + 1));
        value.map_or_else(|| default.to_owned(), Clone::clone)
    }

    /// The same as a number.
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        let text = self.text(name, &default.to_string());
        text.replace('_', "").parse().unwrap_or_else(|_| panic!("--{name} {text}: not a number"))
    }

    /// The same as a number of bytes.
    pub(crate) fn bytes(&self, name: &str, default: &str) -> usize {
        let text = self.text(name, default);
        let bytes = units::bytes(&text).unwrap_or_else(|error| panic!("--{name} {text}: {error}"));
        usize::try_from(bytes).expect("64 bits")
    }
}
