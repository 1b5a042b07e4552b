//! Stories that end well because of one rule each: without it they must not.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::senders::Wish;
use super::story::Story;
use super::{CONSUMED, LATER};
use crate::world::DISK_US_MAX;

/// So long a job takes on the disks of this story, at most, in microseconds: a receipt that does not wait for it
/// comes long before.
const SLOW_US: u64 = 60_000;
const NODES: [u64; 3] = [1, 2, 3];

impl Story {
    /// All powers go right after a receipt was given.
    pub(crate) async fn lose_power_behind_receipts(&mut self) {
        for round in 0..6 {
            self.disks_take(SLOW_US);
            let receipts = self.history.borrow().receipts.len();
            for nth in 0..6 {
                let (queue, later_ms) =
                    if nth % 3 == 0 { (LATER, Some(500)) } else { (CONSUMED[nth % 2], None) };
                self.wish(Wish { queue, count: 2, body_bytes: 700, later_ms });
            }
            for _ in 0..10_000 {
                if self.history.borrow().receipts.len() > receipts {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.trace.line(format!("round {round}: a receipt was given"));
            for node in NODES {
                self.end(node, true).await;
            }
            self.disks_take(DISK_US_MAX);
            for node in NODES {
                self.start(node).await;
            }
            for _ in 0..600 {
                self.run(100).await;
                if self.leader().is_some() {
                    break;
                }
            }
        }
    }

    fn disks_take(&self, us: u64) {
        for node in NODES {
            self.world.members[&node].disk_us_max.store(us, Relaxed);
        }
    }
}
