//! kill -9 on a broker while receipts still arrive, many times over (S39).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use grus_tests::broker::Home;
use grus_tests::random::Random;
use grus_tests::watch::PATIENCE;

use crate::read_all;
use crate::stream::{Stream, check};

/// Kills, or what `GRUS_TEST_ROUNDS` says.
const ROUNDS: usize = 50;

#[test]
fn no_receipt_is_broken_by_kill_9() {
    let rounds =
        std::env::var("GRUS_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut random = Random::seeded("kill");
    // Small segments, so that they are sealed and begun anew between the kills.
    let home = Home::new()
        .with("GRUS__LOG__SEGMENT_BYTES", "1MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB");
    let mut broker = home.start();
    home.grus(&["topic", "create", "disk", "--queues", "3"]).ok();
    home.grus(&["topic", "create", "memory", "--queues", "1", "--durability", "replicated"]).ok();
    let enough = Arc::new(AtomicBool::new(false));
    let (heard, hear) = channel();
    let run = |stream: Stream| -> JoinHandle<Stream> {
        let (enough, heard) = (enough.clone(), heard.clone());
        thread::spawn(move || stream.run(&enough, &heard))
    };
    let streams = [
        run(Stream::start(&home, "disk", &["--spread"])),
        run(Stream::start(&home, "memory", &[])),
    ];
    drop(heard);

    for round in 0..rounds {
        wait_for_receipts(&hear, 1 + random.below(600), Duration::from_micros(random.below(3_000)));
        broker.kill();
        if round % 5 == 4 {
            // And once more while it recovers.
            let mut early = home.begin();
            early.process.next_line(Duration::from_millis(random.below(120)));
            early.kill();
        }
        broker = home.start();
    }
    enough.store(true, SeqCst);
    let [disk, memory] = streams.map(|stream| stream.join().expect("the stream runs to its end"));
    let ended = [("disk", disk.end()), ("memory", memory.end())];
    broker.kill();
    let _broker = home.start();
    for (topic, sent) in ended {
        println!("{topic}: {} sent through {rounds} kills", sent.lines);
        check(topic, sent.lines, &sent.receipts, &read_all(&home, topic));
    }
}

fn wait_for_receipts(hear: &Receiver<()>, receipts: u64, then: Duration) {
    for _ in 0..receipts {
        hear.recv_timeout(PATIENCE).expect("receipts go on arriving");
    }
    let _ = hear.recv_timeout(then); // a moment later, or at the next receipt
}
