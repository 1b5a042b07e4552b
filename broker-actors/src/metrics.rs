//! The counters of a broker, in a registry of its own: several brokers fit in one process.
//!
//! What happens often is counted where it happens, one atomic addition per batch or frame. What
//! can be asked for (topics, shards, actors) is asked when `/metrics` is read, see [`moment`]. docs/OPERATING.md lists every name; a test compares.

pub mod delays;
pub mod expired;
pub mod groups;
pub mod moment;
pub mod retained;
pub mod schedules;
pub mod shards;

use std::sync::Arc;

use grus_protocol::error::ErrorCode;
use grus_protocol::opcode::Opcode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::connection::Closed;
use crate::connection::replies::Given;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpcodeLabel {
    opcode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabel {
    mode: &'static str,
}

/// How messages come to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It asked for them.
    Fetch,
    /// By a subscription.
    Push,
}

/// The counters of the connection side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EdgeMetrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    connections: Gauge,
    opened: Counter,
    refused: Counter,
    closed: Family<ReasonLabel, Counter>,
    requests: Vec<(Opcode, Counter)>,
    errors: Family<CodeLabel, Counter>,
    frames_refused: Counter,
    bytes_read: Counter,
    bytes_written: Counter,
    batches: Counter,
    records: Counter,
    batch_bytes: Counter,
    fetched_batches: Counter,
    fetched_bytes: Counter,
    expired_records: Counter,
    fetched: Delivered,
    pushed: Delivered,
}

/// What left by one mode.
#[derive(Debug, Default)]
struct Delivered {
    messages: Counter,
    bytes: Counter,
}

impl EdgeMetrics {
    /// Registers the counters.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let requests = Family::<OpcodeLabel, Counter>::default();
        let by_opcode = Opcode::ALL.iter().map(|opcode| {
            let label = OpcodeLabel { opcode: opcode.name() };
            (*opcode, requests.get_or_create(&label).clone())
        });
        let messages = Family::<ModeLabel, Counter>::default();
        let bytes = Family::<ModeLabel, Counter>::default();
        let delivered = |mode| Delivered {
            messages: messages.get_or_create(&ModeLabel { mode }).clone(),
            bytes: bytes.get_or_create(&ModeLabel { mode }).clone(),
        };
        let counters = Counters {
            requests: by_opcode.collect(),
            fetched: delivered("fetch"),
            pushed: delivered("push"),
            ..Counters::default()
        };
        let mut count = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        count("grus_connections_opened", "Connections accepted", &counters.opened);
        count("grus_connections_refused", "Connections above the cap", &counters.refused);
        count("grus_frames_refused", "Frames that could not be read", &counters.frames_refused);
        count("grus_read_bytes", "Bytes read from clients", &counters.bytes_read);
        count("grus_written_bytes", "Bytes written to clients", &counters.bytes_written);
        count("grus_produce_batches", "Batches that passed the edge", &counters.batches);
        count("grus_produce_records", "Records that passed the edge", &counters.records);
        count("grus_produce_bytes", "Bytes of batches that passed the edge", &counters.batch_bytes);
        count("grus_fetch_batches", "Batches written to readers", &counters.fetched_batches);
        count("grus_fetch_bytes", "Bytes of batches written to readers", &counters.fetched_bytes);
        let (name, help) =
            ("grus_fetch_expired_records", "Records left out, their time being over");
        count(name, help, &counters.expired_records);
        registry.register("grus_connections", "Connections open", counters.connections.clone());
        registry.register(
            "grus_connections_closed",
            "Connections closed, by reason",
            counters.closed.clone(),
        );
        let help = "Messages of batches written to readers, by how they come";
        registry.register("grus_delivered_messages", help, messages);
        let help = "Bytes of batches written to readers, by how they come";
        registry.register("grus_delivered_bytes", help, bytes);
        registry.register("grus_requests", "Requests read, by opcode", requests);
        registry.register(
            "grus_request_errors",
            "Error replies written, by code",
            counters.errors.clone(),
        );
        Self(Arc::new(counters))
    }

    /// A connection was accepted.
    pub fn opened(&self) {
        self.0.opened.inc();
        self.0.connections.inc();
    }

    /// A connection was closed.
    pub fn closed(&self, reason: Closed) {
        self.0.connections.dec();
        self.0.closed.get_or_create(&ReasonLabel { reason: reason.label() }).inc();
    }

    /// Connections that ended for this reason.
    pub fn closed_by(&self, reason: Closed) -> u64 {
        self.0.closed.get_or_create(&ReasonLabel { reason: reason.label() }).get()
    }

    /// A connection was one too many.
    pub fn refused(&self) {
        self.0.refused.inc();
    }

    /// Connections open now.
    pub fn connections(&self) -> i64 {
        self.0.connections.get()
    }

    /// A request was read.
    pub fn request(&self, opcode: Opcode) {
        if let Some((_, counter)) = self.0.requests.iter().find(|(known, _)| *known == opcode) {
            counter.inc();
        }
    }

    /// An error reply is written.
    pub fn error_sent(&self, code: ErrorCode) {
        self.0.errors.get_or_create(&CodeLabel { code: code.to_string() }).inc();
    }

    /// A frame could not be read.
    pub fn frame_refused(&self) {
        self.0.frames_refused.inc();
    }

    /// Bytes came.
    pub fn bytes_read(&self, bytes: u64) {
        self.0.bytes_read.inc_by(bytes);
    }

    /// Bytes left.
    pub fn bytes_written(&self, bytes: u64) {
        self.0.bytes_written.inc_by(bytes);
    }

    /// Batches are written to a reader.
    pub fn batches_given(&self, given: Given) {
        self.0.fetched_batches.inc_by(given.batches);
        self.0.fetched_bytes.inc_by(given.bytes);
        self.0.expired_records.inc_by(given.expired_records);
        let delivered = match given.by {
            Delivery::Fetch => &self.0.fetched,
            Delivery::Push => &self.0.pushed,
        };
        delivered.messages.inc_by(given.records);
        delivered.bytes.inc_by(given.bytes);
    }

    /// All bytes of batches taken so far.
    #[must_use]
    pub fn produced_bytes(&self) -> u64 {
        self.0.batch_bytes.get()
    }

    /// A batch passed the checks of the edge.
    pub fn batch_taken(&self, records: u32, bytes: u32) {
        self.0.batches.inc();
        self.0.records.inc_by(u64::from(records));
        self.0.batch_bytes.inc_by(u64::from(bytes));
    }
}
