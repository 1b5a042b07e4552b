//! `grus bench suite`: all figures in one run, several times over, on a broker of its own.
//!
//! Each run has a new data folder: limits of the machine, start and memory of an empty broker, the
//! loads, latency, memory and starts with what they wrote, and 10,000 queues. Rates are given as
//! parts of what loopback TCP carried in the same run.

pub mod figures;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grus_client::ReadMode;
use grus_protocol::ids::Durability;
use grus_protocol::message::TopicSettings;
use serde_json::{Value, json};

use super::limits::{self, Limits};
use super::load::{self, Load, Rate};
use super::memory;
use super::stopwatch::Stopwatch;
use crate::failure::Failure;
use crate::own_broker::{Broker, Place, new_folder};
use figures::{Bar, Figures, rounded};

/// Queues of the topics that loads go to.
const QUEUES: u32 = 8;
/// Queues of a broker that has many, and of one that has few.
const MANY_QUEUES: [(u32, u32); 2] = [(10, 1), (1_000, 10)];
/// Messages a second into few queues and into many.
const MANY_QUEUES_RATE: u64 = 20_000;
/// How long each limit of the machine is measured.
const LIMIT_TIME: Duration = Duration::from_secs(1);
const MEGABYTE: f64 = 1e6;
/// How long a load waits for the suite's own broker, which has said that it is ready.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// What may be left on the disk of a topic that is deleted: each shard keeps its last segments.
const LEFT_MAX: u64 = 2 << 30;
/// How long the suite waits for the segments of a deleted topic to go; it goes on with them then.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How the suite is run.
#[derive(Debug, Clone, clap::Args)]
pub struct SuiteArgs {
    /// How many times everything is measured
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub runs: usize,
    /// How long each load goes on
    #[arg(long, value_parser = crate::units::duration, default_value = "10s", value_name = "TIME")]
    pub time: Duration,
    /// Folder in which the broker's data folder is made: on the disk that is meant
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub folder: PathBuf,
    /// Memory to touch before each load and each limit, so that the pages it writes are there: where a
    /// hypervisor takes back what is free, the first touch of a page costs many times its writing
    #[arg(long, value_parser = crate::units::bytes, default_value = "0", value_name = "SIZE")]
    pub warm_memory: u64,
    /// Print the table in Markdown instead of JSON
    #[arg(long)]
    pub table: bool,
}

/// A load whose rate is a figure, with the parts of loopback that are asked of it.
struct Case {
    body_bytes: usize,
    durability: Durability,
    connections: usize,
    produced: Bar,
    consumed: Bar,
}

const fn case(
    body_bytes: usize,
    durability: Durability,
    connections: usize,
    produced: Bar,
    consumed: Bar,
) -> Case {
    Case { body_bytes, durability, connections, produced, consumed }
}

/// The loads, in order. Of 1 KiB a bar is a part of loopback, of 100 B millions of messages a second.
const CASES: [Case; 8] = {
    use Bar::{AtLeast, None};
    use Durability::{Persisted, Replicated};
    [
        case(1024, Replicated, 1, AtLeast(0.22, 0.32), AtLeast(0.32, 0.45)),
        case(1024, Replicated, 8, AtLeast(0.34, 0.50), AtLeast(0.60, 0.80)),
        case(1024, Persisted, 1, AtLeast(0.15, 0.25), None),
        case(1024, Persisted, 8, AtLeast(0.22, 0.35), None),
        case(100, Replicated, 1, None, None),
        case(100, Replicated, 8, AtLeast(3.5, 6.0), AtLeast(6.0, 10.0)),
        case(100, Persisted, 1, None, None),
        case(100, Persisted, 8, None, None),
    ]
};

/// Measures everything, telling each figure on standard error as it comes.
///
/// # Errors
/// Told: what kept it from being measured.
pub async fn run(args: &SuiteArgs) -> Result<Value, Failure> {
    if args.runs == 0 {
        return Err(Failure::Told("--runs is at least 1".to_owned()));
    }
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: what it measures says nothing about a release build");
    }
    memory::check(args.warm_memory)?;
    let mut suite =
        Suite { time: args.time, warm_memory: args.warm_memory, figures: Figures::default() };
    for number in 1..=args.runs {
        eprintln!("run {number} of {}", args.runs);
        let folder = new_folder(Some(&args.folder), "grus-suite")?;
        let measured = suite.run(&folder).await;
        let removed = fs::remove_dir_all(&folder);
        measured?;
        removed.map_err(|error| Failure::because(folder.display(), error))?;
    }
    if args.table {
        return Ok(Value::String(suite.figures.table()));
    }
    Ok(json!({ "suite": suite.figures, "runs": args.runs, "seconds": args.time.as_secs_f64() }))
}

struct Suite {
    time: Duration,
    warm_memory: u64,
    figures: Figures,
}

impl Suite {
    fn add(&mut self, name: &str, unit: &'static str, bar: Bar, value: f64) {
        eprintln!("{name}: {} {unit}", rounded(value));
        self.figures.add(name, unit, bar, value);
    }

    /// What was written before is on the disk, so that no figure waits for the load before it: a sync behind
    /// 25 GB that the kernel had still to write took 190 ms. Then memory is touched.
    fn begin_afresh(&self) {
        rustix::fs::sync();
        memory::touch(self.warm_memory);
    }

    async fn run(&mut self, folder: &Path) -> Result<(), Failure> {
        self.begin_afresh();
        let limits = limits::measure(folder, LIMIT_TIME)?;
        self.limits(&limits);
        let (place, broker) = self.start_empty(folder).await?;
        let half = self.loads(&place, &limits).await?;
        self.latencies(&place, &limits, half).await?;
        self.restarts(&place, broker).await?;
        fs::remove_dir_all(&place.data)
            .map_err(|error| Failure::because(place.data.display(), error))?;
        self.many_queues(&place).await
    }

    fn limits(&mut self, limits: &Limits) {
        let none = Bar::None;
        self.add("limit: loopback TCP, one connection", "MB/s", none, limits.loopback_mb_per_s);
        self.add("limit: round trip of 64 B", "µs", none, limits.round_trip_us_p50);
        for write in &limits.write_and_sync {
            let name = format!("limit: write and fdatasync of {} KiB", write.bytes / 1024);
            self.add(&name, "µs", none, write.us_p50);
        }
        self.add("limit: a new file, written", "MB/s", none, limits.new_file.written_mb_per_s);
        let name = "limit: a new file, written and synced by the MiB";
        self.add(name, "MB/s", none, limits.new_file.synced_mb_per_s);
    }

    /// Start, memory and disk of a broker that has nothing.
    async fn start_empty(&mut self, folder: &Path) -> Result<(Place, Broker), Failure> {
        let watch = Stopwatch::start();
        let (place, broker) = Broker::start_in(folder).await?;
        self.add("start, empty", "ms", Bar::AtMost(120.0, 45.0), milliseconds(watch));
        tokio::time::sleep(Duration::from_secs(1)).await; // what a start needed is given back
        self.memory("anonymous memory, idle", Bar::AtMost(20.0, 11.0), &broker)?;
        let disk = disk_bytes(&place.data)? as f64 / MEGABYTE;
        self.add("disk of an empty broker", "MB", Bar::AtMost(40.0, 40.0), disk);
        Ok((place, broker))
    }

    /// The produce and consume figures; half of what 1 KiB `persisted` on eight connections made,
    /// in messages a second.
    async fn loads(&mut self, place: &Place, limits: &Limits) -> Result<u64, Failure> {
        let mut half = 0;
        for (number, case) in CASES.iter().enumerate() {
            let topic = format!("load-{number}");
            create(place, &topic, QUEUES, case.durability).await?;
            let load = self.load(place, &topic, case);
            self.begin_afresh();
            let produced = load::produce(&load).await?;
            let what = case.described();
            let bar = case.bar(limits);
            self.rate("produce", &what, case.body_bytes, bar, &produced, limits);
            if let Some(times) = produced.batch_ms {
                self.add(&format!("produce {what}, p99 of a batch"), "ms", Bar::None, times.p99);
            }
            if (case.body_bytes, case.durability, case.connections)
                == (1024, Durability::Persisted, 8)
            {
                half = whole(produced.messages_per_s / 2.0);
            }
            if case.durability == Durability::Replicated {
                // Eight lanes read as many each: what is left over by the division is not read.
                let read = load::consume(&load, produced.messages, ReadMode::Push).await?;
                self.rate("consume", &what, case.body_bytes, case.consumed, &read, limits);
            }
            if number + 1 < CASES.len() {
                delete(place, &topic).await?;
            }
        }
        Ok(half)
    }

    fn load(&self, place: &Place, topic: &str, case: &Case) -> Load {
        Load {
            bootstrap: vec![place.listen.to_string()],
            connect_wait_max: CONNECT_WAIT_MAX,
            topic: topic.to_owned(),
            body_bytes: case.body_bytes,
            batch: 1000,
            in_flight: 8,
            connections: case.connections,
            time: self.time,
            rate: None,
            delay: None,
        }
    }

    fn rate(
        &mut self,
        verb: &str,
        what: &str,
        body_bytes: usize,
        bar: Bar,
        rate: &Rate,
        limits: &Limits,
    ) {
        let millions = rate.messages_per_s / 1e6;
        if body_bytes < 1024 {
            return self.add(&format!("{verb} {what}"), "M/s", bar, millions);
        }
        self.add(&format!("{verb} {what}"), "MB/s", Bar::None, rate.mb_per_s);
        let part = rate.mb_per_s / limits.loopback_mb_per_s;
        self.add(&format!("{verb} {what}, of loopback"), "", bar, part);
    }

    async fn latencies(
        &mut self,
        place: &Place,
        limits: &Limits,
        half: u64,
    ) -> Result<(), Failure> {
        let sync_us = limits.write_and_sync.first().map_or(0.0, |write| write.us_p50);
        for (durability, syncs) in
            [(Durability::Replicated, [0.0, 0.0]), (Durability::Persisted, [2.0, 1.0])]
        {
            let topic = format!("latency-{}", level(durability));
            create(place, &topic, 1, durability).await?;
            let case = case(1024, durability, 1, Bar::None, Bar::None);
            let load =
                Load { time: self.time.min(LIMIT_TIME * 3), ..self.load(place, &topic, &case) };
            self.begin_afresh();
            let (_, times) = load::one_by_one(&load).await?;
            let trips = [2.5, 2.0].map(|trips| trips * limits.round_trip_us_p50);
            let bar = Bar::AtMost(trips[0] + syncs[0] * sync_us, trips[1] + syncs[1] * sync_us);
            let name = format!("one by one, {}", level(durability));
            self.add(&format!("{name}, p50"), "µs", bar, times.p50 * 1e3);
            self.add(&format!("{name}, p99"), "µs", Bar::None, times.p99 * 1e3);
        }
        create(place, "half", QUEUES, Durability::Persisted).await?;
        let case = case(1024, Durability::Persisted, 8, Bar::None, Bar::None);
        let paced = Load { rate: Some(half.max(1)), batch: 100, ..self.load(place, "half", &case) };
        self.begin_afresh();
        let every = Duration::from_secs(100).div_f64(half.max(1) as f64);
        let limit = limits::paced_p99_ms(&place.data, 100 * case.body_bytes, every, self.time)?;
        let name = "limit: p99 of a plain program that writes and syncs half of the most";
        self.add(name, "ms", Bar::None, limit);
        self.begin_afresh();
        let rate = load::produce(&paced).await?;
        if let Some(times) = rate.batch_ms {
            let name = "p99 of a batch of 100 at half of the most, 1 KiB persisted";
            self.add(name, "ms", Bar::AtMost(10.0, 3.0), times.p99);
        }
        Ok(())
    }

    /// Memory behind the loads, and starts with what the last of them wrote, once it is on the disk.
    async fn restarts(&mut self, place: &Place, broker: Broker) -> Result<(), Failure> {
        self.memory("anonymous memory after the loads", Bar::AtMost(100.0, 60.0), &broker)?;
        let log = disk_bytes(&place.data)? as f64 / 1e9;
        rustix::fs::sync();
        self.add("log on the disk then", "GB", Bar::None, log);
        broker.kill().await?;
        let watch = Stopwatch::start();
        let broker = Broker::start(place).await?;
        let bar = Bar::AtMost(500.0, 150.0);
        self.add("start with that log, after kill -9", "ms", bar, milliseconds(watch));
        broker.end().await?;
        let watch = Stopwatch::start();
        let broker = Broker::start(place).await?;
        self.add("start with that log, after a clean stop", "ms", bar, milliseconds(watch));
        broker.end().await
    }

    async fn many_queues(&mut self, place: &Place) -> Result<(), Failure> {
        let broker = Broker::start(place).await?;
        let mut p99 = Vec::new();
        for (queues, topics) in MANY_QUEUES {
            for number in 0..topics {
                create(place, &format!("q{queues}-{number}"), queues, Durability::Persisted)
                    .await?;
            }
            let case = case(1024, Durability::Persisted, 1, Bar::None, Bar::None);
            let topic = format!("q{queues}-0");
            let load =
                Load { rate: Some(MANY_QUEUES_RATE), batch: 10, ..self.load(place, &topic, &case) };
            self.begin_afresh();
            let rate = load::produce(&load).await?;
            p99.extend(rate.batch_ms.map(|times| times.p99));
        }
        self.memory("anonymous memory, 10,010 queues", Bar::AtMost(200.0, 100.0), &broker)?;
        if let [few, many] = p99[..] {
            let name = "p99 with 10,010 queues, of that with 10";
            self.add(name, "", Bar::AtMost(2.0, 1.3), many / few);
        }
        broker.end().await
    }

    fn memory(&mut self, name: &str, bar: Bar, broker: &Broker) -> Result<(), Failure> {
        let anonymous = anonymous_bytes(broker.pid())? as f64 / MEGABYTE;
        self.add(name, "MB", bar, anonymous);
        Ok(())
    }
}

impl Case {
    /// What is asked of producing: `persisted`, not more than 0.7 of what this machine writes and syncs.
    fn bar(&self, limits: &Limits) -> Bar {
        match self.produced {
            Bar::AtLeast(required, goal)
                if self.durability == Durability::Persisted && self.body_bytes >= 1024 =>
            {
                let synced = limits.new_file.synced_mb_per_s / limits.loopback_mb_per_s;
                Bar::AtLeast(required.min(0.7 * synced), goal)
            }
            bar => bar,
        }
    }

    fn described(&self) -> String {
        let size = if self.body_bytes == 1024 { "1 KiB" } else { "100 B" };
        format!("{size} {}, {} connection(s)", level(self.durability), self.connections)
    }
}

const fn level(durability: Durability) -> &'static str {
    match durability {
        Durability::Persisted => "persisted",
        Durability::Replicated => "replicated",
        Durability::Memory => "memory",
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is above 0 and far below 2^64"
)]
const fn whole(rate: f64) -> u64 {
    rate as u64
}

fn milliseconds(watch: Stopwatch) -> f64 {
    watch.elapsed().as_secs_f64() * 1e3
}

async fn create(
    place: &Place,
    topic: &str,
    queues: u32,
    durability: Durability,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::because(topic, error);
    let config = grus_client::ClientConfig::new([place.listen.to_string().as_str()]);
    let client = grus_client::Client::connect(config).await.map_err(|error| failed(&error))?;
    let settings = TopicSettings { queues, durability, ..TopicSettings::default() };
    client.create_topic(topic, settings).await.map_err(|error| failed(&error))?;
    client.close().await;
    Ok(())
}

/// Deletes a topic whose load is over, and waits until its segments are gone: all loads together write
/// more than 60 GB where the disk is fast, which a machine need not have.
async fn delete(place: &Place, topic: &str) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::because(topic, error);
    let config = grus_client::ClientConfig::new([place.listen.to_string().as_str()]);
    let client = grus_client::Client::connect(config).await.map_err(|error| failed(&error))?;
    client.delete_topic(topic).await.map_err(|error| failed(&error))?;
    client.close().await;
    let watch = Stopwatch::start();
    while disk_bytes(&place.data)? > LEFT_MAX && watch.elapsed() < PURGE_WAIT_MAX {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// What the process has that is not of a file, in bytes.
fn anonymous_bytes(pid: i32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| Failure::because(&path, error))?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.map(|kib| kib * 1024).ok_or_else(|| Failure::because(&path, "it names no RssAnon"))
}

/// What the files in a folder take on the disk, in bytes.
fn disk_bytes(folder: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error| Failure::because(folder.display(), error);
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let facts = entry.metadata().map_err(failed)?;
        bytes += if facts.is_dir() { disk_bytes(&entry.path())? } else { facts.blocks() * 512 };
    }
    Ok(bytes)
}
