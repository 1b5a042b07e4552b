//! The only door into an actor: bounded, FIFO and one-way.
//!
//! An actix mailbox does not bound what it holds (`do_send` ignores the capacity, every cloned
//! `Addr` and every `send` future brings a slot of its own), so the bound travels *inside* the
//! message as a [`Credit`]. An actor opens one inbox per type of message; all of them end in its
//! one mailbox, so what one sender put first is received first.

use std::fmt;
use std::sync::Arc;

use actix::Recipient;
use thiserror::Error;

use crate::census::ActorStats;
use crate::credit::{Credit, CreditPool, NoCredit, Weigh};
use crate::line::{self, LineEnd, LineHead};

/// A message together with the credits it holds, as it lies in a mailbox.
#[derive(Debug)]
pub struct Held<M> {
    /// The message.
    pub msg: M,
    /// Its credits: keep them for as long as the work is pending, e.g. until it is on disk.
    pub credit: Credit,
    /// When it was put, on the coarse clock of the process.
    pub(crate) put_ns: u64,
}

impl<M: 'static> actix::Message for Held<M> {
    type Result = ();
}

/// Why a message was not taken. The message comes back.
#[derive(Error)]
pub enum PutError<M> {
    /// The receiver has no room now; retry, shed, or push back on the client.
    #[error("inbox is full")]
    Full(M),
    /// The receiver has stopped.
    #[error("actor has stopped")]
    Stopped(M),
}

impl<M> fmt::Debug for PutError<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full(_) => "Full",
            Self::Stopped(_) => "Stopped",
        })
    }
}

impl<M> PutError<M> {
    /// The message that was not taken.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(msg) | Self::Stopped(msg) => msg,
        }
    }

    /// Whether there may be room later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Where the messages of an inbox go.
enum Target<M: Send + 'static> {
    Actor { to: Recipient<Held<M>>, stats: Arc<ActorStats> },
    Outlet(LineEnd<Held<M>>),
}

/// A sender's handle to an actor's inbox. A clone costs two atomic increments.
pub struct Inbox<M: Send + 'static> {
    target: Arc<Target<M>>,
    pool: Arc<CreditPool>,
}

impl<M: Send + 'static> Clone for Inbox<M> {
    fn clone(&self) -> Self {
        Self { target: Arc::clone(&self.target), pool: Arc::clone(&self.pool) }
    }
}

impl<M: Send + 'static> fmt::Debug for Inbox<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Inbox")
            .field("message", &message_name::<M>())
            .field("capacity", &self.pool.capacity())
            .field("free", &self.pool.free())
            .finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Inbox<M> {
    /// Whether `other` is a clone of this inbox.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.target, &other.target)
    }
}

impl<M: Weigh + Send + 'static> Inbox<M> {
    /// Opens an inbox of `capacity` credits in front of an actor.
    pub(crate) fn to_actor(to: Recipient<Held<M>>, stats: &Arc<ActorStats>, capacity: u32) -> Self {
        let pool = CreditPool::new(capacity);
        stats.add_inbox(message_name::<M>(), &pool);
        Self { target: Arc::new(Target::Actor { to, stats: Arc::clone(stats) }), pool }
    }

    /// Puts `msg` in the inbox, waiting for room behind all who waited before. Only the edge of
    /// the process waits; inside it, use [`Inbox::try_put`]. Dropping the future before it is
    /// done drops the message.
    ///
    /// # Errors
    /// [`PutError::Stopped`] when the actor is gone.
    pub async fn put(&self, msg: M) -> Result<(), PutError<M>> {
        match self.pool.try_take(msg.weight()) {
            Ok(credit) => return self.deliver(msg, credit),
            Err(NoCredit::Closed) => return Err(PutError::Stopped(msg)),
            Err(NoCredit::Full) => {}
        }
        match self.pool.take_in_turn(msg.weight()).await {
            Ok((credit, _turn)) => self.deliver(msg, credit),
            Err(_closed) => Err(PutError::Stopped(msg)),
        }
    }

    /// Puts `msg` in the inbox if there is room right now and nobody waits for it.
    ///
    /// # Errors
    /// [`PutError::Full`] when there is no room, [`PutError::Stopped`] when the actor is gone.
    pub fn try_put(&self, msg: M) -> Result<(), PutError<M>> {
        match self.pool.try_take(msg.weight()) {
            Ok(credit) => self.deliver(msg, credit),
            Err(NoCredit::Full) => Err(PutError::Full(msg)),
            Err(NoCredit::Closed) => Err(PutError::Stopped(msg)),
        }
    }

    /// The credits this inbox has in all.
    pub fn capacity(&self) -> u32 {
        self.pool.capacity()
    }

    /// The credits that nobody holds now.
    pub fn free(&self) -> u32 {
        self.pool.free()
    }

    /// Whether the receiver has stopped for good.
    pub fn is_stopped(&self) -> bool {
        self.pool.is_closed()
    }

    fn deliver(&self, msg: M, credit: Credit) -> Result<(), PutError<M>> {
        match &*self.target {
            Target::Actor { to, stats } => {
                if !to.connected() {
                    return Err(PutError::Stopped(msg));
                }
                let put_ns = stats.put_one();
                #[expect(clippy::disallowed_methods, reason = "the one place: credits are held")]
                to.do_send(Held { msg, credit, put_ns });
                Ok(())
            }
            Target::Outlet(to) => to
                .push(Held { msg, credit, put_ns: 0 })
                .map_err(|refused| PutError::Stopped(refused.msg)),
        }
    }
}

/// Opens an inbox that is emptied by hand, not by an actor: for a task at the edge of the
/// process, and for tests that stand in for an actor.
pub fn outlet<M: Weigh + Send + 'static>(capacity: u32) -> (Inbox<M>, Outlet<M>) {
    let pool = CreditPool::new(capacity);
    // Unbounded in form only: every message in it holds credits of the pool.
    let (to, from) = line::line();
    (Inbox { target: Arc::new(Target::Outlet(to)), pool: Arc::clone(&pool) }, Outlet { from, pool })
}

/// The receiving end of an [`outlet`]. Dropping it stops its inbox.
#[derive(Debug)]
pub struct Outlet<M> {
    from: LineHead<Held<M>>,
    pool: Arc<CreditPool>,
}

impl<M> Outlet<M> {
    /// The next message, or `None` when every inbox is gone. Keep the credit while it is dealt
    /// with.
    pub async fn take(&mut self) -> Option<(M, Credit)> {
        self.from.take().await.map(|held| (held.msg, held.credit))
    }

    /// The next message if there is one now.
    pub fn try_take(&mut self) -> Option<(M, Credit)> {
        self.from.try_take().map(|held| (held.msg, held.credit))
    }
}

impl<M> Drop for Outlet<M> {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// The name of a message type without its path, as `/actors` shows it.
pub(crate) fn message_name<M>() -> &'static str {
    let full = std::any::type_name::<M>();
    let head = full.split('<').next().unwrap_or(full);
    head.rsplit("::").next().unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Job(u32);
    impl Weigh for Job {}

    #[tokio::test]
    async fn the_bound_holds_however_often_the_inbox_is_cloned() {
        let (inbox, mut outlet) = outlet(3);
        for n in 0..3 {
            inbox.clone().try_put(Job(n)).unwrap();
        }
        assert!(matches!(inbox.clone().try_put(Job(3)), Err(PutError::Full(Job(3)))));
        let (job, credit) = outlet.take().await.unwrap();
        assert_eq!(job, Job(0));
        assert!(inbox.try_put(Job(4)).unwrap_err().is_full(), "its work is not over yet");
        drop(credit);
        inbox.try_put(Job(5)).unwrap();
    }

    #[tokio::test]
    async fn order_is_first_in_first_out_across_clones_and_verbs() {
        let (inbox, mut outlet) = outlet(2);
        inbox.try_put(Job(0)).unwrap();
        inbox.clone().put(Job(1)).await.unwrap();
        let tasks: Vec<_> = (2..6)
            .map(|n| {
                let inbox = inbox.clone();
                tokio::spawn(async move { inbox.put(Job(n)).await.unwrap() })
            })
            .collect();
        tokio::task::yield_now().await;

        let mut seen = Vec::new();
        while seen.len() < 6 {
            let (Job(n), credit) = outlet.take().await.unwrap();
            seen.push(n);
            drop(credit);
            // The room just made belongs to the one who waits, though it has not run yet.
            assert_eq!(inbox.try_put(Job(99)).is_err(), seen.len() <= 4, "after {seen:?}");
            if seen.len() > 4 {
                break;
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        while let Some((Job(n), _)) = outlet.try_take() {
            seen.push(n);
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 99]);
    }

    #[tokio::test]
    async fn a_dropped_outlet_stops_its_inbox_and_those_who_wait() {
        let (inbox, outlet) = outlet(1);
        inbox.try_put(Job(0)).unwrap();
        let waiter = {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.put(Job(1)).await })
        };
        tokio::task::yield_now().await;
        drop(outlet);
        assert!(matches!(waiter.await.unwrap(), Err(PutError::Stopped(Job(1)))));
        assert!(matches!(inbox.try_put(Job(2)), Err(PutError::Stopped(Job(2)))));
        assert!(inbox.is_stopped());
    }

    #[test]
    fn names_of_messages_carry_no_path() {
        assert_eq!(message_name::<Job>(), "Job");
        assert_eq!(message_name::<Vec<Job>>(), "Vec");
    }
}
