//! strace on a real broker: no receipt leaves before the sync that covers it has returned.

use std::ffi::OsString;
use std::fs;
use std::process::Command;

use grus_client::{Message, ProducerConfig};
use grus_tests::broker::Home;
use grus_tests::trace::{self, STRACE};
use grus_tests::watch::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};

use crate::create;
use crate::program::{block_on, connect};

/// Messages sent one by one.
const SENDS: usize = 1_000;

/// Whether strace is here and may trace; why not otherwise. With `CI=true` it must.
fn unusable() -> Option<String> {
    let tried = Command::new(STRACE[0]).args(["-f", "-o", "/dev/null", "true"]).output();
    let why = match tried {
        Ok(done) if done.status.success() => return None,
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => format!("strace: {error}"),
    };
    let set = |name: &str| std::env::var_os(name).is_some();
    assert!(!set("CI") || set("GRUS_TEST_WITHOUT_STRACE"), "strace is needed in CI: {why}");
    Some(why)
}

#[test]
fn no_receipt_leaves_before_its_sync() {
    if let Some(why) = unusable() {
        println!("skipped: {why}");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = folder.path().join("trace");
    let mut home = Home::new();
    home.wrapper =
        STRACE.iter().map(OsString::from).chain([written.clone().into_os_string()]).collect();
    let mut broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let mut config = ProducerConfig::new("t").expect("a name");
        // Sent anew it would be known already, and answered without a sync of its own.
        (config.send_timeout, config.retries) = (PATIENCE, 0);
        let producer = client.producer(config).expect("a producer");
        for number in 0..SENDS {
            let receipt = producer.send(Message::new(format!("message {number}"))).await;
            receipt.unwrap_or_else(|error| panic!("receipt {number}: {error}"));
        }
        client.close().await;
    });
    let traced = traced_pid(&broker.process.log());
    kill_process(traced, Signal::TERM).expect("the traced broker runs");
    assert!(broker.process.wait(PATIENCE).success(), "{}", broker.process.log());

    let verdict = trace::judge(&fs::read_to_string(&written).expect("a trace"), "/shards/");
    println!("{} receipts, {} syncs", verdict.receipts, verdict.syncs);
    assert!(verdict.early.is_empty(), "{:#?}", verdict.early);
    assert_eq!(verdict.receipts, SENDS, "each receipt was seen");
}

/// The broker's own process id, from its ready line; the process started is strace.
fn traced_pid(log: &str) -> Pid {
    let ready = log.lines().find(|line| line.contains(" ready ")).expect("a ready line");
    let pid =
        ready.split_whitespace().find_map(|word| word.strip_prefix("pid=")).expect("pid= in it");
    Pid::from_raw(pid.parse().expect("a number")).expect("not zero")
}
