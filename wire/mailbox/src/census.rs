//! The census: who lives in this process, and how busy everyone is.
//!
//! Actors write plain counters; a snapshot of all of them is what `/actors` shows. The census is a
//! value that belongs to one [`Process`](crate::Process), so several brokers fit in one test.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::Serialize;

use crate::clock::Clock;
use crate::credit::CreditPool;

/// Everyone who lives in a process. Locked only when actors start and stop, and for a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Census {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    actors: BTreeMap<u64, Arc<ActorStats>>,
    /// What those did that have stopped, by kind: counters never go back.
    stopped: BTreeMap<&'static str, Stopped>,
}

#[derive(Debug, Default)]
struct Stopped {
    handled: u64,
    busy_ns: u64,
    restarts: u64,
}

/// One actor as a snapshot shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorReport {
    /// What it is, as in `TopicQueue`.
    pub kind: &'static str,
    /// Which one it is, as in `orders/3`.
    pub name: String,
    /// The arbiter it lives on.
    pub place: String,
    /// Messages in its mailbox, not yet received.
    pub queued: u64,
    /// Messages received since it started.
    pub handled: u64,
    /// Time spent in its handlers, in microseconds.
    pub busy_us: u64,
    /// Age of the oldest message not yet dealt with, in milliseconds; 0 when there is none. A
    /// handler that hangs lets this grow.
    pub oldest_waiting_ms: u64,
    /// How often it panicked and was rebuilt.
    pub restarts: u32,
    /// Futures it has under way.
    pub tasks: u32,
    /// Milliseconds since it started.
    pub age_ms: u64,
    /// Its inboxes, in the order in which they were opened.
    pub inboxes: Vec<InboxReport>,
}

/// One inbox as a snapshot shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InboxReport {
    /// The message it takes.
    pub message: &'static str,
    /// Credits held by messages whose work is not over (messages or bytes, by their weight).
    pub depth: u32,
    /// Credits in all.
    pub capacity: u32,
}

/// All actors of one kind together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindReport {
    /// What they are.
    pub kind: &'static str,
    /// How many there are.
    pub actors: u64,
    /// Messages in their mailboxes.
    pub queued: u64,
    /// Messages received.
    pub handled: u64,
    /// Time spent in handlers, in microseconds.
    pub busy_us: u64,
    /// Age of the oldest message waiting anywhere among them, in milliseconds.
    pub oldest_waiting_ms: u64,
    /// How often any of them was rebuilt.
    pub restarts: u64,
}

impl Census {
    /// An empty census.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, stats: &Arc<ActorStats>) -> CensusEntry {
        let mut entries = self.lock();
        let key = entries.next;
        entries.next += 1;
        entries.actors.insert(key, Arc::clone(stats));
        CensusEntry { census: self.clone(), key }
    }

    /// How many actors live.
    pub fn len(&self) -> usize {
        self.lock().actors.len()
    }

    /// Whether nobody lives: what a test checks at its end.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Restarts of all actors since the process started, stopped ones included.
    pub fn restarts_total(&self) -> u64 {
        let entries = self.lock();
        let living: u64 = entries.actors.values().map(|stats| u64::from(stats.restarts())).sum();
        living + entries.stopped.values().map(|stopped| stopped.restarts).sum::<u64>()
    }

    /// Every actor, in the order in which they started.
    pub fn snapshot(&self) -> Vec<ActorReport> {
        let actors: Vec<_> = self.lock().actors.values().cloned().collect();
        actors.iter().map(|stats| stats.report()).collect()
    }

    /// At most `actors_max` of those that live, behind the one with number `after`, in the order in
    /// which they started; and the number to go on behind, if there are more.
    pub fn page(&self, after: Option<u64>, actors_max: usize) -> (Vec<ActorReport>, Option<u64>) {
        let (some, more) = {
            let entries = self.lock();
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut behind = entries.actors.range((from, Bound::Unbounded));
            let some: Vec<_> = behind
                .by_ref()
                .take(actors_max)
                .map(|(number, stats)| (*number, Arc::clone(stats)))
                .collect();
            (some, behind.next().is_some())
        };
        let next = some.last().map(|(number, _)| *number).filter(|_| more);
        (some.iter().map(|(_, stats)| stats.report()).collect(), next)
    }

    /// By kind: how the living are, and what all have done since the process started, those that
    /// have stopped included.
    pub fn totals(&self) -> Vec<KindReport> {
        let living = self.snapshot();
        let mut kinds: BTreeMap<_, _> =
            Self::by_kind(&living).into_iter().map(|kind| (kind.kind, kind)).collect();
        for (kind, stopped) in &self.lock().stopped {
            let sum = kinds.entry(*kind).or_insert(KindReport {
                kind,
                actors: 0,
                queued: 0,
                handled: 0,
                busy_us: 0,
                oldest_waiting_ms: 0,
                restarts: 0,
            });
            sum.handled += stopped.handled;
            sum.busy_us += stopped.busy_ns / 1_000;
            sum.restarts += stopped.restarts;
        }
        kinds.into_values().collect()
    }

    /// The actors of a snapshot, summed by kind and sorted by it.
    pub fn by_kind(actors: &[ActorReport]) -> Vec<KindReport> {
        let mut kinds = BTreeMap::new();
        for actor in actors {
            let kind = kinds.entry(actor.kind).or_insert(KindReport {
                kind: actor.kind,
                actors: 0,
                queued: 0,
                handled: 0,
                busy_us: 0,
                oldest_waiting_ms: 0,
                restarts: 0,
            });
            kind.actors += 1;
            kind.queued += actor.queued;
            kind.handled += actor.handled;
            kind.busy_us += actor.busy_us;
            kind.oldest_waiting_ms = kind.oldest_waiting_ms.max(actor.oldest_waiting_ms);
            kind.restarts += u64::from(actor.restarts);
        }
        kinds.into_values().collect()
    }
}

/// Held by a living actor; dropping it leaves the census.
#[derive(Debug)]
pub(crate) struct CensusEntry {
    census: Census,
    key: u64,
}

impl Drop for CensusEntry {
    fn drop(&mut self) {
        let mut entries = self.census.lock();
        if let Some(stats) = entries.actors.remove(&self.key) {
            let stopped = entries.stopped.entry(stats.kind).or_default();
            stopped.handled += stats.handled.load(Ordering::Relaxed);
            stopped.busy_ns += stats.busy_ns.load(Ordering::Relaxed);
            stopped.restarts += u64::from(stats.restarts());
        }
    }
}

/// The counters of one actor. Those it alone writes are stored, not added, so that counting costs
/// no locked instruction.
#[derive(Debug)]
pub(crate) struct ActorStats {
    kind: &'static str,
    name: String,
    place: Arc<str>,
    clock: Clock,
    started_ns: u64,
    queued: AtomicU64,
    /// When the message now dealt with, or the first one waiting, was put.
    head_put_ns: AtomicU64,
    receiving: AtomicBool,
    handled: AtomicU64,
    busy_ns: AtomicU64,
    restarts: AtomicU32,
    tasks: AtomicU32,
    inboxes: Mutex<Vec<(&'static str, Weak<CreditPool>)>>,
}

impl ActorStats {
    pub(crate) fn new(kind: &'static str, name: String, place: Arc<str>, clock: Clock) -> Self {
        Self {
            kind,
            name,
            place,
            clock,
            started_ns: clock.monotonic_ns(),
            queued: AtomicU64::new(0),
            head_put_ns: AtomicU64::new(0),
            receiving: AtomicBool::new(false),
            handled: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            restarts: AtomicU32::new(0),
            tasks: AtomicU32::new(0),
            inboxes: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    fn inboxes(&self) -> MutexGuard<'_, Vec<(&'static str, Weak<CreditPool>)>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_inbox(&self, message: &'static str, pool: &Arc<CreditPool>) {
        let mut inboxes = self.inboxes();
        inboxes.retain(|(_, pool)| pool.strong_count() > 0);
        inboxes.push((message, Arc::downgrade(pool)));
    }

    /// Refuses all further messages of all inboxes.
    pub(crate) fn close_inboxes(&self) {
        for pool in self.inboxes().iter().filter_map(|(_, pool)| pool.upgrade()) {
            pool.close();
        }
    }

    /// Counts a message into the mailbox; returns when that was, on the coarse clock.
    pub(crate) fn put_one(&self) -> u64 {
        let now_ns = self.clock.coarse_ns();
        if self.queued.fetch_add(1, Ordering::Relaxed) == 0 {
            self.head_put_ns.store(now_ns, Ordering::Relaxed);
        }
        now_ns
    }

    /// Counts a message out of the mailbox; returns whether others wait behind it.
    pub(crate) fn receive_one(&self, put_ns: u64) -> bool {
        self.head_put_ns.store(put_ns, Ordering::Relaxed);
        self.receiving.store(true, Ordering::Relaxed);
        self.queued.fetch_sub(1, Ordering::Relaxed) > 1
    }

    /// Counts what one handler took.
    pub(crate) fn received(&self, busy_ns: u64) {
        self.receiving.store(false, Ordering::Relaxed);
        add(&self.handled, 1);
        add(&self.busy_ns, busy_ns);
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tasks(&self, tasks: usize) {
        self.tasks.store(u32::try_from(tasks).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn report(&self) -> ActorReport {
        let now_ns = self.clock.monotonic_ns();
        let queued = self.queued.load(Ordering::Relaxed);
        let waits = queued > 0 || self.receiving.load(Ordering::Relaxed);
        let head_put_ns = self.head_put_ns.load(Ordering::Relaxed);
        let oldest_waiting_ns = if waits { now_ns.saturating_sub(head_put_ns) } else { 0 };
        let inboxes = self.inboxes();
        ActorReport {
            kind: self.kind,
            name: self.name.clone(),
            place: self.place.to_string(),
            queued,
            handled: self.handled.load(Ordering::Relaxed),
            busy_us: self.busy_ns.load(Ordering::Relaxed) / 1_000,
            oldest_waiting_ms: oldest_waiting_ns / 1_000_000,
            restarts: self.restarts(),
            tasks: self.tasks.load(Ordering::Relaxed),
            age_ms: now_ns.saturating_sub(self.started_ns) / 1_000_000,
            inboxes: inboxes
                .iter()
                .filter_map(|(message, pool)| Some((message, pool.upgrade()?)))
                .map(|(message, pool)| InboxReport {
                    message,
                    depth: pool.capacity() - pool.free(),
                    capacity: pool.capacity(),
                })
                .collect(),
        }
    }
}

/// Adds to a counter that only the calling thread writes.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
