//! One connection of the fake broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use grus_client::protocol::frame::{self, FrameHead};
use grus_client::protocol::message::{Hello, HelloReply};
use grus_client::protocol::{BatchLimits, BrokerId, ErrorReply, Frame, FrameLimits, Opcode};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Shared, groups, serve};

/// Bytes a connection may still pass.
pub struct Budget(AtomicU64);

impl Budget {
    /// Takes up to `wanted`; less means that the connection ends there.
    fn take(&self, wanted: u64) -> u64 {
        let left = self.0.load(Ordering::SeqCst);
        let taken = wanted.min(left);
        self.0.store(left - taken, Ordering::SeqCst);
        taken
    }
}

/// Where the replies of a connection go.
#[derive(Clone)]
pub struct Replies(mpsc::UnboundedSender<Bytes>);

impl Replies {
    pub fn send<H: Serialize>(&self, head: &FrameHead, header: &H, body: &[u8]) {
        let mut out = BytesMut::new();
        frame::encode(head.reply(), header, body.len(), &mut out).unwrap();
        out.extend_from_slice(body);
        let _ = self.0.send(out.freeze());
    }

    pub fn put(&self, bytes: Bytes) {
        let _ = self.0.send(bytes);
    }

    pub fn refuse(&self, head: &FrameHead, error: &ErrorReply) {
        let mut out = BytesMut::new();
        frame::encode(head.error_reply(), error, 0, &mut out).unwrap();
        let _ = self.0.send(out.freeze());
    }
}

/// Serves one connection until it ends or is cut.
pub async fn run(stream: TcpStream, shared: Arc<Shared>, cut_after: Option<u64>) {
    let budget = Arc::new(Budget(AtomicU64::new(cut_after.unwrap_or(u64::MAX))));
    stream.set_nodelay(true).unwrap();
    let (mut from, mut to) = stream.into_split();
    let (replies, mut outgoing) = mpsc::unbounded_channel::<Bytes>();
    let replies = Replies(replies);
    let write_budget = Arc::clone(&budget);
    let writer = async move {
        while let Some(bytes) = outgoing.recv().await {
            let allowed = write_budget.take(bytes.len() as u64);
            let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
            if to.write_all(&bytes[..allowed]).await.is_err() || allowed < bytes.len() {
                return;
            }
        }
    };
    let reader = async move {
        let mut buffer = BytesMut::new();
        let mut polls = JoinSet::new();
        loop {
            while let Some(request) = frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap() {
                if !answer(request, &shared, &replies, &mut polls) {
                    return;
                }
            }
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) if budget.take(bytes as u64) < bytes as u64 => return,
                Ok(_) => {}
            }
        }
    };
    tokio::select! { () = writer => {}, () = reader => {} }
}

/// Answers one request; false when the connection is to be cut.
fn answer(
    request: Frame,
    shared: &Arc<Shared>,
    replies: &Replies,
    polls: &mut JoinSet<()>,
) -> bool {
    if shared.lock().faults.is_mute {
        return true;
    }
    let head = request.head;
    match head.opcode {
        Opcode::Hello => {
            let hello: Hello = request.header().unwrap();
            let (frames, batches) = (FrameLimits::REQUESTS, BatchLimits::PRODUCE);
            let mut reply = HelloReply::new(&hello, 1, BrokerId(7), &frames, &batches);
            let faults = &shared.lock().faults;
            if let Some(compressions) = faults.compressions.filter(|_| !faults.breaks_its_word) {
                reply.compressions &= compressions;
            }
            replies.send(&head, &reply, &[]);
            true
        }
        Opcode::Fetch => {
            polls.spawn(serve::fetch(request, Arc::clone(shared), replies.clone()));
            true
        }
        Opcode::JoinGroup
        | Opcode::GroupHeartbeat
        | Opcode::LeaveGroup
        | Opcode::ClaimQueue
        | Opcode::SubscribeGroup
        | Opcode::Credit
        | Opcode::Unsubscribe
        | Opcode::AckMessages => {
            groups::answer(&request, shared, replies);
            shared.changed.notify_waiters();
            true
        }
        _ => serve::answer(&request, shared, replies),
    }
}
