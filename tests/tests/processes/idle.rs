//! A broker that nobody uses costs next to nothing.

use std::time::Duration;

use grus_tests::broker::{Broker, Home};
use grus_tests::usage;
use grus_tests::watch::{PATIENCE, Watch};

use crate::{create, numbered};

const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn an_idle_broker_takes_no_processor_and_writes_nothing() {
    let home = Home::new();
    let mut broker = home.start();
    create(&home, "t", 4);
    home.grus_fed(&["produce", "t"], numbered("line", 1_000).as_bytes()).ok();
    home.grus(&["topic", "create", "soon", "--durability", "replicated"]).ok();
    home.grus_fed(&["produce", "soon"], numbered("line", 1_000).as_bytes()).ok();
    let _reader = home.grus_running(&["consume", "t", "--from", "last"]);
    // What `replicated` still owes the disk, sled's own flush, and the reader's coming: sooner or later
    // that is over, and then it costs nothing. How soon is a matter of the machine.
    let begun = Watch::start();
    loop {
        let (cpu_ms, took_ms, written) = cost_of_resting(&mut broker);
        println!("idle: {cpu_ms} ms of processor in {took_ms} ms, {written} bytes written");
        if cpu_ms * 100 <= took_ms * percent_max() && written == 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{cpu_ms} ms of {took_ms} ms, {written} bytes");
    }
}

/// Processor and time, in milliseconds, and bytes written while nobody wants anything.
fn cost_of_resting(broker: &mut Broker) -> (u64, u64, u64) {
    let pid = broker.process.pid();
    let (cpu_before, (bytes_before, _)) = (usage::cpu_ms(pid), usage::writes(pid));
    let watch = Watch::start();
    quiet(broker, WATCHED);
    let took_ms = u64::try_from(watch.elapsed().as_millis()).expect("some seconds");
    (usage::cpu_ms(pid) - cpu_before, took_ms, usage::writes(pid).0 - bytes_before)
}

#[test]
fn a_broker_that_has_nothing_takes_less_than_40_mb_of_the_disk() {
    let home = Home::new();
    let mut broker = home.start();
    create(&home, "t", 4);
    quiet(&mut broker, Duration::from_secs(1)); // whatever a start leaves for later
    let bytes = usage::disk_bytes(&home.data);
    println!("empty: {bytes} bytes");
    assert!(bytes < 40_000_000, "{bytes} bytes");
}

/// Most per cent of a core. The promise is 1 per cent, of an optimised broker (`GRUS_BIN` names one); the
/// few wake-ups a second that there are cost several times as much without optimisation.
fn percent_max() -> u64 {
    let optimised = !cfg!(debug_assertions) || std::env::var_os("GRUS_BIN").is_some();
    if optimised { 1 } else { 4 }
}

/// Lets time pass, which is what is measured here; a broker that ends meanwhile fails.
fn quiet(broker: &mut Broker, time: Duration) {
    let watch = Watch::start();
    while !watch.left(time).is_zero() {
        broker.process.next_line(watch.left(time));
        assert!(broker.process.ended().is_none(), "the broker ended: {}", broker.process.log());
    }
}
