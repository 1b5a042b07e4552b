//! How a daemon of Grus is configured: defaults, then a file, then the environment, then flags.
//!
//! A program lists its keys once, in a table of [`Key`]s ([`config_key!`](crate::config_key)). From
//! that table its configuration is read, checked and printed, and its commented file in `deploy/`
//! is made, so that none of them can differ. The broker and the registry both stand on this.

pub mod kinds;
mod layers;
pub mod units;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::layers::Source;
use self::layers::{Given, Layer, Shape};

/// One key of the configuration `C`. Made by [`config_key!`](crate::config_key).
pub struct Key<C: 'static> {
    /// `section.key`.
    pub name: &'static str,
    /// What kind of value with its unit and range: shown in the commented file.
    pub unit: fn() -> String,
    /// One or two lines for the operator.
    pub about: &'static str,
    /// What the value may be in a file.
    pub written_as: kinds::WrittenAs,
    /// The value as TOML.
    pub get: fn(&C) -> String,
    /// Sets it from text; says in one line what is wrong with it.
    pub set: fn(&mut C, &str) -> Result<(), String>,
}

/// Makes a [`Key`]: its name, its [kind](kinds) with the range it must keep to, what it
/// is about, and the field it sets.
///
/// ```
/// use grus_registry::config_key;
/// use grus_registry::configuration::Key;
///
/// #[derive(Default)]
/// struct Config { queues: u32 }
/// static KEY: Key<Config> = config_key!("topic.queues", count(1..=8), "Queues.", queues);
/// let mut config = Config::default();
/// assert!((KEY.set)(&mut config, "9").is_err());
/// assert!((KEY.set)(&mut config, "3").is_ok());
/// assert_eq!((KEY.get)(&config), "3");
/// ```
#[macro_export]
macro_rules! config_key {
    ($name:literal, $kind:ident $(($range:expr))?, $about:literal, $($field:ident).+ $(,)?) => {
        $crate::configuration::Key {
            name: $name,
            unit: || $crate::configuration::kinds::$kind::unit($crate::config_key!(@range $($range)?)),
            about: $about,
            written_as: $crate::configuration::kinds::$kind::WRITTEN_AS,
            get: |config| $crate::configuration::kinds::$kind::show(&config.$($field).+),
            set: |config, text| {
                let range = $crate::config_key!(@range $($range)?);
                config.$($field).+ = $crate::configuration::kinds::$kind::read(text, range)?;
                Ok(())
            },
        }
    };
    (@range) => { None };
    (@range $range:expr) => { Some($range) };
}

/// All that can be configured in a program.
pub struct Schema<C: 'static> {
    /// The program as a headline names it, as in `Grus broker`.
    pub title: &'static str,
    /// How it is started, as in `grus broker`.
    pub command: &'static str,
    /// The name of its file, as in `broker.toml`.
    pub file: &'static str,
    /// Every key, grouped by section.
    pub keys: &'static [Key<C>],
    /// What must hold between values: the key to blame and what is wrong with it.
    pub check: fn(&C) -> Result<(), (&'static str, String)>,
}

/// Why a configuration was refused. Each is one line for the operator; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not TOML.
    #[error("configuration file {}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where one is to blame.
        line: Option<usize>,
        /// What went wrong.
        message: String,
    },
    /// No such key.
    #[error("unknown configuration key `{key}` ({source_of_key}){hint}")]
    UnknownKey {
        /// The key, as `section.key`.
        key: String,
        /// Who set it.
        source_of_key: Source,
        /// What may have been meant, or nothing.
        hint: String,
    },
    /// A value that is not one.
    #[error("configuration key `{key}` ({source_of_key}): {message}")]
    Value {
        /// The key, as `section.key`.
        key: String,
        /// Who set it.
        source_of_key: Source,
        /// What is wrong with it.
        message: String,
    },
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The values.
    pub config: C,
    /// Where each value came from, in the order of the keys.
    pub sources: Vec<Source>,
}

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `section.key`.
    pub key: &'static str,
    /// The value as TOML.
    pub value: String,
    /// Where it came from.
    pub source: Source,
    /// What is configured by it.
    pub about: &'static str,
}

impl<C: Default> Schema<C> {
    /// Loads a configuration: defaults, `file`, the process's `GRUS__SECTION__KEY` variables,
    /// then `overrides` (`section.key` and value), later ones winning.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key, its source and where possible the line.
    pub fn load(
        &self,
        file: Option<&Path>,
        overrides: &[(String, String)],
    ) -> Result<Loaded<C>, ConfigError> {
        let text = match file {
            None => None,
            Some(path) => Some((
                path,
                std::fs::read_to_string(path).map_err(|error| ConfigError::File {
                    path: path.into(),
                    line: None,
                    message: error.to_string(),
                })?,
            )),
        };
        let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        self.from_layers(file, std::env::vars_os(), overrides)
    }

    /// Like [`Schema::load`], with the file's text and the variables given.
    ///
    /// # Errors
    /// As [`Schema::load`].
    pub fn from_layers(
        &self,
        file: Option<(&Path, &str)>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &[(String, String)],
    ) -> Result<Loaded<C>, ConfigError> {
        let mut layers: Vec<Layer> = Vec::with_capacity(3);
        if let Some((path, text)) = file {
            layers.push(layers::file_layer(path, text)?);
        }
        layers.push(layers::environment_layer(variables)?);
        layers.push(layers::flag_layer(overrides));

        let sources = vec![Source::Default; self.keys.len()];
        let mut loaded = Loaded { config: C::default(), sources };
        for (name, given) in layers.into_iter().flatten() {
            self.take(&mut loaded, name, given)?;
        }
        (self.check)(&loaded.config).map_err(|(name, message)| {
            let at = self.keys.iter().position(|key| key.name == name);
            let source_of_key = at.map_or(Source::Default, |at| loaded.sources[at].clone());
            ConfigError::Value { key: name.into(), source_of_key, message }
        })?;
        Ok(loaded)
    }

    fn take(&self, loaded: &mut Loaded<C>, name: String, given: Given) -> Result<(), ConfigError> {
        let Some(at) = self.keys.iter().position(|key| key.name == name) else {
            if given.shape == Shape::EmptySection && self.has_section(&name) {
                return Ok(());
            }
            let hint = self.hint(&name);
            return Err(ConfigError::UnknownKey { key: name, source_of_key: given.source, hint });
        };
        let key = &self.keys[at];
        let wrong = |message| ConfigError::Value {
            key: name.clone(),
            source_of_key: given.source.clone(),
            message,
        };
        if !key.written_as.allows(given.shape) {
            let unit = (key.unit)();
            return Err(wrong(format!("`{}` is {}, not {unit}", given.text, given.shape.noun())));
        }
        (key.set)(&mut loaded.config, &given.text).map_err(wrong)?;
        loaded.sources[at] = given.source;
        Ok(())
    }

    fn has_section(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name.split_once('.').is_some_and(|(own, _)| own == name))
    }

    /// Says which key may have been meant, as a piece of a sentence, or nothing.
    fn hint(&self, name: &str) -> String {
        if self.has_section(name) {
            return format!("; it is a section: [{name}]");
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        let near = self.keys.iter().filter(|key| {
            let own = key.name.rsplit('.').next().unwrap_or(key.name);
            own == last || letters(key.name) == letters(name)
        });
        let names: Vec<_> = near.map(|key| format!("`{}`", key.name)).collect();
        if names.is_empty() { String::new() } else { format!("; is {} meant?", names.join(" or ")) }
    }

    /// Every value in force, in the order of the keys.
    #[must_use]
    pub fn settings(&self, loaded: &Loaded<C>) -> Vec<Setting> {
        self.keys
            .iter()
            .zip(&loaded.sources)
            .map(|(key, source)| Setting {
                key: key.name,
                value: (key.get)(&loaded.config),
                source: source.clone(),
                about: key.about,
            })
            .collect()
    }

    /// One line per key: `section.key = value`, then its source as a comment. Valid TOML.
    #[must_use]
    pub fn print(&self, loaded: &Loaded<C>) -> String {
        let mut lines = String::new();
        for setting in self.settings(loaded) {
            let line = format!("{} = {}", setting.key, setting.value);
            let _ = writeln!(lines, "{line:<48} # {}", setting.source);
        }
        lines
    }

    /// The commented configuration file, made from the table: what stands in `deploy/`.
    #[must_use]
    pub fn reference_toml(&self) -> String {
        let defaults = C::default();
        let Self { title, command, file, .. } = self;
        let mut text = format!(
            "# {title}: every key with its meaning, kind of value, and default.\n\
             # A file is read with `{command} --config {file}`. The environment wins over the\n\
             # file (GRUS__SECTION__KEY, as in GRUS__LISTEN__ADDRESS), flags win over both.\n\
             # `{command} --print-config` shows each value in force and where it came from.\n",
        );
        let mut section = "";
        for key in self.keys {
            let (section_here, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if section_here != section {
                section = section_here;
                let _ = write!(text, "\n[{section}]\n");
            }
            text.push('\n');
            for line in key.about.lines() {
                let _ = writeln!(text, "# {line}");
            }
            let _ = writeln!(text, "# Value: {}.", (key.unit)());
            let _ = writeln!(text, "#{name} = {}", (key.get)(&defaults));
        }
        text
    }
}

/// What every user of the commented file needs: its text with each default switched on.
#[must_use]
pub fn uncommented(reference: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    reference.lines().map(line).collect()
}

fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}
