//! Whether what happened keeps to what groups promise.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::QueueKey;

use super::facts::{Fact, Facts, Holder};

/// Ways that must have been gone.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) hand_over: u64,
    pub(crate) takeover: u64,
    pub(crate) fence_refusal: u64,
    pub(crate) redelivery: u64,
    pub(crate) restore: u64,
    pub(crate) dead_letter: u64,
    pub(crate) operations: u64,
    pub(crate) faults: u64,
}

#[derive(Default)]
struct Queue {
    /// The newest claim that was applied.
    holder: Option<Holder>,
    claimed_ns: u64,
    /// The holder has said that it lets go.
    is_let_go: bool,
    /// Acknowledged, and known to be.
    acked: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    /// Resets under way: what is acknowledged meanwhile may be taken back.
    resets: u32,
}

#[derive(Default)]
struct Judge {
    queues: BTreeMap<QueueKey, Queue>,
    sent: BTreeSet<(QueueKey, u64)>,
    handled: BTreeSet<(QueueKey, u64)>,
    paths: Paths,
}

/// The ways that were gone, if all that happened may happen. `dead` are the origins of dead letters.
///
/// # Panics
/// When something happened that must not.
pub(crate) fn judge(
    facts: &Facts,
    dead: &[(QueueKey, u64)],
    was_reset: &BTreeSet<QueueKey>,
) -> Paths {
    let mut judge = Judge::default();
    for (at_ns, fact) in facts {
        judge.look(*at_ns, fact);
    }
    let mut letters = BTreeSet::new();
    for (queue, offset) in dead {
        let is_new = letters.insert((*queue, *offset));
        assert!(is_new || was_reset.contains(queue), "two dead letters of {queue} at {offset}");
    }
    for (queue, offset) in &judge.sent {
        let was_delivered =
            judge.queues.get(queue).is_some_and(|queue| queue.delivered.contains(offset));
        assert!(was_delivered, "nobody was ever given {queue} at {offset}");
        let place = (*queue, *offset);
        let is_over = judge.handled.contains(&place) || letters.contains(&place);
        assert!(is_over, "nobody has handled {queue} at {offset}");
    }
    judge.paths.dead_letter = dead.len() as u64;
    judge.paths
}

impl Judge {
    fn look(&mut self, at_ns: u64, fact: &Fact) {
        match fact {
            Fact::Did(what, _) if super::FAULTS.contains(what) => self.paths.faults += 1,
            Fact::Did(..) => self.paths.operations += 1,
            Fact::Sent(queue, offset) => drop(self.sent.insert((*queue, *offset))),
            Fact::Claimed { by, .. } => self.claimed(at_ns, by),
            Fact::Delivered { by, messages } => self.delivered(by, messages),
            Fact::Settled { by, acks, .. } => self.settled(at_ns, by, acks),
            Fact::Refused { fenced, .. } => self.paths.fence_refusal += u64::from(*fenced),
            Fact::LetGo { queue, member } => {
                let queue = self.queues.entry(*queue).or_default();
                queue.is_let_go |= queue.holder.is_some_and(|holder| holder.member == *member);
            }
            Fact::Handled(queue, offset) => drop(self.handled.insert((*queue, *offset))),
            Fact::ResetBegins(queue) => {
                let queue = self.queues.entry(*queue).or_default();
                queue.resets += 1;
                queue.acked.clear();
            }
            Fact::ResetEnds(queue) => {
                let queue = self.queues.entry(*queue).or_default();
                queue.resets -= 1;
                queue.acked.clear();
            }
            Fact::Restored { floors, .. } => self.paths.restore += u64::from(*floors > 0),
        }
    }

    fn claimed(&mut self, at_ns: u64, by: &Holder) {
        let queue = self.queues.entry(by.queue).or_default();
        if let Some(before) = queue.holder {
            let is_same = (before.generation, before.member) == (by.generation, by.member);
            assert!(is_same || by.generation > before.generation, "{by:?} after {before:?}");
            assert!(by.round >= before.round, "a reset is forgotten: {by:?} after {before:?}");
            if before.member != by.member {
                let path = if queue.is_let_go {
                    &mut self.paths.hand_over
                } else {
                    &mut self.paths.takeover
                };
                *path += 1;
            }
            if is_same {
                queue.holder = Some(*by);
                return;
            }
        }
        (queue.holder, queue.claimed_ns, queue.is_let_go) = (Some(*by), at_ns, false);
    }

    fn delivered(&mut self, by: &Holder, messages: &[(u64, u32)]) {
        let queue = self.queues.entry(by.queue).or_default();
        let holder = queue.holder.expect("nobody is given a queue that is not claimed");
        let holds = (holder.generation, holder.member) == (by.generation, by.member);
        assert!(holds, "two owners: {by:?} is sent messages while {holder:?} has the queue");
        for (offset, before) in messages {
            assert!(!queue.acked.contains(offset), "{offset} is sent to {by:?}, and is settled");
            let was_seen = !queue.delivered.insert(*offset);
            assert!(was_seen || *before == 0 || queue.resets > 0, "{offset} was delivered before?");
            self.paths.redelivery += u64::from(*before > 0);
        }
    }

    fn settled(&mut self, at_ns: u64, by: &Holder, acks: &[u64]) {
        let queue = self.queues.entry(by.queue).or_default();
        let holder = queue.holder.expect("nobody settles what is not claimed");
        let holds = (holder.generation, holder.member) == (by.generation, by.member);
        // It was applied before the claim that was applied in the same instant; its answer takes a
        // way more.
        let may = holds || at_ns == queue.claimed_ns;
        assert!(may, "two owners: {by:?} settles while {holder:?} has the queue");
        if queue.resets == 0 && holder.round == by.round {
            queue.acked.extend(acks);
        }
    }
}
