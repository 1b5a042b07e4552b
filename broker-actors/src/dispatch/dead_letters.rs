//! Requests about the dead letters of a group: each ends with its answer, counted in the budget until
//! then.

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{GroupId, QueueId};
use grus_protocol::message::{
    ACK_RANGES_MAX, ListDeadLetters, ListDeadLettersReply, OffsetRange, PurgeDeadLetters,
    PurgeDeadLettersReply, RedriveDeadLetters,
};
use grus_protocol::names::GroupName;

use super::Dispatcher;
use crate::connection::replies::ReplyTo;
use crate::dead_letters::{DeadLetters, REDRIVEN_MAX};
use crate::groups::queues::{letters_here, letters_page};

/// Most bytes of messages in one answer.
const BODIES_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Dispatcher {
    /// The dead letters of a group in one queue that this broker leads.
    fn letters(
        &mut self,
        (name, id): (&GroupName, GroupId),
        queue: QueueId,
        offsets: &[OffsetRange],
    ) -> Result<DeadLetters, ErrorReply> {
        if offsets.len() > ACK_RANGES_MAX {
            let text = format!("at most {ACK_RANGES_MAX} ranges of dead letters are asked for");
            return Err(ErrorReply::new(ErrorCode::InvalidRequest, text));
        }
        let group = self.group_id(name, id)?;
        let queue = self.queue(&name.dead_letters(), group.dead_letters(), queue)?;
        Ok(DeadLetters { group, queue })
    }

    pub(super) fn redrive_letters(&mut self, ask: RedriveDeadLetters, reply: ReplyTo) {
        let letters = self.letters((&ask.group, ask.group_id), ask.queue, &ask.offsets);
        let letters = match letters {
            Ok(letters) => letters,
            Err(error) => return reply.error(error),
        };
        let routes = std::sync::Arc::clone(&self.routes);
        tokio::task::spawn_local(async move {
            let most = match ask.messages_max {
                0 => REDRIVEN_MAX,
                some => REDRIVEN_MAX.min(some as usize),
            };
            let topic = |name: &_| routes.get(name).map(|topic| topic.id);
            reply.result(letters.redrive(&ask.offsets, most, topic).await);
        });
    }

    pub(super) fn purge_letters(&mut self, ask: PurgeDeadLetters, reply: ReplyTo) {
        let letters = self.letters((&ask.group, ask.group_id), ask.queue, &ask.offsets);
        let letters = match letters {
            Ok(letters) => letters,
            Err(error) => return reply.error(error),
        };
        tokio::task::spawn_local(async move {
            let purged = letters.purge(&ask.offsets).await;
            reply.result(purged.map(|purged| PurgeDeadLettersReply { purged }));
        });
    }

    pub(super) fn list_letters(&mut self, ask: &ListDeadLetters, reply: ReplyTo) {
        if let Err(error) = self.group_id(&ask.group, ask.group_id) {
            return reply.error(error);
        }
        let Some(topic) = self.known(&ask.group.dead_letters()) else {
            return reply.header(&ListDeadLettersReply { letters: Vec::new(), next: None });
        };
        let (after, most) = (ask.after, ask.messages_max);
        let from = after.map_or(QueueId(0), |after| after.queue);
        let queues = letters_here(&topic, from);
        let body_bytes_max = ask.with_bodies.then_some(BODIES_BYTES_MAX);
        tokio::task::spawn_local(async move {
            match letters_page(&queues, after, most, body_bytes_max).await {
                Ok((page, next)) => {
                    let header = ListDeadLettersReply { letters: page.letters, next };
                    reply.with_body(&header, &page.bodies);
                }
                Err(error) => reply.error(error),
            }
        });
    }
}
