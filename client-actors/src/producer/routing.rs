//! Where a producer's queues are, and what becomes of what was sent when that changes.

use grus_protocol::QueueId;

use super::lane::{Batch, Lane};
use super::parts::{Ids, Load, Member, Members};
use super::payload::Payload;
use super::salvage::{batch_of, records_of};
use super::state::{ProducerState, QueueLane, SERIALS_EACH, Unrouted, told};
use crate::error::{Refusal, SendError};
use crate::route::{Ask, Route};

impl<P, F> ProducerState<P, F> {
    /// The answer to [`Need::Route`](super::parts::Need::Route).
    pub(crate) fn route(&mut self, answer: Result<Route, Refusal>, now_ms: u64) {
        self.ask_route = Ask::Rest;
        match answer {
            Ok(route) => {
                self.ask_refusal = None;
                let leaderless = route.links.iter().any(Option::is_none);
                self.apply_route(route);
                if leaderless {
                    self.ask_route = Ask::NotBefore(now_ms + self.ask_backoff.failed());
                } else {
                    self.ask_backoff.succeeded();
                }
                for Unrouted { deadline_ms, load, member } in std::mem::take(&mut self.unrouted) {
                    self.place(load, member, deadline_ms - self.window_ms);
                }
            }
            Err(refusal) if refusal.retriable => {
                self.ask_route = Ask::NotBefore(now_ms + self.ask_backoff.failed());
                self.ask_refusal = Some(refusal);
            }
            Err(refusal) => {
                let topic = self.config.topic.clone();
                let failed = SendError::Topic { topic, refusal: refusal.clone() };
                self.fail_all(|sent| told(sent, &refusal, &failed));
                self.route = None;
                self.drop_lanes();
            }
        }
    }

    fn apply_route(&mut self, route: Route) {
        let is_another_topic =
            self.route.as_ref().is_some_and(|had| had.topic_id != route.topic_id);
        // Another number of queues in another topic of the name: what is not stored yet goes where
        // it would go now. (A topic that stays itself only gains queues.)
        let is_other = is_another_topic && route.links.len() != self.lanes.len();
        let to_place = if is_other { self.take_apart() } else { Vec::new() };
        while self.lanes.len() < route.links.len() {
            self.lanes.push(QueueLane {
                lane: Lane::new(self.lane_settings, self.jitter.next(), self.serials),
                open: None,
                link: None,
                identity_number: 0,
                identity_of: None,
                is_announced: false,
                announced_to: None,
                is_known: false,
                is_listed: false,
            });
        }
        for (queue, link) in (0..).zip(route.links.iter().copied()) {
            if is_another_topic {
                self.lanes[queue as usize].lane.start_over();
                self.lanes[queue as usize].is_known = false; // it is in another shard, maybe
                self.lanes[queue as usize].doubt_announcement();
            }
            if self.lanes[queue as usize].link != link {
                self.lanes[queue as usize].link = link;
                self.lanes[queue as usize].doubt_announcement();
                self.with_lane(QueueId(queue), |lane, _| lane.link_down());
                if link.is_some_and(|link| self.up.contains(&link)) {
                    self.lanes[queue as usize].lane.link_up();
                }
            }
            self.list(queue);
        }
        self.route = Some(route);
        self.want_names();
        for (load, member, at_ms) in to_place {
            self.place(load, member, at_ms);
        }
    }

    /// Takes all that is awaited out of its lanes, in its order within each, and forgets them.
    fn take_apart(&mut self) -> Vec<(Load, Member<P>, u64)> {
        let mut all = Vec::new();
        for queue in 0..self.queues() {
            self.close_open(queue);
            for batch in self.lanes[queue as usize].lane.take_all() {
                let at_ms = batch.deadline_ms - self.window_ms;
                loads_of(batch, |load, member| all.push((load, member, at_ms)));
            }
        }
        self.drop_lanes();
        all
    }

    /// Forgets lanes, and with them which sequences are taken: the identities they had are not
    /// used again.
    fn drop_lanes(&mut self) {
        self.lanes.clear();
        self.listed.clear();
        // An answer that is still on its way is for none of the lanes to come.
        self.serials += SERIALS_EACH;
        self.identities.forget();
    }
}

/// A batch as it was taken: of one caller as a whole, of several message by message.
fn loads_of<P>(batch: Batch<Payload, Members<P>>, mut each: impl FnMut(Load, Member<P>)) {
    let Batch { payload, members, .. } = batch;
    let records = records_of(payload);
    let mut at = 0;
    for member in members {
        let count = member.ids.as_slice().len();
        let own = &records[at..at + count];
        at += count;
        let load = match &member.ids {
            Ids::One(_) => Load::One(own[0].clone()),
            Ids::Many(_) => Load::Many(batch_of(own)),
        };
        each(load, member);
    }
}
