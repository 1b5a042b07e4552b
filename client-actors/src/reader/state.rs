//! A reader of one topic: which queues it reads, what it holds, what it asks for next, and what
//! it does when that is refused. No clock, no I/O: it is told what happens, and polled for what
//! to do.

use std::collections::VecDeque;
use std::sync::Arc;

use grus_protocol::error::ErrorDetail;
use grus_protocol::{ErrorCode, Offset, QueueId, TopicId};

use super::asking::{Ask, Asking, Telling, error_of};
use super::cursor::{Content, Cursor, Fetched, Item};
use crate::backoff::{Backoff, Jitter};
use crate::config::{MissingTopic, OutOfRange, Queues, ReadMode, ReaderConfig, StartAt, millis};
use crate::error::{ReadError, Refusal};
use crate::route::{Ask as AskRoute, LinkId, Route};

/// Least bytes asked for at once.
const FETCH_BYTES_MIN: u32 = 4 * 1024;
/// How much longer than it may be held an answer may take.
const ANSWER_SLACK_MS: u64 = 10_000;
/// How often queues that were added are looked for.
const ROUTE_AGE_MS_MAX: u64 = 10_000;
/// How long to wait when a connection has no room for a request.
const NO_ROOM_WAIT_MS: u64 = 5;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct ReaderState {
    pub(super) config: ReaderConfig,
    poll_ms: u64,
    pub(super) route: Option<Route>,
    ask_route: AskRoute,
    route_backoff: Backoff,
    pub(super) jitter: Jitter,
    pub(super) cursors: Vec<Cursor>,
    pub(super) up: Vec<LinkId>,
    next_number: u64,
    pub(super) buffer: VecDeque<Item>,
    pub(super) buffer_bytes: u64,
    pub(super) failed: VecDeque<ReadError>,
    /// Number of the last seek.
    pub(super) seeks: u32,
    /// Where queues begin that are not known yet: as configured or sought, and, once there were
    /// queues, at the first message.
    pub(super) start: StartAt,
    pub(super) seeks_before: Vec<(QueueId, StartAt)>,
    /// Subscriptions that are not wanted any more.
    pub(super) leaving: Vec<(LinkId, u64)>,
}

impl ReaderState {
    /// A reader that wants its route first.
    pub(crate) fn new(config: &ReaderConfig, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let mut ask_route = AskRoute::Rest;
        ask_route.want();
        Self {
            config: config.clone(),
            poll_ms: millis(config.poll_wait),
            route: None,
            ask_route,
            route_backoff: Backoff::new(20, 1_000, jitter.next()),
            jitter,
            cursors: Vec::new(),
            up: Vec::new(),
            next_number: 0,
            buffer: VecDeque::new(),
            buffer_bytes: 0,
            failed: VecDeque::new(),
            seeks: 0,
            start: config.start,
            seeks_before: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Whether to ask for the route now.
    pub(crate) fn poll_route(&mut self, now_ms: u64) -> bool {
        self.ask_route.poll(now_ms)
    }

    /// The incarnation of the topic, as far as is known.
    pub(crate) fn topic_id(&self) -> TopicId {
        self.route.as_ref().map_or(TopicId::UNKNOWN, |route| route.topic_id)
    }

    /// The answer to the question for the route.
    pub(crate) fn route(&mut self, answer: Result<Route, Refusal>, now_ms: u64) {
        match answer {
            Ok(route) => {
                let leaderless = route.links.iter().any(Option::is_none);
                self.apply_route(route);
                self.ask_route = AskRoute::NotBefore(now_ms + ROUTE_AGE_MS_MAX);
                if leaderless {
                    self.ask_route = AskRoute::NotBefore(now_ms + self.route_backoff.failed());
                } else {
                    self.route_backoff.succeeded();
                }
            }
            Err(refusal) => self.no_route(refusal, now_ms),
        }
    }

    fn no_route(&mut self, refusal: Refusal, now_ms: u64) {
        let missing = refusal.code == ErrorCode::UnknownTopic;
        if missing {
            self.route = None;
            self.leave_all();
            self.cursors.clear();
        }
        if refusal.retriable || (missing && self.config.missing_topic == MissingTopic::Wait) {
            self.ask_route = AskRoute::NotBefore(now_ms + self.route_backoff.failed());
        } else {
            self.ask_route = AskRoute::Rest;
            let topic = self.config.topic.clone();
            self.failed.push_back(ReadError::Topic { topic, refusal });
        }
    }

    fn apply_route(&mut self, route: Route) {
        let first_time = self.route.is_none();
        if self.route.as_ref().is_some_and(|had| had.topic_id != route.topic_id) {
            // Made anew: nothing of it has been read yet.
            self.leave_all();
            let seeks = self.seeks;
            self.cursors.iter_mut().for_each(|cursor| cursor.seek(StartAt::First, seeks));
        }
        let queues = u32::try_from(route.links.len()).unwrap_or(u32::MAX);
        let wanted: Vec<QueueId> = match &self.config.queues {
            Queues::All => (0..queues).map(QueueId).collect(),
            Queues::Only(only) => only.clone(),
        };
        for queue in wanted {
            let known = self.cursors.iter().any(|cursor| cursor.queue == queue);
            if queue.0 >= queues {
                if first_time {
                    self.failed.push_back(ReadError::UnknownQueue { queue, queues });
                }
            } else if !known {
                self.begin(queue);
            }
        }
        // What is added from now on, or made again, is read from its first message on.
        self.start = StartAt::First;
        self.seeks_before.retain(|(queue, _)| queue.0 >= queues);
        for cursor in &mut self.cursors {
            let link = route.links.get(cursor.queue.0 as usize).copied().flatten();
            if cursor.link != link {
                let left = cursor.link.zip(cursor.subscription());
                self.leaving.extend(left.filter(|_| self.config.mode == ReadMode::Push));
                cursor.link = link;
                cursor.forget_asked();
            }
        }
        self.route = Some(route);
    }

    /// It is over: the subscriptions that are to end.
    pub(crate) fn leave(&mut self) -> Vec<(LinkId, u64)> {
        self.leave_all();
        std::mem::take(&mut self.leaving)
    }

    fn leave_all(&mut self) {
        if self.config.mode == ReadMode::Push {
            let left = |cursor: &Cursor| cursor.link.zip(cursor.subscription());
            self.leaving.extend(self.cursors.iter().filter_map(left));
        }
    }

    /// A connection was opened.
    pub(crate) fn link_up(&mut self, link: LinkId) {
        if !self.up.contains(&link) {
            self.up.push(link);
        }
        self.of_link(link).for_each(Cursor::forget_asked);
    }

    /// A connection was lost, and with it the answers that were awaited from it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.up.retain(|up| *up != link);
        self.leaving.retain(|(left, _)| *left != link);
        self.of_link(link).for_each(Cursor::forget_asked);
    }

    /// A connection never comes back: the way is asked for anew.
    pub(crate) fn link_gone(&mut self, link: LinkId, now_ms: u64) {
        self.link_down(link);
        self.of_link(link).for_each(|cursor| cursor.link = None);
        self.ask_route_by(now_ms);
    }

    fn of_link(&mut self, link: LinkId) -> impl Iterator<Item = &mut Cursor> {
        self.cursors.iter_mut().filter(move |cursor| cursor.link == Some(link))
    }

    /// Bytes that may be read ahead of one queue.
    fn share(&self) -> u32 {
        let queues = u32::try_from(self.cursors.len().max(1)).unwrap_or(u32::MAX);
        (self.config.buffer_bytes_max / queues).max(FETCH_BYTES_MIN)
    }

    /// Bytes to ask for at once.
    fn fetch_bytes(&self) -> u32 {
        self.share().min(self.config.fetch_bytes_max)
    }

    /// The most that one queue may have on the way and in hand when it is pushed.
    fn window(&self) -> (u32, u32) {
        (self.config.push_messages_max, self.share())
    }

    /// The next request to send. When it cannot be sent, say so by [`ReaderState::not_asked`]
    /// before asking for another.
    pub(crate) fn poll_ask(&mut self, now_ms: u64) -> Option<Asking> {
        let bytes_max = self.fetch_bytes();
        let room = u64::from(self.config.buffer_bytes_max);
        let fetching = || self.cursors.iter().filter(|cursor| cursor.is_fetching()).count() as u64;
        let full = self.buffer_bytes > 0
            && self.buffer_bytes + (fetching() + 1) * u64::from(bytes_max) > room;
        let number = self.next_number;
        let (window, pushed) = (self.window(), self.config.mode == ReadMode::Push);
        for cursor in &mut self.cursors {
            let Some(link) = cursor.link.filter(|link| self.up.contains(link)) else { continue };
            if !pushed && full && cursor.next().is_some() {
                continue;
            }
            let Some(want) = cursor.ask(number, now_ms) else { continue };
            let ask = if pushed {
                let Some(credit) = cursor.window.open(window) else {
                    cursor.not_asked(now_ms, 0); // too much in hand: once it is taken
                    continue;
                };
                Ask::Subscribe { credit }
            } else {
                Ask::Once { bytes_max }
            };
            self.next_number += 1;
            return Some(Asking { link, queue: cursor.queue, number, want, ask });
        }
        None
    }

    /// The next thing to tell a broker. When it cannot be sent, say so by
    /// [`ReaderState::not_told`].
    pub(crate) fn poll_tell(&mut self) -> Option<Telling> {
        if let Some((link, number)) = self.leaving.pop() {
            return Some(Telling::Leave { link, number });
        }
        if self.config.mode != ReadMode::Push {
            return None;
        }
        let window = self.window();
        self.cursors.iter_mut().find_map(|cursor| {
            let (link, number) = (cursor.link?, cursor.live()?);
            let credit = cursor.window.top_up(window)?;
            Some(Telling::Credit { link, queue: cursor.queue, number, credit })
        })
    }

    /// It was not told: the connection has no room, or is lost.
    pub(crate) fn not_told(&mut self, telling: Telling) {
        match telling {
            Telling::Leave { link, number } if self.up.contains(&link) => {
                self.leaving.push((link, number));
            }
            Telling::Leave { .. } => {}
            Telling::Credit { queue, credit, .. } => {
                if let Some(cursor) = self.cursor(queue) {
                    cursor.window.not_given(credit);
                }
            }
        }
    }

    /// The request polled last was not sent: the connection has no room.
    pub(crate) fn not_asked(&mut self, queue: QueueId, now_ms: u64) {
        if let Some(cursor) = self.cursor(queue) {
            cursor.not_asked(now_ms, NO_ROOM_WAIT_MS);
        }
    }

    fn cursor(&mut self, queue: QueueId) -> Option<&mut Cursor> {
        self.cursors.iter_mut().find(|cursor| cursor.queue == queue)
    }

    fn answered(&mut self, queue: QueueId, number: u64) -> Option<&mut Cursor> {
        let cursor = self.cursor(queue)?;
        cursor.answered(number).then_some(cursor)
    }

    /// The place asked for is at this offset.
    pub(crate) fn located(&mut self, queue: QueueId, number: u64, offset: Offset) {
        if let Some(cursor) = self.answered(queue, number) {
            cursor.located(offset);
        }
    }

    /// A subscription stands, from this offset on.
    pub(crate) fn subscribed(&mut self, queue: QueueId, number: u64, offset: Offset) {
        if let Some(cursor) = self.answered(queue, number) {
            cursor.subscribed(number, offset);
        }
    }

    fn live(&self, number: u64) -> Option<&Cursor> {
        self.cursors.iter().find(|cursor| cursor.live() == Some(number))
    }

    /// Batches were pushed for a subscription; of no account if it is not the one that stands.
    pub(crate) fn delivered(&mut self, number: u64, pushed: Vec<Fetched>, now_ms: u64) {
        let Some(queue) = self.live(number).map(|cursor| cursor.queue) else { return };
        let Some(cursor) = self.cursor(queue) else { return };
        let within = pushed.iter().all(|one| match &one.content {
            Content::Batch(batch) => cursor.window.arrived(batch.count(), batch.len_bytes()),
            Content::Expired(_) => true, // costs no credit
        });
        if within {
            self.read(queue, pushed, now_ms);
        } else {
            self.pushed_wrongly(number, "more was sent than there was credit for", now_ms);
        }
    }

    /// What was pushed for a subscription cannot be right: it is asked for anew.
    pub(crate) fn pushed_wrongly(&mut self, number: u64, damage: &str, now_ms: u64) {
        if let Some(queue) = self.live(number).map(|cursor| cursor.queue) {
            self.damaged(queue, damage, now_ms);
        }
    }

    /// The broker has ended a subscription.
    pub(crate) fn ended(&mut self, number: u64, refusal: Refusal, now_ms: u64) {
        let Some(queue) = self.live(number).map(|cursor| cursor.queue) else { return };
        if let Some(cursor) = self.cursor(queue) {
            cursor.ended();
        }
        self.not_served(queue, refusal, now_ms);
    }

    /// Batches came, or none within the wait.
    pub(crate) fn fetched(
        &mut self,
        (queue, number): (QueueId, u64),
        fetched: Vec<Fetched>,
        now_ms: u64,
    ) {
        if self.answered(queue, number).is_some() {
            self.read(queue, fetched, now_ms);
        }
    }

    fn read(&mut self, queue: QueueId, fetched: Vec<Fetched>, now_ms: u64) {
        let Some(cursor) = self.cursor(queue) else { return };
        let (items, damage) = match cursor.take(fetched) {
            Ok(items) => (items, None),
            Err((items, damage)) => (items, Some(damage)),
        };
        for item in &items {
            cursor.window.hold(item.batch.count(), item.bytes());
        }
        if let Some(damage) = damage {
            self.damaged(queue, &damage, now_ms);
        }
        for item in items {
            self.buffer_bytes += item.bytes();
            self.buffer.push_back(item);
        }
    }

    /// An answer that cannot be right: asked for once more, in case it was damaged on the way.
    pub(crate) fn garbled(&mut self, queue: QueueId, number: u64, damage: &str, now_ms: u64) {
        if self.answered(queue, number).is_some() {
            self.damaged(queue, damage, now_ms);
        }
    }

    fn damaged(&mut self, queue: QueueId, damage: &str, now_ms: u64) {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.queue == queue) else {
            return;
        };
        if let Some(left) = cursor.link.zip(cursor.live()) {
            self.leaving.push(left); // it is asked for anew
            cursor.ended();
        }
        cursor.damaged += 1;
        if cursor.damaged < 2 {
            return cursor.wait(now_ms, 0);
        }
        let at = cursor.next().unwrap_or_default();
        cursor.rest();
        self.failed.push_back(ReadError::Damaged { queue, at, reason: Arc::from(damage) });
    }

    /// A request was refused.
    pub(crate) fn refused(
        &mut self,
        (queue, number): (QueueId, u64),
        refusal: Refusal,
        now_ms: u64,
    ) {
        if self.answered(queue, number).is_none() {
            return;
        }
        let is_unknown =
            matches!(refusal.code, ErrorCode::UnknownOpcode | ErrorCode::UnsupportedFeature);
        if is_unknown && self.config.mode == ReadMode::Push {
            self.leave_all();
            self.cursors.iter_mut().for_each(Cursor::forget_asked);
            self.config.mode = ReadMode::Poll; // the broker is older than this client
            return;
        }
        self.not_served(queue, refusal, now_ms);
    }

    fn not_served(&mut self, queue: QueueId, refusal: Refusal, now_ms: u64) {
        let wants_route = refusal.code.wants_metadata();
        let nearest = self.config.out_of_range == OutOfRange::Nearest;
        let Some(cursor) = self.cursor(queue) else { return };
        if refusal.retriable || wants_route {
            cursor.wait(now_ms, u64::from(refusal.retry_after_ms));
            if wants_route {
                self.ask_route_by(now_ms);
            }
            return;
        }
        let asked = cursor.next().unwrap_or_default();
        let bounds = match refusal.detail {
            Some(ErrorDetail::Bounds { log_start, end_offset }) => Some((log_start, end_offset)),
            _ => None,
        };
        match (refusal.code, bounds) {
            (ErrorCode::OffsetOutOfRange, Some((log_start, end_offset)))
                if nearest || cursor.at_first =>
            {
                cursor.located(asked.clamp(log_start, end_offset.max(log_start)));
            }
            _ => {
                cursor.rest();
                self.failed.push_back(error_of(queue, asked, refusal));
            }
        }
    }

    fn ask_route_by(&mut self, at_ms: u64) {
        if matches!(self.ask_route, AskRoute::NotBefore(later_ms) if later_ms > at_ms) {
            self.ask_route = AskRoute::NotBefore(at_ms + self.route_backoff.failed());
        }
        self.ask_route.want();
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        let answer_ms_max = self.poll_ms + ANSWER_SLACK_MS;
        for cursor in &mut self.cursors {
            let expired = cursor.expire(now_ms, answer_ms_max);
            if self.config.mode == ReadMode::Push {
                self.leaving.extend(cursor.link.zip(expired));
            }
        }
    }

    /// All that was read ahead, or the next error; `None` when there is nothing yet.
    pub(crate) fn take(&mut self) -> Option<Result<Vec<Item>, ReadError>> {
        if self.buffer.is_empty() {
            return self.failed.pop_front().map(Err);
        }
        self.buffer_bytes = 0;
        self.cursors.iter_mut().for_each(|cursor| cursor.window.release_all());
        Some(Ok(self.buffer.drain(..).collect()))
    }

    /// Somebody waits: what failed for want of a topic is tried again.
    pub(crate) fn wanted(&mut self) {
        if self.route.is_none() {
            self.ask_route.want();
        }
    }
}
