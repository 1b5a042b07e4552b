//! What three copies cost, and what it costs to spread the same load over three brokers.
//!
//! `cargo bench -p grus-tests --bench replication [-- --rounds 5 --seconds 5 --connections 3 --size 1KiB
//! --level persisted|replicated]`
//!
//! In each round, for each durability level, in turn and each in new folders: one broker alone; three brokers that
//! each have a third of the queues (one replica); three brokers that all have all queues (three replicas). Each takes
//! `grus bench produce` into a topic of three queues, then `grus bench latency` (one message after the
//! other). A registry is there in all of them, all on this machine: three brokers share its processors and its disk with
//! the load. Medians, and the least and the most. `GRUS_BIN` names another binary: a release build. Not a test: a busy
//! machine changes its numbers.

#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]

use grus_tests::cluster::{Cluster, ends, grus_at, leaders};
use grus_tests::registry::RegistryHome;
use serde_json::Value;

const TOPIC: &str = "t";
/// One for each broker, and each of them led.
const QUEUES: u32 = 3;

/// A way to keep the queues.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    brokers: usize,
    replicas: &'static str,
}

const WAYS: [Way; 3] = [
    Way { name: "one broker", brokers: 1, replicas: "1" },
    Way { name: "three brokers, a third each", brokers: 3, replicas: "1" },
    Way { name: "three brokers, three replicas", brokers: 3, replicas: "3" },
];

/// What one round of one way came to.
#[derive(Default)]
struct Figures {
    megabytes_a_second: Vec<f64>,
    batch_p99_ms: Vec<f64>,
    single_p50_us: Vec<f64>,
    single_p99_us: Vec<f64>,
    /// The most that one broker has of the messages, of what all have; of ways that spread them.
    most: Vec<f64>,
}

fn word(name: &str) -> Option<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).cloned()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn measure(way: Way, level: &str, load: &[&str], figures: &mut Figures) {
    let registry = RegistryHome::new();
    let homes = (0..way.brokers).map(|_| registry.broker()).collect();
    let cluster = Cluster::of(registry, homes);
    let queues = QUEUES.to_string();
    let create = ["topic", "create", TOPIC, "--queues", &queues, "--durability", level];
    grus_at(&cluster.at(), &[&create[..], &["--replicas", way.replicas]].concat(), b"").ok();
    cluster.await_all_led(TOPIC);
    let run = |what: &str| {
        let words = [&["bench", what, TOPIC, "--json"], load].concat();
        grus_at(&cluster.at(), &words, b"").ok().json().remove(0)[what].clone()
    };
    let produced = run("produce");
    figures.megabytes_a_second.push(number(&produced, "mb_per_s"));
    figures.batch_p99_ms.push(number(&produced["batch_ms"], "p99"));
    let ends = ends(&cluster, TOPIC);
    let led = leaders(cluster.registry.listen, TOPIC);
    let of = |leader: &Option<u64>| -> u64 {
        let queues = led.iter().zip(&ends).filter(|(one, _)| *one == leader);
        queues.map(|(_, end)| end).sum()
    };
    let most = led.iter().map(of).max().unwrap_or(0);
    figures.most.push(most as f64 / ends.iter().sum::<u64>().max(1) as f64);
    let single = run("latency");
    figures.single_p50_us.push(number(&single["ms"], "p50") * 1e3);
    figures.single_p99_us.push(number(&single["ms"], "p99") * 1e3);
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median, and the least and the most.
fn shown(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.digits$} ({least:.digits$}-{most:.digits$})", median(values))
}

fn main() {
    let rounds: u32 = word("--rounds").map_or(5, |text| text.parse().expect("a number"));
    let seconds = word("--seconds").unwrap_or_else(|| "5".to_owned());
    let connections = word("--connections").unwrap_or_else(|| "3".to_owned());
    let size = word("--size").unwrap_or_else(|| "1KiB".to_owned());
    let time = format!("{seconds}s");
    let load = ["--size", &size, "--time", &time, "--connections", &connections];
    let only = word("--level");
    let levels = ["persisted", "replicated"];
    for level in levels.iter().filter(|level| only.as_deref().is_none_or(|one| one == **level)) {
        let mut all: Vec<Figures> = WAYS.iter().map(|_| Figures::default()).collect();
        for _ in 0..rounds {
            for (way, figures) in WAYS.iter().zip(&mut all) {
                measure(*way, level, &load, figures);
            }
        }
        println!("{level}, {size}, {connections} connections, {rounds} rounds of {time}\n");
        println!(
            "| | MB/s | of one broker | most on one | p99 of a batch, ms | one by one p50, µs | p99, µs |"
        );
        println!("|---|---|---|---|---|---|---|");
        let one = median(&all[0].megabytes_a_second);
        for (way, of) in WAYS.iter().zip(&all) {
            let part = median(&of.megabytes_a_second) / one;
            let row = [
                shown(&of.megabytes_a_second, 0),
                format!("{part:.2}"),
                shown(&of.most, 2),
                shown(&of.batch_p99_ms, 1),
                shown(&of.single_p50_us, 0),
                shown(&of.single_p99_us, 0),
            ];
            println!("| {} | {} |", way.name, row.join(" | "));
        }
        println!();
    }
}
