//! How fast a batch is checked, read and built. Prints; asserts nothing.
//!
//! `cargo bench -p grus-protocol --bench check_speed`

#![allow(clippy::unwrap_used, reason = "a measurement may")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grus_protocol::{BatchBuilder, BatchLimits, NewRecord, RecordBatch};

#[path = "../tests/samples/mod.rs"]
mod samples;

use samples::{BORN, id};

#[expect(clippy::disallowed_methods, clippy::cast_precision_loss, reason = "measures")]
fn measured(name: &str, bytes: usize, records: usize, mut work: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..9 {
        let start = Instant::now();
        for _ in 0..20 {
            work();
        }
        best = best.min(start.elapsed() / 20);
    }
    let gigabytes = bytes as f64 / best.as_nanos() as f64;
    let nanos = best.as_nanos() as f64 / records as f64;
    println!("{name:28} {gigabytes:6.2} GB/s {nanos:7.1} ns a record");
}

fn main() {
    for (body_bytes, records) in [(100, 4000), (1024, 900)] {
        let plain = NewRecord::new(id(1), BORN, vec![7; body_bytes]);
        let tagged = NewRecord {
            tag: Some("created".into()),
            keys: vec![Bytes::from_static(b"order-17")],
            headers: vec![("region".into(), Bytes::from_static(b"eu"))],
            ..plain.clone()
        };
        for (name, record) in [("plain", plain), ("key, tag, header", tagged)] {
            let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
            let mut build = || {
                for _ in 0..records {
                    builder.push(&record).unwrap();
                }
                builder.finish()
            };
            let bytes = build();
            let size = bytes.len();
            println!("{records} records of {body_bytes} bytes, {name}: {size} bytes");
            measured("  build", size, records, || drop(black_box(build())));
            measured("  check", size, records, || {
                black_box(RecordBatch::check(bytes.clone(), &BatchLimits::PRODUCE).unwrap());
            });
            let batch = RecordBatch::from_log(bytes.clone()).unwrap();
            measured("  read, borrowed", size, records, || {
                black_box(batch.views().map(|one| one.unwrap().body().len()).sum::<usize>());
            });
            measured("  read, owned bodies", size, records, || {
                black_box(
                    batch.records().map(|one| one.unwrap().body_bytes().len()).sum::<usize>(),
                );
            });
            measured("  checksum alone", size, records, || {
                batch.verify_checksum().unwrap();
            });
        }
    }
}
