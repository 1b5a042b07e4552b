//! A network in memory: delay, loss, one-way and two-way cuts, all from one seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use grus_consensus::{NodeId, PeerError, Peers};
use grus_log::Seeded;
use tokio::sync::{mpsc, oneshot};

/// A message on its way into a member.
pub struct Call {
    pub message: Bytes,
    pub reply: oneshot::Sender<Bytes>,
}

struct State {
    rng: Seeded,
    inboxes: BTreeMap<NodeId, mpsc::UnboundedSender<Call>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Messages lost, of 1000.
    loss: u64,
    delay_ms_max: u64,
}

/// The network; clones are the same one.
#[derive(Clone)]
pub struct Net(Rc<RefCell<State>>);

impl Net {
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            rng: Seeded::new(seed ^ 0x6e65_7477_6f72_6b00),
            inboxes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            loss: 0,
            delay_ms_max: 4,
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
        state.loss = 0;
        state.delay_ms_max = 4;
    }

    /// Makes the network lose `loss` of 1000 messages and delay each up to `delay_ms_max`.
    pub fn trouble(&self, loss: u64, delay_ms_max: u64) {
        let mut state = self.0.borrow_mut();
        state.loss = loss;
        state.delay_ms_max = delay_ms_max;
    }

    /// The way out of one member.
    pub fn peers(&self, from: NodeId, is_off: impl Fn() -> bool + 'static) -> Link {
        Link { net: self.clone(), from, is_off: Rc::new(is_off) }
    }

    /// One message on one way: how long it takes, `None` when it never arrives.
    fn leg(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut state = self.0.borrow_mut();
        let delay_ms_max = state.delay_ms_max;
        let us = 50 + state.rng.below(delay_ms_max * 1000);
        let loss = state.loss;
        let lost = state.rng.below(1000) < loss;
        (!lost && !state.cuts.contains(&(from, to))).then(|| Duration::from_micros(us))
    }
}

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
        let (net, from, is_off) = (self.net.clone(), self.from, Rc::clone(&self.is_off));
        Box::pin(async move {
            let failed = |reason: &str| PeerError { node: to, reason: reason.to_owned() };
            let mut whole = BytesMut::new();
            for slice in &message {
                whole.extend_from_slice(slice);
            }
            // A process whose power is off says nothing any more.
            if is_off() {
                return Err(failed("power is off here"));
            }
            match net.leg(from, to) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
            let inbox = net.0.borrow().inboxes.get(&to).cloned();
            let inbox = inbox.ok_or_else(|| failed("connection refused"))?;
            let (reply, answer) = oneshot::channel();
            let call = Call { message: whole.freeze(), reply };
            inbox.send(call).map_err(|_| failed("connection refused"))?;
            let answer = answer.await.map_err(|_| failed("connection reset"))?;
            match net.leg(to, from) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
            Ok(answer)
        })
    }
}
