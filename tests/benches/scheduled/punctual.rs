//! How late messages are: so many each second, or very many within one.

use std::time::Duration;

use grus_client::{Client, ClientConfig, Reader, ReaderConfig, StartAt};
use grus_tests::broker::Home;
use grus_tests::calm::Waits;
use grus_tests::watch::{wall_ms, wall_us};

use crate::fill::{Load, fill};
use crate::options::Options;
use crate::{TOPIC, create};

/// Messages that are scheduled a second at least, to guess how long that takes.
const SCHEDULED_PER_SECOND_MIN: u64 = 15_000;

pub(crate) fn lateness(options: &Options) {
    let (rate, seconds) = (options.number("rate", 10_000), options.number("seconds", 20));
    let load = Load::of(options, rate * seconds, "100", 1);
    println!("{load:?}, {rate} due a second");
    let mut seen = deliver(options, &load, |number| number * 1_000 / rate.max(1));
    seen.print();
}

pub(crate) fn burst(options: &Options) {
    let load = Load::of(options, 100_000, "100", 1);
    println!("{load:?}, all due within a second");
    let mut seen = deliver(options, &load, |number| number * 1_000 / load.messages);
    seen.print();
    let behind = seen.last_us.saturating_sub(seen.begin_us + 1_000_000);
    #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
    let seconds = |us: u64| us as f64 / 1e6;
    println!(
        "the last was there {:.3} s after the first was due, {:.3} s after the last was",
        seconds(seen.last_us - seen.begin_us),
        seconds(behind)
    );
}

/// What a reader saw.
struct Seen {
    /// From the due time until the reader had it.
    at_reader: Waits,
    /// From the due time until it was stored in its queue, in whole milliseconds.
    at_broker: Waits,
    begin_us: u64,
    last_us: u64,
    is_in_order: bool,
}

impl Seen {
    fn print(&mut self) {
        for (name, waits) in [("reader", &mut self.at_reader), ("broker", &mut self.at_broker)] {
            #[expect(clippy::cast_precision_loss, reason = "figures for a person")]
            let [p50, p99, p999, max] =
                [500, 990, 999, 1_000].map(|per_mille| waits.at(per_mille) as f64 / 1e3);
            println!(
                "lateness at the {name}: p50 {p50:.3} ms, p99 {p99:.3}, p99.9 {p999:.3}, max {max:.3} ({} messages)",
                waits.count()
            );
        }
        println!("in order of due times: {}", self.is_in_order);
    }
}

/// Schedules `load`, due so many milliseconds behind a moment when all of it is stored, and reads it.
fn deliver(options: &Options, load: &Load, due_after: impl Fn(u64) -> u64) -> Seen {
    let home = Home::new();
    let _broker = home.start();
    create(&home, options, TOPIC, &[]);
    let guess = 5 + load.messages / SCHEDULED_PER_SECOND_MIN;
    let begin_ms = wall_ms() + options.number("lead", guess) * 1_000;
    let filled = fill(home.listen, load, |number| Some(begin_ms + due_after(number)));
    println!("scheduled in {:.2?}", filled.time);
    assert!(wall_ms() + 1_000 < begin_ms, "scheduling took too long: a longer --lead");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let config = ClientConfig::new([home.listen.to_string()]);
        let client = Client::connect(config).await.expect("a broker");
        let config = ReaderConfig::new(TOPIC, StartAt::First).expect("a name");
        let mut reader = client.reader(config).expect("a reader");
        let seen = read(&mut reader, load.messages, begin_ms * 1_000).await;
        client.close().await;
        seen
    })
}

async fn read(reader: &mut Reader, messages: u64, begin_us: u64) -> Seen {
    let (at_reader, at_broker) = (Waits::default(), Waits::default());
    let mut seen = Seen { at_reader, at_broker, begin_us, last_us: 0, is_in_order: true };
    let (mut read, mut latest_ms) = (0, 0);
    while read < messages {
        let batch = reader.next_batch().await.expect("messages");
        seen.last_us = wall_us();
        for message in batch {
            let due = message.body().first_chunk().expect("a body begins with its due time");
            let due_ms = u64::from_le_bytes(*due);
            assert!(message.stored.0 >= due_ms, "a message came early");
            let late_us = seen.last_us.saturating_sub(due_ms * 1_000);
            seen.at_reader.push(Duration::from_micros(late_us));
            seen.at_broker.push(Duration::from_millis(message.stored.0 - due_ms));
            seen.is_in_order &= due_ms >= latest_ms;
            latest_ms = due_ms;
            read += 1;
        }
    }
    seen
}
