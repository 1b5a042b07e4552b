//! A network in memory: delay, loss, one-way and two-way cuts, all from one seed. Between two members messages
//! stay in order, as on one connection, unless there is trouble; one that has left arrives, whether or not whoever
//! sent it still waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use grus_consensus::{NodeId, PeerError, Peers};
use grus_log::Seeded;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A message on its way into a member.
pub struct Call {
    pub message: Bytes,
    pub reply: oneshot::Sender<Bytes>,
}

struct State {
    rng: Seeded,
    inboxes: BTreeMap<NodeId, mpsc::UnboundedSender<Call>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Whose candidacies are lost, while all else that they say arrives; how many were.
    unheard: BTreeMap<NodeId, u64>,
    /// Members whose build knows no request of this kind or a later one: they refuse it.
    older: BTreeMap<NodeId, u8>,
    /// Messages lost, of 1000.
    loss: u64,
    delay_ms: (u64, u64),
    /// Messages may overtake one another.
    shuffles: bool,
    /// When the last message of each way arrives.
    arrivals: BTreeMap<(NodeId, NodeId), Instant>,
    appends: BTreeMap<(NodeId, NodeId), Appends>,
}

/// The appends with entries from one member to another.
#[derive(Debug, Clone, Copy, Default)]
pub struct Appends {
    now: usize,
    /// Most that have been under way at once.
    pub most: usize,
    /// How many were sent.
    pub sent: u64,
    /// How many built on what was not there.
    pub conflicts: u64,
}

/// The usual delays of a message, in milliseconds.
const DELAY_MS: (u64, u64) = (0, 4);
/// The kind of a message or an answer is its second byte; an append's, and that of an answer to one.
const KIND: usize = 1;
const APPEND: u8 = 1;
const CONFLICT: u8 = 3;
/// The kind of a message that asks for a vote.
const VOTE: u8 = 2;
/// The kind of a message that asks whether a log is whole.
pub const IS_WHOLE: u8 = 11;
/// The kind of a message that says that an operator has a member lead.
pub const STAY: u8 = 12;
/// The answer that refuses.
const REFUSED: [u8; 2] = [1, 10];

/// The network; clones are the same one.
#[derive(Clone)]
pub struct Net(Rc<RefCell<State>>);

impl Net {
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            rng: Seeded::new(seed ^ 0x6e65_7477_6f72_6b00),
            inboxes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            unheard: BTreeMap::new(),
            older: BTreeMap::new(),
            loss: 0,
            delay_ms: DELAY_MS,
            shuffles: false,
            arrivals: BTreeMap::new(),
            appends: BTreeMap::new(),
        })))
    }

    /// Opens the port of a member.
    pub fn open(&self, node: NodeId) -> mpsc::UnboundedReceiver<Call> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.borrow_mut().inboxes.insert(node, sender);
        receiver
    }

    /// Closes the port of a member.
    pub fn close(&self, node: NodeId) {
        self.0.borrow_mut().inboxes.remove(&node);
    }

    /// Nothing goes from `from` to `to` any more.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.0.borrow_mut().cuts.insert((from, to));
    }

    /// Nobody hears any more that a member stands for election.
    pub fn lose_candidacies(&self, of: NodeId) {
        self.0.borrow_mut().unheard.insert(of, 0);
    }

    /// How many requests for a vote of such a member were lost.
    pub fn lost_candidacies(&self, of: NodeId) -> u64 {
        self.0.borrow().unheard.get(&of).copied().unwrap_or(0)
    }

    /// A member is of a build from before a kind of request was made, and refuses it.
    pub fn is_older(&self, node: NodeId, kind: u8) {
        self.0.borrow_mut().older.insert(node, kind);
    }

    /// Cuts a member off from all others, both ways.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Everything flows again.
    pub fn heal(&self) {
        let mut state = self.0.borrow_mut();
        state.cuts.clear();
        state.unheard.clear();
        state.loss = 0;
        state.delay_ms = DELAY_MS;
        state.shuffles = false;
    }

    /// Makes the network lose `loss` of 1000 messages and delay each by itself, up to `delay_ms_max`: they
    /// overtake one another.
    pub fn trouble(&self, loss: u64, delay_ms_max: u64) {
        let mut state = self.0.borrow_mut();
        state.loss = loss;
        state.delay_ms = (0, delay_ms_max);
        state.shuffles = true;
    }

    /// Makes each message take so long, from and to; they stay in order.
    pub fn slow(&self, delay_ms: (u64, u64)) {
        self.0.borrow_mut().delay_ms = delay_ms;
    }

    /// The appends from one member to another so far.
    pub fn appends(&self, from: NodeId, to: NodeId) -> Appends {
        self.0.borrow().appends.get(&(from, to)).copied().unwrap_or_default()
    }

    /// The way out of one member.
    pub fn peers(&self, from: NodeId, is_off: impl Fn() -> bool + 'static) -> Link {
        Link { net: self.clone(), from, is_off: Rc::new(is_off) }
    }

    /// One message on one way: when it arrives, `None` when it never does.
    fn leg(&self, from: NodeId, to: NodeId) -> Option<Instant> {
        let mut state = self.0.borrow_mut();
        let (least, most) = state.delay_ms;
        let us = 50 + least * 1000 + state.rng.below((most - least) * 1000);
        let loss = state.loss;
        let lost = state.rng.below(1000) < loss;
        if lost || state.cuts.contains(&(from, to)) {
            return None;
        }
        let mut arrives = Instant::now() + Duration::from_micros(us);
        if !state.shuffles {
            // Timers tell milliseconds apart.
            let behind =
                state.arrivals.get(&(from, to)).map(|last| *last + Duration::from_millis(1));
            arrives = arrives.max(behind.unwrap_or(arrives));
        }
        state.arrivals.insert((from, to), arrives);
        Some(arrives)
    }

    /// Carries a message there and its answer back, `None` when that is lost.
    async fn carry(
        self,
        way: (NodeId, NodeId),
        arrives: Instant,
        message: Bytes,
    ) -> Option<Answer> {
        let (from, to) = way;
        tokio::time::sleep_until(arrives).await;
        let answer = self.deliver(to, message).await;
        if answer.is_ok() {
            tokio::time::sleep_until(self.leg(to, from)?).await;
        }
        Some(answer)
    }

    async fn deliver(&self, to: NodeId, message: Bytes) -> Answer {
        let failed = |reason: &str| PeerError { node: to, reason: reason.to_owned() };
        let older = self.0.borrow().older.get(&to).copied();
        if older.is_some_and(|kind| message[KIND] >= kind) {
            return Ok(Bytes::from_static(&REFUSED));
        }
        let inbox = self.0.borrow().inboxes.get(&to).cloned();
        let inbox = inbox.ok_or_else(|| failed("connection refused"))?;
        let (reply, answer) = oneshot::channel();
        inbox.send(Call { message, reply }).map_err(|_| failed("connection refused"))?;
        answer.await.map_err(|_| failed("connection reset"))
    }
}

type Answer = Result<Bytes, PeerError>;

/// The way out of one member.
pub struct Link {
    net: Net,
    from: NodeId,
    is_off: Rc<dyn Fn() -> bool>,
}

impl Peers for Link {
    fn call(
        &self,
        to: NodeId,
        _address: &str,
        message: Vec<Bytes>,
    ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>> {
        let (net, from) = (self.net.clone(), self.from);
        let failed = move |reason: &str| PeerError { node: to, reason: reason.to_owned() };
        // A process whose power is off says nothing any more.
        if (self.is_off)() {
            return Box::pin(std::future::ready(Err(failed("power is off here"))));
        }
        if message[0][KIND] == VOTE
            && let Some(lost) = net.0.borrow_mut().unheard.get_mut(&from)
        {
            *lost += 1;
            return Box::pin(std::future::pending());
        }
        // The payload of an entry is a slice of its own.
        let is_append = message[0][KIND] == APPEND && message.len() > 1;
        let under_way = is_append.then(|| UnderWay::new(&net, (from, to)));
        let mut whole = BytesMut::new();
        for slice in &message {
            whole.extend_from_slice(slice);
        }
        // What has left arrives, whoever has given it up; it ends with its process.
        let carried = net.leg(from, to).map(|arrives| {
            tokio::task::spawn_local(net.carry((from, to), arrives, whole.freeze()))
        });
        Box::pin(async move {
            let Some(carried) = carried else { return std::future::pending().await };
            let answer = match carried.await {
                Ok(Some(answer)) => answer,
                Ok(None) => std::future::pending().await,
                Err(_ended) => Err(failed("connection reset")),
            };
            if let (Some(under_way), Ok(answer)) = (&under_way, &answer) {
                under_way.answered(answer);
            }
            answer
        })
    }
}

/// An append whose sender waits.
struct UnderWay {
    net: Net,
    way: (NodeId, NodeId),
}

impl UnderWay {
    fn new(net: &Net, way: (NodeId, NodeId)) -> Self {
        let this = Self { net: net.clone(), way };
        this.note(|appends| {
            appends.now += 1;
            appends.sent += 1;
            appends.most = appends.most.max(appends.now);
        });
        this
    }

    fn answered(&self, answer: &[u8]) {
        self.note(|appends| appends.conflicts += u64::from(answer[KIND] == CONFLICT));
    }

    fn note(&self, change: impl FnOnce(&mut Appends)) {
        change(self.net.0.borrow_mut().appends.entry(self.way).or_default());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.note(|appends| appends.now -= 1);
    }
}
