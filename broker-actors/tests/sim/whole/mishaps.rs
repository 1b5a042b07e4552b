//! What happens to brokers, disks, clocks, networks and clients, by a seed.

use std::sync::atomic::Ordering::Relaxed;

use grus_consensus::NodeId;
use grus_protocol::ids::Durability;

use super::senders::Wish;
use super::story::Story;
use super::{CONSUMED, LATER};
use crate::groups::member::SESSION_MS;

/// The longest that a job takes on a disk that has become slow, in microseconds: some elections.
pub(super) const SLOW_US: u64 = 900_000;
/// How far a clock goes wrong at most, either way, in milliseconds.
const SKEW_MS: u64 = 60_000;
/// The longest that a message is to wait.
const LATER_MS: u64 = 8_000;
const NODES: u64 = 3;
/// How often queues change hands while all else is well.
const UNREST_ROUNDS: u64 = 3;
/// So long a member of the group stands still then at least, in milliseconds: longer than its lease.
const STALL_MS: u64 = SESSION_MS as u64 + 500;

impl Story {
    /// So many steps, a mishap or a wish each.
    pub(crate) async fn suffer(&mut self, steps: u64) {
        self.join();
        self.join();
        for _ in 0..steps {
            self.step().await;
            let pause = 20 + self.rng.below(350);
            self.run(pause).await;
        }
    }

    /// With all else well, members of the group come, stand still and go, with something to do: queues change
    /// hands, and whoever comes late is refused.
    pub(crate) async fn unrest(&mut self) {
        self.mend().await;
        for _ in 0..UNREST_ROUNDS {
            while self.seats.iter().any(|seat| !seat.is_taken()) {
                self.join();
            }
            self.run(1_000).await;
            self.wishes();
            self.run(50).await;
            let at = usize::try_from(self.rng.below(self.seats.len() as u64)).unwrap();
            self.seats[at].strings.stall_ms.set(STALL_MS + self.rng.below(2_000));
            let leaver = usize::try_from(self.rng.below(self.seats.len() as u64)).unwrap();
            self.seats[leaver].strings.leaves.set(true);
            self.trace
                .line(format!("member {at} of the group stands still, member {leaver} leaves"));
            self.wishes();
            self.run(STALL_MS + 2_000).await;
        }
    }

    fn node(&mut self) -> NodeId {
        1 + self.rng.below(NODES)
    }

    fn others(node: NodeId) -> impl Iterator<Item = NodeId> {
        (1..=NODES).filter(move |other| *other != node)
    }

    fn wishes(&mut self) {
        for _ in 0..=self.rng.below(6) {
            let is_later = self.rng.below(3) == 0;
            let at = usize::try_from(self.rng.below(CONSUMED.len() as u64)).unwrap();
            let wish = Wish {
                queue: if is_later { LATER } else { CONSUMED[at] },
                count: 1 + self.rng.below(4),
                body_bytes: usize::try_from(16 + self.rng.below(self.kind.body_bytes_max)).unwrap(),
                later_ms: is_later.then(|| self.rng.below(LATER_MS)),
            };
            self.wish(wish);
        }
    }

    async fn step(&mut self) {
        let node = self.node();
        match self.rng.below(100) {
            0..36 => self.wishes(),
            36..41 if self.is_up(node) => self.end(node, false).await,
            41..46 if self.is_up(node) && self.may_lose_power() => self.end(node, true).await,
            46..50 if self.is_up(node) && self.may_lose_power() => self.doom(node),
            50..52 if self.kind.durability == Durability::Persisted => {
                for node in 1..=NODES {
                    if self.is_up(node) {
                        self.end(node, true).await;
                    }
                }
            }
            52..56 => {
                self.trace.line(format!("broker {node} is cut off"));
                self.world.net.isolate(node, Self::others(node));
            }
            56..60 => {
                let loss = self.rng.below(200);
                self.trace.line(format!("{loss} of 1000 messages are lost, others overtake"));
                self.world.net.trouble(loss, 1 + loss / 2);
                self.lines.loss.set(loss);
            }
            60..66 => {
                self.world.net.heal();
                self.lines.loss.set(0);
            }
            66..70 => {
                let nth = usize::try_from(self.rng.below(NODES - 1)).unwrap();
                let other = Self::others(node).nth(nth).expect("there are two others");
                self.trace.line(format!("broker {other} hears broker {node} no more"));
                self.world.net.cut(node, other);
            }
            70..73 => {
                let us = 1 + self.rng.below(SLOW_US);
                self.trace.line(format!("the disk of broker {node} takes up to {us} us"));
                self.world.members[&node].disk_us_max.store(us, Relaxed);
            }
            73..75 => self.set_clock_wrong(node),
            75..84 => self.member_mishap().await,
            _ => {
                let down = (1..=NODES).find(|node| !self.is_up(*node));
                if let Some(node) = down {
                    self.start(node).await;
                }
            }
        }
    }

    /// A broker loses its power in the middle of what it does, some steps of its disk from now.
    fn doom(&mut self, node: NodeId) {
        let more = 1 + self.rng.below(150);
        let disk = &self.world.members[&node].disk;
        let step = disk.steps() + more;
        disk.cut_at_step(step);
        self.memories.doomed.insert(node);
        self.trace.line(format!("broker {node} will lose its power at step {step}"));
    }

    fn set_clock_wrong(&mut self, node: NodeId) {
        let skew = self.rng.below(2 * SKEW_MS).cast_signed() - SKEW_MS.cast_signed();
        self.trace.line(format!("the clock of broker {node} is {skew} ms ahead"));
        let before = self.skews.insert(node, skew).unwrap_or(0);
        let hand = self.world.members[&node].clock.hand().expect("it can be set");
        hand.move_by(skew - before);
    }

    /// Something about the members of the group.
    async fn member_mishap(&mut self) {
        let chance = self.rng.below(10);
        let at = usize::try_from(self.rng.below(self.seats.len() as u64)).unwrap();
        if chance < 4 || !self.seats[at].is_taken() {
            return self.join();
        }
        self.trace.line(format!("member {at} of the group: mishap {chance}"));
        let strings = std::rc::Rc::clone(&self.seats[at].strings);
        match chance {
            4 => self.end_of_life(at, true).await,
            5 => self.end_of_life(at, false).await,
            6 => strings.leaves.set(true),
            // Often longer than its lease, so that it is late with what it says then.
            7 => strings.stall_ms.set(300 + 3_500 * self.rng.below(2) + self.rng.below(3_000)),
            8 => {
                strings.cut(&self.town, at as u64 + 1, false);
                let until_ms = self.town.scribe.now_ms() + 200 + self.rng.below(6_000);
                strings.cut_until_ms.set(until_ms);
            }
            _ => strings.cut(&self.town, at as u64 + 1, true),
        }
    }
}
