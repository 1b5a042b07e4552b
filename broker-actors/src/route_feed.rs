//! Tells one connection the routes, as they change. A task at the edge: it waits for its turn at the
//! connection's writer before it looks what is new, so that a client that reads slowly is told the
//! newest routes and never a backlog.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use grus_mailbox::{Inbox, reply};
use grus_protocol::frame::{FrameHead, encode};
use grus_protocol::message::RoutesChanged;
use grus_protocol::names::TopicName;
use grus_protocol::opcode::Opcode;
use grus_registry::RoutingTable;
use grus_registry::routing::change::pushes;
use tokio::sync::{oneshot, watch};

use crate::connection::replies::{Content, Outgoing};

/// A watch that goes on until this is dropped.
#[derive(Debug)]
pub struct RouteFeed {
    _until_dropped: oneshot::Sender<()>,
}

impl RouteFeed {
    /// Begins to tell the routes of `topics` (none: of all) over `writer`, in pushes of that
    /// correlation, on the current thread.
    #[must_use]
    pub fn start(
        correlation: u64,
        topics: BTreeSet<TopicName>,
        routes: watch::Receiver<Arc<RoutingTable>>,
        writer: Inbox<Outgoing>,
    ) -> Self {
        let (keep, dropped) = oneshot::channel();
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = feed(correlation, topics, routes, writer) => {}
                _ = dropped => {}
            }
        });
        Self { _until_dropped: keep }
    }
}

async fn feed(
    correlation: u64,
    topics: BTreeSet<TopicName>,
    mut routes: watch::Receiver<Arc<RoutingTable>>,
    writer: Inbox<Outgoing>,
) {
    let mut known: Option<Arc<RoutingTable>> = None;
    routes.mark_changed();
    while routes.changed().await.is_ok() {
        let Some(mut turn) = ask_turn(&writer).await else { return };
        let newest = Arc::clone(&routes.borrow_and_update());
        if known.as_ref().is_some_and(|known| !newest.is_news_after(known)) {
            continue;
        }
        for push in pushes(known.as_deref(), &newest, &topics) {
            let more = push.more;
            let content = Content::Encoded(frame(correlation, &push));
            if writer.try_put(outgoing(content)).is_err() {
                return;
            }
            if more {
                let Some(next) = ask_turn(&writer).await else { return };
                turn = next;
            }
        }
        drop(turn);
        known = Some(newest);
    }
}

/// Waits until the writer has room; none when it has gone, or has too much to do.
async fn ask_turn(writer: &Inbox<Outgoing>) -> Option<crate::topic_queue::PushTurn> {
    let (port, turn) = reply::port();
    writer.try_put(outgoing(Content::AskTurn(port))).ok()?;
    turn.await.ok()
}

fn outgoing(content: Content) -> Outgoing {
    Outgoing { request_bytes: None, content, close_after: false }
}

fn frame(correlation: u64, push: &RoutesChanged) -> Bytes {
    let mut out = BytesMut::new();
    let head = FrameHead::push(Opcode::RoutesChanged, correlation);
    encode(head, push, 0, &mut out).expect("routes encode, in pushes of a bounded size");
    out.freeze()
}
