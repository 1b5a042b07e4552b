//! A cluster under a nemesis, in the manner of Jepsen: producers, members of a group and readers go about their work
//! while brokers are killed, stand still, are cut off, run out of disk or have their clocks moved, by a seed. What
//! all of them asked for and were told is a [history](crate::history), which is judged at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use crate::cluster::{self, Cluster};
use crate::history::judge::{Verdict, judge};
use crate::history::{Scribe, keep};
use crate::network::{self, Net};
use crate::small_disk::SmallDisk;

mod field;
mod people;
pub mod schedule;
mod sight;

use field::Field;
use schedule::{ALL, Fault};

/// The topic of all of it.
const TOPIC: &str = "t";
/// Its queues.
const QUEUES: u32 = 2;
/// Messages a second of each producer.
const PACE: u64 = 100;
/// The same while a disk is full, so that it is noticed.
const HASTE: u64 = 500;
/// Room on the disk of a broker: to begin with, and for each second of a run, in MiB.
const ROOM_MIB: [u64; 2] = [128, 1];

/// What is to be run.
#[derive(Debug)]
pub struct Plan {
    /// What decides what goes wrong when.
    pub seed: u64,
    /// For how long things go wrong.
    pub seconds: u64,
    /// The topic's durability.
    pub durability: String,
    /// Where the history is kept.
    pub history: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the history shows.
    pub verdict: Verdict,
    /// What went wrong beside it: who ended unasked, what did not heal.
    pub troubles: Vec<String>,
    /// Faults that could not be had here, and why.
    pub skipped: Vec<String>,
}

impl Outcome {
    /// Whether all is as it should be.
    pub fn is_sound(&self) -> bool {
        self.verdict.is_sound() && self.troubles.is_empty()
    }
}

/// The brokers with what they need for the faults that can be had here, and those faults.
fn settle(plan: &Plan, scribe: &Scribe) -> (Field, Vec<Fault>, Vec<String>) {
    let mut faults = ALL.to_vec();
    let mut skipped = Vec::new();
    let mut registry = cluster::quick_registry();
    let mut nets = Vec::new();
    if network::is_apart() {
        registry = network::open(registry);
        nets = (1..=3).map(Net::new).collect();
    } else {
        faults.retain(|fault| !fault.is_of_network());
        skipped.push("cut-off brokers: no network namespaces".to_owned());
    }
    let room_mib = ROOM_MIB[0] + ROOM_MIB[1] * plan.seconds;
    let disks: Vec<SmallDisk> =
        (0..3).map_while(|_| SmallDisk::mount(room_mib, room_mib * 16)).collect();
    if disks.is_empty() {
        faults.retain(|fault| *fault != Fault::FullDisk);
        skipped.push("full disks: no small file systems".to_owned());
    }
    let homes = (0..3).map(|number| {
        let mut home = registry
            .broker()
            .with("GRUS_FAULT_SWITCHES", "1")
            .with("GRUS__LOG__SEGMENT_BYTES", "1MiB")
            .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB");
        if let Some(disk) = disks.get(number) {
            home.data = disk.path().join("data");
        }
        match nets.get(number) {
            Some(net) => net.house(home),
            None => home,
        }
    });
    let homes = homes.collect();
    let cluster = Cluster::of(registry, homes);
    cluster.topic(TOPIC, QUEUES, &plan.durability);
    let pace = Arc::new(AtomicU64::new(PACE));
    (Field::new(cluster, nets, disks, pace, scribe.clone()), faults, skipped)
}

/// Runs it.
///
/// # Panics
/// When the cluster does not even start, or the history cannot be written.
pub fn run(plan: &Plan) -> Outcome {
    let (scribe, told) = Scribe::new();
    let path = plan.history.clone();
    let keeper = thread::spawn(move || keep(&told, path.as_deref()).expect("a place to write to"));
    let (field, faults, skipped) = settle(plan, &scribe);
    let blows = schedule::schedule(
        &mut crate::random::Random::of(plan.seed),
        plan.seconds * 1_000,
        &faults,
    );
    let troubles = cluster::block_on(people::live(field, blows, plan.seed, scribe));
    let events = keeper.join().expect("the keeper of the history");
    Outcome { verdict: judge(&events), troubles, skipped }
}
