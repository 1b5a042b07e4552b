//! A producer of one topic: takes messages, groups them into batches, and hands each batch to the
//! [lane](super::lane) of its queue. No clock, no I/O: it is told what happens, and polled for
//! what to do.

use std::collections::{HashMap, VecDeque};

use grus_protocol::batch::Compression;
use grus_protocol::{BatchBuilder, BatchLimits, BrokerId, ErrorCode, QueueId};

use super::choice::{Chooser, Queues};
use super::flushes::{Flushed, Flushes};
use super::identities::{Identities, Source};
use super::lane::{Lane, LaneSettings};
use super::outcome::{Outcome, Stored, Verdict};
use super::parts::{BatchKind, Ended, Load, Member, Members, Need, Sending};
use super::payload::Payload;
use super::salvage::divide;
use crate::backoff::{Backoff, Jitter};
use crate::config::{ProducerConfig, millis};
use crate::error::{Refusal, SendError};
use crate::guard::Guard;
use crate::route::{Ask, LinkId, Route};

/// An open batch is complete at this age even if it could not leave anyway, because its messages
/// time out together, when the oldest does.
const OPEN_AGE_MS_MAX: u64 = 250;
/// How long to wait when a connection has no room for a batch.
const NO_ROOM_WAIT_MS: u64 = 5;
/// Numbers that the batches of each set of lanes have for themselves, queue by queue.
pub(super) const SERIALS_EACH: u64 = 1 << 40;
/// Sets of lanes that each life of a producer has numbers for.
const SETS_EACH_LIFE: u64 = 1 << 12;

/// A batch that still takes messages.
#[derive(Debug)]
pub(super) struct Open<P> {
    pub(super) builder: BatchBuilder,
    pub(super) members: Members<P>,
    pub(super) kind: BatchKind,
    pub(super) since_ms: u64,
}

/// One queue.
#[derive(Debug)]
pub(super) struct QueueLane<P> {
    pub(super) lane: Lane<Payload, Members<P>>,
    pub(super) open: Option<Open<P>>,
    pub(super) link: Option<LinkId>,
    /// Which of the producer's identities it had last, counted from 1, and whom that is from.
    pub(super) identity_number: u64,
    pub(super) identity_of: Source,
    /// Its broker refuses earlier lives of the producer's name, or is just being told to.
    pub(super) is_announced: bool,
    pub(super) announced_to: Source,
    /// Its shard has stored something of this life, and refuses earlier ones for that, whoever leads it.
    pub(super) is_known: bool,
    pub(super) is_listed: bool,
}

impl<P> QueueLane<P> {
    /// Whoever was told of the producer's life may have led the queue no more by then: its shard has not
    /// heard of it, and must, unless it knows the life by what it has stored.
    pub(super) fn doubt_announcement(&mut self) {
        if !self.is_known {
            self.is_announced = false;
            self.announced_to = None; // an answer that is still to come says nothing either
        }
    }
}

/// Taken before the queues were known.
#[derive(Debug)]
pub(super) struct Unrouted<P> {
    pub(super) deadline_ms: u64,
    pub(super) load: Load,
    pub(super) member: Member<P>,
}

/// See the module documentation. `P` is where an outcome goes, `F` whoever waits for a flush.
#[derive(Debug)]
pub(crate) struct ProducerState<P, F> {
    pub(super) config: ProducerConfig,
    pub(super) limits: BatchLimits,
    pub(super) lane_settings: LaneSettings,
    pub(super) window_ms: u64,
    linger_ms: u64,
    pub(super) chooser: Chooser,
    pub(super) jitter: Jitter,
    pub(super) route: Option<Route>,
    pub(super) ask_route: Ask,
    pub(super) ask_backoff: Backoff,
    /// Why there is no route yet.
    pub(super) ask_refusal: Option<Refusal>,
    pub(super) identities: Identities,
    pub(super) lanes: Vec<QueueLane<P>>,
    /// The first number of a batch in the next lane.
    pub(super) serials: u64,
    /// Lanes that may have something to send.
    pub(super) listed: VecDeque<u32>,
    pub(super) up: Vec<LinkId>,
    /// Where each connection leads, or led when it was last open.
    pub(super) brokers: HashMap<LinkId, BrokerId>,
    /// What each connection's broker reads: bit n for compression n.
    agreed: HashMap<LinkId, u32>,
    pub(super) unrouted: VecDeque<Unrouted<P>>,
    pub(super) flushes: Flushes<F>,
    ended: VecDeque<Ended<P>>,
    scratch: Vec<Outcome<Members<P>>>,
    pub(super) fenced: Option<SendError>,
}

impl<P, F> ProducerState<P, F> {
    /// A producer that knows nothing yet. `seed` makes its waits and its first queue its own;
    /// `lives` ended before it, of whose batches answers may still come.
    pub(crate) fn new(
        config: &ProducerConfig,
        limits: BatchLimits,
        seed: u64,
        guard: &Guard,
        lives: u32,
    ) -> Self {
        let mut jitter = Jitter::new(seed);
        let chooser = Chooser::new(config.queue_choice.clone(), jitter.next(), guard.clone());
        let backoff_ms = (20, 1_000);
        let mut backoff = || Backoff::new(backoff_ms.0, backoff_ms.1, jitter.next());
        let (ask_backoff, identity_backoff) = (backoff(), backoff());
        let is_named = config.name.is_some();
        Self {
            config: config.clone(),
            limits,
            lane_settings: LaneSettings {
                send_timeout_ms: millis(config.send_timeout),
                retries: config.retries,
                in_flight_batches_max: config.in_flight_batches_max,
                backoff_ms,
            },
            window_ms: millis(config.window()),
            linger_ms: millis(config.linger),
            chooser,
            route: None,
            // A named producer shuts out its earlier life as soon as it can, not when it first
            // has something to send.
            ask_route: if is_named { Ask::NotBefore(0) } else { Ask::Rest },
            ask_backoff,
            ask_refusal: None,
            identities: Identities::new(config.name.clone(), identity_backoff),
            jitter,
            lanes: Vec::new(),
            serials: u64::from(lives).wrapping_mul(SETS_EACH_LIFE * SERIALS_EACH),
            listed: VecDeque::new(),
            up: Vec::new(),
            brokers: HashMap::new(),
            agreed: HashMap::new(),
            unrouted: VecDeque::new(),
            flushes: Flushes::new(),
            ended: VecDeque::new(),
            scratch: Vec::new(),
            fenced: None,
        }
    }

    pub(super) fn queues(&self) -> u32 {
        self.lanes.count()
    }

    pub(super) fn list(&mut self, queue: u32) {
        let entry = &mut self.lanes[queue as usize];
        if !entry.is_listed {
            entry.is_listed = true;
            self.listed.push_back(queue);
        }
    }

    /// The next batch to send. When it cannot be sent, say so by [`ProducerState::not_sent`]
    /// before asking for another.
    pub(crate) fn poll_send(&mut self, now_ms: u64) -> Option<Sending> {
        while let Some(&queue) = self.listed.front() {
            self.close_if_due(queue, now_ms);
            self.care_for_identity(queue);
            let may_send = self.is_announced(queue);
            let entry = &mut self.lanes[queue as usize];
            let link = entry.link.filter(|_| may_send);
            if let Some(link) = link
                && let Some(order) = entry.lane.poll_send(now_ms)
            {
                let (serial, attempt) = (order.serial, order.attempt);
                let (identity, first) = (order.identity, order.first_sequence);
                let agreed = self.agreed.get(&link).copied().unwrap_or(self.limits.compressions);
                let bytes = order.payload.stamped(identity, first, self.config.compression, agreed);
                return Some(Sending { link, queue: QueueId(queue), serial, attempt, bytes });
            }
            entry.is_listed = false;
            self.listed.pop_front();
        }
        None
    }

    /// An open batch leaves when nothing of its queue is under way, or when its time has come.
    fn close_if_due(&mut self, queue: u32, now_ms: u64) {
        let entry = &self.lanes[queue as usize];
        let Some(open) = &entry.open else { return };
        let age_ms = now_ms.saturating_sub(open.since_ms);
        let lingered = self.linger_ms > 0 && age_ms >= self.linger_ms;
        let free = self.linger_ms == 0 && entry.lane.is_free();
        let flushing =
            open.members.first().is_some_and(|member| self.flushes.is_flushing(member.generation));
        if lingered || free || flushing || age_ms >= OPEN_AGE_MS_MAX.max(self.linger_ms) {
            self.close_open(queue);
        }
    }

    /// The batch polled last was not sent: the connection has no room.
    pub(crate) fn not_sent(&mut self, queue: QueueId, serial: u64, now_ms: u64) {
        self.lanes[queue.0 as usize].lane.not_sent(serial, now_ms, NO_ROOM_WAIT_MS);
    }

    /// A batch is stored.
    pub(crate) fn stored(&mut self, queue: QueueId, serial: u64, stored: Stored) {
        let is_its = self.with_lane(queue, |lane, out| lane.stored(serial, stored, out));
        if is_its == Some(true) {
            self.lanes[queue.0 as usize].is_known = true;
        }
    }

    /// An attempt was refused.
    pub(crate) fn refused(
        &mut self,
        queue: QueueId,
        token: (u64, u64),
        mut refusal: Refusal,
        now_ms: u64,
    ) {
        if refusal.code.wants_metadata() {
            self.ask_route.want();
            if let Some(entry) = self.lanes.get_mut(queue.0 as usize) {
                entry.doubt_announcement();
            }
        }
        if refusal.code == ErrorCode::UnsupportedCompression {
            self.goes_plain(queue, &mut refusal);
        }
        let cause = refusal.clone();
        let verdict =
            self.with_lane(queue, |lane, out| lane.refused(token, refusal, now_ms, divide, out));
        if verdict.flatten() == Some(Verdict::Fenced) {
            self.is_shut_out(&cause);
        }
    }

    /// A later life of its name is at work.
    pub(super) fn is_shut_out(&mut self, cause: &Refusal) {
        let fenced = SendError::Fenced(cause.clone());
        self.fail_all(|sent| told(sent, cause, &fenced));
        self.fenced = Some(fenced);
    }

    /// A broker does not take what it agreed to: it is sent again, and all that follows, without
    /// compression. Refused so once more, it is refused for good.
    fn goes_plain(&mut self, queue: QueueId, refusal: &mut Refusal) {
        let plain = Compression::None.bit();
        let Some(link) = self.lanes.get(queue.0 as usize).and_then(|entry| entry.link) else {
            return;
        };
        let before = self.agreed.insert(link, plain).unwrap_or(self.limits.compressions);
        refusal.retriable |= before & !plain != 0;
    }

    /// A connection that is being opened leads to this broker. If that is another one than before,
    /// the way to its queues is asked for anew.
    pub(crate) fn leads_to(&mut self, link: LinkId, broker: BrokerId) {
        if self.brokers.insert(link, broker).is_some_and(|before| before != broker) {
            self.no_way_over(link);
        }
        self.want_names();
    }

    fn no_way_over(&mut self, link: LinkId) {
        let led = self.lanes.iter_mut().filter(|entry| entry.link == Some(link));
        led.for_each(|entry| entry.link = None);
        self.ask_route.want();
    }

    /// A connection was opened.
    pub(crate) fn link_up(&mut self, link: LinkId) {
        if !self.up.contains(&link) {
            self.up.push(link);
        }
        for queue in 0..self.queues() {
            let entry = &mut self.lanes[queue as usize];
            if entry.link == Some(link) {
                entry.lane.link_up();
                self.list(queue);
            }
        }
    }

    /// A connection was lost, and with it all answers that were awaited from it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.up.retain(|up| *up != link);
        for queue in 0..self.queues() {
            if self.lanes[queue as usize].link == Some(link) {
                self.with_lane(QueueId(queue), |lane, _| lane.link_down());
            }
        }
    }

    /// A connection never comes back: the way is asked for anew.
    pub(crate) fn link_gone(&mut self, link: LinkId) {
        self.link_down(link);
        self.agreed.remove(&link);
        self.brokers.remove(&link);
        self.no_way_over(link);
    }

    /// What must be asked for now.
    pub(crate) fn poll_need(&mut self, now_ms: u64) -> Option<Need> {
        if self.ask_route.poll(now_ms) {
            return Some(Need::Route);
        }
        let (up, brokers) = (&self.up, &self.brokers);
        let leads = |link: &&LinkId, broker| brokers.get(*link) == Some(&broker);
        let way = |broker| up.iter().find(|link| leads(link, broker)).copied();
        let (source, over) = self.identities.poll(now_ms, way)?;
        self.announce(source, false);
        Some(Need::Identity { source, over })
    }

    /// The incarnation of the topic, as far as is known.
    pub(crate) fn known_route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    /// What the broker of a connection takes. Later batches are made under these limits.
    pub(crate) fn set_limits(&mut self, link: LinkId, limits: BatchLimits) {
        self.agreed.insert(link, limits.compressions);
        self.limits = limits;
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        for queue in 0..self.queues() {
            self.close_if_due(queue, now_ms);
            if self.lanes[queue as usize].lane.wants_identity() {
                self.list(queue); // others of its broker may be done meanwhile
            }
            if !self.lanes[queue as usize].lane.is_idle() {
                self.with_lane(QueueId(queue), |lane, out| lane.expire(now_ms, out));
            }
        }
        while self.unrouted.front().is_some_and(|first| first.deadline_ms <= now_ms) {
            if let Some(Unrouted { member, .. }) = self.unrouted.pop_front() {
                self.end(QueueId(0), vec![member], Err(SendError::timeout(false, None)));
            }
        }
    }

    /// `waiter` waits until all taken so far is answered; open batches leave at once.
    pub(crate) fn flush(&mut self, waiter: F) {
        self.flushes.flush(waiter);
        (0..self.queues()).for_each(|queue| self.list(queue));
    }

    /// Whether anything is not answered yet.
    pub(crate) fn is_idle(&self) -> bool {
        let lane_idle = |entry: &QueueLane<P>| entry.lane.is_idle() && entry.open.is_none();
        self.unrouted.is_empty() && self.lanes.iter().all(lane_idle)
    }

    /// Ends everything with the error made of whether it was sent.
    pub(crate) fn fail_all(&mut self, error: impl Fn(bool) -> SendError) {
        for queue in 0..self.queues() {
            self.fail_lane(queue, &error);
        }
        while let Some(Unrouted { member, .. }) = self.unrouted.pop_front() {
            self.end(QueueId(0), vec![member], Err(error(false)));
        }
    }

    fn fail_lane(&mut self, queue: u32, error: impl Fn(bool) -> SendError) {
        self.close_open(queue);
        self.with_lane(QueueId(queue), |lane, out| lane.fail_all(error, out));
    }

    /// The next batch that ended.
    pub(crate) fn poll_ended(&mut self) -> Option<Ended<P>> {
        self.ended.pop_front()
    }

    /// The next flush that is over.
    pub(crate) fn poll_flushed(&mut self) -> Option<(F, Flushed)> {
        self.flushes.poll()
    }

    pub(super) fn with_lane<R>(
        &mut self,
        queue: QueueId,
        work: impl FnOnce(&mut Lane<Payload, Members<P>>, &mut Vec<Outcome<Members<P>>>) -> R,
    ) -> Option<R> {
        let mut out = std::mem::take(&mut self.scratch);
        let entry = self.lanes.get_mut(queue.0 as usize)?;
        let result = work(&mut entry.lane, &mut out);
        for outcome in out.drain(..) {
            self.end(queue, outcome.members, outcome.result);
        }
        self.scratch = out;
        self.list(queue.0);
        Some(result)
    }

    pub(super) fn end(
        &mut self,
        queue: QueueId,
        members: Members<P>,
        result: Result<Stored, SendError>,
    ) {
        let result = result.map_err(|error| error.or_because(self.why_waiting()));
        let failed = result.as_ref().err().map(SendError::maybe_stored);
        for member in &members {
            self.flushes.answered(member.generation, member.ids.as_slice(), failed);
        }
        self.ended.push_back(Ended { queue, members, result });
    }

    /// What the last question was refused with that must be answered before anything is sent.
    fn why_waiting(&self) -> Option<&Refusal> {
        self.ask_refusal.as_ref().or_else(|| self.identities.last_refusal())
    }
}

/// What the caller of a batch hears that may have been stored, or that was not sent.
pub(super) fn told(sent: bool, cause: &Refusal, unsent: &SendError) -> SendError {
    if sent { SendError::timeout(true, Some(cause)) } else { unsent.clone() }
}
