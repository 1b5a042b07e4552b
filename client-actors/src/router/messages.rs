//! What the Router takes, and what it tells.

use std::sync::Arc;

use bytes::BytesMut;
use grus_mailbox::{Dropped, Inbox, Port, Weigh};
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::HelloReply;
use grus_protocol::{Frame, TopicName};

use super::finding::Question;
use crate::error::Refusal;
use crate::link::{Call, Subscribe};
use crate::route::{LinkId, Route};

/// Sends a request to any broker, once one is there, or to a given one.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Whom to ask; none: whoever is there and serves it.
    pub(crate) to: Option<BrokerAddress>,
    /// Head and header.
    pub(crate) frame: BytesMut,
    /// On the clock of the process; after it the port is dropped if it was not sent.
    pub(crate) deadline_ms: u64,
    pub(crate) answer: Port<Frame>,
}

impl Weigh for Ask {}

/// Asks for the route of a topic.
#[derive(Debug)]
pub(crate) struct FindRoute {
    pub(crate) topic: TopicName,
    pub(crate) auto_create: bool,
    /// On the clock of the process; after it the question comes back unanswered.
    pub(crate) deadline_ms: u64,
    pub(crate) to: Inbox<Routed>,
}

impl Weigh for FindRoute {}

/// The route asked for, with the links it leads over.
#[derive(Debug)]
pub(crate) struct Routed {
    /// The topic that was asked about.
    pub(crate) topic: TopicName,
    pub(crate) result: Result<(Route, Vec<LinkHandle>), Refusal>,
}

impl Weigh for Routed {}

/// The door to a link.
#[derive(Debug, Clone)]
pub(crate) struct LinkHandle {
    pub(crate) id: LinkId,
    pub(crate) calls: Inbox<Call>,
    pub(crate) subscribe: Inbox<Subscribe>,
}

/// Answers when a broker is there; `Err` with the last reason when there is none in time.
#[derive(Debug)]
pub(crate) struct Await {
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) answer: Port<Result<Arc<HelloReply>, Arc<str>>>,
}

impl Weigh for Await {}

/// Metadata came back for whoever asked.
#[derive(Debug)]
pub(crate) struct MetadataAnswered {
    pub(super) question: Question,
    pub(super) answer: Result<Frame, Dropped>,
}

impl Weigh for MetadataAnswered {}

/// The registry has said which brokers there are.
#[derive(Debug)]
pub(crate) struct BrokersTold {
    pub(super) answer: Result<Frame, Dropped>,
}

impl Weigh for BrokersTold {}

/// Who tells the routes has given a sign of life.
#[derive(Debug)]
pub(crate) struct Lives {
    pub(super) link: LinkId,
    pub(super) session: u64,
}

impl Weigh for Lives {}

/// Asks, for a person to read, why what any broker may answer has not been answered.
#[derive(Debug)]
pub(crate) struct AskOutlook {
    pub(crate) answer: Port<String>,
}

impl Weigh for AskOutlook {}
