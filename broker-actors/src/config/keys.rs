//! Every key of the configuration, once: its name, what it means, and how to read and write it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grus_protocol::ids::Durability;

use super::BrokerConfig;
use super::units::{format_bytes, format_duration, parse_bytes, parse_duration};

/// One key.
pub(super) struct Key {
    /// `section.key`.
    pub(super) name: &'static str,
    /// What kind of value: shown in the commented file.
    pub(super) unit: &'static str,
    /// One or two lines for the operator.
    pub(super) about: &'static str,
    /// The value as TOML.
    pub(super) get: fn(&BrokerConfig) -> String,
    /// Sets it from text.
    pub(super) set: fn(&mut BrokerConfig, &str) -> Result<(), String>,
}

macro_rules! key {
    ($name:literal, $kind:ident, $about:literal, $($field:ident).+) => {
        Key {
            name: $name,
            unit: $kind::UNIT,
            about: $about,
            get: |config| $kind::show(key!(@pass $kind config.$($field).+)),
            set: |config, text| {
                config.$($field).+ = $kind::read(text)?;
                Ok(())
            },
        }
    };
    (@pass folder $value:expr) => { &$value };
    (@pass text $value:expr) => { &$value };
    (@pass list $value:expr) => { &$value };
    (@pass $kind:ident $value:expr) => { $value };
}

/// All keys, grouped by section.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key!("broker.data", folder, "Data folder; made if it is not there.", data),
    key!("broker.core_arbiters", count,
        "Threads that serve shards and connections; 0 = one less than the processors, at least 1.",
        core_arbiters),
    key!("broker.shards_per_durability", count,
        "Shards of each durability level; 0 = one for each core arbiter. Shards on disk are\nalways served, so a smaller number has no effect.",
        shards_per_durability),
    key!("broker.shutdown_timeout", duration,
        "Longest time a stop may take before what is left is dropped.", shutdown_timeout),

    key!("listen.address", text, "Where clients connect, host:port; port 0 = any free one.", listen_address),
    key!("listen.advertised_address", text,
        "The host:port told to clients; empty = listen.address.", advertised_address),
    key!("listen.connections_max", count, "Most sockets at once; more are closed at once.", connections_max),

    key!("http.address", text, "Where the API listens, host:port; \"off\" = nowhere.", http_address),
    key!("http.hosts", list,
        "Names that a request's Host may bear besides localhost, 127.0.0.1, [::1] and http.address.",
        http_hosts),

    key!("connection.idle_timeout", duration,
        "A connection without a whole request for this long is closed.", connection.idle_timeout),
    key!("connection.hello_timeout", duration,
        "A connection whose first request is not there after this long is closed.", connection.hello_timeout),
    key!("connection.write_timeout", duration,
        "A connection whose peer takes no byte of its replies for this long is closed.",
        connection.write_timeout),
    key!("connection.inflight_requests_max", count,
        "Requests of a connection not answered yet, after which no more are read.",
        connection.inflight_requests_max),
    key!("connection.inflight_bytes_max", bytes_u32,
        "Bytes of requests of a connection not answered yet, after which no more are read.",
        connection.inflight_bytes_max),
    key!("connection.output_bytes_max", bytes_u32,
        "Bytes of replies waiting for a peer, after which none of its requests are read.",
        connection.output_bytes_max),

    key!("limits.frame_bytes_max", bytes_u32, "Most bytes of a frame.", limits.frame_bytes_max),
    key!("limits.batch_bytes_max", bytes_u32, "Most bytes of a record batch.", limits.batch_bytes_max),
    key!("limits.batch_records_max", count, "Most records of a batch.", limits.batch_records_max),
    key!("limits.message_bytes_max", bytes_u32, "Most bytes of one message's body.", limits.message_bytes_max),
    key!("limits.headers_bytes_max", bytes_u32,
        "Most bytes of one message's headers, names and values.", limits.headers_bytes_max),
    key!("limits.queues_max", count, "Most queues of a topic.", limits.queues_max),

    key!("topic.auto_create", flag, "Whether the first message to an unknown topic makes it.", topic.auto_create),
    key!("topic.queues", count, "Queues of a topic that was not told otherwise.", topic.queues),
    key!("topic.durability", durability,
        "What an acknowledgement promises, for topics not told otherwise. \"persisted\": on disk.\n\"replicated\": in memory of a majority, on disk soon.",
        topic.durability),
    key!("topic.retention_time", duration,
        "Age at which messages go, for topics not told otherwise; 0 = never.", topic.retention_time),
    key!("topic.retention_bytes", bytes_u64,
        "Bytes of a queue above which its oldest messages go, for topics not told otherwise; 0 = no cap.",
        topic.retention_bytes),

    key!("log.segment_bytes", bytes_u64, "Bytes of a log segment.", log.segment_bytes),
    key!("log.first_segment_bytes", bytes_u64,
        "Bytes of the first segments of an empty shard.", log.first_segment_bytes),
    key!("log.accept_loss", flag,
        "Whether damaged entries that a start has to apply again are given up for good. Only for the one\nstart after \"... is damaged\", when no copy of the file is left: GRUS__LOG__ACCEPT_LOSS=true.",
        log.accept_loss),

    key!("fetch.bytes_max", bytes_u32,
        "Most bytes of one fetch's answer; one batch is always given, however large.", fetch.bytes_max),
    key!("fetch.wait_max", duration, "Longest time a fetch may wait for news.", fetch.wait_max),

    key!("logging.filter", text,
        "Which log lines are written: a level, or target=level pairs separated by commas; the targets\nof the broker's own lines begin with grus.", logging_filter),
];

/// The commented configuration file, made from the table: `deploy/broker.toml`.
#[must_use]
pub fn reference_toml() -> String {
    let defaults = BrokerConfig::default();
    let mut text = String::from(
        "# Grus broker: every key with its meaning, kind of value, and default.\n\
         # A file is read with `grus broker --config broker.toml`. The environment wins over the\n\
         # file (GRUS__SECTION__KEY, as in GRUS__LISTEN__ADDRESS), flags win over both.\n\
         # `grus broker --print-config` shows each value in force and where it came from.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (section_here, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if section_here != section {
            section = section_here;
            let _ = write!(text, "\n[{section}]\n");
        }
        text.push('\n');
        for line in key.about.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# Value: {}.", key.unit);
        let _ = writeln!(text, "#{name} = {}", (key.get)(&defaults));
    }
    text
}

/// Says which key may have been meant, as a piece of a sentence, or nothing.
pub(super) fn hint(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let near = KEYS.iter().filter(|key| {
        let own = key.name.rsplit('.').next().unwrap_or(key.name);
        own == last || strip(key.name) == strip(name)
    });
    let names: Vec<_> = near.map(|key| format!("`{}`", key.name)).collect();
    if names.is_empty() { String::new() } else { format!("; is {} meant?", names.join(" or ")) }
}

fn strip(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string() // a JSON string is a TOML basic string
}

mod folder {
    use super::{Path, PathBuf, quoted};
    pub(super) const UNIT: &str = "a folder";
    pub(super) fn show(value: &Path) -> String {
        quoted(&value.to_string_lossy())
    }
    pub(super) fn read(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() { Err("a folder is needed".into()) } else { Ok(PathBuf::from(text)) }
    }
}

mod text {
    use super::quoted;
    pub(super) const UNIT: &str = "text";
    pub(super) fn show(value: &str) -> String {
        quoted(value)
    }
    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn read(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

mod list {
    use super::quoted;
    pub(super) const UNIT: &str = "a list of texts (in the environment separated by commas)";
    pub(super) fn show(value: &[String]) -> String {
        let items: Vec<_> = value.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }
    #[expect(clippy::unnecessary_wraps, reason = "one signature for all kinds")]
    pub(super) fn read(text: &str) -> Result<Vec<String>, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(items.map(str::to_owned).collect())
    }
}

mod count {
    pub(super) const UNIT: &str = "a number";
    pub(super) fn show(value: u32) -> String {
        value.to_string()
    }
    pub(super) fn read(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| format!("`{text}` is not a number from 0 to {}", u32::MAX))
    }
}

mod flag {
    pub(super) const UNIT: &str = "true or false";
    pub(super) fn show(value: bool) -> String {
        value.to_string()
    }
    pub(super) fn read(text: &str) -> Result<bool, String> {
        text.trim().parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

mod duration {
    use super::{Duration, format_duration, parse_duration, quoted};
    pub(super) const UNIT: &str = "a duration such as 500ms, 10s, 7d";
    pub(super) fn show(value: Duration) -> String {
        quoted(&format_duration(value))
    }
    pub(super) fn read(text: &str) -> Result<Duration, String> {
        parse_duration(text)
    }
}

mod bytes_u64 {
    use super::{format_bytes, parse_bytes, quoted};
    pub(super) const UNIT: &str = "a size such as 65536, 64 KiB, 4 MiB";
    pub(super) fn show(value: u64) -> String {
        quoted(&format_bytes(value))
    }
    pub(super) fn read(text: &str) -> Result<u64, String> {
        parse_bytes(text)
    }
}

mod bytes_u32 {
    pub(super) use super::bytes_u64::UNIT;
    use super::{format_bytes, parse_bytes, quoted};
    pub(super) fn show(value: u32) -> String {
        quoted(&format_bytes(u64::from(value)))
    }
    pub(super) fn read(text: &str) -> Result<u32, String> {
        u32::try_from(parse_bytes(text)?).map_err(|_| format!("`{text}` is 4 GiB or more"))
    }
}

mod durability {
    use super::{Durability, quoted};
    pub(super) const UNIT: &str = "\"persisted\" or \"replicated\"";
    pub(super) fn show(value: Durability) -> String {
        quoted(&value.to_string())
    }
    pub(super) fn read(text: &str) -> Result<Durability, String> {
        [Durability::Persisted, Durability::Replicated]
            .into_iter()
            .find(|level| level.to_string() == text.trim())
            .ok_or_else(|| format!("`{text}` is neither \"persisted\" nor \"replicated\""))
    }
}
