//! Reads one layer of configuration into flat `section.key` values. Pure but for the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat, Map, Value, ValueKind};

use super::ConfigError;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file, and the line if it was found.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: Option<usize>,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// The command line (or the program that embeds the broker).
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One value as text, and its source. Lists are joined by commas.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: Source,
}

/// Values by `section.key`.
pub(super) type Layer = BTreeMap<String, Given>;

/// Reads the file's layer.
pub(super) fn file_layer(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let config = Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .map_err(|error| ConfigError::File { path: path.into(), message: error.to_string() })?;
    let table = config
        .collect_table()
        .map_err(|error| ConfigError::File { path: path.into(), message: error.to_string() })?;
    let mut layer = Layer::new();
    flatten("", table, &mut |key, text_of_value| {
        let source = Source::File { path: path.into(), line: line_of(text, key) };
        layer.insert(key.into(), Given { text: text_of_value, source });
    });
    Ok(layer)
}

/// Reads `GRUS__SECTION__KEY` variables.
pub(super) fn environment_layer(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Layer, ConfigError> {
    let mine: Map<String, String> =
        variables.into_iter().filter(|(name, _)| name.starts_with("GRUS__")).collect();
    let config = Config::builder()
        .add_source(
            Environment::with_prefix("GRUS")
                .prefix_separator("__")
                .separator("__")
                .source(Some(mine)),
        )
        .build()
        .map_err(|error| ConfigError::Environment { message: error.to_string() })?;
    let table = config
        .collect_table()
        .map_err(|error| ConfigError::Environment { message: error.to_string() })?;
    let mut layer = Layer::new();
    flatten("", table, &mut |key, text| {
        let source = Source::Environment(variable_of(key));
        layer.insert(key.into(), Given { text, source });
    });
    Ok(layer)
}

/// The layer of values given by the caller.
pub(super) fn flag_layer(overrides: &[(String, String)]) -> Layer {
    overrides
        .iter()
        .map(|(key, text)| (key.clone(), Given { text: text.clone(), source: Source::Flag }))
        .collect()
}

/// Name of the environment variable of `key`.
pub(super) fn variable_of(key: &str) -> String {
    format!("GRUS__{}", key.replace('.', "__").to_uppercase())
}

trait CollectTable {
    fn collect_table(self) -> Result<Map<String, Value>, config::ConfigError>;
}

impl CollectTable for Config {
    fn collect_table(self) -> Result<Map<String, Value>, config::ConfigError> {
        config::Source::collect(&self)
    }
}

fn flatten(prefix: &str, table: Map<String, Value>, give: &mut impl FnMut(&str, String)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) => flatten(&key, inner, give),
            ValueKind::Array(items) => {
                let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
                give(&key, items.join(","));
            }
            _ => give(&key, value.to_string()),
        }
    }
}

/// Finds the line (from 1) that sets `key` in TOML `text`, if it is set in one of the plain ways.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut section = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            header.trim().clone_into(&mut section);
            continue;
        }
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = name.trim().trim_matches('"');
        let found = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        if found.eq_ignore_ascii_case(key) {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_in_its_section() {
        let text = "# c\n[a]\nx = 1\n\n[b]\nx = 2\ny.z = 3\n";
        assert_eq!(line_of(text, "a.x"), Some(3));
        assert_eq!(line_of(text, "b.x"), Some(6));
        assert_eq!(line_of(text, "b.y.z"), Some(7));
        assert_eq!(line_of(text, "b.q"), None);
    }

    #[test]
    fn the_environment_is_flattened_and_others_are_left_alone() {
        let layer = environment_layer([
            ("GRUS__LISTEN__ADDRESS".to_owned(), "1.2.3.4:5".to_owned()),
            ("GRUS_OTHER".to_owned(), "x".to_owned()),
            ("PATH".to_owned(), "y".to_owned()),
        ])
        .unwrap();
        assert_eq!(layer.len(), 1);
        let given = &layer["listen.address"];
        assert_eq!(given.text, "1.2.3.4:5");
        assert_eq!(given.source, Source::Environment("GRUS__LISTEN__ADDRESS".into()));
    }
}
