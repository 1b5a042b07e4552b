//! Measures a log on the real disk:
//! `cargo run --release -p grus-log --example measure -- FOLDER [TOTAL_MIB]`.
//!
//! The main thread stands for a core, a second one runs the jobs, as in the broker.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::disallowed_methods)]

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use grus_log::{
    AppendError, CheckpointData, EntryKind, Job, JobDone, Log, LogConfig, NewEntry, RealDisk,
};

struct Bench {
    log: Log<RealDisk>,
    jobs: Sender<Job<RealDisk>>,
    done: Receiver<JobDone<RealDisk>>,
    out: bool,
    syncs: u64,
}

impl Bench {
    fn open(folder: &Path) -> Self {
        let begun = Instant::now();
        let (log, recovered) = Log::open(&RealDisk, folder, LogConfig::default()).unwrap();
        let stats = log.stats();
        println!(
            "open: {:.1} ms, {} segments, {:.2} GB, {:?}",
            begun.elapsed().as_secs_f64() * 1e3,
            stats.segments,
            stats.bytes as f64 / 1e9,
            recovered.report
        );
        let (jobs, inbox) = channel::<Job<RealDisk>>();
        let (outbox, done) = channel();
        std::thread::spawn(move || {
            for job in inbox {
                if outbox.send(job.run()).is_err() {
                    return;
                }
            }
        });
        Self { log, jobs, done, out: false, syncs: 0 }
    }

    fn turn(&mut self, wait: bool) {
        if self.out {
            let done = if wait { self.done.recv().ok() } else { self.done.try_recv().ok() };
            let Some(done) = done else { return };
            self.out = false;
            let progress = self.log.complete(done).unwrap();
            self.syncs += u64::from(progress.durable_index.is_some());
        }
        if let Some(job) = self.log.next_job() {
            self.jobs.send(job).unwrap();
            self.out = true;
        }
    }

    fn append(&mut self, payload: &[Bytes], checkpoints: &mut bool) {
        let index = self.log.last().map_or(0, |last| last.index + 1);
        let seal = self.log.should_seal();
        let kind = if seal { EntryKind::Seal } else { EntryKind::Normal };
        while let Err(error) = self.log.append(&[NewEntry { kind, term: 1, index, payload }]) {
            assert!(error == AppendError::NoRoom, "{error}");
            self.turn(true);
        }
        if seal {
            let full = !std::mem::replace(checkpoints, true);
            let data = CheckpointData {
                index,
                term: 1,
                membership: Bytes::new(),
                full,
                parts: Vec::new(),
                digest: 0,
            };
            self.log.checkpoint(data).unwrap();
        }
        self.turn(false);
    }

    /// Until nothing is left to be done.
    fn settle(&mut self) {
        self.turn(true);
        while self.out {
            self.turn(true);
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder");
    let total: u64 = arguments.next().map_or(1024, |text| text.parse().unwrap()) << 20;
    let mut bench = Bench::open(Path::new(&folder));
    let mut checkpoints = bench.log.newest_checkpoint().is_some();

    let block = Bytes::from(vec![7u8; 1 << 20]);
    let begun = Instant::now();
    let rounds = 4_000;
    let mut sum = 0u32;
    for _ in 0..rounds {
        sum = crc32c::crc32c_append(sum, &block);
    }
    let rate = f64::from(rounds) * block.len() as f64 / begun.elapsed().as_secs_f64() / 1e9;
    println!("crc32c: {rate:.1} GB/s ({sum:08x})");

    let one = [block.slice(..1024)];
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let begun = Instant::now();
            bench.append(&one, &mut checkpoints);
            while bench.log.durable_index() < bench.log.last().map(|last| last.index) {
                bench.turn(true);
            }
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!("one by one, 1 KiB: p50 {:?}, p99 {:?}, max {:?}", times[250], times[495], times[499]);

    for bytes in [1 << 10, 64 << 10, 1 << 20] {
        bench.settle();
        let (syncs, begun) = (bench.syncs, Instant::now());
        let payload = [block.slice(..bytes)];
        let count = total / 3 / bytes as u64;
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            let start = Instant::now();
            bench.append(&payload, &mut checkpoints);
            spent += start.elapsed();
        }
        let appended = begun.elapsed();
        bench.settle();
        let whole = begun.elapsed();
        let gigabytes = (count * bytes as u64) as f64 / 1e9;
        println!(
            "{bytes:>7} B entries: {:.2} GB/s appended, {:.2} GB/s durable, {:.0} ns each in append and its jobs, {} syncs",
            gigabytes / appended.as_secs_f64(),
            gigabytes / whole.as_secs_f64(),
            spent.as_nanos() as f64 / count as f64,
            bench.syncs - syncs
        );
    }
    drop(bench);
    Bench::open(Path::new(&folder));
}
