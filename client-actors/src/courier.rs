//! Courier: brings what a reader reads to an actor of the program's own.
//!
//! ```text
//! broker --> Reader --messages--> [Courier] --Delivery (credits inside)--> the program's actor
//!                                     '------ReadFailed------------------>
//! ```
//!
//! * Owns: a [`Reader`], and the credits of what its receiver has not dropped yet.
//! * Lives on: the client's arbiter.
//! * Inbox: [`Done`] from its own task; seeks, which the task takes.
//! * Talks to: the receiver; whoever seeks, by reply port.
//! * Stops: when its handle is dropped, its reader is closed, or its receiver has stopped.
//! * If it panics: it stops, and its handle says that it is closed: how far the receiver had come is
//!   lost with it.

use grus_mailbox::foreign::Foreign;
use grus_mailbox::{Credit, Outlet, Port, Receive, Resident, Room, Weigh};
use grus_protocol::QueueId;

use crate::config::StartAt;
use crate::deliver::{Delivery, ReadFailed};
use crate::error::ReadError;
use crate::hooks::ReceiveHooks;
use crate::read::{Delivered, Reader};

/// Goes on at another place, once the receiver has dropped what it was given.
#[derive(Debug)]
pub(crate) struct SeekTo {
    /// None: all queues.
    pub(crate) queue: Option<QueueId>,
    pub(crate) start: StartAt,
    pub(crate) done: Port<Result<(), ReadError>>,
}

impl Weigh for SeekTo {}

/// The task has ended.
#[derive(Debug)]
pub(crate) struct Done;

impl Weigh for Done {}

/// What a courier works with.
pub(crate) struct Work {
    pub(crate) reader: Reader,
    pub(crate) hooks: Option<ReceiveHooks>,
    pub(crate) to: Foreign<Delivery>,
    pub(crate) failures: Option<Foreign<ReadFailed>>,
    pub(crate) seeks: Outlet<SeekTo>,
}

/// See the module documentation.
pub(crate) struct Courier {
    /// None once it is at work, and after a panic.
    work: Option<Work>,
}

impl Courier {
    pub(crate) fn new(work: Option<Work>) -> Self {
        Self { work }
    }
}

impl Resident for Courier {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        match self.work.take() {
            None => room.stop(),
            Some(work) => {
                room.spawn_into(async move {
                    work.run().await;
                    Done
                });
            }
        }
    }
}

impl Receive<Done> for Courier {
    fn receive(&mut self, _: Done, _: Credit, room: &mut Room<'_, Self>) {
        room.stop();
    }
}

impl Work {
    async fn run(mut self) {
        while !self.to.is_stopped() {
            tokio::select! {
                biased;
                seek = self.seeks.take() => match seek {
                    Some((seek, _)) => self.seek(seek).await,
                    None => return,
                },
                read = self.reader.next() => match read {
                    Ok(message) => {
                        if self.hand_over(message).await.is_err() {
                            return;
                        }
                    }
                    Err(ReadError::Closed) => return,
                    Err(error) => self.fail(error),
                },
            }
        }
    }

    /// Hands a message over when there is room for it, unless it is sought away meanwhile.
    async fn hand_over(&mut self, message: Delivered) -> Result<(), Gone> {
        let bytes = u32::try_from(message.body().len()).unwrap_or(u32::MAX);
        let queue = message.queue;
        loop {
            tokio::select! {
                biased;
                seek = self.seeks.take() => {
                    let Some((seek, _)) = seek else { return Err(Gone) };
                    let is_away = seek.queue.is_none_or(|sought| sought == queue);
                    self.seek(seek).await;
                    if is_away {
                        return Ok(());
                    }
                }
                credit = self.to.room(bytes) => {
                    let delivery = Delivery::new(message, self.hooks.clone(), credit);
                    return self.to.put(delivery).map_err(|_delivery| Gone);
                }
            }
        }
    }

    async fn seek(&mut self, seek: SeekTo) {
        let SeekTo { queue, start, done } = seek;
        self.to.idle().await; // nothing from before is handled after the answer
        done.send(match queue {
            Some(queue) => self.reader.seek(queue, start).await,
            None => self.reader.seek_all(start).await,
        });
    }

    fn fail(&self, error: ReadError) {
        if let Some(failures) = &self.failures {
            let _ = failures.put(ReadFailed(error)); // it has stopped: so will this
        } else {
            tracing::error!(topic = %self.reader.topic(), %error, "cannot read on");
        }
    }
}

/// The receiver or the handle is gone.
struct Gone;
