//! How a batch ends, and what a refusal means for the batches behind it.

use grus_protocol::message::{ProduceReply, Timer};
use grus_protocol::{Durability, ErrorCode, Offset, TimestampMs};

use crate::error::{Refusal, SendError};

/// The broker's receipt for a whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Offset of the batch's first record.
    pub(crate) base_offset: Offset,
    /// When it was stored, by the leader's clock.
    pub(crate) at: TimestampMs,
    /// What the receipt promises.
    pub(crate) durability: Durability,
    /// Whether it had been stored by an earlier attempt.
    pub(crate) duplicate: bool,
    /// The first of its records, when they wait for a time.
    pub(crate) timer: Option<Timer>,
    /// From when their delays count, if that was said.
    pub(crate) delays_from: Option<TimestampMs>,
}

impl From<ProduceReply> for Stored {
    fn from(reply: ProduceReply) -> Self {
        Self {
            base_offset: reply.base_offset,
            at: reply.stored,
            durability: reply.durability,
            duplicate: reply.duplicate,
            timer: reply.timer,
            delays_from: reply.delays_from,
        }
    }
}

impl Stored {
    /// Goes on to the record so many further on.
    pub(crate) fn go_on(&mut self, count: u32) {
        match &mut self.timer {
            Some(timer) => *timer = timer.nth(count),
            None => self.base_offset.0 += u64::from(count),
        }
    }
}

/// The end of a batch for those who await it, said once.
#[derive(Debug)]
pub(crate) struct Outcome<M> {
    pub(crate) members: M,
    pub(crate) result: Result<Stored, SendError>,
}

/// What to do about a refused attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it again, and all behind it.
    Again,
    /// The broker misses one before it, or does not know the producer.
    Gap,
    /// A later life of this producer is at work: nothing of this one is taken any more.
    Fenced,
    /// Never stored, and never will be.
    Final,
    /// It may be stored or not, and trying again may not tell.
    Unknown,
    /// Stored, but the receipt is lost.
    ReceiptLost,
}

/// Judges a refused attempt.
pub(crate) fn verdict(refusal: &Refusal) -> Verdict {
    match refusal.code {
        ErrorCode::OutOfSequence | ErrorCode::UnknownProducer => Verdict::Gap,
        ErrorCode::ProducerFenced => Verdict::Fenced,
        ErrorCode::DuplicateForgotten => Verdict::ReceiptLost,
        // Routes are asked for again; they say whether there is no such topic or queue. With an unknown
        // outcome the sequence numbers that it was sent with let a second copy be known as one.
        ErrorCode::UnknownTopic
        | ErrorCode::UnknownQueue
        | ErrorCode::StaleTopic
        | ErrorCode::OutcomeUnknown => Verdict::Again,
        _ if refusal.retriable => Verdict::Again,
        code if code.outcome_unknown() => Verdict::Unknown,
        _ => Verdict::Final,
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ErrorReply;

    use super::*;

    #[test]
    fn every_known_code_has_the_verdict_its_meaning_asks_for() {
        for code in ErrorCode::ALL {
            let refusal = Refusal::from(ErrorReply::new(*code, ""));
            let verdict = verdict(&refusal);
            if code.is_retriable() {
                assert_eq!(verdict, Verdict::Again, "{code}");
            }
            if verdict == Verdict::Final {
                assert!(!code.outcome_unknown(), "{code} may have been stored");
            }
        }
    }

    #[test]
    fn a_code_from_the_future_is_tried_again_only_if_it_says_so() {
        let mut reply = ErrorReply::new(ErrorCode::Other(9_999), "");
        assert_eq!(verdict(&Refusal::from(reply.clone())), Verdict::Unknown);
        reply.retriable = true;
        assert_eq!(verdict(&Refusal::from(reply)), Verdict::Again);
    }
}
