//! How the router gets to a broker by way of a registry, and what it says when it does not.

use grus_mailbox::{Credit, Dropped, Port, Receive, Room};
use grus_protocol::message::{Metadata, MetadataReply, Ping};

use super::brokers::{REGISTRY, is_for_brokers};
use super::pulse::Beat;
use super::{AskOutlook, BrokersTold, Lives, OwnLink, Router, Waiting, reply_of};
use crate::clients::nobodys_topic;
use crate::link::encode;

impl Router {
    /// Whether something waits that any broker may serve, and none is connected.
    fn lacks_broker(&self) -> bool {
        let is_for_any = |one: &Waiting| one.over.is_none() && is_for_brokers(&one.frame);
        let leads = |link: &OwnLink| link.session.is_some() && link.broker != Some(REGISTRY);
        self.waiting.iter().any(is_for_any) && !self.links.iter().any(leads)
    }

    /// Asks the registry who there is, where a broker is wanted and none is connected.
    pub(super) fn seek_broker(&mut self, room: &Room<'_, Self>) {
        if !self.lacks_broker() {
            return;
        }
        let leads = |link: &&OwnLink| link.session.is_some() && link.broker == Some(REGISTRY);
        let registry = self.links.iter().find(leads).map(|link| link.door.id);
        let Some(own) = self.own.as_ref().filter(|_| registry.is_some()) else { return };
        if !self.search.is_time(room.clock().monotonic_ms()) {
            return;
        }
        let told = own.brokers.clone();
        let answer = Port::call(move |answer| {
            let _ = told.try_put(BrokersTold { answer });
        });
        let metadata = Metadata { topics: vec![nobodys_topic()], auto_create: false };
        let _ = self.send(registry, encode(&metadata, 0), answer); // not sent: with a later tick
    }

    /// What there is to say about brokers, to one that waits for an answer of any of them.
    fn outlook(&self) -> String {
        let is_up = |link: &&OwnLink| link.session.is_some();
        let broker = |link: &OwnLink| link.broker.filter(|broker| *broker != REGISTRY);
        if let Some(broker) = self.links.iter().filter(is_up).find_map(broker) {
            return format!("broker {broker} is connected");
        }
        let reason = &self.last_reason;
        match (self.links.iter().any(|link| is_up(&link)), self.brokers.len()) {
            (false, _) => format!("no broker is connected: {reason}"),
            (true, 0) => "the registry knows of no broker that is there".to_owned(),
            (true, some) => {
                format!("none of the {some} brokers that the registry knows of answers: {reason}")
            }
        }
    }
}

impl Router {
    /// Asks who tells the routes for a sign of life; one that gives none has somebody else asked to tell them.
    pub(super) fn feel_pulse(&mut self, now_ms: u64, room: &Room<'_, Self>) {
        let over = self.watching.over();
        let beat = self.pulse.tick(over, now_ms);
        let (Some((id, session)), Some(own)) = (over, &self.own) else { return };
        match beat {
            Beat::Rest => {}
            Beat::Ping => {
                let lives = own.lives.clone();
                let answer = Port::call(move |answer: Result<_, Dropped>| {
                    if answer.is_ok() {
                        let _ = lives.try_put(Lives { link: id, session });
                    }
                });
                let _ = self.send(Some(id), encode(&Ping {}, 0), answer); // not sent: not answered
            }
            Beat::Mute => {
                let Some(link) = self.link(id).filter(|link| link.session == Some(session)) else {
                    return;
                };
                link.is_mute = true;
                tracing::info!(link = id.0, broker = ?link.broker, "who tells the routes is silent");
                self.try_others(room);
                self.watch();
            }
        }
    }
}

impl Receive<Lives> for Router {
    fn receive(&mut self, lives: Lives, _: Credit, room: &mut Room<'_, Self>) {
        let Lives { link: id, session } = lives;
        self.pulse.answered((id, session), room.clock().monotonic_ms());
        if let Some(link) = self.link(id).filter(|link| link.session == Some(session)) {
            link.is_mute = false;
        }
    }
}

impl Receive<BrokersTold> for Router {
    fn receive(&mut self, told: BrokersTold, _: Credit, room: &mut Room<'_, Self>) {
        let Ok(Ok(reply)) = told.answer.map(|frame| reply_of::<MetadataReply>(&frame)) else {
            return; // it is asked again
        };
        self.brokers = reply.brokers;
        if self.lacks_broker()
            && let Some(next) = self.search.next(&self.brokers)
        {
            self.link_to(next, &self.brokers.clone(), room);
        }
    }
}

impl Receive<AskOutlook> for Router {
    fn receive(&mut self, ask: AskOutlook, _: Credit, _: &mut Room<'_, Self>) {
        ask.answer.send(self.outlook());
    }
}
