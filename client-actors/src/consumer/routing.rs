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
                let is_whole = route.links.iter().all(Option::is_some);
                way.ask = AskRoute::Rest;
                if is_whole {
                    way.backoff.succeeded();
                } else {
                    way.ask = AskRoute::NotBefore(now_ms + way.backoff.failed());
                }
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
                    self.look.insert(queue.slot);
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
