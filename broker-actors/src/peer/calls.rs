//! What a peer has not answered yet, and who waits for it. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_mailbox::{Credit, Port};
use grus_protocol::error::ErrorReply;
use grus_protocol::frame::{Frame, ReplyError};
use grus_protocol::message::ShardMessageReply;
use thiserror::Error;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerFailure {
    /// The peer cannot be reached, or was lost before it answered: it may have heard the call.
    #[error("peer is away: {reason}")]
    Away {
        /// Why.
        reason: String,
    },
    /// Too much waits for the peer's answers: nothing was sent.
    #[error("too much waits for the peer")]
    Busy,
    /// It has refused the call.
    #[error("refused by the peer: {0}")]
    Refused(ErrorReply),
}

type Reply = Port<Result<Bytes, PeerFailure>>;

#[derive(Debug)]
struct Call {
    reply: Reply,
    sent_ms: u64,
    /// Of the inbox: also one whose caller has given up takes its room until it is answered.
    _credit: Credit,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Calls {
    next: u64,
    under_way: BTreeMap<u64, Call>,
}

impl Calls {
    /// A call is sent; its correlation.
    pub fn sent(&mut self, reply: Reply, credit: Credit, now_ms: u64) -> u64 {
        self.next += 1;
        let call = Call { reply, sent_ms: now_ms, _credit: credit };
        self.under_way.insert(self.next, call);
        self.next
    }

    /// An answer came. One that nobody waits for is none of ours.
    pub fn answered(&mut self, frame: &Frame) {
        let Some(call) = self.under_way.remove(&frame.head.correlation) else { return };
        call.reply.send(match frame.reply::<ShardMessageReply>() {
            Ok(ShardMessageReply {}) => Ok(frame.body.clone()),
            Err(ReplyError::Refused(refusal)) => Err(PeerFailure::Refused(refusal)),
            Err(ReplyError::Header(error)) => Err(PeerFailure::Away { reason: error.to_string() }),
        });
    }

    /// The connection is lost.
    pub fn lost(&mut self, reason: &str) {
        for (_, call) in std::mem::take(&mut self.under_way) {
            call.reply.send(Err(PeerFailure::Away { reason: reason.to_owned() }));
        }
    }

    /// Whether all is answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// How long the oldest call waits for its answer.
    #[must_use]
    pub fn waits_ms(&self, now_ms: u64) -> u64 {
        // Correlations grow with time.
        let oldest = self.under_way.first_key_value();
        oldest.map_or(0, |(_, call)| now_ms.saturating_sub(call.sent_ms))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use grus_mailbox::reply::port;
    use grus_protocol::error::ErrorCode;
    use grus_protocol::frame::{FrameHead, decode, encode};
    use grus_protocol::limits::FrameLimits;
    use grus_protocol::opcode::Opcode;

    use super::*;

    fn frame(correlation: u64, body: &[u8]) -> Frame {
        let mut bytes = BytesMut::new();
        let head = FrameHead::request(Opcode::ShardMessage, correlation).reply();
        encode(head, &ShardMessageReply {}, body.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(body);
        decode(&mut bytes, &FrameLimits::REPLIES).unwrap().unwrap()
    }

    fn refusal(correlation: u64) -> Frame {
        let mut bytes = BytesMut::new();
        let head = FrameHead::request(Opcode::ShardMessage, correlation).error_reply();
        let error = ErrorReply::new(ErrorCode::Unavailable, "not here yet");
        encode(head, &error, 0, &mut bytes).unwrap();
        decode(&mut bytes, &FrameLimits::REPLIES).unwrap().unwrap()
    }

    #[test]
    fn answers_find_their_callers_in_any_order_and_strangers_nobody() {
        let mut calls = Calls::default();
        let (first, mut heard_first) = port();
        let (second, mut heard_second) = port();
        let first = calls.sent(first, Credit::unbounded(), 10);
        let second = calls.sent(second, Credit::unbounded(), 30);
        assert_eq!(calls.waits_ms(40), 30);
        calls.answered(&frame(second + 7, b"nobody"));
        calls.answered(&frame(second, b"two"));
        assert_eq!(heard_second.try_take(), Ok(Some(Ok(Bytes::from_static(b"two")))));
        assert_eq!(heard_first.try_take(), Ok(None));
        calls.answered(&refusal(first));
        assert!(matches!(heard_first.try_take(), Ok(Some(Err(PeerFailure::Refused(_))))));
        assert!(calls.is_empty() && calls.waits_ms(1_000) == 0);
        calls.answered(&frame(first, b"again"));
    }

    #[test]
    fn who_waits_for_a_lost_connection_is_told() {
        let mut calls = Calls::default();
        let (reply, mut heard) = port();
        calls.sent(reply, Credit::unbounded(), 0);
        calls.lost("gone");
        let away = PeerFailure::Away { reason: "gone".to_owned() };
        assert_eq!(heard.try_take(), Ok(Some(Err(away))));
        assert!(calls.is_empty());
    }

    #[test]
    fn a_caller_that_has_given_up_still_takes_its_room_until_the_answer() {
        let mut calls = Calls::default();
        let (reply, heard) = port();
        let number = calls.sent(reply, Credit::unbounded(), 5);
        drop(heard);
        assert_eq!(calls.waits_ms(25), 20, "it shows that the peer says nothing");
        calls.answered(&frame(number, b""));
        assert!(calls.is_empty());
    }
}
