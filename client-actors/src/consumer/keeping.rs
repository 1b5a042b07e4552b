//! A member of a broadcast group: what is pushed to it as to any reader, and its file of progress, which
//! is written on a thread that may block.

use std::sync::Arc;

use grus_mailbox::{Credit, Receive, Room, Weigh};
use grus_protocol::Frame;
use grus_protocol::message::Deliver;

use super::ConsumerActor;
use crate::reader::requests::split;
use crate::router::reply_of;

/// The file is written, or was not.
#[derive(Debug)]
pub(crate) struct Kept {
    result: Result<(), String>,
}

impl Weigh for Kept {}

impl ConsumerActor {
    /// Has the file written, if it is to hold something else. One write is under way at a time.
    pub(super) fn keep(&mut self, now_ms: u64) {
        let (Some((store, _)), Some(own)) = (&self.parts.own, &self.own) else { return };
        let Some(text) = self.state.poll_keep(now_ms) else { return };
        let (store, kept) = (Arc::clone(store), own.kept.clone());
        store.write_aside(text, move |result| {
            let _ = kept.try_put(Kept { result }); // stopped: nobody waits
        });
    }

    pub(super) fn pushed_here(&mut self, number: u64, frame: &Frame, now_ms: u64) {
        match reply_of::<Deliver>(frame) {
            Ok(push) => match split(&push.batches, frame) {
                Ok(batches) => self.state.delivered_here(number, batches, now_ms),
                Err(damage) => self.state.pushed_wrongly(number, &damage, now_ms),
            },
            Err(refusal) if frame.head.is_error() => self.state.ended(number, &refusal, now_ms),
            Err(nonsense) => self.state.pushed_wrongly(number, &nonsense.message, now_ms),
        }
    }
}

impl Receive<Kept> for ConsumerActor {
    fn receive(&mut self, kept: Kept, _: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        if let Err(error) = &kept.result
            && self.state.may_complain(now_ms)
        {
            let text =
                "progress cannot be written, what is answered is not kept and may come again";
            self.say(&format!("{text}: {error}"));
        }
        let heard = self.state.kept(kept.result.is_ok(), now_ms);
        for done in heard {
            done.send(());
        }
        room.notify_drained();
    }
}
