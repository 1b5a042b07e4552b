//! What a peer has not answered yet, and who waits for it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// A call's room in the inbox: taken while the bytes wait to be written, and while somebody waits for the answer.
pub type Held = Arc<Credit>;

#[derive(Debug)]
struct Call {
    reply: Reply,
    sent_ms: u64,
    _credit: Held,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Calls {
    next: u64,
    under_way: BTreeMap<u64, Call>,
    /// Since when the peer has owed us something and said nothing at all.
    silent_since_ms: Option<u64>,
    /// When it was asked whether it is there at all; it has said nothing since.
    pinged_ms: Option<u64>,
}

impl Calls {
    /// A call is sent; its correlation.
    pub fn sent(&mut self, reply: Reply, credit: Held, now_ms: u64) -> u64 {
        self.next += 1;
        let call = Call { reply, sent_ms: now_ms, _credit: credit };
        self.under_way.insert(self.next, call);
        self.silent_since_ms.get_or_insert(now_ms);
        self.next
    }

    /// The peer is asked whether it is there at all, whoever is mute behind it; the correlation of that, once
    /// until it says something.
    pub fn ping(&mut self, now_ms: u64) -> Option<u64> {
        if self.pinged_ms.is_some() {
            return None;
        }
        self.pinged_ms = Some(now_ms);
        self.next += 1;
        Some(self.next)
    }

    /// This process has stood still: what came meanwhile has not been read yet.
    pub fn stood_still(&mut self, now_ms: u64) {
        self.pinged_ms = self.pinged_ms.map(|_| now_ms);
    }

    /// How long the peer has not even said that it is there, since it was asked.
    #[must_use]
    pub fn mute_ms(&self, now_ms: u64) -> u64 {
        self.pinged_ms.map_or(0, |since| now_ms.saturating_sub(since))
    }

    /// Something came. An answer that nobody waits for is none of ours, and shows all the same that the peer
    /// is there.
    pub fn came(&mut self, frame: &Frame, now_ms: u64) {
        self.answered(frame);
        self.pinged_ms = None;
        self.silent_since_ms = (!self.under_way.is_empty()).then_some(now_ms);
    }

    fn answered(&mut self, frame: &Frame) {
        let Some(call) = self.under_way.remove(&frame.head.correlation) else { return };
        call.reply.send(match frame.reply::<ShardMessageReply>() {
            Ok(ShardMessageReply {}) => Ok(frame.body.clone()),
            Err(ReplyError::Refused(refusal)) => Err(PeerFailure::Refused(refusal)),
            Err(ReplyError::Header(error)) => Err(PeerFailure::Away { reason: error.to_string() }),
        });
    }

    /// Forgets calls whose callers have given up, and those that have waited for `limit_ms`: their callers are
    /// told. It says nothing about the peer.
    pub fn give_up(&mut self, now_ms: u64, limit_ms: u64) {
        let is_over =
            |call: &Call| call.reply.is_closed() || now_ms.saturating_sub(call.sent_ms) >= limit_ms;
        for (_, call) in self.under_way.extract_if(.., |_, call| is_over(call)) {
            call.reply.send(Err(PeerFailure::Away { reason: "no answer".to_owned() }));
        }
    }

    /// The connection is lost.
    pub fn lost(&mut self, reason: &str) {
        (self.silent_since_ms, self.pinged_ms) = (None, None);
        for (_, call) in std::mem::take(&mut self.under_way) {
            call.reply.send(Err(PeerFailure::Away { reason: reason.to_owned() }));
        }
    }

    /// Whether all is answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// How long the peer has said nothing at all although it was asked something, by callers that have given
    /// up as well.
    #[must_use]
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        self.silent_since_ms.map_or(0, |since| now_ms.saturating_sub(since))
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

    fn held() -> Held {
        Arc::new(Credit::unbounded())
    }

    #[test]
    fn answers_find_their_callers_in_any_order_and_strangers_nobody() {
        let mut calls = Calls::default();
        let (first, mut heard_first) = port();
        let (second, mut heard_second) = port();
        let first = calls.sent(first, held(), 10);
        let second = calls.sent(second, held(), 30);
        calls.came(&frame(second + 7, b"nobody"), 40);
        calls.came(&frame(second, b"two"), 40);
        assert_eq!(heard_second.try_take(), Ok(Some(Ok(Bytes::from_static(b"two")))));
        assert_eq!(heard_first.try_take(), Ok(None));
        calls.came(&refusal(first), 50);
        assert!(matches!(heard_first.try_take(), Ok(Some(Err(PeerFailure::Refused(_))))));
        assert!(calls.is_empty() && calls.silent_ms(1_000) == 0);
        calls.came(&frame(first, b"again"), 60);
    }

    #[test]
    fn who_waits_for_a_lost_connection_is_told() {
        let mut calls = Calls::default();
        let (reply, mut heard) = port();
        calls.sent(reply, held(), 0);
        calls.lost("gone");
        let away = PeerFailure::Away { reason: "gone".to_owned() };
        assert_eq!(heard.try_take(), Ok(Some(Err(away))));
        assert!(calls.is_empty() && calls.silent_ms(1_000) == 0);
    }

    #[test]
    fn a_peer_is_silent_only_while_it_answers_nothing_at_all() {
        let mut calls = Calls::default();
        let (mute, _waits) = port();
        calls.sent(mute, held(), 0);
        for now_ms in [10, 20, 30] {
            let (reply, _heard) = port();
            let number = calls.sent(reply, held(), now_ms);
            calls.came(&frame(number, b""), now_ms + 5);
        }
        assert_eq!(calls.silent_ms(40), 5, "since the last answer, not since the oldest call");
        let asked = calls.ping(40);
        assert_eq!((asked, calls.ping(45)), (Some(5), None), "once");
        assert_eq!(calls.mute_ms(55), 15);
        calls.stood_still(55);
        assert_eq!(calls.mute_ms(57), 2, "what lies in the socket is read first");
        calls.came(&frame(5, b""), 60);
        assert_eq!((calls.silent_ms(70), calls.mute_ms(70)), (10, 0));
        calls.stood_still(70);
        assert_eq!((calls.mute_ms(80), calls.ping(80)), (0, Some(6)));
    }

    #[test]
    fn a_caller_that_has_given_up_gives_its_room_back_and_leaves_the_silence() {
        let mut calls = Calls::default();
        let (reply, heard) = port();
        let (patient, mut waits) = port();
        let credit = held();
        let number = calls.sent(reply, credit.clone(), 5);
        calls.sent(patient, held(), 10);
        calls.give_up(20, 100);
        assert_eq!(Arc::strong_count(&credit), 2, "it still waits");
        drop(heard);
        calls.give_up(20, 100);
        assert_eq!(Arc::strong_count(&credit), 1);
        assert_eq!(calls.silent_ms(25), 20, "it shows that the peer says nothing");
        calls.give_up(110, 100);
        let away = PeerFailure::Away { reason: "no answer".to_owned() };
        assert_eq!(waits.try_take(), Ok(Some(Err(away))));
        assert_eq!((calls.is_empty(), calls.silent_ms(110)), (true, 105));
        calls.came(&frame(number, b""), 120);
        assert_eq!(calls.silent_ms(200), 0);
    }
}
