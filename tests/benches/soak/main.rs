//! Hours on end: load at a part of the most this machine can do, with retention, restarts and kill -9.
//!
//! `cargo bench -p grus-tests --bench soak [-- persisted|replicated] [--minutes 60] [--percent 70] [--size 1KiB]
//! [--connections 8] [--retention 256MiB] [--blow 300] [--sample 10]`
//!
//! A broker with a topic of 8 queues, of which each keeps `--retention` bytes; senders that pause for
//! nothing, and one reader who follows. First both go as fast as they can for 20 s: that is the most.
//! Then an open loop sends `--percent` of it, `--minutes` long. Each `--blow` seconds the broker is killed
//! (SIGKILL) or stopped (SIGTERM), in turn, and started again at once. Each `--sample` seconds a line says what the
//! broker holds and how long batches waited, from when they were due to their receipts.
//!
//! At the end every batch that was acknowledged must have been read once, whole and in its queue's order,
//! and nothing else. Then the first and the last quarter of the run are held against each other, without
//! the samples in which the broker was away. Not a test: a busy machine changes its numbers.

#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use grus_client::{Client, ClientConfig, ReaderConfig, StartAt};
use grus_tests::broker::{Broker, Home};
use grus_tests::calm::wait_until;
use grus_tests::cluster::block_on;
use grus_tests::usage;
use grus_tests::watch::Watch;
use rustix::process::Signal;

mod judge;
#[path = "../scheduled/options.rs"]
mod options;
mod samples;
mod senders;

use judge::Judge;
use options::Options;
use samples::{Sample, Samples};
use senders::{Load, Shared};

/// The topic.
const TOPIC: &str = "soak";
/// Its queues.
const QUEUES: &str = "8";
/// How long the most is measured.
const MOST_TIME: Duration = Duration::from_secs(20);

fn main() {
    let options = Options::of_command_line();
    let home = Home::new();
    let broker = home.start();
    let durability = match options.part() {
        "replicated" => "replicated",
        _ => "persisted",
    };
    let retention = options.text("retention", "256MiB");
    let words = ["topic", "create", TOPIC, "--queues", QUEUES, "--durability", durability];
    home.grus(&[&words[..], &["--retention-bytes", &retention]].concat()).ok();
    let load = Load {
        bootstrap: home.listen,
        body_bytes: options.bytes("size", "1KiB"),
        connections: usize::try_from(options.number("connections", 8)).expect("64 bits"),
        rate: None,
        time: MOST_TIME,
        round: 0,
    };
    println!("{durability}, {retention} a queue, {load:?}");
    block_on(run(&options, Arc::new(home), broker, load));
}

async fn run(options: &Options, home: Arc<Home>, broker: Broker, load: Load) {
    let percent = options.number("percent", 70);
    let time = Duration::from_secs(60 * options.number("minutes", 60));
    let blow = Duration::from_secs(options.number("blow", 300));
    let sample = Duration::from_secs(options.number("sample", 10));
    let client = Client::connect(ClientConfig::new([home.listen.to_string()])).await;
    let client = client.expect("a broker");
    let reader = ReaderConfig::new(TOPIC, StartAt::First).expect("a name");
    let mut reader = client.reader(reader).expect("a reader");
    let (shared, mut judge) = (Arc::new(Shared::default()), Judge::default());

    tokio::join!(senders::send(&load, &shared), judge::follow(&mut reader, &shared, &mut judge));
    let most = shared.stored.load(Relaxed) / MOST_TIME.as_secs();
    let rate = Some(most * percent / 100);
    println!("the most is {most} messages a second; {rate:?} for {time:?}");
    let load = Load { rate, time, round: 1, ..load };
    let attending = {
        let (home, shared) = (Arc::clone(&home), Arc::clone(&shared));
        let _ = shared.waits(); // those of the load before
        thread::spawn(move || attend(&home, broker, &shared, time, (blow, sample)))
    };
    tokio::join!(senders::send(&load, &shared), judge::follow(&mut reader, &shared, &mut judge));
    println!("{}", judge.verdict());
    println!("bound: no send fails: {} did", shared.failed_count());
    let (samples, broker) = attending.join().expect("it only watches");
    samples.compare();
    client.close().await;
    broker.end(Signal::TERM);
}

/// Takes samples, and kills and restarts the broker meanwhile.
fn attend(
    home: &Home,
    mut broker: Broker,
    shared: &Shared,
    time: Duration,
    (blow, each): (Duration, Duration),
) -> (Samples, Broker) {
    let (watch, mut samples) = (Watch::start(), Samples::default());
    let (mut next_blow, mut blows) = (blow, 0);
    let mut at = each;
    while at <= time {
        let is_blow = at >= next_blow && at + each < time;
        if is_blow {
            next_blow += blow;
            blows += 1;
            if blows % 2 == 1 {
                broker.kill();
            } else {
                broker.end(Signal::TERM);
            }
            broker = home.start();
        }
        wait_until(&watch, at);
        let pid = broker.process.pid();
        let sample = Sample {
            at: watch.elapsed(),
            anonymous_kib: usage::anonymous_memory_kib(pid),
            descriptors: usage::descriptors(pid),
            maps: usage::maps(pid),
            disk_bytes: usage::disk_bytes(&home.data),
            waits: shared.waits(),
            stored: shared.stored.load(Relaxed),
            read: shared.read.load(Relaxed),
            was_away: is_blow,
        };
        println!("{sample}");
        samples.push(sample);
        at += each;
    }
    println!("{blows} blows");
    (samples, broker)
}
