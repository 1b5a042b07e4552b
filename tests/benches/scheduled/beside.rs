//! What others wait while a backlog of overdue messages goes out.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use grus_tests::broker::Home;
use grus_tests::calm::{Waits, behave, wait_until};
use grus_tests::watch::{Watch, wall_ms};

use crate::fill::{Load, fill};
use crate::memory::metric;
use crate::options::Options;
use crate::{TOPIC, create};

/// Messages that are scheduled a second at least, to guess how long that takes.
const SCHEDULED_PER_SECOND_MIN: u64 = 15_000;
/// The topic of those who wait.
const CALM: &str = "calm";

pub(crate) fn run(options: &Options) {
    let load = Load::of(options, 1_000_000, "100", 1);
    let seconds = Duration::from_secs(options.number("seconds", 10));
    println!("{load:?}; microseconds");
    let home = Home::new();
    let broker = home.start();
    create(&home, options, TOPIC, &[]);
    create(&home, options, CALM, &[]);
    behave(home.listen, CALM, |due| due < Duration::from_secs(2)); // warm
    let mut alone = behave(home.listen, CALM, |due| due < seconds);
    print("alone", &mut alone, None);
    let base = (alone.0.at(990), alone.1.at(990));

    let watch = Watch::start();
    let lead = options.number("lead", 5 + load.messages / SCHEDULED_PER_SECOND_MIN);
    let due_ms = wall_ms() + lead * 1_000;
    // Due within a second, so that no two are due together for want of another time.
    let spread = |number| Some(due_ms + number * 1_000 / load.messages);
    let filled = fill(home.listen, &load, spread);
    println!("scheduled in {:.2?}", filled.time);
    assert!(wall_ms() < due_ms, "scheduling took too long: a longer --lead");
    broker.kill();
    wait_until(&watch, Duration::from_secs(lead + 2));
    let _broker = home.start();
    let watch = Watch::start();
    let is_out = AtomicBool::new(false);
    let (mut beside, out_after) = thread::scope(|scope| {
        // Asked by another thread: its waits are not those of the sender.
        let asking = scope.spawn(|| {
            while metric(home.http, "grus_delay_released_total") < load.messages {
                thread::park_timeout(Duration::from_millis(500));
            }
            is_out.store(true, Relaxed);
            watch.elapsed()
        });
        let beside = behave(home.listen, CALM, |_| !is_out.load(Relaxed));
        (beside, asking.join().expect("it only asks"))
    });
    println!("all {} were out {out_after:.2?} after the ready line", load.messages);
    print("beside", &mut beside, Some(base));
    let mut after = behave(home.listen, CALM, |due| due < seconds);
    print("after", &mut after, Some(base));
}

fn print(name: &str, (sends, reads): &mut (Waits, Waits), base: Option<(u64, u64)>) {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for a person")]
    let ratio = |now: u64, before: u64| now as f64 / before.max(1) as f64;
    let against = base.map_or(String::new(), |(sent, read)| {
        format!(", p99 {:.1}x and {:.1}x", ratio(sends.at(990), sent), ratio(reads.at(990), read))
    });
    println!(
        "{name}: send p50 {} p99 {} max {}, read p50 {} p99 {} max {} ({} of each){against}",
        sends.at(500),
        sends.at(990),
        sends.at(1_000),
        reads.at(500),
        reads.at(990),
        reads.at(1_000),
        sends.count()
    );
}
