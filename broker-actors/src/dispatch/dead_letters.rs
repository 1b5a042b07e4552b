//! Requests about the dead letters of a group: each ends with its answer, counted in the budget until
//! then.

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{GroupId, Offset, QueueId};
use grus_protocol::message::{
    ACK_RANGES_MAX, DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, DeadLetterPlace,
    ListDeadLetters, ListDeadLettersReply, OffsetRange, PurgeDeadLetters, PurgeDeadLettersReply,
    RedriveDeadLetters,
};
use grus_protocol::names::GroupName;

use super::Dispatcher;
use crate::connection::replies::ReplyTo;
use crate::dead_letters::{DeadLetters, LettersPage, REDRIVEN_MAX};

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

    pub(super) fn list_letters(&mut self, ask: ListDeadLetters, reply: ReplyTo) {
        let group = match self.group_id(&ask.group, ask.group_id) {
            Ok(group) => group,
            Err(error) => return reply.error(error),
        };
        let Some(topic) = self.known(&ask.group.dead_letters()) else {
            return reply.header(&ListDeadLettersReply { letters: Vec::new(), next: None });
        };
        let first = ask.after.map_or(0, |after| after.queue.0);
        let last = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
        // Those that other brokers lead are theirs to tell of.
        let queues = (first..last).filter_map(|number| {
            let queue = topic.queue(topic.id, QueueId(number)).ok()?;
            Some(DeadLetters { group, queue: queue.clone() })
        });
        let queues: Vec<DeadLetters> = queues.collect();
        tokio::task::spawn_local(async move {
            match listed(&queues, &ask).await {
                Ok((page, next)) => {
                    let header = ListDeadLettersReply { letters: page.letters, next };
                    reply.with_body(&header, &page.bodies);
                }
                Err(error) => reply.error(error),
            }
        });
    }
}

async fn listed(
    queues: &[DeadLetters],
    ask: &ListDeadLetters,
) -> Result<(LettersPage, Option<DeadLetterPlace>), ErrorReply> {
    let most = match ask.messages_max {
        0 => DEAD_LETTERS_PAGE_DEFAULT,
        some => some.min(DEAD_LETTERS_PAGE_MAX),
    };
    let most = most as usize;
    let body_bytes_max = ask.with_bodies.then_some(BODIES_BYTES_MAX);
    let mut page = LettersPage::default();
    for letters in queues {
        let queue = letters.queue.key.queue;
        let after = ask.after.filter(|after| after.queue == queue);
        let after: Option<Offset> = after.map(|after| after.offset);
        letters.list(after, most, body_bytes_max, &mut page).await?;
        if page.letters.len() >= most {
            break;
        }
    }
    let last = page.letters.last().filter(|_| page.letters.len() >= most);
    let next = last.map(|last| DeadLetterPlace { queue: last.queue, offset: last.offset });
    Ok((page, next))
}
