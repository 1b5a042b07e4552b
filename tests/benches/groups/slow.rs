//! S23: a slow member before a large backlog.

use std::time::Duration;

use grus_client::Outcome;
use grus_tests::broker::Home;
use grus_tests::calm::wait_until;
use grus_tests::usage::anonymous_memory_kib;
use grus_tests::watch::Watch;

use crate::options::Options;
use crate::spread::judge;
use crate::{TOPIC, block_on, connect, create, fill, member};

/// Messages that have to wait.
const BACKLOG_MIN: u64 = 1_000_000;
/// What either may grow by once it runs, in KiB.
const GROWTH_KIB_MAX: u64 = 2 * 1_024;
/// When it runs.
const SETTLED: Duration = Duration::from_secs(10);
const SHOWN: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &Options) {
    let (time, limit) = (options.text("fill", "4s"), options.number("seconds", 300));
    let durability = options.text("durability", "persisted");
    let limit = Duration::from_secs(limit).max(SETTLED + Duration::from_secs(5));
    let home = Home::new();
    let broker = home.start();
    create(&home, &durability, TOPIC, 1);
    let mut backlog = 0;
    while backlog < BACKLOG_MIN {
        backlog += fill(&home, "1KiB", &time);
    }
    println!("{backlog} messages of 1 KiB, {durability}, one a second for {} s", limit.as_secs());
    let both = || [broker.process.pid(), std::process::id()].map(anonymous_memory_kib);
    block_on(async {
        let client = connect(&home).await;
        let mut consumer = client.consumer(member("g", TOPIC)).expect("a consumer");
        let watch = Watch::start();
        let (mut handled, mut before, mut most) = (0_u64, None, [0; 2]);
        let mut show = SETTLED;
        while watch.elapsed() < limit {
            let handed = consumer.next().await.expect("it goes on");
            handled += 1;
            wait_until(&watch, Duration::from_secs(handled)); // the handler's work
            handed.answer(Outcome::Ack);
            if watch.elapsed() >= show {
                let now = both();
                let first = *before.get_or_insert(now);
                most = [0, 1].map(|at| most[at].max(now[at].saturating_sub(first[at])));
                println!(
                    "after {} s: broker {} KiB, member {} KiB",
                    watch.elapsed().as_secs(),
                    now[0],
                    now[1]
                );
                show += SHOWN.min(limit / 10);
            }
        }
        println!(
            "{handled} handled; grew by {} KiB (broker) and {} KiB (member)",
            most[0], most[1]
        );
        judge("each grows less than 2 MiB", most.into_iter().all(|grown| grown < GROWTH_KIB_MAX));
        let progress = client.group_progress(&"g".try_into().expect("a name")).await;
        let gone: u64 = progress.expect("told").items.iter().map(|one| one.lost + one.dead).sum();
        judge("nothing is dropped", gone == 0);
        consumer.stop().await;
        client.close().await;
    });
}
