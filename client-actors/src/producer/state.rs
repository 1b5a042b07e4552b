//! A producer of one topic: takes messages, groups them into batches, and hands each batch to the
//! [lane](super::lane) of its queue. No clock, no I/O: it is told what happens, and polled for
//! what to do.

use std::collections::VecDeque;

use grus_protocol::batch::Compression;
use grus_protocol::{BatchBuilder, BatchLimits, NewRecord, QueueId, RecordError};

use super::choice::{Chooser, Pick};
use super::flushes::{Flushed, Flushes};
use super::lane::{Batch, Identity, Lane, LaneSettings};
use super::outcome::{Outcome, Stored, Verdict};
use super::parts::{Ended, Ids, Load, Member, Members, Need, Sending};
use super::payload::Payload;
use crate::backoff::{Backoff, Jitter};
use crate::config::{ProducerConfig, millis};
use crate::error::{Refusal, SendError};
use crate::route::{Ask, LinkId, Route};

/// An open batch is complete at this age even if it could not leave anyway, because its messages
/// time out together, when the oldest does.
const OPEN_AGE_MS_MAX: u64 = 250;
/// How long to wait when a connection has no room for a batch.
const NO_ROOM_WAIT_MS: u64 = 5;

#[derive(Debug)]
struct Open<P> {
    builder: BatchBuilder,
    members: Members<P>,
    since_ms: u64,
}

#[derive(Debug)]
struct QueueLane<P> {
    lane: Lane<Payload, Members<P>>,
    open: Option<Open<P>>,
    link: Option<LinkId>,
    /// Which of the producer's identities it had last, counted from 1.
    identity_number: u64,
    is_listed: bool,
}

/// See the module documentation. `P` is where an outcome goes, `F` whoever waits for a flush.
#[derive(Debug)]
pub(crate) struct ProducerState<P, F> {
    config: ProducerConfig,
    limits: BatchLimits,
    lane_settings: LaneSettings,
    window_ms: u64,
    linger_ms: u64,
    chooser: Chooser,
    jitter: Jitter,
    route: Option<Route>,
    ask_route: Ask,
    ask_identity: Ask,
    ask_backoff: Backoff,
    /// The newest identity and its number, counted from 1.
    identity: Option<(u64, Identity)>,
    identities: u64,
    lanes: Vec<QueueLane<P>>,
    /// Lanes that may have something to send.
    listed: VecDeque<u32>,
    up: Vec<LinkId>,
    /// Taken before the queues were known.
    unrouted: VecDeque<(u64, Pick, Load, Member<P>)>,
    flushes: Flushes<F>,
    ended: VecDeque<Ended<P>>,
    scratch: Vec<Outcome<Members<P>>>,
    fenced: Option<SendError>,
}

impl<P, F> ProducerState<P, F> {
    /// A producer that knows nothing yet. `seed` makes its waits and its first queue its own.
    pub(crate) fn new(config: &ProducerConfig, limits: BatchLimits, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let start = jitter.next_u32();
        let backoff_ms = (20, 1_000);
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
            chooser: Chooser::new(config.queue_choice, start),
            route: None,
            ask_route: Ask::Rest,
            ask_identity: Ask::Rest,
            ask_backoff: Backoff::new(backoff_ms.0, backoff_ms.1, jitter.next()),
            jitter,
            identity: None,
            identities: 0,
            lanes: Vec::new(),
            listed: VecDeque::new(),
            up: Vec::new(),
            unrouted: VecDeque::new(),
            flushes: Flushes::new(),
            ended: VecDeque::new(),
            scratch: Vec::new(),
            fenced: None,
        }
    }

    fn queues(&self) -> u32 {
        count(&self.lanes)
    }

    /// Takes what a caller sends; `port` hears of it exactly once.
    pub(crate) fn take(&mut self, pick: Pick, load: Load, ids: Ids, port: P, now_ms: u64) {
        let generation = self.flushes.taken(ids.count());
        let member = Member { port, ids, generation };
        if let Some(error) = &self.fenced {
            let error = error.clone();
            return self.end(QueueId(0), vec![member], Err(error));
        }
        if self.route.is_none() {
            self.ask_route.want();
            let deadline_ms = now_ms + self.window_ms;
            return self.unrouted.push_back((deadline_ms, pick, load, member));
        }
        self.place(pick, load, member, now_ms);
    }

    fn place(&mut self, pick: Pick, load: Load, member: Member<P>, now_ms: u64) {
        let queues = self.queues();
        let Some(queue) = self.chooser.choose(pick, queues) else {
            let Pick::Given(queue) = pick else { unreachable!("only a given queue may be absent") };
            self.ask_route.want(); // it may have been added since
            return self.end(queue, vec![member], Err(SendError::UnknownQueue { queue, queues }));
        };
        match load {
            Load::One(record) if record.dedup_key.is_some() => {
                self.close_open(queue);
                self.place_one(queue, &record, member, now_ms);
                self.close_open(queue);
            }
            Load::One(record) => self.place_one(queue, &record, member, now_ms),
            Load::Many(builder) => {
                self.close_open(queue);
                self.push_batch(queue, builder, vec![member], now_ms);
            }
        }
        self.list(queue);
    }

    fn place_one(&mut self, queue: u32, record: &NewRecord, member: Member<P>, now_ms: u64) {
        for _ in 0..2 {
            let open = self.lanes[queue as usize].open.get_or_insert_with(|| Open {
                builder: BatchBuilder::new(self.limits),
                members: Vec::new(),
                since_ms: now_ms,
            });
            match open.builder.push(record) {
                Ok(()) => {
                    open.members.push(member);
                    if open.builder.len_bytes() >= self.config.batch_bytes_max as usize {
                        self.close_open(queue);
                    }
                    return;
                }
                Err(RecordError::BatchFull) if !open.members.is_empty() => self.close_open(queue),
                Err(reason) => {
                    if open.members.is_empty() {
                        self.lanes[queue as usize].open = None;
                    }
                    let error = SendError::Invalid { index: 0, reason };
                    return self.end(QueueId(queue), vec![member], Err(error));
                }
            }
        }
        unreachable!("an empty batch takes a record, or says what is wrong with it");
    }

    fn close_open(&mut self, queue: u32) {
        let Some(open) = self.lanes[queue as usize].open.take() else { return };
        let since_ms = open.since_ms;
        self.push_batch(queue, open.builder, open.members, since_ms);
    }

    fn push_batch(&mut self, queue: u32, builder: BatchBuilder, members: Members<P>, at_ms: u64) {
        self.chooser.batch_closed(queue, self.queues());
        let records = builder.count();
        let deadline_ms = at_ms + self.window_ms;
        let payload = Payload::Open(builder);
        self.lanes[queue as usize].lane.push(Batch { payload, members, records, deadline_ms });
    }

    fn list(&mut self, queue: u32) {
        let entry = &mut self.lanes[queue as usize];
        if !entry.is_listed {
            entry.is_listed = true;
            self.listed.push_back(queue);
        }
    }

    /// The next batch to send. When it cannot be sent, say so by [`ProducerState::not_sent`]
    /// before asking for another.
    pub(crate) fn poll_send(&mut self, now_ms: u64) -> Option<Sending> {
        let compression = self.compression();
        while let Some(&queue) = self.listed.front() {
            self.close_if_due(queue, now_ms);
            let entry = &mut self.lanes[queue as usize];
            if entry.lane.wants_identity() {
                // One that it had before would begin again at a sequence that is taken.
                match self.identity.filter(|(number, _)| *number > entry.identity_number) {
                    Some((number, identity)) => {
                        entry.identity_number = number;
                        entry.lane.give_identity(identity);
                    }
                    None => self.ask_identity.want(),
                }
            }
            if let (Some(link), Some(order)) = (entry.link, entry.lane.poll_send(now_ms)) {
                return Some(Sending {
                    link,
                    queue: QueueId(queue),
                    serial: order.serial,
                    attempt: order.attempt,
                    bytes: order.payload.stamped(order.identity, order.first_sequence, compression),
                });
            }
            entry.is_listed = false;
            self.listed.pop_front();
        }
        None
    }

    /// The one asked for, if the broker reads it.
    fn compression(&self) -> Compression {
        let wanted = self.config.compression;
        if self.limits.compressions & wanted.bit() == 0 { Compression::None } else { wanted }
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
        self.with_lane(queue, |lane, out| lane.stored(serial, stored, out));
    }

    /// An attempt was refused.
    pub(crate) fn refused(
        &mut self,
        queue: QueueId,
        token: (u64, u64),
        refusal: Refusal,
        now_ms: u64,
    ) {
        if refusal.code.wants_metadata() {
            self.ask_route.want();
        }
        let cause = refusal.clone();
        let verdict = self.with_lane(queue, |lane, out| lane.refused(token, refusal, now_ms, out));
        if verdict.flatten() == Some(Verdict::Fenced) {
            let fenced = SendError::Fenced(cause.clone());
            self.fail_all(|sent| told(sent, &cause, &fenced));
            self.fenced = Some(fenced);
        }
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

    /// What must be asked for now.
    pub(crate) fn poll_need(&mut self, now_ms: u64) -> Option<Need> {
        if self.ask_route.poll(now_ms) {
            return Some(Need::Route);
        }
        self.ask_identity.poll(now_ms).then_some(Need::Identity)
    }

    /// The answer to [`Need::Identity`].
    pub(crate) fn identity(&mut self, answer: Result<Identity, Refusal>, now_ms: u64) {
        self.ask_identity = Ask::Rest;
        match answer {
            Ok(identity) => {
                self.ask_backoff.succeeded();
                self.identities += 1;
                self.identity = Some((self.identities, identity));
            }
            Err(refusal) if refusal.retriable => {
                self.ask_identity = Ask::NotBefore(now_ms + self.ask_backoff.failed());
            }
            Err(refusal) => self.fail_all(|_| SendError::Refused(refusal.clone())),
        }
        (0..self.queues()).for_each(|queue| self.list(queue));
    }

    /// The answer to [`Need::Route`].
    pub(crate) fn route(&mut self, answer: Result<Route, Refusal>, now_ms: u64) {
        self.ask_route = Ask::Rest;
        match answer {
            Ok(route) => {
                let leaderless = route.links.iter().any(Option::is_none);
                self.apply_route(route);
                if leaderless {
                    self.ask_route = Ask::NotBefore(now_ms + self.ask_backoff.failed());
                } else {
                    self.ask_backoff.succeeded();
                }
                for (_, pick, load, member) in std::mem::take(&mut self.unrouted) {
                    self.place(pick, load, member, now_ms);
                }
            }
            Err(refusal) if refusal.retriable => {
                self.ask_route = Ask::NotBefore(now_ms + self.ask_backoff.failed());
            }
            Err(refusal) => {
                let topic = self.config.topic.clone();
                let failed = SendError::Topic { topic, refusal: refusal.clone() };
                self.fail_all(|sent| told(sent, &refusal, &failed));
                self.route = None;
                self.drop_lanes_from(0);
            }
        }
    }

    fn apply_route(&mut self, route: Route) {
        let is_another_topic =
            self.route.as_ref().is_some_and(|had| had.topic_id != route.topic_id);
        let queues = count(&route.links);
        for queue in queues..self.queues() {
            let error = SendError::UnknownQueue { queue: QueueId(queue), queues };
            self.fail_lane(queue, |_| error.clone());
        }
        self.drop_lanes_from(queues);
        while self.lanes.len() < route.links.len() {
            self.lanes.push(QueueLane {
                lane: Lane::new(self.lane_settings, self.jitter.next()),
                open: None,
                link: None,
                identity_number: 0,
                is_listed: false,
            });
        }
        for (queue, link) in (0..queues).zip(route.links.iter().copied()) {
            if is_another_topic {
                self.lanes[queue as usize].lane.start_over();
            }
            if self.lanes[queue as usize].link != link {
                self.lanes[queue as usize].link = link;
                self.with_lane(QueueId(queue), |lane, _| lane.link_down());
                if link.is_some_and(|link| self.up.contains(&link)) {
                    self.lanes[queue as usize].lane.link_up();
                }
            }
            self.list(queue);
        }
        self.route = Some(route);
    }

    /// Forgets lanes, and with them which sequences are taken: the identity they had is not used
    /// again.
    fn drop_lanes_from(&mut self, queue: u32) {
        if (queue as usize) < self.lanes.len() {
            self.lanes.truncate(queue as usize);
            self.listed.retain(|listed| *listed < queue);
            self.identity = None;
        }
    }

    /// The incarnation of the topic, as far as is known.
    pub(crate) fn known_route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    /// Later batches are made under these limits.
    pub(crate) fn set_limits(&mut self, limits: BatchLimits) {
        self.limits = limits;
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        for queue in 0..self.queues() {
            self.close_if_due(queue, now_ms);
            if !self.lanes[queue as usize].lane.is_idle() {
                self.with_lane(QueueId(queue), |lane, out| lane.expire(now_ms, out));
            }
        }
        while self.unrouted.front().is_some_and(|(deadline_ms, ..)| *deadline_ms <= now_ms) {
            if let Some((_, _, _, member)) = self.unrouted.pop_front() {
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
        while let Some((_, _, _, member)) = self.unrouted.pop_front() {
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

    fn with_lane<R>(
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

    fn end(&mut self, queue: QueueId, members: Members<P>, result: Result<Stored, SendError>) {
        for member in &members {
            self.flushes.answered(member.generation, member.ids.count(), result.is_ok());
        }
        self.ended.push_back(Ended { queue, members, result });
    }
}

/// What the caller of a batch hears that may have been stored, or that was not sent.
fn told(sent: bool, cause: &Refusal, unsent: &SendError) -> SendError {
    if sent { SendError::timeout(true, Some(cause)) } else { unsent.clone() }
}

/// Queues are numbered by 32 bits.
fn count<T>(queues: &[T]) -> u32 {
    u32::try_from(queues.len()).unwrap_or(u32::MAX)
}
