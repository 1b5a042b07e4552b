//! From a frame to a typed request, behind the gate of Hello. Pure.

mod group_queues;

use bytes::Bytes;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{Frame, FrameKind, HeaderError};
use grus_protocol::message::{
    AlterSchedule, AlterTopic, AssignQueues, ChangeReplicas, CloseProducer, CountScheduled,
    CreateSchedule, CreateTopic, Credit, DeleteGroup, DeleteSchedule, DeleteTopic, DescribeGroup,
    DescribeShards, DescribeTopic, Fetch, FindMessages, GroupHeartbeat, HandOverShards, Hello,
    InitProducer, JoinGroup, LeaveGroup, ListClients, ListGroups, ListOffsets, ListScheduled,
    ListSchedules, ListTopics, Metadata, OpenPeer, Ping, Produce, RecallMessage, Seek,
    ShardMessage, ShowScheduled, Subscribe, Unsubscribe, WatchRoutes,
};
use grus_protocol::opcode::Opcode;

pub use group_queues::GroupQueueRequest;

/// A request whose header was read.
#[derive(Debug)]
pub enum Request {
    /// Opens the connection.
    Hello(Hello),
    /// Asks for a sign of life.
    Ping,
    /// Asks for routes.
    Metadata(Metadata),
    /// Asks for a producer's identity.
    InitProducer(InitProducer),
    /// Says that a producer ends.
    CloseProducer(CloseProducer),
    /// Stores the batch in the bytes.
    Produce(Produce, Bytes),
    /// Reads.
    Fetch(Fetch),
    /// Asks for an offset.
    ListOffsets(ListOffsets),
    /// Has batches sent as they come.
    Subscribe(Subscribe),
    /// Gives a subscription more credit.
    Credit(Credit),
    /// Has a subscription go on elsewhere.
    Seek(Seek),
    /// Ends a subscription.
    Unsubscribe(Unsubscribe),
    /// Looks for messages.
    FindMessages(FindMessages),
    /// Takes scheduled messages back.
    RecallMessage(RecallMessage),
    /// Lists what is scheduled.
    ListScheduled(ListScheduled),
    /// Counts what is scheduled.
    CountScheduled(CountScheduled),
    /// Asks for a scheduled message.
    ShowScheduled(ShowScheduled),
    /// Makes a schedule, of this message.
    CreateSchedule(CreateSchedule, Bytes),
    /// Lists schedules.
    ListSchedules(ListSchedules),
    /// Has a schedule rest, or go on.
    AlterSchedule(AlterSchedule),
    /// Removes a schedule.
    DeleteSchedule(DeleteSchedule),
    /// Makes a topic.
    CreateTopic(CreateTopic),
    /// Changes a topic.
    AlterTopic(AlterTopic),
    /// Removes a topic.
    DeleteTopic(DeleteTopic),
    /// Describes a topic.
    DescribeTopic(DescribeTopic),
    /// Lists topics.
    ListTopics(ListTopics),
    /// Makes a member of a group.
    JoinGroup(Box<JoinGroup>),
    /// A member is there, and asks for its queues.
    GroupHeartbeat(Box<GroupHeartbeat>),
    /// A member goes.
    LeaveGroup(LeaveGroup),
    /// A member has divided its group's queues.
    AssignQueues(AssignQueues),
    /// Lists groups.
    ListGroups(ListGroups),
    /// Describes a group.
    DescribeGroup(DescribeGroup),
    /// Removes a group.
    DeleteGroup(DeleteGroup),
    /// Asks to be told the routes.
    WatchRoutes(WatchRoutes),
    /// Lists who is connected.
    ListClients(ListClients),
    /// Asks how the shards are.
    DescribeShards,
    /// Has shards given to other members.
    HandOverShards(HandOverShards),
    /// Has shards get other members.
    ChangeReplicas(ChangeReplicas),
    /// A member of a group about a queue.
    GroupQueue(Box<GroupQueueRequest>),
    /// Another broker says who it is.
    OpenPeer(OpenPeer),
    /// A member of a shard's group says this to the one here.
    ShardMessage(ShardMessage, Bytes),
}

/// Reads the header of a request. `greeted` says whether Hello was accepted on this connection.
///
/// # Errors
/// What to answer; [`ErrorCode::HelloRequired`] closes the connection.
pub fn read_request(frame: Frame, greeted: bool) -> Result<Request, ErrorReply> {
    let opcode = frame.head.opcode;
    if greeted == (opcode == Opcode::Hello) {
        return Err(if greeted {
            ErrorReply::new(ErrorCode::InvalidRequest, "hello was said before")
        } else {
            let text = format!("the first request must be Hello, not {opcode}");
            ErrorReply::new(ErrorCode::HelloRequired, text)
        });
    }
    let may_have_a_body =
        matches!(opcode, Opcode::Produce | Opcode::CreateSchedule | Opcode::ShardMessage);
    if !may_have_a_body && !frame.body.is_empty() {
        let text = format!("{opcode} has no body, but {} bytes came", frame.body.len());
        return Err(ErrorReply::new(ErrorCode::MalformedFrame, text));
    }
    match decode(frame) {
        Ok(Some(request)) => Ok(request),
        Ok(None) => {
            let text = format!("a broker does not serve {opcode}");
            Err(ErrorReply::new(ErrorCode::UnsupportedFeature, text))
        }
        Err(error) => Err(error.to_reply()),
    }
}

/// Decodes the header; `None` for what is not served here.
fn decode(frame: Frame) -> Result<Option<Request>, HeaderError> {
    Ok(Some(match frame.head.opcode {
        Opcode::Hello => Request::Hello(frame.header()?),
        Opcode::Ping => {
            frame.header::<Ping>()?;
            Request::Ping
        }
        Opcode::Metadata => Request::Metadata(frame.header()?),
        Opcode::InitProducer => Request::InitProducer(frame.header()?),
        Opcode::CloseProducer => Request::CloseProducer(frame.header()?),
        Opcode::Produce => Request::Produce(frame.header()?, frame.body),
        Opcode::Fetch => Request::Fetch(frame.header()?),
        Opcode::ListOffsets => Request::ListOffsets(frame.header()?),
        Opcode::Subscribe => Request::Subscribe(frame.header()?),
        Opcode::Credit => Request::Credit(frame.header()?),
        Opcode::Seek => Request::Seek(frame.header()?),
        Opcode::Unsubscribe => Request::Unsubscribe(frame.header()?),
        Opcode::FindMessages => Request::FindMessages(frame.header()?),
        Opcode::RecallMessage => Request::RecallMessage(frame.header()?),
        Opcode::ListScheduled => Request::ListScheduled(frame.header()?),
        Opcode::CountScheduled => Request::CountScheduled(frame.header()?),
        Opcode::ShowScheduled => Request::ShowScheduled(frame.header()?),
        Opcode::CreateSchedule => {
            let ask = frame.header()?;
            Request::CreateSchedule(ask, frame.body)
        }
        Opcode::ListSchedules => Request::ListSchedules(frame.header()?),
        Opcode::AlterSchedule => Request::AlterSchedule(frame.header()?),
        Opcode::DeleteSchedule => Request::DeleteSchedule(frame.header()?),
        Opcode::CreateTopic => Request::CreateTopic(frame.header()?),
        Opcode::AlterTopic => Request::AlterTopic(frame.header()?),
        Opcode::DeleteTopic => Request::DeleteTopic(frame.header()?),
        Opcode::DescribeTopic => Request::DescribeTopic(frame.header()?),
        Opcode::ListTopics => Request::ListTopics(frame.header()?),
        Opcode::JoinGroup => Request::JoinGroup(Box::new(frame.header()?)),
        Opcode::GroupHeartbeat => Request::GroupHeartbeat(Box::new(frame.header()?)),
        Opcode::LeaveGroup => Request::LeaveGroup(frame.header()?),
        Opcode::AssignQueues => Request::AssignQueues(frame.header()?),
        Opcode::ListGroups => Request::ListGroups(frame.header()?),
        Opcode::DescribeGroup => Request::DescribeGroup(frame.header()?),
        Opcode::DeleteGroup => Request::DeleteGroup(frame.header()?),
        Opcode::WatchRoutes => Request::WatchRoutes(frame.header()?),
        Opcode::ListClients => Request::ListClients(frame.header()?),
        Opcode::DescribeShards => {
            frame.header().map(|DescribeShards {}| Request::DescribeShards)?
        }
        Opcode::HandOverShards => Request::HandOverShards(frame.header()?),
        Opcode::ChangeReplicas => Request::ChangeReplicas(frame.header()?),
        Opcode::OpenPeer => Request::OpenPeer(frame.header()?),
        Opcode::ShardMessage => Request::ShardMessage(frame.header()?, frame.body),
        Opcode::ClaimQueue
        | Opcode::AckMessages
        | Opcode::SubscribeGroup
        | Opcode::GroupProgress
        | Opcode::ResetGroup
        | Opcode::RedriveDeadLetters
        | Opcode::PurgeDeadLetters
        | Opcode::ListDeadLetters => {
            return Ok(
                GroupQueueRequest::decode(&frame)?.map(|ask| Request::GroupQueue(Box::new(ask)))
            );
        }
        Opcode::Deliver
        | Opcode::RoutesChanged
        | Opcode::RegisterBroker
        | Opcode::BrokerHeartbeat
        | Opcode::OfferTopics
        | Opcode::PlaceDeadLetters
        | Opcode::LeadShards
        | Opcode::GroupDeliver => return Ok(None),
    }))
}

/// Whether a frame asks something; what a client sends besides (replies, pushes) is ignored.
#[must_use]
pub fn is_request(frame: &Frame) -> bool {
    frame.head.kind == FrameKind::Request
}

/// Whether the reply to such a request may be far larger than the request.
#[must_use]
pub const fn has_large_reply(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Fetch
            | Opcode::FindMessages
            | Opcode::Metadata
            | Opcode::ListTopics
            | Opcode::ListClients
            | Opcode::DescribeShards
            | Opcode::DescribeTopic
            | Opcode::ListGroups
            | Opcode::DescribeGroup
            | Opcode::GroupHeartbeat
    )
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use grus_protocol::frame::{FrameHead, decode as decode_frame, encode};
    use grus_protocol::limits::FrameLimits;
    use serde::Serialize;

    use super::*;

    fn frame(opcode: Opcode, header: &impl Serialize, body: &[u8]) -> Frame {
        let mut buffer = BytesMut::new();
        encode(FrameHead::request(opcode, 7), header, body.len(), &mut buffer).unwrap();
        buffer.extend_from_slice(body);
        decode_frame(&mut buffer, &FrameLimits::REQUESTS).unwrap().unwrap()
    }

    fn code(frame: Frame, greeted: bool) -> ErrorCode {
        read_request(frame, greeted).unwrap_err().code
    }

    #[test]
    fn hello_comes_first_and_once() {
        let hello = Hello::new("c", "s");
        let read = read_request(frame(Opcode::Hello, &hello, b""), false);
        assert!(matches!(read, Ok(Request::Hello(read)) if read == hello));
        assert_eq!(code(frame(Opcode::Hello, &hello, b""), true), ErrorCode::InvalidRequest);
        assert_eq!(code(frame(Opcode::Ping, &Ping {}, b""), false), ErrorCode::HelloRequired);
        assert!(read_request(frame(Opcode::Ping, &Ping {}, b""), true).is_ok());
    }

    #[test]
    fn a_header_of_another_shape_is_a_typed_error() {
        assert_eq!(code(frame(Opcode::Fetch, &("x", 1), b""), true), ErrorCode::MalformedHeader);
        let bad_name = ("../x", 0_u64, 0_u32, 0_u32);
        assert_eq!(code(frame(Opcode::Produce, &bad_name, b"b"), true), ErrorCode::InvalidName);
    }

    #[test]
    fn a_body_where_none_belongs_is_refused() {
        assert_eq!(code(frame(Opcode::Ping, &Ping {}, b"x"), true), ErrorCode::MalformedFrame);
    }
}
