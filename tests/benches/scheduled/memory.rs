//! What very many scheduled messages cost: memory, checkpoints, a restart.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use grus_tests::broker::{Broker, Home};
use grus_tests::http::get;
use grus_tests::usage;
use grus_tests::watch::{Watch, wall_ms};
use rustix::process::Signal;

use crate::fill::{Load, fill};
use crate::options::Options;
use crate::{TOPIC, create};

/// Due times are spread over this.
const SPREAD_MS: u64 = 30 * 86_400_000;

pub(crate) fn run(options: &Options) {
    let load = Load::of(options, 10_000_000, "1KiB", 1);
    println!("{load:?}");
    let home = Home::new();
    let broker = home.start();
    create(&home, options, TOPIC, &[]);
    memory("empty", &broker);
    let begin_ms = wall_ms() + options.number("lead", 86_400) * 1_000;
    let checkpoints = Checkpoints::watch(&home.data);
    let due = |number: u64| Some(begin_ms + scattered(number) % SPREAD_MS);
    let filled = fill(home.listen, &load, due);
    let written = checkpoints.finish();
    println!("scheduled in {:.2?}: {} MB of batches", filled.time, filled.bytes / 1_000_000);
    println!("{} wait", waiting(&home));
    memory("full", &broker);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for a person")]
    let share = 100.0 * written.bytes as f64 / filled.bytes as f64;
    println!(
        "{} checkpoints of {} MB in all (each holds its content twice): {share:.2} % of the batches",
        written.files,
        written.bytes / 1_000_000
    );
    broker.kill();
    let broker = restarted(&home, "kill -9");
    broker.end(Signal::TERM);
    let broker = restarted(&home, "an orderly end");
    println!("{} wait", waiting(&home));
    drop(broker);
}

/// A number that has nothing to do with those of its neighbours (SplitMix64): due times in no order, and
/// with no pattern that a column could make use of.
const fn scattered(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn waiting(home: &Home) -> String {
    home.grus(&["delay", "list", TOPIC, "--count"]).ok().text().trim().to_owned()
}

fn restarted(home: &Home, after: &str) -> Broker {
    let watch = Watch::start();
    let broker = home.start();
    println!("ready {:.2?} after its start behind {after}", watch.elapsed());
    memory("restarted", &broker);
    broker
}

fn memory(when: &str, broker: &Broker) {
    let kib = usage::anonymous_memory_kib(broker.process.pid());
    println!("{when}: {} MB of anonymous memory", kib * 1_024 / 1_000_000);
}

/// The sum of a metric over all shards; 0 if there is none.
pub(crate) fn metric(http: SocketAddr, name: &str) -> u64 {
    let (_, text) = get(http, "/metrics").expect("an answer");
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let of_it = series.strip_prefix(name)?;
        (of_it.is_empty() || of_it.starts_with('{')).then(|| value.parse::<f64>().ok())?
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let sum = values.sum::<f64>() as u64;
    sum
}

/// Looks at the folder again and again for checkpoints: older ones go soon.
struct Checkpoints {
    is_over: Arc<AtomicBool>,
    watcher: JoinHandle<BTreeMap<PathBuf, u64>>,
}

struct Written {
    files: usize,
    bytes: u64,
}

impl Checkpoints {
    fn watch(data: &Path) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, data) = (Arc::clone(&is_over), data.to_owned());
        let watcher = thread::spawn(move || {
            let mut seen = BTreeMap::new();
            while !over.load(Relaxed) {
                look(&data, &mut seen);
                thread::park_timeout(Duration::from_millis(20));
            }
            look(&data, &mut seen);
            seen
        });
        Self { is_over, watcher }
    }

    fn finish(self) -> Written {
        self.is_over.store(true, Relaxed);
        let seen = self.watcher.join().expect("it only looks");
        Written { files: seen.len(), bytes: seen.values().sum() }
    }
}

fn look(folder: &Path, seen: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
        let is_one = entry.file_name().to_string_lossy().starts_with("checkpoint-");
        if about.is_dir() {
            look(&path, seen);
        } else if is_one {
            let bytes = seen.entry(path).or_default();
            *bytes = about.len().max(*bytes);
        }
    }
}
