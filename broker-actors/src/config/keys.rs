//! Every key of the configuration, once: its name, its kind and range, and what it means.

use std::time::Duration;

use grus_registry::config_key as key;
use grus_registry::configuration::Key;

use super::BrokerConfig;
use crate::topic_queue::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// All keys, grouped by section.
#[rustfmt::skip]
pub(super) static KEYS: &[Key<BrokerConfig>] = &[
    key!("broker.data", folder, "Data folder; made if it is not there.", data),
    key!("broker.core_arbiters", count(0..=1_024),
        "Threads that serve shards and connections; 0 = one less than the processors, at least 1.",
        core_arbiters),
    key!("broker.shards_per_durability", count(0..=1_024),
        "Shards of each durability level; 0 = one for each core arbiter. Shards on disk are\nalways served, so a smaller number has no effect.",
        shards_per_durability),
    key!("broker.shutdown_timeout", duration(ms(100)..=minutes(60)),
        "Longest time a stop may take before what is left is dropped. Half of it at most is for giving away\nwhat is led of shards of several brokers.",
        shutdown_timeout),
    key!("broker.return_leadership", flag,
        "Whether this broker gives shards of several brokers that it leads back to the first of their\nbrokers, once that has kept up for ten seconds; false = they stay until their leader stops.",
        return_leadership),

    key!("listen.address", address, "Where clients connect; port 0 = any free one.", listen_address),
    key!("listen.advertised_address", address_or_none,
        "What clients are told to connect to; empty = listen.address.", advertised_address),
    key!("listen.connections_max", count(1..=1_000_000), "Most sockets at once; more are closed at once.", connections_max),

    key!("http.address", address_or_off, "Where the page and its API are served; \"off\" = nowhere.", http_address),
    key!("http.hosts", list,
        "Names that a request's Host may bear besides localhost, 127.0.0.1, [::1] and http.address.",
        http_hosts),

    key!("registry.addresses", list,
        "Registries that are processes of their own, host:port, tried in turn; none = the broker has\na registry in itself.",
        registry_addresses),

    key!("connection.idle_timeout", duration(ms(1_000)..=minutes(24 * 60)),
        "A connection without a whole request for this long is closed.", connection.idle_timeout),
    key!("connection.session_timeout", duration(ms(1_000)..=minutes(24 * 60)),
        "A client that has sent no whole request for this long is not listed any more.",
        connection.session_timeout),
    key!("connection.hello_timeout", duration(ms(100)..=minutes(60)),
        "A connection whose first request is not there after this long is closed.", connection.hello_timeout),
    key!("connection.frame_timeout", duration(ms(100)..=minutes(60)),
        "A connection on which a frame has begun, and neither ends nor comes on by 64 KiB for this long, is\nclosed.",
        connection.frame_timeout),
    key!("connection.write_timeout", duration(ms(100)..=minutes(60)),
        "A connection whose peer takes no byte of its replies for this long is closed.",
        connection.write_timeout),
    key!("connection.inflight_requests_max", count(1..=65_536),
        "Requests of a connection not answered yet, after which no more are read.",
        connection.inflight_requests_max),
    key!("connection.inflight_bytes_max", bytes_u32(64 << 10..=1 << 30),
        "Bytes of requests of a connection not answered yet, after which no more are read.",
        connection.inflight_bytes_max),
    key!("connection.output_bytes_max", bytes_u32(64 << 10..=1 << 30),
        "Bytes of replies waiting for a peer, after which none of its requests are read.",
        connection.output_bytes_max),

    key!("limits.frame_bytes_max", bytes_u32(512 << 10..=1 << 30), "Most bytes of a frame.", limits.frame_bytes_max),
    key!("limits.batch_bytes_max", bytes_u32(64 << 10..=512 << 20), "Most bytes of a record batch.", limits.batch_bytes_max),
    key!("limits.batch_records_max", count(1..=65_536), "Most records of a batch.", limits.batch_records_max),
    key!("limits.message_bytes_max", bytes_u32(1..=256 << 20), "Most bytes of one message's body.", limits.message_bytes_max),
    key!("limits.headers_bytes_max", bytes_u32(0..=1 << 20),
        "Most bytes of one message's headers, names and values.", limits.headers_bytes_max),
    key!("limits.queues_max", count(1..=65_536), "Most queues of a topic.", limits.queues_max),

    key!("topic.auto_create", flag, "Whether the first message to an unknown topic makes it.", topic.auto_create),
    key!("topic.queues", count(1..=65_536), "Queues of a topic that was not told otherwise.", topic.queues),
    key!("topic.durability", durability,
        "What an acknowledgement promises, for topics not told otherwise. \"persisted\": on disk.\n\"replicated\": in memory of a majority, on disk soon.",
        topic.durability),
    key!("topic.retention_time", duration,
        "Age at which messages go, for topics not told otherwise; 0 = never.", topic.retention_time),
    key!("topic.retention_bytes", bytes_u64,
        "Bytes of a queue above which its oldest messages go, for topics not told otherwise; 0 = no cap.",
        topic.retention_bytes),

    key!("log.segment_bytes", bytes_u64(1 << 20..=1 << 31), "Bytes of a log segment.", log.segment_bytes),
    key!("log.first_segment_bytes", bytes_u64(1 << 20..=1 << 31),
        "Bytes of the first segments of an empty shard.", log.first_segment_bytes),
    key!("log.accept_loss", flag,
        "Whether damaged entries that a start has to apply again are given up for good. Only for the one\nstart after \"... is damaged\", when no copy of the file is left: GRUS__LOG__ACCEPT_LOSS=true.",
        log.accept_loss),
    key!("log.find_index", flag,
        "Whether messages can be found by id and by key. Costs 8 bytes of disk for each id, and 8 for each\nkey of a batch; the same in memory for what is newer than the last full segment.",
        log.find_index),

    key!("fetch.bytes_max", bytes_u32(1 << 10..=FETCH_BYTES_MAX),
        "Most bytes of one fetch's answer; one batch is always given, however large.", fetch.bytes_max),
    key!("fetch.wait_max", duration(ms(0)..=ms(FETCH_WAIT_MS_MAX.into())), "Longest time a fetch may wait for news.", fetch.wait_max),

    key!("logging.filter", text,
        "Which log lines are written: a level, or target=level pairs separated by commas; the targets\nof the broker's own lines begin with grus.", logging_filter),
];
