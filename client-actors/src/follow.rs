//! Asking whoever leads a queue, again and again until it is answered or too late.

use std::time::Duration;

use bytes::Bytes;
use grus_mailbox::{Clock, Inbox, Outlet, outlet, reply};
use grus_protocol::message::Request;
use grus_protocol::{ErrorCode, ErrorReply, Frame, QueueId, TopicId, TopicName};

use crate::backoff::Backoff;
use crate::client::{Client, random};
use crate::error::Refusal;
use crate::link::{Call, LinkChanged, LinkState, Subscribe, encode};
use crate::producer::RouterDoors;
use crate::router::{FindRoute, Routed, reply_of};

/// Changes of a link that wait to be seen: it is looked at with each request.
const CHANGES_MAX: u32 = 1 << 16;
const AGAIN_MS_MAX: u64 = 1_000;

/// Why a leader did not answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It refused for good.
    Refused(Refusal),
    /// Not in time; with the last refusal, when there was one.
    Timeout(Option<Refusal>),
    /// The client is closed.
    Closed,
}

/// The way to the leader of one queue, kept from one request to the next.
pub(crate) struct Leader {
    doors: RouterDoors,
    clock: Clock,
    topic: TopicName,
    queue: QueueId,
    way: Option<Way>,
    backoff: Backoff,
}

struct Way {
    topic_id: TopicId,
    calls: Inbox<Call>,
    changes: Outlet<LinkChanged>,
    session: Option<u64>,
}

impl Leader {
    pub(crate) fn new(client: &Client, topic: TopicName, queue: QueueId) -> Self {
        let (doors, clock) = (client.core.doors.clone(), client.core.clock);
        Self {
            doors,
            clock,
            topic,
            queue,
            way: None,
            backoff: Backoff::new(20, AGAIN_MS_MAX, random()),
        }
    }

    /// Asks what `make` makes of the topic's incarnation, until `deadline_ms` on the process's
    /// clock. Only for requests that may be carried out twice.
    pub(crate) async fn ask<R: Request>(
        &mut self,
        make: impl Fn(TopicId) -> R,
        deadline_ms: u64,
    ) -> Result<(R::Reply, Frame), Unanswered> {
        self.ask_with(make, Bytes::new(), deadline_ms).await
    }

    /// The same with a body.
    pub(crate) async fn ask_with<R: Request>(
        &mut self,
        make: impl Fn(TopicId) -> R,
        body: Bytes,
        deadline_ms: u64,
    ) -> Result<(R::Reply, Frame), Unanswered> {
        let mut last = None;
        loop {
            let left_ms = deadline_ms.saturating_sub(self.clock.monotonic_ms());
            if left_ms == 0 {
                return Err(Unanswered::Timeout(last));
            }
            let attempt = self.attempt(&make, body.clone(), deadline_ms);
            let wait_ms = match tokio::time::timeout(Duration::from_millis(left_ms), attempt).await
            {
                Err(_elapsed) => return Err(Unanswered::Timeout(last)),
                Ok(Ok(Some(frame))) => match reply_of::<R::Reply>(&frame) {
                    Ok(reply) => {
                        self.backoff.succeeded();
                        return Ok((reply, frame));
                    }
                    Err(refusal) => self.refused(refusal, &mut last)?,
                },
                Ok(Ok(None)) => {
                    self.way = None; // the connection was lost, or is another one by now
                    self.backoff.failed()
                }
                Ok(Err(Unanswered::Refused(refusal))) => self.refused(refusal, &mut last)?,
                Ok(Err(other)) => return Err(other),
            };
            tokio::time::sleep(Duration::from_millis(wait_ms.min(left_ms))).await;
        }
    }

    /// How long to wait before the next attempt.
    fn refused(&mut self, refusal: Refusal, last: &mut Option<Refusal>) -> Result<u64, Unanswered> {
        let had_a_way = self.way.is_some();
        let wants_route = refusal.code.wants_metadata() && had_a_way;
        if !refusal.retriable && !wants_route {
            return Err(Unanswered::Refused(refusal));
        }
        if refusal.code.wants_metadata() {
            self.way = None;
        }
        let wait_ms = self.backoff.failed().max(u64::from(refusal.retry_after_ms));
        *last = Some(refusal);
        Ok(wait_ms)
    }

    /// One attempt; none when the connection was lost.
    async fn attempt<R: Request>(
        &mut self,
        make: &impl Fn(TopicId) -> R,
        body: Bytes,
        deadline_ms: u64,
    ) -> Result<Option<Frame>, Unanswered> {
        if self.way.is_none() {
            self.way = Some(self.find(deadline_ms).await?);
        }
        let Some(way) = &mut self.way else { return Ok(None) };
        // A leader that stays away may be another broker by now.
        let again = Duration::from_millis(AGAIN_MS_MAX);
        let Some(session) = tokio::time::timeout(again, way.session()).await.ok().flatten() else {
            self.way = None;
            return Ok(None);
        };
        let (port, answer) = reply::port();
        let frame = encode(&make(way.topic_id), body.len());
        let call = Call { session, frame, body, answer: Some(port) };
        if way.calls.put(call).await.is_err() {
            // That link is gone; with the client, or another one leads there.
            let closed = self.doors.find.is_stopped();
            return if closed { Err(Unanswered::Closed) } else { Ok(None) };
        }
        Ok(answer.await.ok())
    }

    async fn find(&self, deadline_ms: u64) -> Result<Way, Unanswered> {
        let (to, mut routed) = outlet::<Routed>(1);
        let find = FindRoute { topic: self.topic.clone(), auto_create: false, deadline_ms, to };
        self.doors.find.put(find).await.map_err(|_stopped| Unanswered::Closed)?;
        let Some((Routed { result, .. }, _)) = routed.take().await else {
            let closed = self.doors.find.is_stopped();
            let lost =
                Unanswered::Refused(refusal(ErrorCode::Unavailable, "the question was lost"));
            return Err(if closed { Unanswered::Closed } else { lost });
        };
        let (route, doors) = result.map_err(Unanswered::Refused)?;
        let link = route.links.get(self.queue.0 as usize).copied();
        let Some(link) = link else {
            let queues = route.links.len();
            let text = format!("{} has {queues} queues, no queue {}", self.topic, self.queue);
            return Err(Unanswered::Refused(refusal(ErrorCode::UnknownQueue, &text)));
        };
        let door = link.and_then(|link| doors.into_iter().find(|door| door.id == link));
        let Some(door) = door else {
            return Err(Unanswered::Refused(refusal(ErrorCode::Unavailable, "no leader")));
        };
        let (to, changes) = outlet(CHANGES_MAX);
        let _ = door.subscribe.try_put(Subscribe { to, pushes: None });
        Ok(Way { topic_id: route.topic_id, calls: door.calls, changes, session: None })
    }
}

impl Way {
    /// The session of the link now; waits for one. None when the link is gone.
    async fn session(&mut self) -> Option<u64> {
        while let Some((change, _)) = self.changes.try_take() {
            self.see(&change);
        }
        while self.session.is_none() {
            let (change, _) = self.changes.take().await?;
            self.see(&change);
        }
        self.session
    }

    fn see(&mut self, change: &LinkChanged) {
        self.session = match change.state {
            LinkState::Up { session, .. } => Some(session),
            LinkState::Down { .. } | LinkState::Gone => None,
        };
    }
}

fn refusal(code: ErrorCode, text: &str) -> Refusal {
    Refusal::from(ErrorReply::new(code, text))
}
