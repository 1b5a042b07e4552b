//! A batch in flight.

use grus_protocol::Sequence;

use super::lane::Batch;
use super::outcome::Outcome;
use crate::error::{Refusal, SendError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// To be sent (again) in its turn.
    Unsent,
    /// Sent, its answer awaited.
    Sent,
    /// Refused for a gap: waits until all before it are answered.
    Held,
    /// Answered for good.
    Settled,
}

/// A batch that has a sequence.
#[derive(Debug)]
pub(super) struct Slot<B, M> {
    /// Names it in answers; never used again.
    pub(super) serial: u64,
    pub(super) payload: B,
    /// `None` once the callers have been answered.
    pub(super) members: Option<M>,
    pub(super) records: u32,
    pub(super) bytes: u64,
    pub(super) deadline_ms: u64,
    pub(super) first_sequence: Sequence,
    pub(super) state: SlotState,
    pub(super) attempt: u64,
    pub(super) sent_ms: u64,
    /// Attempts that really left.
    pub(super) sends: u32,
    /// Attempts that ended without an answer.
    pub(super) unanswered: u32,
    /// An attempt was given up of which nobody knows whether it stored the batch.
    pub(super) uncertain: bool,
}

impl<B, M> Slot<B, M> {
    pub(super) fn maybe_stored(&self) -> bool {
        self.uncertain || self.state == SlotState::Sent
    }

    /// Its caller has been told that it is not stored, and it is not.
    pub(super) fn is_given_up_unstored(&self) -> bool {
        let is_open = matches!(self.state, SlotState::Unsent | SlotState::Held);
        is_open && self.members.is_none() && !self.uncertain
    }

    /// Gives up the attempt under way; the next one is to be made in its turn.
    pub(super) fn unsend(&mut self) {
        if self.state != SlotState::Settled {
            self.uncertain = self.maybe_stored();
            self.state = SlotState::Unsent;
        }
    }

    /// Tells the callers, unless they have been told.
    pub(super) fn answer(&mut self, error: SendError, out: &mut Vec<Outcome<M>>) {
        if let Some(members) = self.members.take() {
            out.push(Outcome { members, result: Err(error) });
        }
    }

    pub(super) fn time_out(&mut self, cause: Option<&Refusal>, out: &mut Vec<Outcome<M>>) {
        self.answer(SendError::timeout(self.maybe_stored(), cause), out);
    }

    pub(super) fn into_batch(self) -> Option<Batch<B, M>> {
        let Self { payload, members, records, bytes, deadline_ms, .. } = self;
        members.map(|members| Batch { payload, members, records, bytes, deadline_ms })
    }
}
