//! What a member asks and tells the brokers that lead its queues, and what they say. No clock, no
//! I/O.

use grus_protocol::message::{ClaimQueueReply, GroupDeliver, OffsetRange};
use grus_protocol::{ErrorCode, Offset};

use super::queue::{Phase, Waiter};
use super::state::{Change, ConsumerState, QueueAsk, QueueWord, Telling};
use crate::error::Refusal;
use crate::reader::cursor::Fetched;

/// How long to wait when a connection has no room for a request.
const NO_ROOM_WAIT_MS: u64 = 5;
/// Least bytes that a queue may have on the way.
const WINDOW_BYTES_MIN: u32 = 64 * 1024;
/// What found no room at the broker is told again after so long: there is some when other messages that
/// failed before are dealt with.
const LEFT_WAIT_MS: u64 = 250;

impl<P> ConsumerState<P> {
    /// Most that a queue may have on the way and in hand.
    fn window(&self) -> (u32, u32) {
        let queues = u32::try_from(self.queues.len().max(1)).unwrap_or(u32::MAX);
        let bytes = (self.settings.bytes_max / queues).max(WINDOW_BYTES_MIN);
        (self.settings.queue_messages_max, bytes)
    }

    /// The next request about a queue. When it cannot be sent, say so by
    /// [`ConsumerState::not_asked`] before asking for another.
    pub(crate) fn poll_ask(&mut self, now_ms: u64) -> Option<QueueAsk> {
        let window = self.window();
        while let Some(slot) = self.look.pop_first() {
            let number = self.next_number + 1;
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            let Some(link) = queue.link.filter(|link| self.up.contains(link)) else { continue };
            if let Some(what) = queue.ask(number, window, now_ms) {
                self.next_number = number;
                self.look.insert(slot); // there may be more
                return Some(QueueAsk { link, slot, number, what });
            }
            self.asked.insert(slot);
        }
        None
    }

    /// The request polled last was not sent: the connection has no room.
    pub(crate) fn not_asked(&mut self, ask: &QueueAsk, now_ms: u64) {
        let Some(queue) = self.queues.get_mut(&ask.slot) else { return };
        let later_ms = now_ms + NO_ROOM_WAIT_MS;
        match ask.what {
            QueueWord::Ack(_) => queue.settling.failed(later_ms),
            QueueWord::Claim => {
                (queue.phase, queue.not_before_ms) = (Phase::Unclaimed, later_ms);
            }
            QueueWord::Subscribe { .. } => {
                (queue.phase, queue.not_before_ms) = (Phase::Claimed, later_ms);
            }
        }
    }

    /// The next thing to tell a broker. When it cannot be sent, say so by
    /// [`ConsumerState::not_told`].
    pub(crate) fn poll_tell(&mut self) -> Option<Telling> {
        if let Some((link, number)) = self.leaving.pop() {
            return Some(Telling::Leave { link, number });
        }
        let window = self.window();
        while let Some(slot) = self.asked.pop_first() {
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            let Phase::Live { number } = queue.phase else { continue };
            let window = queue.room_in(window);
            if let (Some(link), Some(credit)) = (queue.link, queue.window.top_up(window)) {
                return Some(Telling::Credit { link, slot, number, credit });
            }
        }
        None
    }

    /// It was not told: the connection has no room, or is lost.
    pub(crate) fn not_told(&mut self, telling: Telling) {
        match telling {
            Telling::Leave { link, number } if self.up.contains(&link) => {
                self.leaving.push((link, number));
            }
            Telling::Leave { .. } => {}
            Telling::Credit { slot, credit, .. } => {
                if let Some(queue) = self.queues.get_mut(&slot) {
                    queue.window.not_given(credit);
                    self.asked.insert(slot);
                }
            }
        }
    }

    /// A queue was claimed.
    pub(crate) fn claimed(&mut self, (slot, number): (u64, u64), reply: &ClaimQueueReply) {
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        if matches!(queue.phase, Phase::Claiming { number: asked, .. } if asked == number) {
            if queue.round != reply.round {
                // Reset meanwhile: answers of before must not pass for answers of now.
                let leftovers = queue.leftovers();
                drop(queue.lose());
                self.leftovers.extend(leftovers);
            }
            queue.claimed(reply.round);
            self.look.insert(slot);
        }
    }

    /// A subscription stands, from this offset on.
    pub(crate) fn subscribed(&mut self, (slot, number): (u64, u64), offset: Offset) {
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        if matches!(queue.phase, Phase::Subscribing { number: asked, .. } if asked == number) {
            queue.subscribed(number);
            self.begun_at(slot, offset);
            self.live.insert(number, slot);
            self.look.insert(slot);
        }
    }

    /// Answers have arrived, and found room but for those that are `left`.
    pub(crate) fn acked(
        &mut self,
        (slot, number): (u64, u64),
        left: &[OffsetRange],
        now_ms: u64,
    ) -> Vec<P> {
        let Some(queue) = self.queues.get_mut(&slot) else { return Vec::new() };
        if queue.settling.sent() != Some(number) {
            return Vec::new();
        }
        let mut heard = Vec::new();
        for waiter in queue.settling.done(left, now_ms + LEFT_WAIT_MS) {
            match waiter {
                Waiter::Program(port) => heard.push(port),
                Waiter::Item(item) => queue.make_acked(*item),
            }
        }
        self.look.insert(slot);
        self.release(now_ms);
        heard
    }

    /// A request about a queue was refused. What waits for an answer that cannot come is given
    /// back.
    pub(crate) fn refused(&mut self, (slot, number): (u64, u64), refusal: &Refusal, now_ms: u64) {
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        let is_ack = queue.settling.sent() == Some(number);
        let is_current = match queue.phase {
            Phase::Claiming { number: asked, .. } | Phase::Subscribing { number: asked, .. } => {
                asked == number
            }
            _ => false,
        };
        if is_ack || is_current {
            self.not_served(slot, refusal, is_ack, now_ms);
        }
    }

    fn not_served(&mut self, slot: u64, refusal: &Refusal, is_ack: bool, now_ms: u64) {
        let is_elsewhere = match refusal.code {
            ErrorCode::OffsetOutOfRange => self.go_to_nearest(slot, refusal),
            ErrorCode::CorruptRange => self.pass_damaged(slot, refusal),
            _ => false,
        };
        if is_elsewhere {
            return;
        }
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        self.look.insert(slot);
        match refusal.code {
            ErrorCode::Fenced => {
                let leftovers = queue.leftovers();
                drop(queue.lose());
                queue.phase = Phase::Fenced;
                let lost = (queue.topic.clone(), queue.place);
                let is_leaving = queue.revoked_by_ms.is_some();
                self.leftovers.extend(leftovers);
                self.tell(Change::Lost, vec![lost]);
                if is_leaving {
                    self.release(now_ms);
                }
            }
            ErrorCode::ProgressReset => {
                let leftovers = queue.leftovers();
                drop(queue.lose());
                queue.phase = Phase::Unclaimed;
                self.leftovers.extend(leftovers);
                self.release(now_ms);
            }
            code => {
                queue.waits.refused(refusal, now_ms);
                let later_ms = queue.wait(now_ms, u64::from(refusal.retry_after_ms));
                match code {
                    _ if !is_ack => {}
                    ErrorCode::HeaderTooLarge => queue.settling.was_too_large(later_ms),
                    _ => queue.settling.failed(later_ms),
                }
                match queue.phase {
                    Phase::Claiming { .. } => queue.phase = Phase::Unclaimed,
                    Phase::Subscribing { number, .. } => {
                        // It may stand in spite of the refusal.
                        self.leaving.extend(queue.link.map(|link| (link, number)));
                        queue.phase = Phase::Claimed;
                    }
                    _ => {}
                }
                if code.wants_metadata()
                    && let Some(way) = self.ways.get_mut(&queue.topic)
                {
                    way.ask.want();
                }
            }
        }
    }

    /// Batches were pushed; of no account if it is not for a subscription that stands.
    pub(crate) fn delivered(
        &mut self,
        number: u64,
        push: &GroupDeliver,
        batches: Vec<Fetched>,
        now_ms: u64,
    ) {
        let Some(slot) = self.live.get(&number).copied() else { return };
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        match queue.delivered(push, batches) {
            Ok(items) => items.into_iter().for_each(|item| queue.make_ready(item)),
            Err(damage) => return self.pushed_wrongly(number, &damage, now_ms),
        }
        self.look.insert(slot);
        self.note_ready(slot);
    }

    /// What was pushed for a subscription cannot be right: it is asked for anew.
    pub(crate) fn pushed_wrongly(&mut self, number: u64, damage: &str, now_ms: u64) {
        let Some(slot) = self.live.remove(&number) else { return };
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        self.leaving.extend(queue.link.map(|link| (link, number)));
        queue.unsubscribed();
        queue.wait(now_ms, 0);
        self.look.insert(slot);
        let (topic, place) = (&queue.topic, queue.place.queue);
        tracing::warn!(%topic, queue = %place, damage, "messages came damaged, asking again");
    }

    /// The broker has ended a subscription.
    pub(crate) fn ended(&mut self, number: u64, refusal: &Refusal, now_ms: u64) {
        let Some(slot) = self.live.remove(&number) else { return };
        if let Some(queue) = self.queues.get_mut(&slot) {
            queue.unsubscribed();
            self.not_served(slot, refusal, false, now_ms);
        }
    }
}
