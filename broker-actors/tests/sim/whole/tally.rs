//! How much has happened in stories: one in which too little happens says nothing by ending well, and must fail.

use std::collections::{BTreeMap, BTreeSet};

use grus_broker::commands::groups::ProgressKey;
use grus_consensus::NodeId;
use grus_protocol::ids::{Offset, QueueKey};

use super::story::Story;
use super::{CONSUMED, LATER};
use crate::groups::facts::{Fact, Facts};
use crate::groups::town::GROUP;

/// Nanoseconds of a millisecond.
const MS_NS: u64 = 1_000_000;

/// What is counted, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Terms whose leader may serve.
    Reigns,
    Receipts,
    /// Batches and asks for an identity that were refused.
    Refused,
    /// The same, where no answer came.
    Unanswered,
    /// Messages that were to be seen later, and have come.
    Releases,
    /// Queues that a member has let go of, and another one has claimed.
    HandOvers,
    /// The same, where the first one has not said so.
    Takeovers,
    /// Members that were refused: another one has the queue.
    Fenced,
    /// Messages that were sent to a member once more.
    Redelivered,
    Letters,
    Kills,
    PowerCuts,
    /// Powers that went and took sectors along that were not synced.
    Lossy,
    /// Members whose log has lost its beginning, and those that have installed what they had missed.
    Trims,
    Installs,
}

/// What each story has at least, and what ten have together, of any kind of shard.
const FLOORS: [(What, u64, u64); 13] = [
    (What::Reigns, 1, 10),
    (What::Receipts, 1, 10),
    (What::Refused, 0, 1),
    (What::Unanswered, 0, 1),
    (What::Releases, 1, 10),
    (What::HandOvers, 0, 1),
    (What::Takeovers, 0, 1),
    (What::Fenced, 0, 1),
    (What::Redelivered, 0, 1),
    (What::Letters, 0, 1),
    (What::Kills, 0, 1),
    (What::PowerCuts, 0, 1),
    (What::Lossy, 0, 1),
];
/// The same, where old messages go.
const FLOORS_RETAINED: [(What, u64, u64); 2] = [(What::Trims, 0, 1), (What::Installs, 0, 1)];
/// So few stories may all be without what is rare.
const STORIES_MIN: u64 = 10;

/// How often each thing has happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<What, u64>);

impl Tally {
    pub(crate) fn count(&mut self, what: What, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    fn of(&self, what: What) -> u64 {
        self.0.get(&what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.count(*what, *times);
        }
    }

    /// # Panics
    /// When so many stories have too little of something together.
    pub(crate) fn is_enough(&self, stories: u64, is_retained: bool) {
        let retained = FLOORS_RETAINED.iter().filter(|_| is_retained);
        for (what, of_each, of_ten) in FLOORS.iter().chain(retained) {
            let of_all = if stories < STORIES_MIN { 0 } else { of_ten * stories / 10 };
            let least = (of_each * stories).max(of_all);
            let times = self.of(*what);
            assert!(times >= least, "too little of {what:?}: {times}, not {least}, of {self}");
        }
    }

    /// What the group's members and the leaders have seen of its queues.
    fn count_facts(&mut self, facts: &Facts) {
        let mut holders: BTreeMap<QueueKey, (u64, bool)> = BTreeMap::new();
        for (_, fact) in facts {
            match fact {
                Fact::Claimed { by, .. } => {
                    let before = holders.get(&by.queue).copied();
                    let Some((member, is_let_go)) = before else {
                        holders.insert(by.queue, (by.member, false));
                        continue;
                    };
                    if member != by.member {
                        let what = if is_let_go { What::HandOvers } else { What::Takeovers };
                        self.count(what, 1);
                        holders.insert(by.queue, (by.member, false));
                    }
                }
                Fact::LetGo { queue, member } => {
                    if let Some(holder) = holders.get_mut(queue).filter(|it| it.0 == *member) {
                        holder.1 = true;
                    }
                }
                Fact::Delivered { messages, .. } => {
                    let again = messages.iter().filter(|(_, before)| *before > 0).count();
                    self.count(What::Redelivered, again as u64);
                }
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> =
            self.0.iter().map(|(what, times)| format!("{what:?} {times}")).collect();
        to.write_str(&words.join(", "))
    }
}

/// What has to be remembered to count.
#[derive(Default)]
pub(super) struct Seen {
    terms: BTreeSet<u64>,
    /// By member: how far its log went and how far its beginning was gone, when it was looked at last.
    logs: BTreeMap<NodeId, (u64, u64)>,
    /// By member: sectors that its disk had lost.
    lost: BTreeMap<NodeId, u64>,
}

impl Story {
    /// At every look.
    pub(super) fn note_counts(&mut self) {
        for (node, running) in self.world.alive() {
            let status = running.group.status();
            if status.is_leader && status.ready && self.seen.terms.insert(status.term) {
                self.tally.count(What::Reigns, 1);
            }
            let (last, purged) = (status.last.unwrap_or(0), status.purged.unwrap_or(0));
            let before = self.seen.logs.insert(node, (last, purged));
            let Some((last_before, purged_before)) = before else { continue };
            if purged > purged_before {
                let is_install = purged > last_before;
                self.tally.count(if is_install { What::Installs } else { What::Trims }, 1);
            }
        }
    }

    /// A process has ended, with the power or without.
    pub(super) fn note_end(&mut self, node: NodeId, is_power: bool) {
        if !is_power {
            return self.tally.count(What::Kills, 1);
        }
        self.memories.doomed.remove(&node);
        self.tally.count(What::PowerCuts, 1);
        let lost = self.world.members[&node].disk.lost_sectors();
        if self.seen.lost.insert(node, lost).unwrap_or(0) < lost {
            self.tally.count(What::Lossy, 1);
        }
    }

    /// What has happened last, and where the group stands, for a failure.
    pub(super) fn last_words(&self) -> String {
        let mut words = vec![self.trace.tail(60)];
        for queue in CONSUMED {
            words.extend(self.words_of_open(queue));
            let of_it = self.facts.iter().filter(|(_, fact)| fact.queue() == Some(queue));
            let last: Vec<_> = of_it.rev().take(40).collect();
            words.extend(last.iter().rev().map(|(ns, fact)| format!("{:>7} {fact:?}", ns / MS_NS)));
            let place = ProgressKey { queue, group: GROUP };
            for (node, running) in self.world.alive() {
                let machine = running.machine.borrow();
                let held = machine.state.progress(place);
                words.push(format!("broker {node}: {queue}: {held:?}"));
            }
        }
        words.join("\n")
    }

    /// All that has happened to what is to be delivered again.
    fn words_of_open(&self, queue: QueueKey) -> Vec<String> {
        let Some(leader) = self.leader() else { return Vec::new() };
        let machine = self.world.running(leader).machine.borrow();
        let held = machine.state.progress(ProgressKey { queue, group: GROUP });
        let open =
            held.into_iter().flat_map(|held| held.retries_within(Offset(0), Offset(u64::MAX)));
        let open: BTreeSet<u64> = open.map(|retry| retry.offset.0).collect();
        let is_of = |fact: &Fact| match fact {
            Fact::Sent(_, at) | Fact::Handled(_, at) => open.contains(at),
            Fact::Delivered { messages, .. } => messages.iter().any(|(at, _)| open.contains(at)),
            Fact::Answering { failed, .. } => failed.iter().any(|at| open.contains(at)),
            Fact::Settled { over, failed, .. } => {
                over.iter().chain(failed).any(|at| open.contains(at))
            }
            _ => true,
        };
        let of_it =
            self.facts.iter().filter(|(_, fact)| fact.queue() == Some(queue) && is_of(fact));
        let words = of_it.map(|(ns, fact)| format!("{:>7} open: {fact:?}", ns / MS_NS));
        words.collect()
    }

    /// What only the end shows.
    pub(super) fn count_all(&mut self) {
        self.tally.count_facts(&self.facts);
        let letters = self.letters.len() as u64;
        let receipts = self.history.borrow().receipts.len() as u64;
        let releases = self.checks.contents.count(LATER) as u64;
        for (what, times) in [
            (What::Receipts, receipts),
            (What::Refused, self.lines.refused.get()),
            (What::Unanswered, self.lines.unanswered.get()),
            (What::Releases, releases),
            (What::Fenced, self.town.scribe.fenced()),
            (What::Letters, letters),
        ] {
            self.tally.count(what, times);
        }
    }
}
