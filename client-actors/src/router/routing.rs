//! Routes for those who ask: one question of each topic at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use grus_mailbox::{Credit, Dropped, Port, Room};
use grus_protocol::message::{Metadata, MetadataReply};
use grus_protocol::{BrokerId, Frame, TopicName};

use super::finding::Question;
use super::{
    Ask, FindRoute, LinkHandle, MetadataAnswered, Routed, Router, nonsense, reply_of, unavailable,
};
use crate::error::Refusal;
use crate::link::encode;
use crate::route::{LinkId, Route};

impl Router {
    /// Somebody asks where the queues of a topic are.
    pub(super) fn find(&mut self, find: FindRoute, credit: Credit, room: &Room<'_, Self>) {
        let FindRoute { topic, auto_create, deadline_ms, to } = find;
        let question = (topic, auto_create);
        if self.finding.add(question.clone(), (to, credit), deadline_ms) {
            self.ask_route(question, deadline_ms, room);
        }
    }

    fn ask_route(&mut self, question: Question, deadline_ms: u64, room: &Room<'_, Self>) {
        let (topic, auto_create) = question.clone();
        let metadata = Metadata { topics: vec![topic], auto_create };
        let Some(own) = self.own.as_ref().map(|own| own.metadata.clone()) else { return };
        let answer = Port::call(move |answer| {
            let _ = own.try_put(MetadataAnswered { question, answer });
        });
        let ask = Ask { to: None, frame: encode(&metadata, 0), deadline_ms, answer };
        self.ask(ask, Credit::unbounded(), room);
    }

    /// A question is answered, or will not be.
    pub(super) fn routed(
        &mut self,
        question: Question,
        answer: Result<Frame, Dropped>,
        room: &Room<'_, Self>,
    ) {
        let result = match answer {
            Ok(frame) => self.route_of(&question.0, &frame, room),
            Err(Dropped) if self.links.iter().all(|link| link.session.is_none()) => {
                Err(unavailable(&format!("no broker answers: {}", self.last_reason)))
            }
            Err(Dropped) => Err(unavailable("connection lost, or nobody there serves it")),
        };
        let (asked, again_ms) = self.finding.answered(&question);
        for (to, _credit) in asked {
            let _ = to.try_put(Routed { topic: question.0.clone(), result: result.clone() });
        }
        if let Some(deadline_ms) = again_ms {
            self.ask_route(question, deadline_ms, room);
        }
    }

    /// Those whose question was not answered in time hear so.
    pub(super) fn give_up_finding(&mut self, now_ms: u64, room: &Room<'_, Self>) {
        let (late, lost) = self.finding.overdue(now_ms);
        for (topic, (to, _credit)) in late {
            let result = Err(unavailable("nobody has said in time where its queues are"));
            let _ = to.try_put(Routed { topic, result });
        }
        for question in lost {
            self.routed(question, Err(Dropped), room);
        }
    }

    fn route_of(
        &mut self,
        topic: &TopicName,
        frame: &Frame,
        room: &Room<'_, Self>,
    ) -> Result<(Route, Vec<LinkHandle>), Refusal> {
        let reply: MetadataReply = reply_of(frame)?;
        self.brokers.clone_from(&reply.brokers);
        self.watching.answered(reply.version);
        let found = reply.topics.into_iter().find(|found| found.name == *topic);
        let Some(found) = found else { return Err(nonsense("metadata lacks the topic")) };
        if let Some(error) = found.error {
            return Err(error.into());
        }
        let dense = found.queues.iter().zip(0..).all(|(route, number)| route.queue.0 == number);
        if !dense || found.queues.is_empty() {
            return Err(nonsense("metadata does not list the queues from 0 on"));
        }
        let mut ways: HashMap<BrokerId, Option<LinkId>> = HashMap::new();
        let leaders = found.queues.iter().map(|route| route.leader_broker);
        let links: Arc<[_]> = leaders
            .map(|leader| {
                let way = ways.entry(leader?);
                *way.or_insert_with_key(|leader| self.link_to(*leader, &reply.brokers, room))
            })
            .collect();
        let used: HashSet<_> = links.iter().flatten().copied().collect();
        let doors = self.links.iter().map(|link| &link.door);
        let doors = doors.filter(|door| used.contains(&door.id)).cloned().collect();
        Ok((Route { topic_id: found.id, links }, doors))
    }
}
