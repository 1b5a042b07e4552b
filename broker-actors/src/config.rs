//! The broker's configuration: defaults, then a file, then the environment, then flags.
//!
//! Every key stands in one table (`keys`), from which reading, printing and the commented
//! `deploy/broker.toml` are made, so the three cannot differ.

mod keys;
mod layers;
mod units;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grus_protocol::ids::Durability;
use grus_protocol::limits;
use thiserror::Error;

pub use self::keys::reference_toml;
use self::keys::{KEYS, Key};
pub use self::layers::Source;
use self::layers::{Given, Layer};
pub use self::units::{format_bytes, format_duration, parse_bytes, parse_duration};

/// Least bytes of a segment.
const FIRST_SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// Everything a broker can be told. [`BrokerConfig::default`] is a broker that listens on
/// loopback alone and keeps its data in `./grus-data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// The data folder; made if it is not there.
    pub data: PathBuf,
    /// Threads that serve shards and connections; 0 = one less than the processors, at least 1.
    pub core_arbiters: u32,
    /// Shards of each durability level; 0 = one for each core arbiter. Shards that exist are
    /// always served, so this can only grow.
    pub shards_per_durability: u32,
    /// Longest time a stop may take before what is left is dropped.
    pub shutdown_timeout: Duration,
    /// `host:port` of the protocol; port 0 = any free one.
    pub listen_address: String,
    /// `host:port` told to clients; empty = the listening address.
    pub advertised_address: String,
    /// Most sockets at once; more are closed at once.
    pub connections_max: u32,
    /// `host:port` of the page and its API; `off` = none.
    pub http_address: String,
    /// Names that a request's `Host` may bear besides the loopback ones and the address.
    pub http_hosts: Vec<String>,
    /// Limits of one connection.
    pub connection: ConnectionConfig,
    /// What is refused with a typed error.
    pub limits: LimitConfig,
    /// What a topic gets that was not told otherwise.
    pub topic: TopicDefaults,
    /// The segments of a shard's log.
    pub log: LogSettings,
    /// Reading.
    pub fetch: FetchConfig,
    /// Which log lines are written, as a `tracing` filter.
    pub logging_filter: String,
}

/// Limits of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Closed when no whole request arrived for this long.
    pub idle_timeout: Duration,
    /// Closed when the first request is not there after this long.
    pub hello_timeout: Duration,
    /// Closed when the peer takes no byte of what waits for it for this long.
    pub write_timeout: Duration,
    /// Requests not answered yet, after which no more are read.
    pub inflight_requests_max: u32,
    /// Bytes of requests not answered yet, after which no more are read.
    pub inflight_bytes_max: u32,
    /// Bytes of replies that wait for the peer, after which no more requests are read.
    pub output_bytes_max: u32,
}

/// What is refused with a typed error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitConfig {
    /// Most bytes of a frame.
    pub frame_bytes_max: u32,
    /// Most bytes of a record batch.
    pub batch_bytes_max: u32,
    /// Most records of a batch.
    pub batch_records_max: u32,
    /// Most bytes of one message's body.
    pub message_bytes_max: u32,
    /// Most bytes of one message's headers, names and values.
    pub headers_bytes_max: u32,
    /// Most queues of a topic.
    pub queues_max: u32,
}

/// What a topic gets that was not told otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDefaults {
    /// Whether the first message to an unknown topic makes it.
    pub auto_create: bool,
    /// How many queues.
    pub queues: u32,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Age at which messages go; 0 = never.
    pub retention_time: Duration,
    /// Bytes of a queue above which its oldest messages go; 0 = no cap.
    pub retention_bytes: u64,
}

/// The segments of a shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of the first segments of an empty shard.
    pub first_segment_bytes: u64,
    /// Whether damaged entries that have to be applied again are given up: for one start.
    pub accept_loss: bool,
}

/// Reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchConfig {
    /// Most bytes of one answer; one batch is always given, however large.
    pub bytes_max: u32,
    /// Longest time a fetch may wait for news.
    pub wait_max: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./grus-data"),
            core_arbiters: 0,
            shards_per_durability: 0,
            shutdown_timeout: Duration::from_secs(4),
            listen_address: "127.0.0.1:6086".into(),
            advertised_address: String::new(),
            connections_max: 10_000,
            http_address: "127.0.0.1:7654".into(),
            http_hosts: Vec::new(),
            connection: ConnectionConfig {
                idle_timeout: Duration::from_mins(2),
                hello_timeout: Duration::from_secs(10),
                write_timeout: Duration::from_secs(10),
                inflight_requests_max: 1_024,
                inflight_bytes_max: 32 << 20,
                output_bytes_max: 16 << 20,
            },
            limits: LimitConfig {
                frame_bytes_max: limits::FRAME_BYTES_MAX,
                batch_bytes_max: limits::BATCH_BYTES_MAX,
                batch_records_max: limits::BATCH_RECORDS_MAX,
                message_bytes_max: limits::MESSAGE_BYTES_MAX,
                headers_bytes_max: limits::HEADERS_BYTES_MAX,
                queues_max: 1_024,
            },
            topic: TopicDefaults {
                auto_create: true,
                queues: 4,
                durability: Durability::Persisted,
                retention_time: Duration::from_hours(7 * 24),
                retention_bytes: 0,
            },
            log: LogSettings {
                segment_bytes: 256 << 20,
                first_segment_bytes: 16 << 20,
                accept_loss: false,
            },
            fetch: FetchConfig { bytes_max: 4 << 20, wait_max: Duration::from_mins(1) },
            logging_filter: "warn,grus=info".into(),
        }
    }
}

/// Why a configuration was refused. Each is one line for the operator; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not TOML.
    #[error("configuration file {}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// The environment cannot be read.
    #[error("configuration from the environment: {message}")]
    Environment {
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
pub struct LoadedConfig {
    /// The values.
    pub config: BrokerConfig,
    sources: Vec<Source>,
}

impl LoadedConfig {
    /// One line per key: `section.key = value`, then its source as a comment. Valid TOML.
    #[must_use]
    pub fn print_config(&self) -> String {
        let mut lines = String::new();
        for (key, source) in KEYS.iter().zip(&self.sources) {
            let line = format!("{} = {}", key.name, (key.get)(&self.config));
            let _ = writeln!(lines, "{line:<48} # {source}");
        }
        lines
    }
}

impl BrokerConfig {
    /// Loads a configuration: defaults, `file`, the process's `GRUS__SECTION__KEY` variables,
    /// then `overrides` (`section.key` and value), later ones winning.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key, its source and where possible the line.
    pub fn load(
        file: Option<&Path>,
        overrides: &[(String, String)],
    ) -> Result<LoadedConfig, ConfigError> {
        let text = match file {
            None => None,
            Some(path) => Some((
                path,
                std::fs::read_to_string(path).map_err(|error| ConfigError::File {
                    path: path.into(),
                    message: error.to_string(),
                })?,
            )),
        };
        let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        Self::from_layers(file, std::env::vars(), overrides)
    }

    /// Like [`BrokerConfig::load`], with the file's text and the variables given.
    ///
    /// # Errors
    /// As [`BrokerConfig::load`].
    pub fn from_layers(
        file: Option<(&Path, &str)>,
        variables: impl IntoIterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<LoadedConfig, ConfigError> {
        let mut layers: Vec<Layer> = Vec::with_capacity(3);
        if let Some((path, text)) = file {
            layers.push(layers::file_layer(path, text)?);
        }
        layers.push(layers::environment_layer(variables)?);
        layers.push(layers::flag_layer(overrides));

        let mut loaded =
            LoadedConfig { config: Self::default(), sources: vec![Source::Default; KEYS.len()] };
        for (name, given) in layers.into_iter().flatten() {
            let Some(at) = KEYS.iter().position(|key| key.name == name) else {
                let hint = keys::hint(&name);
                return Err(ConfigError::UnknownKey {
                    key: name,
                    source_of_key: given.source,
                    hint,
                });
            };
            set(&KEYS[at], &mut loaded.config, &given)?;
            loaded.sources[at] = given.source;
        }
        loaded.check()?;
        Ok(loaded)
    }

    /// The number of core arbiters, [`BrokerConfig::core_arbiters`] = 0 worked out.
    #[must_use]
    pub fn core_arbiters_resolved(&self) -> u32 {
        if self.core_arbiters > 0 {
            return self.core_arbiters;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(processors.saturating_sub(1)).unwrap_or(1).max(1)
    }
}

fn set(key: &Key, config: &mut BrokerConfig, given: &Given) -> Result<(), ConfigError> {
    (key.set)(config, &given.text).map_err(|message| ConfigError::Value {
        key: key.name.into(),
        source_of_key: given.source.clone(),
        message,
    })
}

impl LoadedConfig {
    /// Checks what must hold between values.
    fn check(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let limits = &config.limits;
        let rules: [(bool, &str, &str); 8] = [
            (
                u64::from(limits.message_bytes_max) + u64::from(limits.headers_bytes_max)
                    < u64::from(limits.batch_bytes_max),
                "limits.batch_bytes_max",
                "must exceed limits.message_bytes_max and limits.headers_bytes_max together",
            ),
            (
                u64::from(limits.batch_bytes_max) + u64::from(limits::REQUEST_HEADER_BYTES_MAX)
                    < u64::from(limits.frame_bytes_max),
                "limits.frame_bytes_max",
                "must exceed limits.batch_bytes_max by more than 256 KiB",
            ),
            (
                config.connection.inflight_bytes_max >= limits.frame_bytes_max,
                "connection.inflight_bytes_max",
                "must be at least limits.frame_bytes_max",
            ),
            (
                config.log.segment_bytes >= config.log.first_segment_bytes,
                "log.segment_bytes",
                "must be at least log.first_segment_bytes",
            ),
            (
                config.log.first_segment_bytes >= FIRST_SEGMENT_BYTES_MIN,
                "log.first_segment_bytes",
                "must be at least 1 MiB",
            ),
            (
                (1..=limits.queues_max).contains(&config.topic.queues),
                "topic.queues",
                "must be between 1 and limits.queues_max",
            ),
            (
                config.fetch.wait_max < config.connection.idle_timeout,
                "fetch.wait_max",
                "must be shorter than connection.idle_timeout, or waiting readers are cut off",
            ),
            (config.connections_max > 0, "listen.connections_max", "must be at least 1"),
        ];
        for (holds, key, message) in rules {
            if !holds {
                return Err(self.broken(key, message));
            }
        }
        Ok(())
    }

    fn broken(&self, name: &str, message: &str) -> ConfigError {
        let at = KEYS.iter().position(|key| key.name == name);
        ConfigError::Value {
            key: name.into(),
            source_of_key: at.map_or(Source::Default, |at| self.sources[at].clone()),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests;
