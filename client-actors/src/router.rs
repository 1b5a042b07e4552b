//! Router: knows the brokers of one client.
//!
//! ```text
//! Client (admin calls) --Ask--------> [Router] --Call--> Link 0 (bootstrap), Link n (a broker)
//! Producer, Reader ----FindRoute----->    |
//!                  <------Routed----------'
//! ```
//!
//! * Owns: the links, which broker each leads to, requests that wait for a broker to be there, and
//!   who follows which routes ([`watching`]).
//! * Lives on: the client's arbiter, with all links, producers and readers.
//! * Inbox: [`Ask`], [`FindRoute`], [`Await`], [`AskOutlook`], [`LinkChanged`], [`MetadataAnswered`],
//!   [`BrokersTold`], [`Lives`], [`Pushed`], [`Tick`].
//! * Talks to: its links; whoever asked, by reply port or inbox.
//! * Stops: at once, after producers and readers; what waits is dropped.
//! * If it panics: links are made anew, under numbers that were never used; whoever used the old ones
//!   hears that they are gone and asks for the way again.
//!
//! A broker that the bootstrap link has reached is used through that link, whatever address it
//! announces, until it announces another one while that link is lost; others get a link of their
//! own when a route first leads to them, or when nobody else can be reached. The bootstrap link may
//! lead to a registry, which serves all that is about topics. What any broker may serve, but no
//! registry, waits then until a broker is connected that the registry has named ([`brokers`]).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Port, Receive, Resident, Room, Tick,
};
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{HelloReply, RoutesChanged, WatchRoutes, features};
use grus_protocol::{BrokerId, ErrorCode, ErrorReply, Frame, Opcode};

use crate::error::Refusal;
use crate::link::{
    ANSWERS_MAX, CALL_BYTES_MAX, Call, Link, LinkChanged, LinkSettings, LinkState, Listeners,
    Pushed, PushesTo, Subscribe, encode,
};
use crate::route::{ASK_MS_MAX, LinkId};
use brokers::{REGISTRY, Search, is_for_brokers};
use finding::Finding;
pub(crate) use messages::{
    Ask, AskOutlook, Await, BrokersTold, FindRoute, LinkHandle, Lives, MetadataAnswered, Routed,
};
use pulse::Pulse;
use watching::Watching;

mod brokers;
mod finding;
mod messages;
mod pulse;
mod routing;
mod seeking;
mod watching;

const TICK: Duration = Duration::from_millis(50);
/// Changes of the routes that wait to be looked at.
const PUSHES_MAX: u32 = 1_024;
/// Most requests that wait for a broker.
pub(crate) const ASKS_MAX: u32 = 4_096;
/// Numbers of links that each life of a router has for itself.
const LINKS_EACH_LIFE: u32 = 1 << 16;
/// Most brokers that are tried when the bootstrap addresses are of no use.
const OTHERS_MAX: usize = 8;

struct OwnLink {
    handle: HostHandle<Link>,
    door: LinkHandle,
    session: Option<u64>,
    broker: Option<BrokerId>,
    /// Whether its peer tells routes as they change.
    tells_routes: bool,
    /// It was to tell routes and has fallen silent ([`pulse`]): others are preferred.
    is_mute: bool,
}

/// A request that waits for a broker, with its place in the inbox.
struct Waiting {
    /// The link it must leave by; none: any.
    over: Option<LinkId>,
    frame: BytesMut,
    deadline_ms: u64,
    answer: Port<Frame>,
    credit: Credit,
}

/// See the module documentation.
pub(crate) struct Router {
    settings: LinkSettings,
    /// The bootstrap link's number, the first of this life.
    bootstrap: LinkId,
    /// By number, from that of the bootstrap link on.
    links: Vec<OwnLink>,
    hello: Option<Arc<HelloReply>>,
    last_reason: Arc<str>,
    waiting: VecDeque<Waiting>,
    awaiting: Vec<(Await, Credit)>,
    /// The link that was opened to a broker's address.
    addresses: HashMap<BrokerId, (LinkId, String)>,
    /// What the broker at the bootstrap link announced, as was told first since that was opened.
    announced: Option<String>,
    watching: Watching,
    pulse: Pulse,
    /// Questions for routes, and who waits for their answers.
    finding: Finding<(Inbox<Routed>, Credit)>,
    /// All brokers, as they were last told.
    brokers: Vec<BrokerAddress>,
    search: Search,
    own: Option<OwnInboxes>,
}

/// The inboxes by which others answer.
struct OwnInboxes {
    changes: Inbox<LinkChanged>,
    metadata: Inbox<MetadataAnswered>,
    brokers: Inbox<BrokersTold>,
    pushes: Inbox<Pushed>,
    lives: Inbox<Lives>,
}

impl Router {
    /// A router that starts its bootstrap link when it is started. `lives` have ended in a panic.
    pub(crate) fn new(settings: LinkSettings, lives: u32) -> Self {
        Self {
            search: Search::new(settings.seed),
            settings,
            bootstrap: LinkId(lives.wrapping_mul(LINKS_EACH_LIFE)),
            links: Vec::new(),
            hello: None,
            last_reason: "not connected yet".into(),
            waiting: VecDeque::new(),
            awaiting: Vec::new(),
            addresses: HashMap::new(),
            announced: None,
            watching: Watching::default(),
            pulse: Pulse::default(),
            finding: Finding::default(),
            brokers: Vec::new(),
            own: None,
        }
    }

    fn open_link(&mut self, addresses: Vec<String>, room: &Room<'_, Self>) -> LinkId {
        let number = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let id = LinkId(self.bootstrap.0.saturating_add(number));
        let name = addresses.join(",");
        let seed = self.settings.seed.wrapping_add(u64::from(id.0) << 32);
        let settings = LinkSettings { addresses, seed, ..self.settings.clone() };
        let spec = ActorSpec::new("Link", name);
        let listeners = Rc::new(RefCell::new(Listeners::new(id)));
        let handle = Host::spawn_local(room.place(), spec, move || {
            Link::new(id, settings.clone(), Rc::clone(&listeners))
        });
        let calls = handle.inbox::<Call>(CALL_BYTES_MAX);
        let subscribe = handle.inbox::<Subscribe>(ANSWERS_MAX);
        if let Some(own) = &self.own {
            // Pushes that belong to a call are those of the routes.
            let pushes = Some(PushesTo { owner: 0, inbox: own.pushes.clone() });
            let _ = subscribe.try_put(Subscribe { to: own.changes.clone(), pushes });
        }
        let door = LinkHandle { id, calls, subscribe };
        self.links.push(OwnLink {
            handle,
            door,
            session: None,
            broker: None,
            tells_routes: false,
            is_mute: false,
        });
        id
    }

    /// One of this life's links; none for one of a life before.
    fn link(&mut self, id: LinkId) -> Option<&mut OwnLink> {
        let index = id.0.checked_sub(self.bootstrap.0)?;
        self.links.get_mut(usize::try_from(index).ok()?)
    }

    /// The links' actors, for tests that make them panic.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(crate) fn link_actors(&self) -> impl Iterator<Item = &HostHandle<Link>> {
        self.links.iter().map(|link| &link.handle)
    }

    /// Sends over the given link, or over the first that is up and leads to somebody who serves it;
    /// gives the port back if it is not up, or has no room.
    fn send(
        &mut self,
        over: Option<LinkId>,
        frame: BytesMut,
        answer: Port<Frame>,
    ) -> Result<(), (BytesMut, Port<Frame>)> {
        let needs_broker = is_for_brokers(&frame);
        let serves = |link: &OwnLink| match over {
            Some(over) => link.door.id == over,
            None => !needs_broker || link.broker.is_some_and(|id| id != REGISTRY),
        };
        let links = self.links.iter().filter(|link| serves(link));
        let up = links.filter_map(|link| Some((link, link.session?)));
        let up = up.min_by_key(|(link, _)| link.is_mute); // the first of those
        let Some((link, session)) = up else { return Err((frame, answer)) };
        let call = Call { session, frame, body: Bytes::new(), answer: Some(answer) };
        link.door.calls.try_put(call).map_err(|refused| {
            let Call { frame, answer, .. } = refused.into_message();
            (frame, answer.expect("it was put in above"))
        })
    }

    fn send_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            let Waiting { over, frame, deadline_ms, answer, credit } = waiting;
            if let Err((frame, answer)) = self.send(over, frame, answer) {
                self.waiting.push_back(Waiting { over, frame, deadline_ms, answer, credit });
            }
        }
    }

    fn ask(&mut self, ask: Ask, credit: Credit, room: &Room<'_, Self>) {
        let Ask { to, frame, deadline_ms, answer } = ask;
        let over = to.and_then(|to| self.link_to(to.id, std::slice::from_ref(&to), room));
        if let Err((frame, answer)) = self.send(over, frame, answer) {
            self.waiting.push_back(Waiting { over, frame, deadline_ms, answer, credit });
            self.seek_broker(room);
        }
    }

    /// The link that leads to a broker; made if need be.
    fn link_to(
        &mut self,
        broker: BrokerId,
        brokers: &[BrokerAddress],
        room: &Room<'_, Self>,
    ) -> Option<LinkId> {
        let address = brokers.iter().find(|address| address.id == broker).map(text_of);
        let leads = |link: &&OwnLink| link.broker == Some(broker);
        if let Some(link) = self.links.iter().filter(leads).find(|link| link.session.is_some()) {
            let id = link.door.id;
            if id == self.bootstrap {
                self.announced = self.announced.take().or(address);
            }
            return Some(id);
        }
        // What the bootstrap link has reached is used through it, also while it connects again; but
        // not once the broker has come back elsewhere.
        let has_moved = self.announced.is_some() && address.is_some() && self.announced != address;
        let bootstrap = self.links.first().filter(leads).filter(|_| !has_moved);
        if let Some(bootstrap) = bootstrap {
            return Some(bootstrap.door.id);
        }
        let address = address?;
        if let Some((link, known)) = self.addresses.get(&broker) {
            if *known == address {
                return Some(*link);
            }
            let link = *link;
            if let Some(link) = self.link(link) {
                drop(link.handle.stop()); // it has come back elsewhere
            }
        }
        let link = self.open_link(vec![address.clone()], room);
        self.addresses.insert(broker, (link, address));
        Some(link)
    }

    /// Nobody can be reached: tries whoever else there is.
    fn try_others(&mut self, room: &Room<'_, Self>) {
        if self.links.iter().any(|link| link.session.is_some() && !link.is_mute) {
            return;
        }
        let others: Vec<_> = self.brokers.iter().take(OTHERS_MAX).cloned().collect();
        for other in &others {
            self.link_to(other.id, &others, room);
        }
    }
}

/// Where a broker says it is, as it is connected to.
fn text_of(address: &BrokerAddress) -> String {
    let BrokerAddress { host, port, .. } = address;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Decodes a reply; what cannot be decoded is a refusal, too.
pub(crate) fn reply_of<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, Refusal> {
    frame.reply::<T>().map_err(|error| match error {
        grus_protocol::frame::ReplyError::Refused(refusal) => refusal.into(),
        grus_protocol::frame::ReplyError::Header(error) => nonsense(&error.to_string()),
    })
}

fn nonsense(what: &str) -> Refusal {
    Refusal::from(ErrorReply::new(ErrorCode::MalformedHeader, what))
}

/// A refusal for what is not there yet, or was lost on the way.
pub(crate) fn unavailable(what: &str) -> Refusal {
    Refusal::from(ErrorReply::new(ErrorCode::Unavailable, what))
}

impl Resident for Router {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(TICK);
        self.own = Some(OwnInboxes {
            changes: room.inbox(ANSWERS_MAX),
            metadata: room.inbox(ASKS_MAX),
            brokers: room.inbox(ASKS_MAX),
            pushes: room.inbox(PUSHES_MAX),
            lives: room.inbox(PUSHES_MAX),
        });
        let addresses = self.settings.addresses.clone();
        let link = self.open_link(addresses, room);
        assert!(link == self.bootstrap, "the bootstrap link is the first one");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for link in &self.links {
            drop(link.handle.stop());
        }
    }
}

impl Receive<Ask> for Router {
    fn receive(&mut self, ask: Ask, credit: Credit, room: &mut Room<'_, Self>) {
        self.ask(ask, credit, room);
    }
}

impl Receive<FindRoute> for Router {
    fn receive(&mut self, find: FindRoute, credit: Credit, room: &mut Room<'_, Self>) {
        self.watching.follow(&find.topic, &find.to);
        self.find(find, credit, room);
        self.watch();
    }
}

impl Receive<Pushed> for Router {
    fn receive(&mut self, pushed: Pushed, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit);
        let frame = pushed.frame;
        let is_routes = frame.head.opcode == Opcode::RoutesChanged;
        let Some(change) = frame.header::<RoutesChanged>().ok().filter(|_| is_routes) else {
            return; // of a later version
        };
        let deadline_ms = room.clock().monotonic_ms() + ASK_MS_MAX;
        for (topic, to) in self.watching.heard(&change) {
            let find = FindRoute { topic, auto_create: false, deadline_ms, to };
            self.find(find, Credit::unbounded(), room);
        }
    }
}

impl Router {
    /// Asks to be told the routes of the topics in use, over the first link that can.
    fn watch(&mut self) {
        let tells = |link: &&OwnLink| link.session.is_some() && link.tells_routes;
        let links = self.links.iter().filter(tells);
        let Some(link) = links.min_by_key(|link| link.is_mute) else { return };
        let (id, Some(session)) = (link.door.id, link.session) else { return };
        if !self.watching.wants(id, session) {
            return;
        }
        let topics = self.watching.asked(id, session);
        let frame = encode(&WatchRoutes { topics }, 0);
        let answer = Some(Port::call(|_| ())); // what counts are the pushes
        let call = Call { session, frame, body: Bytes::new(), answer };
        let _ = link.door.calls.try_put(call); // without it, errors tell
    }
}

impl Receive<Await> for Router {
    fn receive(&mut self, wait: Await, credit: Credit, _: &mut Room<'_, Self>) {
        match &self.hello {
            Some(hello) => wait.answer.send(Ok(Arc::clone(hello))),
            None => self.awaiting.push((wait, credit)),
        }
    }
}

impl Receive<MetadataAnswered> for Router {
    fn receive(&mut self, answered: MetadataAnswered, _: Credit, room: &mut Room<'_, Self>) {
        self.routed(answered.question, answered.answer, room);
    }
}

impl Receive<LinkChanged> for Router {
    fn receive(&mut self, change: LinkChanged, _: Credit, room: &mut Room<'_, Self>) {
        let is_bootstrap = change.link == self.bootstrap;
        // One of a router before this one may still speak.
        let Some(link) = self.link(change.link) else { return };
        match change.state {
            LinkState::Up { session, hello } => {
                (link.session, link.is_mute) = (Some(session), false);
                link.broker = Some(hello.broker_id);
                link.tells_routes = hello.features & features::WATCH_ROUTES != 0;
                self.hello = Some(Arc::clone(&hello));
                self.announced = self.announced.take().filter(|_| !is_bootstrap);
                for (wait, _) in self.awaiting.drain(..) {
                    wait.answer.send(Ok(Arc::clone(&hello)));
                }
                self.send_waiting();
                self.watch();
            }
            LinkState::Down { reason } => {
                link.session = None;
                self.last_reason = reason;
                self.try_others(room);
                self.watch();
            }
            LinkState::Gone => {
                (link.session, link.broker) = (None, None);
                self.addresses.retain(|_, (known, _)| *known != change.link);
                self.try_others(room);
                self.watch();
            }
        }
    }
}

impl Receive<Tick> for Router {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        let now_ms = tick.monotonic_ms;
        self.feel_pulse(now_ms, room);
        self.send_waiting();
        self.waiting.retain(|waiting| waiting.deadline_ms > now_ms);
        self.seek_broker(room);
        self.give_up_finding(now_ms, room);
        let overdue = |wait: &Await| wait.deadline_ms.is_some_and(|deadline| deadline <= now_ms);
        for (wait, _) in self.awaiting.extract_if(.., |(wait, _)| overdue(wait)) {
            wait.answer.send(Err(Arc::clone(&self.last_reason)));
        }
    }
}
