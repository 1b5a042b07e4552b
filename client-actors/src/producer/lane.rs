//! One queue as a producer sees it: batches that wait, batches in flight, and their sequences.
//!
//! The broker takes the records of one producer in one queue only in sequence: record `n` is
//! stored only after `n - 1`, and a batch whose last one is stored already is answered with its
//! first receipt. That is what makes the rules below safe:
//!
//! 1. A batch is given its sequence when it is first sent, and keeps it on every resend. A
//!    sequence is never given to another batch of the same identity as long as the first one may
//!    be stored: the broker would take the second for a repetition and drop it with a receipt.
//! 2. At most [`IN_FLIGHT_BATCHES_MAX`] batches are in flight, as many as the broker remembers.
//! 3. After a retriable refusal, a lost connection or a timeout, the batch and all behind it are
//!    sent again, in order. A batch that was refused for a gap waits for the ones before it.
//! 4. A batch whose caller was told of a timeout may be stored all the same. It is sent again
//!    only while one behind it is still awaited (which cannot be stored without it). When nobody
//!    awaits anything in flight, the lane drops it all and goes on under a *fresh identity*, from
//!    sequence 0, so that rule 1 holds and nothing is sent again that has been reported. A batch
//!    whose caller was told that it is *not* stored is treated as in rule 5.
//! 5. When a batch is refused for good, those behind it can never be stored under their
//!    sequences: they go back to the waiting ones and out again under a fresh identity, as soon
//!    as those before it are answered.
//! 6. A gap in front of the *oldest* batch in flight means that the broker has forgotten this
//!    producer (or, with `replicated`, lost its newest records): nothing in flight is stored or
//!    ever will be. All of it goes out again under a fresh identity.
//!
//! 7. A batch of several callers that is refused for one record's sake is taken apart: what the
//!    others sent goes to the front of the waiting ones, and everything behind follows as in rule 5.
//!
//! A batch that is refused for good after an earlier attempt was not answered may be stored by
//! that attempt, and those behind it, too: where sending them under a fresh identity could store
//! them twice, the caller hears [`SendError::Timeout`] with `maybe_stored` instead.

use std::collections::VecDeque;

use grus_protocol::{ErrorCode, ProducerEpoch, ProducerId, Sequence};

use super::allowance::Allowance;
use super::outcome::{Outcome, Stored, Verdict, verdict};
use super::slot::{Slot, SlotState};
use super::waiting::Waiting;
pub(crate) use super::waiting::{Batch, Divided};
use crate::backoff::Backoff;
use crate::error::{Refusal, SendError};

/// Most batches in flight per queue: as many as a broker remembers per producer and queue.
pub(crate) const IN_FLIGHT_BATCHES_MAX: usize = 5;

/// How often and how long a lane tries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneSettings {
    /// How long an attempt may stay unanswered.
    pub(crate) send_timeout_ms: u64,
    /// How often a batch is sent again after an attempt that was not answered.
    pub(crate) retries: u32,
    /// Batches in flight at once.
    pub(crate) in_flight_batches_max: usize,
    /// First and longest wait after a refusal.
    pub(crate) backoff_ms: (u64, u64),
}

/// What the broker knows a producer by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The producer.
    pub(crate) producer: ProducerId,
    /// Its life.
    pub(crate) epoch: ProducerEpoch,
}

/// A batch to send now, as the payload and the stamp it must carry.
#[derive(Debug)]
pub(crate) struct SendOrder<'a, B> {
    pub(crate) serial: u64,
    pub(crate) attempt: u64,
    pub(crate) identity: Identity,
    pub(crate) first_sequence: Sequence,
    pub(crate) payload: &'a mut B,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Lane<B, M> {
    settings: LaneSettings,
    ready: Waiting<B, M>,
    window: VecDeque<Slot<B, M>>,
    next_serial: u64,
    next_attempt: u64,
    identity: Option<Identity>,
    next_sequence: Sequence,
    fresh_identity_needed: bool,
    up: bool,
    not_before_ms: u64,
    backoff: Backoff,
    allowance: Allowance,
    last_refusal: Option<Refusal>,
}

impl<B, M> Lane<B, M> {
    /// A lane without an identity and without a connection. Its batches are numbered from
    /// `first_serial` on: not as those of another lane whose answers may still come.
    pub(crate) fn new(settings: LaneSettings, seed: u64, first_serial: u64) -> Self {
        assert!((1..=IN_FLIGHT_BATCHES_MAX).contains(&settings.in_flight_batches_max));
        let (first_ms, most_ms) = settings.backoff_ms;
        Self {
            settings,
            ready: Waiting::new(),
            window: VecDeque::new(),
            next_serial: first_serial,
            next_attempt: 0,
            identity: None,
            next_sequence: Sequence(0),
            fresh_identity_needed: false,
            up: false,
            not_before_ms: 0,
            backoff: Backoff::new(first_ms, most_ms, seed),
            allowance: Allowance::new(settings.in_flight_batches_max),
            last_refusal: None,
        }
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.window.is_empty()
    }

    /// Whether nothing is in flight and nothing waits to be, so that a batch would leave at once.
    pub(crate) fn is_free(&self) -> bool {
        self.is_idle() && self.up
    }

    /// Adds a batch behind all others.
    pub(crate) fn push(&mut self, batch: Batch<B, M>) {
        assert!(batch.records > 0, "a batch without records has no sequence");
        self.ready.push_back(batch);
    }

    /// Whether the lane cannot go on before [`Lane::give_identity`], with one it never had.
    pub(crate) fn wants_identity(&self) -> bool {
        let needed = self.fresh_identity_needed || self.identity.is_none();
        needed && self.window.is_empty() && !self.ready.is_empty()
    }

    /// Who it sends as, or sent as last.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Goes on as `identity`, from sequence 0. Ignored when the lane does not need one (any more).
    pub(crate) fn give_identity(&mut self, identity: Identity) {
        let needed = self.fresh_identity_needed || self.identity.is_none();
        if needed && self.window.is_empty() {
            assert!(self.identity != Some(identity), "a fresh identity is another one");
            self.identity = Some(identity);
            self.next_sequence = Sequence(0);
            self.fresh_identity_needed = false;
        }
    }

    /// About how many bytes are not answered yet. Looks at what is in flight, not at what waits.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.ready.bytes() + self.window.iter().map(|slot| slot.bytes).sum::<u64>()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_drained(&self) -> bool {
        self.window.is_empty()
    }

    /// Has it go on under a fresh identity once what is in flight is answered; until then nothing
    /// more leaves.
    pub(crate) fn renew(&mut self) {
        self.fresh_identity_needed |= self.identity.is_some();
    }

    /// All batches that are awaited, in their order: the queue is gone, and nothing in flight can
    /// be stored in what is there now.
    pub(crate) fn take_all(&mut self) -> Vec<Batch<B, M>> {
        self.requeue_window();
        self.ready.take().into()
    }

    /// The connection to the queue's leader is there: send at once.
    pub(crate) fn link_up(&mut self) {
        self.up = true;
        self.not_before_ms = 0;
    }

    /// The connection is gone, and with it the answers to all that was sent.
    pub(crate) fn link_down(&mut self) {
        self.up = false;
        // Not an attempt that failed: a broker may be restarted often within a message's time.
        self.window.iter_mut().for_each(Slot::unsend);
        self.tidy();
    }

    /// The queue is now another one under the same name: nothing in flight can be stored in it.
    pub(crate) fn start_over(&mut self) {
        self.requeue_window();
    }

    /// What to send next. Calling it again after it was carried out gives the one after.
    pub(crate) fn poll_send(&mut self, now_ms: u64) -> Option<SendOrder<'_, B>> {
        let sent = self.window.iter().filter(|slot| slot.state == SlotState::Sent).count();
        if !self.up || now_ms < self.not_before_ms || !self.allowance.allows(sent) {
            return None;
        }
        let identity = self.identity?;
        let index = match self.next_resend() {
            Resend::Slot(index) => index,
            Resend::Wait => return None,
            Resend::Nothing => self.sequence_next()?,
        };
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        let slot = &mut self.window[index];
        let serial = slot.serial;
        slot.state = SlotState::Sent;
        slot.attempt = attempt;
        slot.sent_ms = now_ms;
        slot.sends += 1;
        let first_sequence = slot.first_sequence;
        Some(SendOrder { serial, attempt, identity, first_sequence, payload: &mut slot.payload })
    }

    fn next_resend(&self) -> Resend {
        let Some(last_awaited) = self.window.iter().rposition(|slot| slot.members.is_some()) else {
            return Resend::Nothing;
        };
        for (index, slot) in self.window.iter().enumerate() {
            match slot.state {
                SlotState::Unsent if index <= last_awaited => return Resend::Slot(index),
                SlotState::Unsent | SlotState::Held => return Resend::Wait,
                SlotState::Sent | SlotState::Settled => {}
            }
        }
        Resend::Nothing
    }

    /// Gives the oldest waiting batch its sequence, if it may go.
    fn sequence_next(&mut self) -> Option<usize> {
        if self.fresh_identity_needed || self.window.len() >= self.settings.in_flight_batches_max {
            return None;
        }
        let batch = self.ready.pop_front()?;
        let first_sequence = self.next_sequence;
        let next = first_sequence.checked_add(u64::from(batch.records));
        self.next_sequence = next.unwrap_or_else(|| unreachable!("2^64 records of one producer"));
        let serial = self.next_serial;
        self.next_serial += 1;
        self.window.push_back(Slot {
            serial,
            payload: batch.payload,
            members: Some(batch.members),
            records: batch.records,
            bytes: batch.bytes,
            deadline_ms: batch.deadline_ms,
            first_sequence,
            state: SlotState::Unsent,
            attempt: 0,
            sent_ms: 0,
            sends: 0,
            unanswered: 0,
            uncertain: false,
        });
        Some(self.window.len() - 1)
    }

    /// The order given last was not carried out: no byte of it left. Comes back after `after_ms`.
    pub(crate) fn not_sent(&mut self, serial: u64, now_ms: u64, after_ms: u64) {
        let Some(index) = self.index(serial) else { return };
        let slot = &mut self.window[index];
        slot.sends -= 1;
        slot.state = SlotState::Unsent;
        self.not_before_ms = self.not_before_ms.max(now_ms + after_ms);
        if slot.sends == 0 && index + 1 == self.window.len() {
            // Never seen by anybody: its sequence is free again.
            if let Some(slot) = self.window.pop_back() {
                self.next_sequence = slot.first_sequence;
                self.put_back(VecDeque::from([slot]));
            }
        }
    }

    /// The batch is stored, which holds for an answer to any attempt, also to one given up. False if it
    /// is none that is under way here.
    pub(crate) fn stored(
        &mut self,
        serial: u64,
        stored: Stored,
        out: &mut Vec<Outcome<M>>,
    ) -> bool {
        let Some(index) = self.index(serial) else { return false };
        let slot = &mut self.window[index];
        slot.state = SlotState::Settled;
        if let Some(members) = slot.members.take() {
            out.push(Outcome { members, result: Ok(stored) });
        }
        self.backoff.succeeded();
        self.allowance.stored();
        self.last_refusal = None;
        self.pop_settled();
        self.tidy();
        true
    }

    /// An attempt was refused. Returns what that was taken for, unless it is of no account.
    /// `divide` takes a batch apart that was refused for good.
    pub(crate) fn refused(
        &mut self,
        (serial, attempt): (u64, u64),
        refusal: Refusal,
        now_ms: u64,
        divide: impl FnOnce(Batch<B, M>, &Refusal) -> Divided<B, M>,
        out: &mut Vec<Outcome<M>>,
    ) -> Option<Verdict> {
        let index = self.index(serial)?;
        let slot = &self.window[index];
        if slot.state != SlotState::Sent || slot.attempt != attempt {
            return None; // it was sent again since; that answer counts
        }
        let verdict = verdict(&refusal);
        match verdict {
            Verdict::Again | Verdict::Unknown => {
                let wait_ms = self.backoff.failed().max(u64::from(refusal.retry_after_ms));
                self.not_before_ms = now_ms + wait_ms;
                if refusal.code == ErrorCode::Overloaded {
                    self.allowance.refused();
                }
                if verdict == Verdict::Unknown {
                    self.window[index].answer(SendError::Refused(refusal.clone()), out);
                }
                if !refusal.code.outcome_unknown() {
                    self.window[index].state = SlotState::Unsent;
                }
                self.last_refusal = Some(refusal);
                self.resend_from(index);
            }
            Verdict::Gap if self.is_oldest(index) => self.requeue_window(),
            Verdict::Gap => self.window[index].state = SlotState::Held,
            Verdict::ReceiptLost => {
                let slot = &mut self.window[index];
                slot.state = SlotState::Settled;
                slot.answer(SendError::Refused(refusal), out);
                self.pop_settled();
            }
            Verdict::Fenced => {
                self.window[index].answer(SendError::Fenced(refusal.clone()), out);
                self.fail_all(|sent| fenced(sent, &refusal), out);
            }
            Verdict::Final => self.refused_for_good(index, &refusal, divide, out),
        }
        self.tidy();
        Some(verdict)
    }

    fn refused_for_good(
        &mut self,
        index: usize,
        refusal: &Refusal,
        divide: impl FnOnce(Batch<B, M>, &Refusal) -> Divided<B, M>,
        out: &mut Vec<Outcome<M>>,
    ) {
        let mut behind = self.window.split_off(index);
        self.fresh_identity_needed = true;
        let Some(mut refused) = behind.pop_front() else { return };
        if refused.uncertain {
            // An attempt before the refused one may have stored it, and those behind it.
            refused.answer(SendError::timeout(true, Some(refusal)), out);
            for slot in &mut behind {
                slot.answer(SendError::timeout(true, Some(refusal)), out);
            }
        }
        self.put_back(behind);
        if let Some(batch) = refused.into_batch() {
            let divided = divide(batch, refusal);
            let error = || Err(SendError::Refused(refusal.clone()));
            out.extend(divided.failed.map(|members| Outcome { members, result: error() }));
            divided.rest.into_iter().rev().for_each(|batch| self.ready.push_front(batch));
        }
        self.pop_settled();
    }

    /// Time has passed: callers hear of timeouts, unanswered attempts are repeated.
    pub(crate) fn expire(&mut self, now_ms: u64, out: &mut Vec<Outcome<M>>) {
        let mut resend_from = None;
        for (index, slot) in self.window.iter_mut().enumerate() {
            if slot.members.is_some() && slot.deadline_ms <= now_ms {
                slot.time_out(self.last_refusal.as_ref(), out);
            }
            let waited_ms = now_ms.saturating_sub(slot.sent_ms);
            if slot.state == SlotState::Sent && waited_ms >= self.settings.send_timeout_ms {
                slot.unanswered += 1;
                if slot.unanswered > self.settings.retries {
                    slot.time_out(self.last_refusal.as_ref(), out);
                }
                resend_from = resend_from.or(Some(index));
            }
        }
        if let Some(index) = resend_from {
            self.allowance.refused(); // it may have it, and be late with all it has
            self.not_before_ms = now_ms + self.backoff.failed();
            self.resend_from(index);
        }
        self.tidy();
        while self.ready.front().is_some_and(|batch| batch.deadline_ms <= now_ms) {
            if let Some(batch) = self.ready.pop_front() {
                let error = SendError::timeout(false, self.last_refusal.as_ref());
                out.push(Outcome { members: batch.members, result: Err(error) });
            }
        }
    }

    /// Ends everything with the error made of whether it was sent.
    pub(crate) fn fail_all(
        &mut self,
        error: impl Fn(bool) -> SendError,
        out: &mut Vec<Outcome<M>>,
    ) {
        self.fresh_identity_needed |= !self.window.is_empty();
        for mut slot in self.window.drain(..) {
            let error = error(slot.maybe_stored());
            slot.answer(error, out);
        }
        for batch in self.ready.take() {
            out.push(Outcome { members: batch.members, result: Err(error(false)) });
        }
    }

    /// At most five slots: looking through them is faster than any map.
    fn index(&self, serial: u64) -> Option<usize> {
        let awaited = |slot: &Slot<B, M>| slot.serial == serial && slot.state != SlotState::Settled;
        self.window.iter().position(awaited)
    }

    fn is_oldest(&self, index: usize) -> bool {
        self.window.iter().position(|slot| slot.state != SlotState::Settled) == Some(index)
    }

    fn resend_from(&mut self, index: usize) {
        for slot in self.window.range_mut(index..) {
            slot.unsend();
        }
    }

    fn pop_settled(&mut self) {
        while self.window.front().is_some_and(|slot| slot.state == SlotState::Settled) {
            self.window.pop_front();
        }
        if self.window.front().is_some_and(|slot| slot.state == SlotState::Held) {
            self.resend_from(0);
        }
    }

    /// Rule 4: what nobody awaits any more leaves the window, if need be with those behind it.
    fn tidy(&mut self) {
        if let Some(index) = self.window.iter().position(Slot::is_given_up_unstored) {
            // Sent again for those behind it, it would be stored after its caller was told not.
            let mut behind = self.window.split_off(index);
            behind.pop_front();
            self.fresh_identity_needed = true;
            self.put_back(behind);
            self.pop_settled();
        }
        if !self.window.is_empty() && self.window.iter().all(|slot| slot.members.is_none()) {
            self.window.clear();
            self.fresh_identity_needed = true;
        }
    }

    /// Rules 5 and 6: everything in flight goes back to the waiting ones.
    fn requeue_window(&mut self) {
        let slots = std::mem::take(&mut self.window);
        self.fresh_identity_needed |= !slots.is_empty();
        self.put_back(slots);
    }

    fn put_back(&mut self, slots: VecDeque<Slot<B, M>>) {
        for batch in slots.into_iter().rev().filter_map(Slot::into_batch) {
            self.ready.push_front(batch);
        }
    }
}

enum Resend {
    Slot(usize),
    Wait,
    Nothing,
}

fn fenced(sent: bool, refusal: &Refusal) -> SendError {
    if sent { SendError::timeout(true, Some(refusal)) } else { SendError::Fenced(refusal.clone()) }
}
