//! How long a machine that is busy with other things has kept work waiting, and what a bound on time that is real
//! allows for: that, and ten seconds for what no account tells. With `GRUS_TEST_STRICT` set, on a machine that has time,
//! there is no slack, and a bound is what it says.

use std::env;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::watch::Watch;

/// What the watching thread wants to be woken after.
const STEP: Duration = Duration::from_millis(1);
/// What a machine may keep work waiting for without any account of it: a disk that its host shares with others.
const SLACK: Duration = Duration::from_secs(10);
/// Clock ticks a second; 100 on every Linux that Rust runs on (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// What had been lost at a moment, by each of the two accounts.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    pressure_us: u64,
    late_us: u64,
}

/// A time that is watched from its making on.
#[derive(Debug)]
pub struct Strain {
    begun: Mark,
    late_us: Arc<AtomicU64>,
    _over: Sender<()>,
}

impl Strain {
    /// Watches from now on.
    pub fn watch() -> Self {
        let (over, is_over) = channel::<()>();
        let late_us = Arc::new(AtomicU64::new(0));
        let watching = Arc::clone(&late_us);
        thread::spawn(move || {
            let mut watch = Watch::start();
            while is_over.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                let late = watch.elapsed().saturating_sub(STEP);
                watching.fetch_add(u64::try_from(late.as_micros()).unwrap_or(0), Relaxed);
                watch = Watch::start();
            }
        });
        let begun = Mark { pressure_us: pressure_us(), late_us: 0 };
        Self { begun, late_us, _over: over }
    }

    /// For how long something was ready to run, or waited for the disk, and could not go on: by the
    /// system's account where it keeps one, and by how late a thread that only waits was woken.
    pub fn lost(&self) -> Duration {
        self.lost_since(self.begun)
    }

    /// What a bound on the time since it was made allows for.
    pub fn allowed(&self) -> Duration {
        self.lost() + slack()
    }

    /// The same, of the time since a moment.
    pub fn allowed_since(&self, mark: Mark) -> Duration {
        self.lost_since(mark) + slack()
    }

    /// This moment, for [`lost_since`](Self::lost_since): of one watch many times can be judged.
    pub fn mark(&self) -> Mark {
        Mark { pressure_us: pressure_us(), late_us: self.late_us.load(Relaxed) }
    }

    /// The same as [`lost`](Self::lost), of the time since a moment.
    pub fn lost_since(&self, mark: Mark) -> Duration {
        let now = self.mark();
        let pressure_us = now.pressure_us.saturating_sub(mark.pressure_us);
        Duration::from_micros(pressure_us.max(now.late_us.saturating_sub(mark.late_us)))
    }
}

/// None in a strict run.
fn slack() -> Duration {
    if env::var_os("GRUS_TEST_STRICT").is_some() { Duration::ZERO } else { SLACK }
}

/// Time in which anybody waited for a processor or the disk, or in which the machine itself was held
/// up by its host, since it was started. What the system keeps no account of counts as nothing.
fn pressure_us() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let waited = ["/proc/pressure/cpu", "/proc/pressure/io"].map(|path| some_us(&read(path)));
    waited.into_iter().flatten().sum::<u64>() + stolen_us(&read("/proc/stat")).unwrap_or(0)
}

/// Of a file in `/proc/pressure`: how long anybody had to wait.
fn some_us(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// Of `/proc/stat` (proc(5)): the eighth number of its first line.
fn stolen_us(stat: &str) -> Option<u64> {
    let ticks: u64 = stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
    Some(ticks * 1_000_000 / TICKS_PER_SECOND)
}

#[test]
fn the_accounts_of_the_system_are_read() {
    let pressure = "some avg10=51.19 avg60=54.95 avg300=52.75 total=27862930880\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
    assert_eq!(some_us(pressure), Some(27_862_930_880));
    let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
    assert_eq!(stolen_us(stat), Some(800_000));
    assert_eq!((some_us(""), stolen_us("cpu 1 2")), (None, None));
}
