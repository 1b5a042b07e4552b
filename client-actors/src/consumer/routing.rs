//! Where the queues of a member are served: the ways to their leaders, and the connections. No
//! clock, no I/O.

use grus_protocol::message::QueuePlace;
use grus_protocol::{TopicId, TopicName};

use super::state::ConsumerState;
use crate::error::Refusal;
use crate::route::{Ask as AskRoute, LinkId, Route};

impl<P> ConsumerState<P> {
    /// A topic whose route is to be asked for.
    pub(crate) fn poll_route(&mut self, now_ms: u64) -> Option<TopicName> {
        let mut ways = self.ways.iter_mut();
        ways.find_map(|(topic, way)| way.ask.poll(now_ms).then(|| topic.clone()))
    }

    /// The answer to the question for a route.
    pub(crate) fn route(&mut self, topic: &TopicName, answer: Result<Route, Refusal>, now_ms: u64) {
        let Some(way) = self.ways.get_mut(topic) else { return };
        match answer {
            Ok(route) => {
                let mut is_enough = true;
                for queue in self.queues.values_mut().filter(|queue| queue.topic == *topic) {
                    let link = link_of(&route, queue.place);
                    if queue.link != link {
                        self.leaving.extend(queue.link.zip(queue.subscription()));
                        if let Some(number) = queue.subscription() {
                            self.live.remove(&number);
                        }
                        queue.disconnected();
                        queue.link = link;
                    }
                    is_enough &= link.is_some();
                    self.look.insert(queue.slot);
                }
                // Nobody leads a queue of its own, or the answer is older than the queue is.
                way.ask = AskRoute::Rest;
                if is_enough {
                    way.backoff.succeeded();
                } else {
                    way.ask = AskRoute::NotBefore(now_ms + way.backoff.failed());
                }
                way.route = Some(route);
            }
            Err(_) => way.ask = AskRoute::NotBefore(now_ms + way.backoff.failed()),
        }
    }

    /// A connection was opened.
    pub(crate) fn link_up(&mut self, link: LinkId) {
        if !self.up.contains(&link) {
            self.up.push(link);
        }
        self.disconnect(link);
    }

    /// A connection was lost, and with it the answers that were awaited from it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.up.retain(|up| *up != link);
        self.leaving.retain(|(left, _)| *left != link);
        self.disconnect(link);
    }

    fn disconnect(&mut self, link: LinkId) {
        for queue in self.queues.values_mut().filter(|queue| queue.link == Some(link)) {
            if let Some(number) = queue.subscription() {
                self.live.remove(&number);
            }
            queue.disconnected();
            self.look.insert(queue.slot);
        }
    }

    /// A connection never comes back: the way is asked for anew.
    pub(crate) fn link_gone(&mut self, link: LinkId) {
        self.link_down(link);
        for queue in self.queues.values_mut().filter(|queue| queue.link == Some(link)) {
            queue.link = None;
            if let Some(way) = self.ways.get_mut(&queue.topic) {
                way.ask.want();
            }
        }
    }
}

/// The connection that leads to a queue.
pub(super) fn link_of(route: &Route, place: QueuePlace) -> Option<LinkId> {
    let is_same = route.topic_id == TopicId::UNKNOWN || route.topic_id == place.topic_id;
    let link = route.links.get(place.queue.0 as usize).copied().flatten();
    link.filter(|_| is_same)
}

#[cfg(test)]
mod tests {
    use grus_protocol::message::{
        AssignedQueue, GroupHeartbeatReply, GroupSettings, GroupSubscription, JoinGroupReply,
        MessageFilter,
    };
    use grus_protocol::{Generation, GroupId, MemberId, QueueId};

    use super::*;
    use crate::consumer::state::ConsumerSettings;

    /// A member with queue 0 of the topic's second incarnation.
    fn member(topic: &TopicName) -> ConsumerState<()> {
        let settings = ConsumerSettings {
            acks_before: false,
            queue_messages_max: 8,
            bytes_max: 1 << 20,
            revoke_ms_max: 3_000,
            join_ms_max: None,
        };
        let subscription = GroupSubscription { topics: topic.into(), filter: MessageFilter::All };
        let mut state = ConsumerState::new(settings, vec![subscription], 1);
        let join = state.poll_member(0).unwrap();
        let reply = JoinGroupReply {
            group_id: GroupId(1),
            member: MemberId(1),
            generation: Generation(1),
            session_ms: 10_000,
            heartbeat_ms: 3_000,
            settings: GroupSettings::default(),
            time: grus_protocol::TimestampMs(0),
        };
        state.joined(join.number, reply, 0);
        let beat = state.poll_member(0).unwrap();
        let (topic_id, queue, generation) = (TopicId(2), QueueId(0), Generation(1));
        let assigned = AssignedQueue { topic: topic.clone(), topic_id, queue, generation };
        let (assigned, settings) = (Some(vec![assigned]), None);
        let reply = GroupHeartbeatReply { generation, assigned, settings, divide: None };
        state.heard(beat.number, reply, 0);
        state
    }

    #[test]
    fn a_way_that_is_older_than_the_queue_is_asked_for_again_and_forgotten_with_it() {
        let topic = TopicName::try_from("t").unwrap();
        let mut state = member(&topic);
        let route = |id| Route { topic_id: TopicId(id), links: vec![Some(LinkId(0))].into() };
        assert_eq!(state.poll_route(0), Some(topic.clone()));
        state.route(&topic, Ok(route(1)), 0);
        assert_eq!(state.poll_route(0), None, "after a while");
        assert_eq!(state.poll_route(2_000), Some(topic.clone()), "it knew of an earlier topic");
        state.route(&topic, Ok(route(2)), 2_000);
        assert_eq!(state.poll_route(60_000), None);
        state.link_up(LinkId(0));
        assert!(state.poll_ask(2_000).is_some());
        state.lose_all();
        assert!(state.ways.is_empty(), "topics come and go");
    }
}
