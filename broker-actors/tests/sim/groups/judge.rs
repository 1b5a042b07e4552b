//! Whether what happened keeps to what groups promise.

mod counts;

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::QueueKey;

use super::facts::{Fact, Facts, Holder};
use super::member::{DELIVERIES_MAX, FAILS_REASON, GIVES_UP_REASON};
use counts::Counts;

/// Ways that must have been gone.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) hand_over: u64,
    pub(crate) takeover: u64,
    pub(crate) fence_refusal: u64,
    pub(crate) redelivery: u64,
    /// Messages that were handed back unseen, and came again as if they had never been sent.
    pub(crate) hand_back: u64,
    pub(crate) restore: u64,
    /// Dead letters that their members gave up, that failed as often as they may, and that nobody
    /// ever answered for.
    pub(crate) hopeless: u64,
    pub(crate) worn_out: u64,
    pub(crate) unanswered: u64,
    pub(crate) operations: u64,
    pub(crate) faults: u64,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    /// Where the message came from.
    pub(crate) queue: QueueKey,
    pub(crate) offset: u64,
    /// How often it was delivered, as the letter says.
    pub(crate) deliveries: u32,
    pub(crate) reason: String,
}

#[derive(Default)]
struct Queue {
    /// The newest claim that was applied.
    holder: Option<Holder>,
    claimed_ns: u64,
    /// The holder has said that it lets go.
    is_let_go: bool,
    /// Acknowledged or given up, and known to be.
    over: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    /// Resets under way: what is acknowledged meanwhile may be taken back.
    resets: u32,
}

#[derive(Default)]
struct Judge {
    queues: BTreeMap<QueueKey, Queue>,
    sent: BTreeSet<(QueueKey, u64)>,
    handled: BTreeSet<(QueueKey, u64)>,
    counts: Counts,
    paths: Paths,
}

/// The ways that were gone, if all that happened may happen.
///
/// # Panics
/// When something happened that must not.
pub(crate) fn judge(facts: &Facts, dead: &[Letter], was_reset: &BTreeSet<QueueKey>) -> Paths {
    let mut judge = Judge::default();
    for (at_ns, fact) in facts {
        judge.look(*at_ns, fact);
    }
    let mut letters = BTreeSet::new();
    for letter in dead {
        let is_new = letters.insert((letter.queue, letter.offset));
        assert!(is_new || was_reset.contains(&letter.queue), "two dead letters: {letter:?}");
        judge.died(letter);
    }
    for (queue, offset) in &judge.sent {
        let was_delivered =
            judge.queues.get(queue).is_some_and(|queue| queue.delivered.contains(offset));
        assert!(was_delivered, "nobody was ever given {queue} at {offset}");
        let place = (*queue, *offset);
        let is_over = judge.handled.contains(&place) || letters.contains(&place);
        assert!(is_over, "nobody has handled {queue} at {offset}");
    }
    judge.paths.hand_back = judge.counts.handed_back;
    judge.paths
}

impl Judge {
    fn look(&mut self, at_ns: u64, fact: &Fact) {
        match fact {
            Fact::Did(what, _) if super::FAULTS.contains(what) => self.paths.faults += 1,
            Fact::Did(..) => self.paths.operations += 1,
            Fact::Sent(queue, offset) => drop(self.sent.insert((*queue, *offset))),
            Fact::Claimed { by, .. } => self.claimed(at_ns, by),
            Fact::Delivered { by, messages } => {
                self.counts.delivered(at_ns, by, messages);
                self.delivered(by, messages);
            }
            Fact::Answering { by, failed, back } => {
                self.counts.answering(by, failed, back.as_ref());
            }
            Fact::Settled { by, over, failed, back, .. } => {
                self.settled(at_ns, by, over);
                self.counts.settled(at_ns, by, failed, back.as_ref());
            }
            Fact::Ended { broker } => self.counts.ended(at_ns, *broker),
            Fact::Refused { fenced, .. } => self.paths.fence_refusal += u64::from(*fenced),
            Fact::LetGo { queue, member } => {
                let queue = self.queues.entry(*queue).or_default();
                queue.is_let_go |= queue.holder.is_some_and(|holder| holder.member == *member);
            }
            Fact::Handled(queue, offset) => drop(self.handled.insert((*queue, *offset))),
            Fact::ResetBegins(queue) => {
                self.counts.reset(*queue);
                let queue = self.queues.entry(*queue).or_default();
                queue.resets += 1;
                queue.over.clear();
            }
            Fact::ResetEnds(queue) => {
                self.counts.reset(*queue);
                let queue = self.queues.entry(*queue).or_default();
                queue.resets -= 1;
                queue.over.clear();
            }
            Fact::Restored { floors, .. } => self.paths.restore += u64::from(*floors > 0),
            // The members of these stories are no consumers of the client.
            Fact::Given { .. } | Fact::Failed { .. } => {}
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
            assert!(!queue.over.contains(offset), "{offset} is sent to {by:?}, and is settled");
            let was_seen = !queue.delivered.insert(*offset);
            assert!(was_seen || *before == 0 || queue.resets > 0, "{offset} was delivered before?");
            self.paths.redelivery += u64::from(*before > 0);
        }
    }

    fn settled(&mut self, at_ns: u64, by: &Holder, over: &[u64]) {
        let queue = self.queues.entry(by.queue).or_default();
        let holder = queue.holder.expect("nobody settles what is not claimed");
        let holds = (holder.generation, holder.member) == (by.generation, by.member);
        // It was applied before the claim that was applied in the same instant; its answer takes a
        // way more.
        let may = holds || at_ns == queue.claimed_ns;
        assert!(may, "two owners: {by:?} settles while {holder:?} has the queue");
        if queue.resets == 0 && holder.round == by.round {
            queue.over.extend(over);
        }
    }

    /// A message is given up by who has it, or when it was delivered as often as it may be: not
    /// earlier.
    fn died(&mut self, letter: &Letter) {
        let most = self.counts.most(letter.queue, letter.offset);
        let said = letter.deliveries;
        assert!((1..=most).contains(&said), "delivered {most} times at most: {letter:?}");
        let path = match letter.reason.as_str() {
            GIVES_UP_REASON => &mut self.paths.hopeless,
            FAILS_REASON => &mut self.paths.worn_out,
            _ => &mut self.paths.unanswered,
        };
        *path += 1;
        let is_early = letter.reason != GIVES_UP_REASON && said != DELIVERIES_MAX;
        assert!(!is_early, "given up early, or late: {letter:?}");
    }
}
