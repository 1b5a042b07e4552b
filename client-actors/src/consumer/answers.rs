//! How a consumer takes the answers of coordinator and leaders.

use grus_protocol::message::{
    AckMessagesReply, AssignQueuesReply, ClaimQueueReply, GroupHeartbeatReply, JoinGroupReply,
    LeaveGroupReply, SubscribeGroupReply,
};

use super::ConsumerActor;
use super::messages::{MemberAnswered, MemberKind, QueueAnswered, QueueKind};
use crate::router::reply_of;

impl ConsumerActor {
    pub(super) fn member_answered(&mut self, answered: &MemberAnswered, now_ms: u64) {
        let MemberAnswered { number, kind, .. } = *answered;
        let Ok(frame) = &answered.answer else {
            return self.state.member_unanswered(number, now_ms);
        };
        let refused = match kind {
            MemberKind::Join => match reply_of::<JoinGroupReply>(frame) {
                Ok(reply) => return self.state.joined(number, reply, now_ms),
                Err(refusal) => refusal,
            },
            MemberKind::Heartbeat => match reply_of::<GroupHeartbeatReply>(frame) {
                Ok(reply) => return self.state.heard(number, reply, now_ms),
                Err(refusal) => refusal,
            },
            MemberKind::Assign => match reply_of::<AssignQueuesReply>(frame) {
                Ok(AssignQueuesReply {}) => return self.state.division_taken(number),
                Err(refusal) => {
                    let group = &self.parts.identity.group;
                    tracing::warn!(%group, %refusal, "the program's division is not taken");
                    refusal
                }
            },
            MemberKind::Leave => match reply_of::<LeaveGroupReply>(frame) {
                Ok(LeaveGroupReply {}) => return self.state.left(number, now_ms),
                Err(refusal) => refusal,
            },
        };
        self.state.member_refused(number, refused, now_ms);
    }

    pub(super) fn queue_answered(&mut self, answered: &QueueAnswered, now_ms: u64) {
        let Ok(frame) = &answered.answer else { return }; // the loss of its connection is told apart
        let at = (answered.slot, answered.number);
        let refused = match answered.kind {
            QueueKind::Claim => match reply_of::<ClaimQueueReply>(frame) {
                Ok(reply) => return self.state.claimed(at, &reply),
                Err(refusal) => refusal,
            },
            QueueKind::Subscribe => match reply_of::<SubscribeGroupReply>(frame) {
                Ok(reply) => return self.state.subscribed(at, reply.offset),
                Err(refusal) => refusal,
            },
            QueueKind::Ack => match reply_of::<AckMessagesReply>(frame) {
                Ok(reply) => {
                    let heard = self.state.acked(at, &reply.left, now_ms);
                    return heard.into_iter().for_each(|done| done.send(()));
                }
                Err(refusal) => refusal,
            },
        };
        self.state.refused(at, &refused, now_ms);
    }
}
