//! A producer's logic alone. No clock, no I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use grus_protocol::message::{InitProducerReply, ProduceReply};
use grus_protocol::{
    BatchBuilder, BatchLimits, BrokerId, ErrorReply, NewRecord, Offset, QueueId, TopicId,
};

use crate::config::ProducerConfig;
use crate::error::SendError;
use crate::guard::Guard;
use crate::producer::lane::Identity;
use crate::producer::outcome::Stored;
use crate::producer::parts::{Ended, Member, Need, Sending};
use crate::producer::state::ProducerState;
use crate::producer::{Ids, Load, Pick};
use crate::route::{LinkId, Route};

/// What a producer does next.
#[derive(Debug)]
pub enum ProducerStep<P> {
    /// It sends a batch.
    Send(SentBatch),
    /// It asks where the queues of its topic are.
    FindRoute,
    /// It asks any broker for an identity.
    FindIdentity,
    /// It tells a caller what became of what that sent.
    Answer {
        /// The caller.
        port: P,
        /// Where it is stored, or why it is not, as far as is known.
        result: Result<StoredAt, SendError>,
    },
}

/// A batch on its way to a broker.
#[derive(Debug, Clone)]
pub struct SentBatch {
    /// The connection, as the route names it.
    pub link: u32,
    /// The queue.
    pub queue: QueueId,
    /// What the answer is known by.
    pub token: (u64, u64),
    /// The batch, as it stands in a frame.
    pub bytes: Bytes,
}

/// Where what one caller sent is stored.
#[derive(Debug, Clone, Copy)]
pub struct StoredAt {
    /// The queue.
    pub queue: QueueId,
    /// Of the first message; 0 where it waits for its time.
    pub offset: Offset,
    /// Whether it waits for its time.
    pub is_scheduled: bool,
}

/// What [`Producer`](crate::Producer) runs. `P` is whoever awaits a message.
#[derive(Debug)]
pub struct SimulatedProducer<P> {
    state: ProducerState<P, ()>,
    /// Of batches that have ended: a batch may be of several callers.
    answers: VecDeque<ProducerStep<P>>,
}

impl<P> SimulatedProducer<P> {
    /// A producer without a name that knows nothing yet. `seed` makes its waits its own.
    pub fn new(config: &ProducerConfig, seed: u64) -> Self {
        let guard = Guard::default();
        let state = ProducerState::new(config, BatchLimits::PRODUCE, seed, &guard, 0);
        Self { state, answers: VecDeque::new() }
    }

    /// Takes a message, or a batch that stays one, for a queue; `port` hears of it once.
    ///
    /// # Panics
    /// Without records, and with such as make no batch.
    pub fn send(&mut self, queue: QueueId, records: &[NewRecord], port: P, now_ms: u64) {
        let pick = Pick::Given(queue);
        if let [record] = records {
            let ids = Ids::One(record.id);
            return self.state.take(pick, Load::One(record.clone()), ids, port, now_ms);
        }
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        for record in records {
            builder.push(record).expect("a record of a batch");
        }
        assert!(builder.count() > 0, "a batch without records");
        let ids = Ids::Many(records.iter().map(|record| record.id).collect());
        self.state.take(pick, Load::Many(builder), ids, port, now_ms);
    }

    /// What to do now; none: nothing before something happens, or time has passed.
    pub fn poll(&mut self, now_ms: u64) -> Option<ProducerStep<P>> {
        if let Some(Sending { link, queue, serial, attempt, bytes }) = self.state.poll_send(now_ms)
        {
            let token = (serial, attempt);
            return Some(ProducerStep::Send(SentBatch { link: link.0, queue, token, bytes }));
        }
        match self.state.poll_need(now_ms) {
            Some(Need::Route) => return Some(ProducerStep::FindRoute),
            Some(Need::Identity { .. }) => return Some(ProducerStep::FindIdentity),
            None => {}
        }
        while let Some(ended) = self.state.poll_ended() {
            self.answer_all(ended);
        }
        self.answers.pop_front()
    }

    fn answer_all(&mut self, ended: Ended<P>) {
        let Ended { queue, members, mut result } = ended;
        for Member { port, ids, .. } in members {
            let at = |stored: Stored| StoredAt {
                queue,
                offset: stored.base_offset,
                is_scheduled: stored.timer.is_some(),
            };
            let result_of_one = result.clone().map(at);
            self.answers.push_back(ProducerStep::Answer { port, result: result_of_one });
            if let Ok(stored) = &mut result {
                let count = match ids {
                    Ids::One(_) => 1,
                    Ids::Many(ids) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
                };
                stored.go_on(count);
            }
        }
    }

    /// The answer to [`ProducerStep::FindRoute`]: the connection that leads to each queue, by the queue's number.
    pub fn route(&mut self, route: Result<(TopicId, Vec<Option<u32>>), ErrorReply>, now_ms: u64) {
        let route = route.map(|(topic_id, links)| {
            let links: Arc<[_]> = links.into_iter().map(|link| link.map(LinkId)).collect();
            Route { topic_id, links }
        });
        self.state.route(route.map_err(Into::into), now_ms);
    }

    /// The answer to [`ProducerStep::FindIdentity`].
    pub fn identity(&mut self, answer: Result<InitProducerReply, ErrorReply>, now_ms: u64) {
        let identity = answer.map(|reply| {
            let (producer, epoch) = (reply.producer_id, reply.producer_epoch);
            (Identity { producer, epoch }, reply.epochs)
        });
        self.state.identity(None, identity.map_err(Into::into), now_ms);
    }

    /// The answer to [`ProducerStep::Send`].
    pub fn answered(
        &mut self,
        queue: QueueId,
        token: (u64, u64),
        answer: Result<ProduceReply, ErrorReply>,
        now_ms: u64,
    ) {
        match answer {
            Ok(reply) => self.state.stored(queue, token.0, Stored::from(reply)),
            Err(error) => self.state.refused(queue, token, error.into(), now_ms),
        }
    }

    /// A connection was opened.
    pub fn link_up(&mut self, link: u32, broker: BrokerId) {
        self.state.set_limits(LinkId(link), BatchLimits::PRODUCE);
        self.state.leads_to(LinkId(link), broker);
        self.state.link_up(LinkId(link));
    }

    /// A connection was lost, and with it the answers to all that went over it.
    pub fn link_down(&mut self, link: u32) {
        self.state.link_down(LinkId(link));
    }

    /// Time has passed: every 20 ms.
    pub fn tick(&mut self, now_ms: u64) {
        self.state.tick(now_ms);
    }
}
