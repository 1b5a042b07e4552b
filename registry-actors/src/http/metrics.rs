//! What `/metrics` shows of any process: its build, age, disk and actors. Pure but for being told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use grus_mailbox::{ActorReport, KindReport, Process};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::error;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A gauge of whole numbers.
pub type Whole = Gauge<u64, AtomicU64>;
type Measured = Gauge<f64, AtomicU64>;
type Fraction = Counter<f64, AtomicU64>;

/// What is known of a process at one moment.
#[derive(Debug, Clone, Default)]
pub struct ProcessMoment {
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Bytes of the data folder's disk: free for the process, and in all; where known.
    pub disk: Option<(u64, u64)>,
    /// Actors by kind, with those that have stopped counted in.
    pub kinds: Vec<KindReport>,
    /// The actors that live.
    pub actors: Vec<ActorReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InboxLabels {
    kind: &'static str,
    message: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl ProcessMoment {
    /// The present of `process`, whose data is in the folder `data`.
    #[must_use]
    pub fn of(process: &Process, data: &Path) -> Self {
        Self {
            uptime_ms: process.clock.monotonic_ms(),
            disk: disk_of(data),
            kinds: process.census.totals(),
            actors: process.census.snapshot(),
        }
    }

    /// Registers all of it.
    pub fn register(&self, registry: &mut Registry) {
        self.register_process(registry);
        self.register_kinds(registry);
        self.register_inboxes(registry);
    }

    fn register_process(&self, registry: &mut Registry) {
        let build = Family::<BuildLabels, Whole>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("grus_build_info", "1, with the program's version", build);
        let uptime = Measured::default();
        uptime.set(seconds_of_ms(self.uptime_ms));
        registry.register("grus_uptime_seconds", "Time since the process started", uptime);
        if let Some((free, whole)) = self.disk {
            let help = "Bytes that the process can still use on the disk of its data folder";
            registry.register("grus_disk_free_bytes", help, gauge(free));
            registry.register("grus_disk_bytes", "Bytes of that disk", gauge(whole));
        }
    }

    fn register_kinds(&self, registry: &mut Registry) {
        let mut each = |name: &str, help: &str, value: fn(&KindReport) -> u64| {
            let family = Family::<KindLabel, Whole>::default();
            for kind in &self.kinds {
                family.get_or_create(&KindLabel { kind: kind.kind }).set(value(kind));
            }
            registry.register(name, help, family);
        };
        each("grus_actors", "Actors that live", |kind| kind.actors);
        each("grus_actor_queued", "Messages in the actors' mailboxes", |kind| kind.queued);
        let oldest = Family::<KindLabel, Measured>::default();
        let count = |value: fn(&KindReport) -> u64| {
            let family = Family::<KindLabel, Counter>::default();
            for kind in &self.kinds {
                family.get_or_create(&KindLabel { kind: kind.kind }).inc_by(value(kind));
            }
            family
        };
        let handled = count(|kind| kind.handled);
        let restarts = count(|kind| kind.restarts);
        let busy = Family::<KindLabel, Fraction>::default();
        for kind in &self.kinds {
            let label = KindLabel { kind: kind.kind };
            oldest.get_or_create(&label).set(seconds_of_ms(kind.oldest_waiting_ms));
            busy.get_or_create(&label).inc_by(seconds_of_us(kind.busy_us));
        }
        registry.register(
            "grus_actor_oldest_waiting_seconds",
            "Age of the oldest message not dealt with",
            oldest,
        );
        registry.register("grus_actor_handled", "Messages handled", handled);
        registry.register("grus_actor_restarts", "Actors rebuilt after a panic", restarts);
        registry.register("grus_actor_busy_seconds", "Time spent in handlers", busy);
    }

    fn register_inboxes(&self, registry: &mut Registry) {
        let mut sums: BTreeMap<(&'static str, &'static str), (u64, u64)> = BTreeMap::new();
        for actor in &self.actors {
            for inbox in &actor.inboxes {
                let sum = sums.entry((actor.kind, inbox.message)).or_default();
                sum.0 += u64::from(inbox.depth);
                sum.1 += u64::from(inbox.capacity);
            }
        }
        let mut each = |name: &str, help: &str, value: fn(&(u64, u64)) -> u64| {
            let family = Family::<InboxLabels, Whole>::default();
            for ((kind, message), sum) in &sums {
                family.get_or_create(&InboxLabels { kind, message }).set(value(sum));
            }
            registry.register(name, help, family);
        };
        let depth = "Credits of inboxes held by work that is not over: messages, or bytes";
        each("grus_inbox_depth", depth, |sum| sum.0);
        each("grus_inbox_capacity", "Credits of inboxes in all", |sum| sum.1);
    }
}

/// A gauge that shows `value`.
#[must_use]
pub fn gauge(value: u64) -> Whole {
    let gauge = Whole::default();
    gauge.set(value);
    gauge
}

/// Answers with all metrics of these registries, in the OpenMetrics text format.
#[must_use]
pub fn openmetrics(registries: &[&Registry]) -> HttpResponse {
    let mut text = String::new();
    let mut written = Ok(());
    for registry in registries {
        written = written.and_then(|()| encode_registry(&mut text, registry));
    }
    match written.and_then(|()| encode_eof(&mut text)) {
        Ok(()) => HttpResponse::Ok().content_type(OPENMETRICS).body(text),
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()),
    }
}

/// Bytes of a folder's disk: free for this process, and in all.
fn disk_of(folder: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds as seconds, for a graph")]
fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "microseconds as seconds, for a graph")]
fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}
