//! The broker's configuration: defaults, then a file, then the environment, then flags.
//!
//! Every key stands in one table (`keys`), from which [`BROKER_SCHEMA`] reads and prints it and the
//! commented `deploy/broker.toml` is made, so the three cannot differ.

mod keys;

use std::path::PathBuf;
use std::time::Duration;

use grus_protocol::ids::Durability;
use grus_protocol::limits;
use grus_registry::configuration::{Key, Loaded, Schema, Source};
use tracing_subscriber::EnvFilter;

use self::keys::KEYS;

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
    /// Whether shards that are led here go back to the first of their brokers once that keeps up.
    pub return_leadership: bool,
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
    /// Where registries are that are processes of their own; none: this broker has its own.
    pub registry_addresses: Vec<String>,
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
    /// Not listed as a client when no whole request arrived for this long.
    pub session_timeout: Duration,
    /// Closed when the first request is not there after this long.
    pub hello_timeout: Duration,
    /// Closed when a frame that has begun neither ends nor comes on by 64 KiB for this long.
    pub frame_timeout: Duration,
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
    /// Whether messages can be found by id and by key.
    pub find_index: bool,
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
            return_leadership: true,
            listen_address: "127.0.0.1:6086".into(),
            advertised_address: String::new(),
            connections_max: 10_000,
            http_address: "127.0.0.1:7654".into(),
            http_hosts: Vec::new(),
            registry_addresses: Vec::new(),
            connection: ConnectionConfig {
                idle_timeout: Duration::from_mins(2),
                session_timeout: Duration::from_secs(10),
                hello_timeout: Duration::from_secs(10),
                frame_timeout: Duration::from_secs(10),
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
                find_index: true,
            },
            fetch: FetchConfig { bytes_max: 4 << 20, wait_max: Duration::from_mins(1) },
            logging_filter: "warn,grus=info".into(),
        }
    }
}

/// All that can be configured in a broker.
pub static BROKER_SCHEMA: Schema<BrokerConfig> =
    Schema { title: "Grus broker", command: "grus broker", file: "broker.toml", keys: KEYS, check };

impl BrokerConfig {
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

impl From<BrokerConfig> for Loaded<BrokerConfig> {
    /// A configuration made by a program: what differs from the default, it has set.
    fn from(config: BrokerConfig) -> Self {
        let default = BrokerConfig::default();
        let source = |key: &Key<BrokerConfig>| {
            let is_default = (key.get)(&config) == (key.get)(&default);
            if is_default { Source::Default } else { Source::Flag }
        };
        Self { sources: KEYS.iter().map(source).collect(), config }
    }
}

/// Checks what must hold between values; blames a key.
fn check(config: &BrokerConfig) -> Result<(), (&'static str, String)> {
    let limits = &config.limits;
    let rules: [(bool, &str, &str); 6] = [
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
            config.topic.queues <= limits.queues_max,
            "topic.queues",
            "must be at most limits.queues_max",
        ),
        (
            config.fetch.wait_max < config.connection.idle_timeout,
            "fetch.wait_max",
            "must be shorter than connection.idle_timeout, or waiting readers are cut off",
        ),
    ];
    if let Some((_, key, message)) = rules.into_iter().find(|(holds, _, _)| !holds) {
        return Err((key, message.to_owned()));
    }
    EnvFilter::try_new(&config.logging_filter)
        .map(drop)
        .map_err(|error| ("logging.filter", error.to_string()))
}

#[cfg(test)]
mod tests;
