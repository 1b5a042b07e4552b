//! What a member asks its coordinator, and what that says, as frames.

use grus_broker::consumer_group::CoordinatorAsk;
use grus_broker::consumer_group::coordination::Joining;
use grus_broker::consumer_group::error::CoordinatorError;
use grus_mailbox::reply::port;
use grus_protocol::Opcode;
use grus_protocol::frame::Frame;
use grus_protocol::message::{GroupHeartbeat, JoinGroup, LeaveGroup, LeaveGroupReply};

use super::answer_of;

/// Asks the coordinator; none: it is not heard.
pub(super) async fn ask_coordinator(
    frame: &Frame,
    connection: u64,
    put: impl FnOnce(CoordinatorAsk),
) -> Option<Frame> {
    let head = frame.head;
    let refused = |error: CoordinatorError| error.to_reply();
    match head.opcode {
        Opcode::JoinGroup => {
            let ask: JoinGroup = frame.header().expect("a request");
            let joining = Joining {
                session: ask.session,
                client_id: ask.client_id,
                address: String::new(),
                instance: ask.instance,
                lane: ask.lane,
                subscriptions: ask.subscriptions,
                options: ask.options,
                connection,
            };
            let (reply, answer) = port();
            put(CoordinatorAsk::Join { joining, reply });
            Some(answer_of(head, &answer.await.ok()?.map_err(refused)))
        }
        Opcode::GroupHeartbeat => {
            let ask: GroupHeartbeat = frame.header().expect("a request");
            let (reply, answer) = port();
            put(CoordinatorAsk::Heartbeat {
                member: ask.member,
                known: ask.known,
                holding: ask.holding.into_iter().map(Into::into).collect(),
                wait_ms: ask.wait_ms,
                connection,
                reply,
            });
            Some(answer_of(head, &answer.await.ok()?.map_err(refused)))
        }
        Opcode::LeaveGroup => {
            let ask: LeaveGroup = frame.header().expect("a request");
            let (reply, answer) = port();
            put(CoordinatorAsk::Leave { member: ask.member, reply });
            let left = answer.await.ok()?.map(|()| LeaveGroupReply {});
            Some(answer_of(head, &left.map_err(refused)))
        }
        other => panic!("a consumer asks its coordinator for {other:?}"),
    }
}
