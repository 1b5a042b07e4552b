//! Panics on demand, for tests of supervision alone: there with the feature `fault-injection`, and in
//! this crate's own tests.

use grus_mailbox::{Credit, Receive, Room, Weigh};

use crate::client::Client;
use crate::link::Link;
use crate::producer::ProducerActor;
use crate::read::Reader;
use crate::reader::ReaderActor;
use crate::router::Router;
use crate::send::Producer;

/// Makes the actor panic that receives it.
#[derive(Debug)]
pub(crate) struct Explode;

impl Weigh for Explode {}

impl Receive<Explode> for Link {
    fn receive(&mut self, _: Explode, _: Credit, _: &mut Room<'_, Self>) {
        panic!("a test asked for it");
    }
}

impl Receive<Explode> for Router {
    fn receive(&mut self, _: Explode, _: Credit, _: &mut Room<'_, Self>) {
        panic!("a test asked for it");
    }
}

impl Receive<Explode> for ProducerActor {
    fn receive(&mut self, _: Explode, _: Credit, _: &mut Room<'_, Self>) {
        panic!("a test asked for it");
    }
}

impl Receive<Explode> for ReaderActor {
    fn receive(&mut self, _: Explode, _: Credit, _: &mut Room<'_, Self>) {
        panic!("a test asked for it");
    }
}

/// Makes all links of a router panic.
#[derive(Debug)]
pub(crate) struct ExplodeLinks;

impl Weigh for ExplodeLinks {}

impl Receive<ExplodeLinks> for Router {
    fn receive(&mut self, _: ExplodeLinks, _: Credit, _: &mut Room<'_, Self>) {
        for link in self.link_actors() {
            let _ = link.inbox::<Explode>(1).try_put(Explode); // one that has stopped has nothing to lose
        }
    }
}

impl Client {
    /// Makes every connection's actor panic: what was under way on it is lost with it. With the
    /// feature `fault-injection` alone.
    pub fn inject_link_panics(&self) {
        let _ = self.core.router.inbox::<ExplodeLinks>(1).try_put(ExplodeLinks); // closed
    }

    /// Makes the actor panic that knows all connections. With the feature `fault-injection` alone.
    pub fn inject_router_panic(&self) {
        let _ = self.core.router.inbox::<Explode>(1).try_put(Explode); // closed
    }
}

impl Producer {
    /// Makes its actor panic. With the feature `fault-injection` alone.
    pub fn inject_panic(&self) {
        let _ = self.actor().inbox::<Explode>(1).try_put(Explode); // closed
    }
}

impl Reader {
    /// Makes its actor panic. With the feature `fault-injection` alone.
    pub fn inject_panic(&self) {
        let _ = self.actor.inbox::<Explode>(1).try_put(Explode); // closed
    }
}
