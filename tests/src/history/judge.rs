//! What a history may not show, whatever went wrong meanwhile. Plain logic: events in, a verdict out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::{Act, Event, Kind};

#[cfg(test)]
mod cases;

/// Violations that are kept of each kind.
const KEPT: usize = 10;

/// The kinds of what may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Acknowledged to its producer, and not there at the end.
    Lost,
    /// Seen by somebody, and nobody sent it, or its producer was told that it is not stored.
    Phantom,
    /// There twice.
    Twice,
    /// Not where its receipt says.
    Moved,
    /// Two saw different messages at one place.
    Differs,
    /// Seen by somebody, and not there at the end.
    Vanished,
    /// Messages of a producer and key in another order than they were sent in.
    Order,
    /// A key in two queues.
    Strayed,
    /// A reader went back, or left out what is there.
    Skipped,
    /// Acknowledged to its producer, and never handed out to the group.
    Undelivered,
    /// Handed out to the group after the group had been told that it is done.
    Again,
    /// Two brokers led a shard in one term.
    TwoLeaders,
}

/// How much there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent.
    pub sent: usize,
    /// Of them those acknowledged.
    pub stored: usize,
    /// Of them those whose producers were told that they are not stored.
    pub refused: usize,
    /// Of them those of which nobody knows.
    pub unknown: usize,
    /// Messages there at the end.
    pub there: usize,
    /// Messages handed out to the group, again and again among them.
    pub taken: usize,
    /// Messages that the group was told are done.
    pub acked: usize,
    /// Messages read all along.
    pub read: usize,
    /// Leaders seen, each in its term.
    pub reigns: usize,
    /// Faults begun.
    pub faults: usize,
}

/// What a history shows.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How much there was.
    pub counts: Counts,
    /// What may not be: how often, and the first of each.
    pub wrongs: BTreeMap<Wrong, (usize, Vec<String>)>,
}

impl Verdict {
    fn add(&mut self, wrong: Wrong, what: impl FnOnce() -> String) {
        let (count, kept) = self.wrongs.entry(wrong).or_default();
        *count += 1;
        if kept.len() < KEPT {
            kept.push(what());
        }
    }

    /// Whether all is as it should be.
    pub fn is_sound(&self) -> bool {
        self.wrongs.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:?}", self.counts)?;
        for (wrong, (count, kept)) in &self.wrongs {
            writeln!(out, "{wrong:?}: {count}")?;
            for one in kept {
                writeln!(out, "  {one}")?;
            }
        }
        let word = if self.is_sound() { "sound" } else { "NOT SOUND" };
        write!(out, "verdict: {word}")
    }
}

type Place = (u64, u64);

/// A message, as its producer knows it.
struct Sent<'a> {
    /// The how many-th of all that were sent.
    nth: usize,
    producer: &'a str,
    key: &'a str,
    outcome: Option<Kind>,
    told: Option<Place>,
}

/// What was sent, by value, and what is there at the end.
#[derive(Default)]
struct Facts<'a> {
    sent: HashMap<&'a str, Sent<'a>>,
    /// In order of queue and offset.
    there: BTreeMap<Place, &'a str>,
}

/// Looks at a whole history.
pub fn judge(events: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    let facts = facts(events, &mut verdict);
    receipts(&facts, &mut verdict);
    order(&facts, &mut verdict);
    seen(events, &facts, &mut verdict);
    readers(events, &facts, &mut verdict);
    group(events, &facts, &mut verdict);
    reigns(events, &mut verdict);
    let faults = events.iter().filter(|event| event.act == Act::Fault);
    verdict.counts.faults = faults.filter(|event| event.kind == Kind::Invoke).count();
    verdict
}

fn value(event: &Event) -> &str {
    event.value.as_deref().unwrap_or("")
}

fn place(event: &Event) -> Option<Place> {
    Some((event.queue?, event.offset?))
}

fn facts<'a>(events: &'a [Event], verdict: &mut Verdict) -> Facts<'a> {
    let mut facts = Facts::default();
    for event in events {
        match (event.act, event.kind) {
            (Act::Send, Kind::Invoke) => {
                let (producer, key) = (&*event.process, event.key.as_deref().unwrap_or(""));
                let nth = facts.sent.len();
                let sent = Sent { nth, producer, key, outcome: None, told: None };
                facts.sent.insert(value(event), sent);
            }
            (Act::Send, kind) => {
                if let Some(sent) = facts.sent.get_mut(value(event)) {
                    (sent.outcome, sent.told) = (Some(kind), place(event));
                }
            }
            (Act::Scan, Kind::Ok) => {
                let Some(at) = place(event) else { continue };
                let before = facts.there.insert(at, value(event));
                if let Some(before) = before.filter(|before| *before != value(event)) {
                    verdict.add(Wrong::Differs, || {
                        format!("{at:?}: {before} and {}, both at the end", value(event))
                    });
                }
            }
            _ => {}
        }
    }
    let of = |kind| facts.sent.values().filter(|sent| sent.outcome == Some(kind)).count();
    let counts = &mut verdict.counts;
    (counts.sent, counts.there) = (facts.sent.len(), facts.there.len());
    (counts.stored, counts.refused) = (of(Kind::Ok), of(Kind::Fail));
    counts.unknown = counts.sent - counts.stored - counts.refused;
    facts
}

/// What was acknowledged is there, where the receipt says, and nothing is there twice.
fn receipts(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut found: HashMap<&str, Place> = HashMap::new();
    for (at, value) in &facts.there {
        if let Some(before) = found.insert(value, *at) {
            verdict.add(Wrong::Twice, || format!("{value}: {before:?} and {at:?}"));
        }
    }
    let stored = facts.sent.iter().filter(|(_, sent)| sent.outcome == Some(Kind::Ok));
    for (value, sent) in stored {
        let Some(told) = sent.told else { continue };
        if facts.there.get(&told) == Some(value) {
            continue;
        }
        match found.get(value) {
            None => verdict.add(Wrong::Lost, || format!("{value} at {told:?}")),
            Some(at) => verdict.add(Wrong::Moved, || format!("{value}: {told:?}, is at {at:?}")),
        }
    }
}

/// Messages of one producer and key are in one queue, in the order in which they were sent.
fn order(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut last: HashMap<(&str, &str), (usize, &str)> = HashMap::new();
    let mut queues: HashMap<&str, u64> = HashMap::new();
    for ((queue, _), value) in &facts.there {
        let Some(sent) = facts.sent.get(value) else { continue };
        let home = *queues.entry(sent.key).or_insert(*queue);
        if home != *queue {
            verdict.add(Wrong::Strayed, || format!("{value} of key {}: {home}, {queue}", sent.key));
        }
        let before = last.insert((sent.producer, sent.key), (sent.nth, value));
        if let Some((_, before)) = before.filter(|(nth, _)| *nth > sent.nth) {
            verdict.add(Wrong::Order, || format!("{value} of key {} after {before}", sent.key));
        }
    }
}

/// Whatever anybody saw was sent, is there at the end, and is what everybody else saw there.
fn seen(events: &[Event], facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut complained = HashSet::new();
    for event in events {
        let is_seen = matches!(event.act, Act::Take | Act::Read | Act::Scan);
        let Some(at) = place(event).filter(|_| is_seen && event.kind == Kind::Ok) else { continue };
        let (who, value) = (&event.process, value(event));
        let outcome = facts.sent.get(value).map(|sent| sent.outcome);
        if outcome.is_none_or(|outcome| outcome == Some(Kind::Fail)) && complained.insert(value) {
            verdict.add(Wrong::Phantom, || format!("{value} at {at:?}, seen by {who}"));
        }
        match facts.there.get(&at) {
            Some(there) if *there == value => {}
            Some(there) => {
                verdict.add(Wrong::Differs, || format!("{at:?}: {who} saw {value}, not {there}"));
            }
            None => verdict.add(Wrong::Vanished, || format!("{value} at {at:?}, seen by {who}")),
        }
    }
}

/// Each reader goes on from offset to offset, and leaves out nothing of what is there.
fn readers(events: &[Event], facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut stands: HashMap<(&str, u64), u64> = HashMap::new();
    for event in events {
        if !matches!(event.act, Act::Read | Act::Scan) || event.kind != Kind::Ok {
            continue;
        }
        verdict.counts.read += usize::from(event.act == Act::Read);
        let Some((queue, offset)) = place(event) else { continue };
        let who = &*event.process;
        let next = stands.insert((who, queue), offset + 1).unwrap_or(0);
        if offset < next {
            verdict.add(Wrong::Skipped, || format!("{who} went back from {next} to {offset}"));
        } else if let Some(((_, left), value)) =
            facts.there.range((queue, next)..(queue, offset)).next()
        {
            verdict.add(Wrong::Skipped, || format!("{who} left out {value} at {queue}, {left}"));
        }
    }
}

/// The group is handed out all that was acknowledged, and nothing again that it is done with.
fn group(events: &[Event], facts: &Facts<'_>, verdict: &mut Verdict) {
    let (mut taken, mut acked) = (HashSet::new(), HashMap::new());
    let has_group = events.iter().any(|event| event.act == Act::Take);
    for event in events.iter().filter(|event| event.kind == Kind::Ok) {
        match event.act {
            Act::Take => {
                verdict.counts.taken += 1;
                taken.insert(value(event));
                if let Some(when_us) = acked.get(value(event)) {
                    verdict.add(Wrong::Again, || {
                        let (who, now_us) = (&event.process, event.time_us);
                        format!("{} to {who} at {now_us}, done at {when_us}", value(event))
                    });
                }
            }
            Act::Ack => _ = acked.insert(value(event), event.time_us),
            _ => {}
        }
    }
    verdict.counts.acked = acked.len();
    let stored = facts.sent.iter().filter(|(_, sent)| sent.outcome == Some(Kind::Ok));
    for (value, _) in stored.filter(|(value, _)| has_group && !taken.contains(*value)) {
        verdict.add(Wrong::Undelivered, || (*value).to_owned());
    }
}

/// No term has two leaders.
fn reigns(events: &[Event], verdict: &mut Verdict) {
    let mut leaders: HashMap<Place, &str> = HashMap::new();
    for event in events.iter().filter(|event| event.act == Act::Reign) {
        let (Some(at), Some(broker)) = (place(event), event.note.as_deref()) else { continue };
        let first = *leaders.entry(at).or_insert(broker);
        if first != broker {
            verdict.add(Wrong::TwoLeaders, || {
                format!("shard {} in term {}: {first} and {broker}", at.0, at.1)
            });
        }
    }
    verdict.counts.reigns = leaders.len();
}
