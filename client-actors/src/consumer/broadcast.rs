//! A member of a broadcast group: it has all messages of what it subscribes to, reads its queues as any
//! reader does, and keeps itself what it has settled. No clock, no I/O.
//!
//! ```text
//! program's answers --> settling (gathered) --> poll_keep --> the file --> kept --> who waited hears
//! ```
//!
//! Nothing of a message counts before the file has it. A message that failed waits here and is handed
//! out again; it is not settled meanwhile, so a member that starts again has it again.

use grus_protocol::batch::RecordBatch;
use grus_protocol::error::{ErrorCode, ErrorDetail};
use grus_protocol::message::{
    GroupDeliver, GroupModel, MessageFilter, OffsetRange, QueuePlace, SubscribeAt,
};
use grus_protocol::{ErrorReply, Offset, QueueId, Term, TimestampMs};

use super::local::{Failure, wait_ms};
use super::offsets::OffsetSet;
use super::progress_file::{OwnProgress, QueueDone};
use super::queue::OwnedQueue;
use super::settling::Verdict;
use super::state::ConsumerState;
use crate::error::Refusal;
use crate::read::READ_LIMITS;
use crate::reader::cursor::{Content, Fetched};

/// How long after the file could not be written it is tried again.
const WRITE_AGAIN_MS: u64 = 1_000;
/// Most queues of the file that are not the member's now: of topics that are gone, most likely.
const OTHER_QUEUES_MAX: usize = 4_096;
/// The clocks of two brokers may be so far apart and nothing is passed over.
const CLOCKS_APART_MS: u64 = 1_000;
/// Behind the last offset there can be.
const END: Offset = Offset(u64::MAX);

/// What a member of a broadcast group keeps besides its queues.
#[derive(Debug)]
pub(crate) struct Broadcast {
    progress: OwnProgress,
    /// It is not what the file has.
    is_changed: bool,
    /// The answers, by slot and number, that what is being written holds.
    writing: Option<Vec<(u64, u64)>>,
    not_before_ms: u64,
    /// It has never been a member: what it is assigned first begins where the group's settings say.
    is_first: bool,
}

impl Broadcast {
    /// One that goes on where its file says.
    pub(crate) fn new(progress: OwnProgress) -> Self {
        let is_first = progress.since.is_none() && progress.queues.is_empty();
        Self { progress, is_changed: false, writing: None, not_before_ms: 0, is_first }
    }

    /// It is a member, by a broker whose clock says so.
    pub(super) fn joined(&mut self, time: TimestampMs) {
        if self.progress.since.is_none() && time.0 > 0 {
            (self.progress.since, self.is_changed) = (Some(time), true);
        }
    }

    /// Whether what is assigned now is assigned first.
    pub(super) const fn is_first(&self) -> bool {
        self.is_first
    }

    /// What was assigned has begun: what comes later is what came to be later, or was away.
    pub(super) const fn has_begun(&mut self) {
        self.is_first = false;
    }

    fn done(&self, place: QueuePlace) -> Option<&QueueDone> {
        self.progress.queues.get(&place)
    }

    /// Whether the file is being written.
    pub(super) const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Keeps a limit to the queues that are not the member's now: the oldest topics are forgotten.
    fn forget(&mut self, is_own: impl Fn(&QueuePlace) -> bool) {
        let queues = &mut self.progress.queues;
        let mut others: Vec<_> = queues.keys().filter(|place| !is_own(place)).copied().collect();
        if let Some(surplus @ 1..) = others.len().checked_sub(OTHER_QUEUES_MAX) {
            others.sort_unstable();
            for place in &others[..surplus] {
                queues.remove(place);
            }
        }
    }
}

impl<P> ConsumerState<P> {
    /// The group is of the other kind than this member: it cannot be in it.
    pub(super) fn of_other_model(&self) -> Option<Refusal> {
        let is_broadcast = self.membership.settings().model == GroupModel::Broadcast;
        if is_broadcast == self.broadcast.is_some() {
            return None;
        }
        let model = self.membership.settings().model;
        let text = format!("the group's model is {model}: so its members have to be set up");
        Some(ErrorReply::new(ErrorCode::InvalidSettings, text).into())
    }

    /// Where the subscription of a queue begins.
    pub(crate) fn start_of(&self, slot: u64) -> SubscribeAt {
        use grus_protocol::message::ListAt;
        let queue = self.queues.get(&slot);
        let done =
            queue.zip(self.broadcast.as_ref()).and_then(|(queue, own)| own.done(queue.place));
        let (Some(queue), Some(done)) = (queue, done) else {
            return match self.membership.settings().start {
                ListAt::First => SubscribeAt::First,
                ListAt::Last => self.start_of_late(queue),
                ListAt::Time(time) => SubscribeAt::Time(time),
            };
        };
        let mut known = done.above.clone();
        known.extend(queue.taken());
        queue.local.iter().for_each(|local| known.extend(local.offsets()));
        let open = known.missing_of(OffsetRange { from: done.floor, to: END }).into_iter();
        let mut open = open.flat_map(|range| queue.settling.missing_of(range));
        let next = open.next().map_or(done.floor, |range| range.from);
        SubscribeAt::Offset(next, Term::UNKNOWN)
    }

    /// Where a queue of which nothing is known begins in a group that begins at the end: at the end where
    /// the member begins, too. Otherwise all of it counts that came since, be it that the queue is new,
    /// or that its broker could not be reached.
    fn start_of_late(&self, queue: Option<&OwnedQueue<P>>) -> SubscribeAt {
        let since = self.broadcast.as_ref().and_then(|own| own.progress.since);
        match since {
            Some(since) if !queue.is_some_and(OwnedQueue::is_at_end) => {
                SubscribeAt::Time(TimestampMs(since.0.saturating_sub(CLOCKS_APART_MS)))
            }
            _ => SubscribeAt::Last,
        }
    }

    /// A queue is read from this offset on: what lies before it is not there any more, or was not
    /// asked for by one who begins.
    pub(super) fn begun_at(&mut self, slot: u64, offset: Offset) {
        let Some(queue) = self.queues.get(&slot) else { return };
        let Some(own) = &mut self.broadcast else { return };
        let (place, topic) = (queue.place, queue.topic.clone());
        if own.progress.queues.contains_key(&place) {
            return;
        }
        // An earlier incarnation of the topic is no more.
        let is_other = |known: &QueuePlace, done: &QueueDone| {
            done.topic != topic || known.topic_id == place.topic_id
        };
        own.progress.queues.retain(|known, done| is_other(known, done));
        let done = QueueDone { topic, floor: offset, above: OffsetSet::default() };
        own.progress.queues.insert(place, done);
        own.is_changed = true;
        own.forget(|known| self.slots.contains_key(known));
    }

    /// The place where a queue was to go on is not in it: it goes on at the nearest one.
    pub(super) fn go_to_nearest(&mut self, slot: u64, refusal: &Refusal) -> bool {
        let Some(ErrorDetail::Bounds { log_start, end_offset }) = refusal.detail else {
            return false;
        };
        let Some(queue) = self.queues.get_mut(&slot) else { return false };
        let Some(own) = &mut self.broadcast else { return false };
        let Some(done) = own.progress.queues.get_mut(&queue.place) else { return false };
        let (topic, place, floor) = (&queue.topic, queue.place.queue, done.floor);
        let text = "what was to come is not there any more: going on at the nearest message";
        tracing::warn!(%topic, queue = %place, %floor, %log_start, %end_offset, "{text}");
        queue.unsubscribed();
        self.look.insert(slot);
        if done.floor < log_start {
            done.rise_to(log_start);
        } else {
            // The log has lost its end: what is in hand is not what lies there now.
            self.leftovers.extend(queue.leftovers());
            drop(queue.lose());
            done.floor = done.floor.min(end_offset);
            done.above = OffsetSet::default();
        }
        own.is_changed = true;
        true
    }

    /// Messages that cannot be read are passed by, and named: they hold up nothing behind them.
    pub(super) fn pass_damaged(&mut self, slot: u64, refusal: &Refusal) -> bool {
        let Some(ErrorDetail::Range { from, to }) = refusal.detail else { return false };
        let Some(queue) = self.queues.get_mut(&slot) else { return false };
        let Some(own) = &mut self.broadcast else { return false };
        let Some(done) = own.progress.queues.get_mut(&queue.place) else { return false };
        let (topic, place) = (&queue.topic, queue.place.queue);
        tracing::error!(%topic, queue = %place, %from, %to, "damaged messages are passed by");
        queue.unsubscribed();
        self.look.insert(slot);
        done.settle(OffsetRange { from, to });
        own.is_changed = true;
        true
    }

    /// A message failed, or is given up: what is to be settled of it, if anything.
    pub(super) fn failed_here(
        &mut self,
        slot: u64,
        (item, offset): (u64, Offset),
        verdict: Verdict,
        now_ms: u64,
    ) -> Option<Verdict> {
        let settings = self.membership.settings().clone();
        let queue = self.queues.get_mut(&slot)?;
        let (topic, place) = (queue.topic.clone(), queue.place.queue);
        match verdict {
            Verdict::Dead { reason } => {
                tracing::warn!(%topic, queue = %place, %offset, reason, "a message is given up");
                Some(Verdict::Ack)
            }
            Verdict::Nack { retry_after_ms, reason } => {
                let wait = |deliveries| {
                    let rung_ms = wait_ms(&settings, deliveries)?;
                    Some(now_ms.saturating_add(retry_after_ms.unwrap_or(rung_ms)))
                };
                match queue.fail_here((item, offset), wait) {
                    Failure::GivenUp { deliveries } => {
                        let text = "a message is given up";
                        tracing::warn!(%topic, queue = %place, %offset, deliveries, reason, "{text}");
                        Some(Verdict::Ack)
                    }
                    Failure::Waits | Failure::Unknown => None,
                }
            }
            other => Some(other),
        }
    }

    /// Messages whose time has come again may be taken.
    pub(super) fn retry_here(&mut self, now_ms: u64) {
        if self.broadcast.is_none() {
            return;
        }
        let slots: Vec<u64> = self.queues.keys().copied().collect();
        for slot in slots {
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            let due = queue.local.as_mut().map(|local| local.take_due(now_ms)).unwrap_or_default();
            for item in due {
                queue.make_ready(item);
            }
            self.note_ready(slot);
        }
    }

    /// Batches were pushed for a queue that this member reads by itself: what it has settled, and what
    /// it does not want, is not handed out.
    pub(crate) fn delivered_here(&mut self, number: u64, batches: Vec<Fetched>, now_ms: u64) {
        let Some(slot) = self.live.get(&number).copied() else { return };
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        let done = self.broadcast.as_ref().and_then(|own| own.done(queue.place));
        let Some(done) = done else { return };
        let mut known = done.above.clone();
        known.insert(OffsetRange { from: Offset(0), to: done.floor });
        queue.local.iter().for_each(|local| known.extend(local.offsets()));
        let mut unwanted = OffsetSet::default();
        for batch in &batches {
            not_wanted(batch, &queue.filter, &mut unwanted);
        }
        let fresh = unwanted.ranges().flat_map(|range| known.missing_of(range));
        let fresh: Vec<OffsetRange> =
            fresh.flat_map(|range| queue.settling.missing_of(range)).collect();
        queue.settling.pass(&fresh, now_ms);
        known.extend(&unwanted);
        let ends = batches.iter().map(|batch| (batch.base_offset, end_of(batch)));
        let span = ends.reduce(|(from, _), (_, to)| (from, to));
        let redelivered = span.and_then(|(from, to)| Some(queue.local.as_ref()?.marks(from, to)));
        let push = GroupDeliver {
            queue: QueueId(0),
            log_start: Offset(0),
            end_offset: Offset(0),
            batches: Vec::new(),
            skipped: known.ranges().collect(),
            redelivered: redelivered.unwrap_or_default(),
        };
        self.delivered(number, &push, batches, now_ms);
    }

    /// What the file is to hold now, if it is to be written. [`ConsumerState::kept`] hears what came
    /// of it.
    pub(crate) fn poll_keep(&mut self, now_ms: u64) -> Option<String> {
        let own = self.broadcast.as_mut()?;
        if own.writing.is_some() || now_ms < own.not_before_ms {
            return None;
        }
        let mut covered = Vec::new();
        for (slot, queue) in &mut self.queues {
            let number = self.next_number + 1;
            let Some(done) = own.progress.queues.get_mut(&queue.place) else { continue };
            let Some(told) = queue.settling.poll(number, now_ms) else { continue };
            self.next_number = number;
            covered.push((*slot, number));
            for range in told.acks.ranges() {
                done.settle(range);
            }
        }
        if covered.is_empty() && !own.is_changed {
            return None;
        }
        own.is_changed = false;
        own.writing = Some(covered);
        Some(own.progress.encode())
    }

    /// The file is written, or was not; who waited for that.
    pub(crate) fn kept(&mut self, is_written: bool, now_ms: u64) -> Vec<P> {
        let Some(own) = &mut self.broadcast else { return Vec::new() };
        let covered = own.writing.take().unwrap_or_default();
        if !is_written {
            own.is_changed = true;
            own.not_before_ms = now_ms + WRITE_AGAIN_MS;
            for (slot, number) in covered {
                let Some(queue) = self.queues.get_mut(&slot) else { continue };
                if queue.settling.sent() == Some(number) {
                    queue.settling.failed(now_ms + WRITE_AGAIN_MS);
                }
            }
            return Vec::new();
        }
        covered.into_iter().flat_map(|at| self.acked(at, &[], now_ms)).collect()
    }
}

fn end_of(batch: &Fetched) -> Offset {
    let count = match &batch.content {
        Content::Batch(batch) => batch.count(),
        Content::Expired(count) => *count,
    };
    Offset(batch.base_offset.0.saturating_add(u64::from(count)))
}

/// Adds what of a batch is not wanted: other tags, or its time is over.
fn not_wanted(fetched: &Fetched, filter: &MessageFilter, unwanted: &mut OffsetSet) {
    let all = OffsetRange { from: fetched.base_offset, to: end_of(fetched) };
    let batch: &RecordBatch = match &fetched.content {
        Content::Expired(_) => return unwanted.insert(all),
        Content::Batch(_) if *filter == MessageFilter::All => return,
        Content::Batch(batch) => batch,
    };
    if !filter.may_match(batch.tag_bloom()) {
        return unwanted.insert(all);
    }
    // What cannot be read is handed out: somebody has to look at it.
    let Ok(plain) = batch.clone().decompressed(&READ_LIMITS) else { return };
    for (offset, record) in (all.from.0..).zip(plain.records()) {
        let Ok(record) = record else { return };
        if !filter.matches(record.tag()) {
            unwanted.insert(OffsetRange::one(Offset(offset)));
        }
    }
}
