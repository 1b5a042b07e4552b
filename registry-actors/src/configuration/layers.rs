//! Reads one layer of configuration into flat `section.key` values. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Config, File, FileFormat, Map, Source as _, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// What every variable of the configuration begins with.
const PREFIX: &str = "GRUS__";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// The command line (or the program that embeds the daemon).
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// What a value looks like where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// From a place that knows text only: environment, command line.
    Untyped,
    Text,
    Number,
    Fraction,
    Flag,
    ListOfTexts,
    List,
    EmptySection,
}

impl Shape {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Untyped | Self::Text => "text",
            Self::Number => "a number",
            Self::Fraction => "a fraction",
            Self::Flag => "true or false",
            Self::ListOfTexts | Self::List => "a list",
            Self::EmptySection => "a section",
        }
    }
}

/// One value as text, and its source. Lists are joined by commas.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) shape: Shape,
    pub(super) source: Source,
}

/// Values by `section.key`.
pub(super) type Layer = BTreeMap<String, Given>;

/// Reads the file's layer.
pub(super) fn file_layer(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let failed = |line, message: &str| ConfigError::File {
        path: path.into(),
        line,
        message: message.replace('\n', " "),
    };
    let located = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| line_at(text, span.start));
        failed(line, error.message())
    })?;
    let mut lines = Lines { path, text, of_keys: BTreeMap::new() };
    lines.find("", located.get_ref())?;
    let table = Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .and_then(|config| config.collect())
        .map_err(|error| failed(None, &error.to_string()))?;
    let mut layer = Layer::new();
    flatten("", table, &mut |key, text, shape| {
        let line = lines.of_keys.get(key).copied().unwrap_or(1);
        let source = Source::File { path: path.into(), line };
        layer.insert(key.into(), Given { text, shape, source });
    });
    Ok(layer)
}

/// Reads `GRUS__SECTION__KEY` variables. One that begins almost like these is refused too: nobody
/// is served by a setting that is not heard.
pub(super) fn environment_layer(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, text) in variables {
        let Some(name) = name.to_str().filter(|name| is_meant_for_us(name)) else { continue };
        let source = Source::Environment(name.into());
        let Some(rest) = name.strip_prefix(PREFIX) else {
            let hint = format!("; it must begin with {PREFIX}");
            return Err(ConfigError::UnknownKey { key: name.into(), source_of_key: source, hint });
        };
        let key = rest.to_lowercase().replace("__", ".");
        let Ok(text) = text.into_string() else {
            let message = "the value is not UTF-8".into();
            return Err(ConfigError::Value { key, source_of_key: source, message });
        };
        layer.insert(key, Given { text, shape: Shape::Untyped, source });
    }
    Ok(layer)
}

/// Whether a variable is one of the configuration, perhaps misspelt. Others of Grus have single
/// underscores.
fn is_meant_for_us(name: &str) -> bool {
    let start = name.get(..5).unwrap_or_default();
    start.eq_ignore_ascii_case("GRUS_") && name.contains("__")
}

/// The layer of values given by the caller.
pub(super) fn flag_layer(overrides: &[(String, String)]) -> Layer {
    let given =
        |text: &String| Given { text: text.clone(), shape: Shape::Untyped, source: Source::Flag };
    overrides.iter().map(|(key, text)| (key.clone(), given(text))).collect()
}

fn flatten(prefix: &str, table: Map<String, Value>, give: &mut impl FnMut(&str, String, Shape)) {
    for (name, value) in table {
        let key = joined(prefix, &name);
        match value.kind {
            ValueKind::Table(inner) if inner.is_empty() => {
                give(&key, String::new(), Shape::EmptySection);
            }
            ValueKind::Table(inner) => flatten(&key, inner, give),
            ValueKind::Array(items) => {
                let texts = items.iter().all(|item| matches!(item.kind, ValueKind::String(_)));
                let shape = if texts { Shape::ListOfTexts } else { Shape::List };
                let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
                give(&key, items.join(","), shape);
            }
            ValueKind::Boolean(_) => give(&key, value.to_string(), Shape::Flag),
            ValueKind::Float(_) => give(&key, value.to_string(), Shape::Fraction),
            ValueKind::String(_) | ValueKind::Nil => give(&key, value.to_string(), Shape::Text),
            _ => give(&key, value.to_string(), Shape::Number),
        }
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// The lines on which keys are set.
struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
    of_keys: BTreeMap<String, usize>,
}

impl Lines<'_> {
    fn find(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = joined(prefix, name.get_ref());
            let line = line_at(self.text, name.span().start);
            self.of_keys.insert(key.clone(), line);
            match value.get_ref() {
                DeValue::Table(inner) => self.find(&key, inner)?,
                DeValue::Integer(digits)
                    if i64::from_str_radix(digits.as_str(), digits.radix()).is_err() =>
                {
                    let source_of_key = Source::File { path: self.path.into(), line };
                    let message = format!("`{}` is out of range", digits.as_str());
                    return Err(ConfigError::Value { key, source_of_key, message });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The line, from 1, of a place in the text.
fn line_at(text: &str, at: usize) -> usize {
    text.char_indices().take_while(|(place, _)| *place < at).filter(|(_, c)| *c == '\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, key: &str) -> Source {
        file_layer(Path::new("f"), text).unwrap()[key].source.clone()
    }

    #[test]
    fn a_line_is_found_however_the_key_is_written() {
        let text = "# c\n[a]\nx = 1\n\n[b]\nx = 2\ny.z = 3\n[c]\nt = \"\"\"\nx = 1\n\"\"\"\n\"x\" = { v = 1 }\n";
        for (key, expected) in [("a.x", 3), ("b.x", 6), ("b.y.z", 7), ("c.t", 9), ("c.x.v", 12)] {
            assert_eq!(line(text, key), Source::File { path: "f".into(), line: expected }, "{key}");
        }
    }

    #[test]
    fn the_environment_is_flattened_and_others_are_left_alone() {
        let variables = [
            ("GRUS__LISTEN__ADDRESS", "1.2.3.4:5"),
            ("GRUS_BOOTSTRAP", "x"),
            ("GRUSOME__X", "x"),
            ("PATH", "y"),
        ];
        let layer = environment_layer(variables.map(|(n, v)| (n.into(), v.into()))).unwrap();
        assert_eq!(layer.len(), 1);
        let given = &layer["listen.address"];
        assert_eq!(given.text, "1.2.3.4:5");
        assert_eq!(given.source, Source::Environment("GRUS__LISTEN__ADDRESS".into()));
    }

    #[test]
    fn a_variable_that_is_almost_one_of_ours_is_refused() {
        for name in ["GRUS_LISTEN__ADDRESS", "grus__listen__address"] {
            let refused = environment_layer([(name.into(), "x".into())]).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
