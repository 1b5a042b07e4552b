//! First measurements, as docs/BENCHMARKS.md shows them. Builds nothing: `GRUS_BIN` names the broker.
//!
//! ```sh
//! cargo build --release --bin grus
//! GRUS_BIN=target/release/grus cargo run --release -p grus-tests --example measure -- [RUNS] [SECONDS]
//! ```

mod load;

use std::time::Duration;

use grus_tests::broker::Home;
use grus_tests::usage;
use grus_tests::watch::Watch;
use load::Load;

/// Values of several runs, in order.
struct Spread(Vec<f64>);

impl Spread {
    fn of(runs: usize, mut measure: impl FnMut() -> f64) -> Self {
        let mut values: Vec<f64> = (0..runs).map(|_| measure()).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// `median (least-greatest)`
    fn show(&self) -> String {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        format!("{:.1} ({least:.1}-{most:.1})", self.0[self.0.len() / 2])
    }
}

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<usize>().expect("a number"));
    let runs = words.next().unwrap_or(5);
    let seconds = words.next().unwrap_or(3);
    let time = Duration::from_secs(seconds as u64);
    throughput(runs, time);
    latency(runs);
    start_and_memory(runs);
}

fn throughput(runs: usize, time: Duration) {
    println!(
        "| what | durability | connections | MB/s | thousand messages/s |\n|---|---|---|---|---|"
    );
    for durability in ["persisted", "replicated"] {
        for body_bytes in [1_024, 100] {
            for connections in [1, 8] {
                let load = Load { durability, body_bytes, connections };
                let mut consumed = Vec::new();
                let produced = Spread::of(runs, || {
                    let home = Home::new();
                    let _broker = home.start();
                    load.create(&home);
                    let (produced, messages) = load.produce(&home, time);
                    consumed.push(load.consume(&home, messages));
                    produced
                });
                consumed.sort_by(f64::total_cmp);
                for (what, rate) in [("produce", produced), ("consume", Spread(consumed))] {
                    let scaled =
                        |factor: f64| Spread(rate.0.iter().map(|value| value * factor).collect());
                    let bytes = f64::from(u32::try_from(body_bytes).expect("small"));
                    println!(
                        "| {what} {body_bytes} B | {durability} | {connections} | {} | {} |",
                        scaled(bytes / 1e6).show(),
                        scaled(1e-3).show()
                    );
                }
            }
        }
    }
}

fn latency(runs: usize) {
    println!("\n| durability | p50 µs | p99 µs | p99.9 µs |\n|---|---|---|---|");
    for durability in ["persisted", "replicated"] {
        let load = Load { durability, body_bytes: 1_024, connections: 1 };
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..runs {
            let home = Home::new();
            let _broker = home.start();
            load.create(&home);
            let took = load.one_by_one(&home, 3_000);
            for (column, per_mille) in columns.iter_mut().zip([500, 990, 999]) {
                column.push(
                    took[(took.len() * per_mille / 1_000).min(took.len() - 1)].as_secs_f64() * 1e6,
                );
            }
        }
        let shown = columns.map(|mut column| {
            column.sort_by(f64::total_cmp);
            Spread(column).show()
        });
        println!("| {durability} | {} |", shown.join(" | "));
    }
}

fn start_and_memory(runs: usize) {
    const LARGE_BYTES: u64 = 4 << 30;
    println!("\n| what | value |\n|---|---|");
    let home = Home::new();
    home.start().kill();
    let start = |home: &Home| {
        let watch = Watch::start();
        let broker = home.start();
        let took = watch.elapsed().as_secs_f64() * 1e3;
        broker.kill();
        took
    };
    println!("| start after kill -9, empty, ms | {} |", Spread::of(runs, || start(&home)).show());
    let broker = home.start();
    println!("| resident memory idle, MiB | {} |", usage::memory_kib(broker.process.pid()) / 1_024);
    let load = Load { durability: "persisted", body_bytes: 1_024, connections: 1 };
    load.create(&home);
    load.produce_bytes(&home, LARGE_BYTES);
    let (resident, anonymous) = (
        usage::memory_kib(broker.process.pid()),
        usage::anonymous_memory_kib(broker.process.pid()),
    );
    println!(
        "| resident memory after 4 GiB, MiB (without the mapped log) | {} ({}) |",
        resident / 1_024,
        anonymous / 1_024
    );
    broker.kill();
    println!("| start after kill -9, 4 GiB, ms | {} |", Spread::of(runs, || start(&home)).show());
}
