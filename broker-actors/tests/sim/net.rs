//! A network in memory that carries each message after a while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use grus_consensus::{NodeId, PeerError, Peers};
use tokio::sync::{mpsc, oneshot};

/// How long a message takes on its way.
const LEG: Duration = Duration::from_micros(300);

/// A message on its way into a member.
pub(crate) struct Call {
    pub(crate) message: Bytes,
    pub(crate) reply: oneshot::Sender<Bytes>,
}

/// The network; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Net(Rc<RefCell<BTreeMap<NodeId, mpsc::UnboundedSender<Call>>>>);

impl Net {
    /// Opens the port of a member.
    pub(crate) fn open(&self, node: NodeId) -> mpsc::UnboundedReceiver<Call> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.borrow_mut().insert(node, sender);
        receiver
    }

    /// Closes the port of a member.
    pub(crate) fn close(&self, node: NodeId) {
        self.0.borrow_mut().remove(&node);
    }
}

impl Peers for Net {
    fn call(
        &self,
        to: NodeId,
        _address: &str,
        message: Vec<Bytes>,
    ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>> {
        let net = self.clone();
        Box::pin(async move {
            let failed = |reason: &str| PeerError { node: to, reason: reason.to_owned() };
            let mut whole = BytesMut::new();
            for slice in &message {
                whole.extend_from_slice(slice);
            }
            tokio::time::sleep(LEG).await;
            let inbox = net.0.borrow().get(&to).cloned();
            let inbox = inbox.ok_or_else(|| failed("connection refused"))?;
            let (reply, answer) = oneshot::channel();
            let call = Call { message: whole.freeze(), reply };
            inbox.send(call).map_err(|_| failed("connection refused"))?;
            let answer = answer.await.map_err(|_| failed("connection reset"))?;
            tokio::time::sleep(LEG).await;
            Ok(answer)
        })
    }
}
