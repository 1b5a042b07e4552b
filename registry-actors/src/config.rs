//! The configuration of a registry: defaults, then a file, then the environment, then flags.
//!
//! Every key stands in one table, from which [`REGISTRY_SCHEMA`] reads and prints it and the commented
//! `deploy/registry.toml` is made, so the three cannot differ.

use std::path::PathBuf;
use std::time::Duration;

use grus_protocol::ids::Durability;
use grus_protocol::limits::FrameLimits;
use grus_protocol::message::{TopicKind, TopicSettings};
use tracing_subscriber::EnvFilter;

use crate::broker_table::LeaseSettings;
use crate::config_key as key;
use crate::configuration::{Key, Schema};
use crate::policy::TopicPolicy;
use crate::session::SessionLimits;
use crate::state::{REPLICAS_MAX, TOPIC_QUEUES_MAX, TOPIC_REPLICAS_DEFAULT};

/// Everything a registry can be told. [`RegistryConfig::default`] listens on loopback alone and
/// keeps its data in `./grus-registry-data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// The data folder; made if it is not there.
    pub data: PathBuf,
    /// Longest time a stop may take before what is left is dropped.
    pub shutdown_timeout: Duration,
    /// `host:port` where brokers and clients connect; port 0 = any free one.
    pub listen_address: String,
    /// `host:port` where HTTP is served, on loopback unless told otherwise; `off` = nowhere.
    pub http_address: String,
    /// Names that a request's `Host` may bear besides the loopback names and `http_address`.
    pub http_hosts: Vec<String>,
    /// Most sockets at once; more are refused.
    pub connections_max: u32,
    /// Closed when no whole request arrived for this long.
    pub idle_timeout: Duration,
    /// Closed when the first request is not there after this long.
    pub hello_timeout: Duration,
    /// Closed when a frame has begun, and neither ends nor comes on by 64 KiB for this long.
    pub frame_timeout: Duration,
    /// Closed when the peer takes no byte of what waits for it for this long.
    pub write_timeout: Duration,
    /// A broker that is not heard of for so long leaves the routes.
    pub lease: Duration,
    /// How often brokers are to be heard of.
    pub heartbeat: Duration,
    /// A broker that is gone for so long is replaced in the shards that it shares with others; 0: never.
    pub rebuild_after: Duration,
    /// Whether asking for the routes of an unknown topic may make it.
    pub topic_auto_create: bool,
    /// How many queues a topic gets that was not told otherwise.
    pub topic_queues: u32,
    /// Most queues of a topic.
    pub topic_queues_max: u32,
    /// Most replicas of a topic for which nobody named a number; it never has more than there are brokers.
    pub topic_replicas: u32,
    /// What an acknowledgement promises, for topics not told otherwise.
    pub topic_durability: Durability,
    /// Age at which messages go, for topics not told otherwise; 0 = never.
    pub topic_retention_time: Duration,
    /// Bytes of a queue above which its oldest messages go; 0 = no cap.
    pub topic_retention_bytes: u64,
    /// Whether damaged entries that have to be applied again are given up: for one start.
    pub accept_loss: bool,
    /// Which log lines are written, as a `tracing` filter.
    pub logging_filter: String,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./grus-registry-data"),
            shutdown_timeout: Duration::from_secs(4),
            listen_address: "127.0.0.1:11111".into(),
            http_address: "127.0.0.1:11112".into(),
            http_hosts: Vec::new(),
            connections_max: 10_000,
            idle_timeout: Duration::from_mins(2),
            hello_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(1),
            rebuild_after: Duration::from_mins(30),
            topic_auto_create: true,
            topic_queues: 4,
            topic_queues_max: TOPIC_QUEUES_MAX,
            topic_replicas: TOPIC_REPLICAS_DEFAULT,
            topic_durability: Durability::Persisted,
            topic_retention_time: Duration::from_hours(7 * 24),
            topic_retention_bytes: 0,
            accept_loss: false,
            logging_filter: "warn,grus=info".into(),
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// All keys, grouped by section.
#[rustfmt::skip]
static KEYS: &[Key<RegistryConfig>] = &[
    key!("registry.data", folder, "Data folder; made if it is not there.", data),
    key!("registry.shutdown_timeout", duration(ms(100)..=minutes(60)),
        "Longest time a stop may take before what is left is dropped.", shutdown_timeout),

    key!("listen.address", address, "Where brokers and clients connect; port 0 = any free one.", listen_address),
    key!("listen.connections_max", count(1..=1_000_000), "Most sockets at once; more are refused.", connections_max),

    key!("http.address", address_or_off, "Where health, actors and metrics are served; \"off\" = nowhere.", http_address),
    key!("http.hosts", list,
        "Names that a request's Host may bear besides localhost, 127.0.0.1, [::1] and http.address.",
        http_hosts),

    key!("connection.idle_timeout", duration(ms(1_000)..=minutes(24 * 60)),
        "A connection without a whole request for this long is closed.", idle_timeout),
    key!("connection.hello_timeout", duration(ms(100)..=minutes(60)),
        "A connection whose first request is not there after this long is closed.", hello_timeout),
    key!("connection.frame_timeout", duration(ms(100)..=minutes(60)),
        "A connection on which a frame has begun, and neither ends nor comes on by 64 KiB for this long, is\nclosed.",
        frame_timeout),
    key!("connection.write_timeout", duration(ms(100)..=minutes(60)),
        "A connection whose peer takes no byte of what waits for it for this long is closed.", write_timeout),

    key!("broker.lease", duration(ms(500)..=minutes(60)),
        "A broker that is not heard of for so long leaves the routes. After a start of the registry\nevery broker has a full lease.",
        lease),
    key!("broker.heartbeat", duration(ms(50)..=minutes(10)),
        "How often brokers say that they are there: at most a third of the lease.", heartbeat),
    key!("broker.rebuild_after", duration(ms(0)..=minutes(60 * 24 * 30)),
        "A broker that is gone for so long counts as lost: others get its replicas of the shards that it\nshares, and should it come back it loses them. 0s: never. After a start of the registry it is waited for anew.",
        rebuild_after),

    key!("topic.auto_create", flag, "Whether asking for the routes of an unknown topic may make it.", topic_auto_create),
    key!("topic.queues", count(1..=TOPIC_QUEUES_MAX), "Queues of a topic that was not told otherwise.", topic_queues),
    key!("topic.queues_max", count(1..=TOPIC_QUEUES_MAX), "Most queues of a topic.", topic_queues_max),
    key!("topic.replicas", count(1..=REPLICAS_MAX),
        "On how many brokers each queue of a topic is that was not told otherwise: so many, or as many as\nare there when it is made. 1: on one alone.",
        topic_replicas),
    key!("topic.durability", durability,
        "What an acknowledgement promises, for topics not told otherwise. \"persisted\": on disk.\n\"replicated\": in memory of a majority, on disk soon.",
        topic_durability),
    key!("topic.retention_time", duration,
        "Age at which messages go, for topics not told otherwise; 0 = never.", topic_retention_time),
    key!("topic.retention_bytes", bytes_u64,
        "Bytes of a queue above which its oldest messages go, for topics not told otherwise; 0 = no cap.",
        topic_retention_bytes),

    key!("log.accept_loss", flag,
        "Whether damaged entries that a start has to apply again are given up for good. Only for the one\nstart after \"... is damaged\", when no copy of the file is left: GRUS__LOG__ACCEPT_LOSS=true.",
        accept_loss),

    key!("logging.filter", text,
        "Which log lines are written: a level, or target=level pairs separated by commas; the targets\nof the registry's own lines begin with grus.",
        logging_filter),
];

/// All that can be configured in a registry.
pub static REGISTRY_SCHEMA: Schema<RegistryConfig> = Schema {
    title: "Grus registry",
    command: "grus registry",
    file: "registry.toml",
    keys: KEYS,
    check,
};

fn check(config: &RegistryConfig) -> Result<(), (&'static str, String)> {
    if config.heartbeat * 3 > config.lease {
        let text = "a broker must be able to miss two heartbeats of a lease: at most a third of it";
        return Err(("broker.heartbeat", text.to_owned()));
    }
    if config.topic_queues > config.topic_queues_max {
        return Err(("topic.queues", "more than topic.queues_max".to_owned()));
    }
    EnvFilter::try_new(&config.logging_filter)
        .map(|_| ())
        .map_err(|error| ("logging.filter", error.to_string()))
}

impl RegistryConfig {
    /// What may become a topic.
    #[must_use]
    pub fn topic_policy(&self) -> TopicPolicy {
        let retention_ms = u64::try_from(self.topic_retention_time.as_millis()).unwrap_or(u64::MAX);
        TopicPolicy {
            auto_create: self.topic_auto_create,
            settings: TopicSettings {
                queues: self.topic_queues,
                durability: self.topic_durability,
                retention_ms,
                retention_bytes: self.topic_retention_bytes,
                kind: TopicKind::Durable,
                ..TopicSettings::default()
            },
            queues_max: self.topic_queues_max,
        }
    }

    /// How long leases are.
    #[must_use]
    pub fn lease_settings(&self) -> LeaseSettings {
        LeaseSettings {
            lease: self.lease,
            heartbeat: self.heartbeat,
            rebuild_after: self.rebuild_after,
        }
    }

    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            idle: self.idle_timeout,
            hello: self.hello_timeout,
            frame: self.frame_timeout,
            write: self.write_timeout,
            frames: FrameLimits::REQUESTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::configuration::{ConfigError, Loaded, uncommented};

    fn load(file: &str) -> Result<Loaded<RegistryConfig>, ConfigError> {
        REGISTRY_SCHEMA.from_layers(Some((Path::new("r.toml"), file)), [], &[])
    }

    #[test]
    fn nothing_given_means_the_documented_defaults() {
        let config = REGISTRY_SCHEMA.from_layers(None, [], &[]).unwrap().config;
        assert_eq!(config, RegistryConfig::default());
        assert_eq!(config.listen_address, "127.0.0.1:11111");
        assert_eq!((config.lease, config.heartbeat), (ms(10_000), ms(1_000)));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_a_heartbeat_fits_its_lease() {
        let message = load("[listen]\n# c\nadress = \"x\"\n").unwrap_err().to_string();
        assert_eq!(message, "unknown configuration key `listen.adress` (r.toml:3)");
        let message = load("[broker]\nlease = \"1s\"\n").unwrap_err().to_string();
        assert!(message.contains("broker.heartbeat") && message.contains("third"), "{message}");
        assert!(load("[broker]\nlease = \"1s\"\nheartbeat = \"200ms\"\n").is_ok());
    }

    #[test]
    fn a_topic_that_names_no_replicas_has_one_to_seven_of_them() {
        assert_eq!(RegistryConfig::default().topic_replicas, 3);
        let one = load("[topic]\nreplicas = 1\n").unwrap();
        assert_eq!(one.config.topic_replicas, 1);
        for wrong in ["0", "8"] {
            let message = load(&format!("[topic]\nreplicas = {wrong}\n")).unwrap_err().to_string();
            assert!(message.contains("topic.replicas") && message.contains("1 to 7"), "{message}");
        }
    }

    #[test]
    fn the_commented_file_in_deploy_is_the_one_that_is_made() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/registry.toml");
        let made = REGISTRY_SCHEMA.reference_toml();
        if std::env::var_os("GRUS_REFERENCE_WRITE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), made);
        let all = uncommented(&made);
        let loaded = load(&all).unwrap();
        assert_eq!(loaded.config, RegistryConfig::default(), "the file says the defaults");
    }
}
