//! What is not in memory, for whoever wants it: on the way to the Reader and back.

use grus_mailbox::{Credit, Weigh};

use super::pushing::ColdTurn;
use super::settling::Answers;
use super::{Fetch, OVERLOADED_RETRY_MS};
use crate::error::QueueError;

/// A fetch and what it holds.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) fetch: Fetch,
    /// Of the queue's inbox of fetches.
    pub(super) credit: Credit,
}

impl Asked {
    /// It is to be asked again, a little later.
    pub(super) fn overloaded(self) {
        let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
        self.fetch.reply.send(Err(error));
    }
}

/// Who wants what is not in memory.
#[derive(Debug)]
pub(crate) enum Cold {
    Fetch(Asked),
    Turn(ColdTurn),
    Letter(Box<Answers>),
}

impl Cold {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self, Self::Fetch(asked) if asked.fetch.reply.is_closed())
    }

    /// The queue has stopped: a subscription has been told by then.
    pub(crate) fn stopped(self) {
        match self {
            Self::Fetch(asked) => asked.fetch.reply.send(Err(QueueError::Stopping)),
            Self::Letter(answers) => answers.stopped(),
            Self::Turn(_) => {}
        }
    }
}

/// What somebody wants was brought into memory.
#[derive(Debug)]
pub(crate) struct Warmed {
    pub(crate) cold: Cold,
    /// How many batches could be read; none: nobody has tried, the Reader panicked.
    pub(crate) batches_max: Option<usize>,
}

impl Weigh for Warmed {}
