//! What it costs to keep what waits while the rest of the log turns over.

use grus_tests::broker::Home;
use grus_tests::usage;
use grus_tests::watch::wall_ms;

use crate::fill::{Load, fill};
use crate::memory::metric;
use crate::options::Options;
use crate::{TOPIC, create};

/// The topic that turns over.
const LIVE: &str = "live";
/// When what waits is due: long after.
const DUE_AFTER_MS: u64 = 30 * 86_400_000;

pub(crate) fn run(options: &Options) {
    let load = Load::of(options, 1_000_000, "1KiB", 10);
    let retention = options.bytes("retention", "1GiB");
    let periods = options.number("periods", 10);
    let rate = options.bytes("rate", "100MB") as u64;
    println!("{load:?}, {retention} bytes of another topic are kept, {periods} times");
    let home = Home::new();
    let _broker = home.start();

    create(&home, options, TOPIC, &[]);
    create(&home, options, LIVE, &["--retention-bytes", &retention.to_string()]);
    let due_ms = wall_ms() + DUE_AFTER_MS;
    let waiting = fill(home.listen, &load, |number| Some(due_ms + number));
    println!("{} MB wait", waiting.bytes / 1_000_000);
    let messages = retention as u64 / load.body_bytes as u64;
    let live = Load { topic: LIVE, messages, bytes_per_s: Some(rate), ..load };
    #[expect(clippy::cast_precision_loss, reason = "ratios for a person")]
    let ratio = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
    let device_writes = || usage::device_writes(&home.data).unwrap_or(0);
    let (rolled_0, written_0) = (rolled(&home), device_writes());
    let (mut produced, mut before) = (0, (rolled_0, written_0));
    for period in 1..=periods {
        produced += fill(home.listen, &live, |_| None).bytes;
        let now = (rolled(&home), device_writes());
        println!(
            "period {period}: carried on {:.3} of what waits, {} MB written to the device, log of {} MB",
            ratio(now.0 - before.0, waiting.bytes),
            (now.1 - before.1) / 1_000_000,
            metric(home.http, "grus_shard_log_bytes") / 1_000_000
        );
        before = now;
    }
    println!(
        "per period: carried on {:.3} of what waits; in all {:.3} bytes carried on for each byte produced, {:.3} written to the device",
        ratio(before.0 - rolled_0, waiting.bytes * periods),
        ratio(before.0 - rolled_0, produced),
        ratio(before.1 - written_0, produced)
    );
    println!("{} still wait", metric(home.http, "grus_delay_pending"));
}

fn rolled(home: &Home) -> u64 {
    metric(home.http, "grus_delay_rolled_bytes_total")
}
