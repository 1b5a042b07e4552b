//! Credits: the bound of an inbox, carried inside its messages.
//!
//! A sender takes credits before its message enters the mailbox; the receiver gives them back by
//! dropping the [`Credit`], once the work is truly over. What an inbox holds is therefore bounded
//! by its credits, however often it is cloned and whatever the mailbox below it allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

/// What a message costs its receiver, in the unit of the inbox's capacity.
pub trait Weigh {
    /// The credits this message holds until it has been dealt with: 1 when the inbox counts
    /// messages, its size when the inbox counts bytes. Counts as at least 1, and as at most the
    /// capacity of the inbox (so one message of any size can enter an empty inbox).
    fn weight(&self) -> u32 {
        1
    }
}

/// Credits held by one message; dropping it returns them to the senders.
#[derive(Debug)]
pub struct Credit {
    pool: Option<Arc<CreditPool>>,
    weight: u32,
}

impl Credit {
    /// A credit that belongs to no inbox: for messages an actor sends itself, and for tests of
    /// receivers.
    #[must_use]
    pub fn unbounded() -> Self {
        Self { pool: None, weight: 0 }
    }

    /// The credits held, in the unit of the inbox's capacity.
    pub fn weight(&self) -> u32 {
        self.weight
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.free.add_permits(self.weight as usize);
        }
    }
}

/// Why credits were not handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCredit {
    Full,
    Closed,
}

/// The credits of one inbox.
#[derive(Debug)]
pub(crate) struct CreditPool {
    capacity: u32,
    free: Semaphore,
    /// Senders that wait for room; while there are any, nobody overtakes them.
    waiting: AtomicU32,
    /// The one sender whose turn it is to wait for credits.
    turn: Semaphore,
}

impl CreditPool {
    pub(crate) fn new(capacity: u32) -> Arc<Self> {
        assert!(capacity > 0, "an inbox without credits can never take a message");
        Arc::new(Self {
            capacity,
            free: Semaphore::new(capacity as usize),
            waiting: AtomicU32::new(0),
            turn: Semaphore::new(1),
        })
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX).min(self.capacity)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.free.is_closed()
    }

    /// Refuses all further takers, and those that wait.
    pub(crate) fn close(&self) {
        self.free.close();
    }

    fn bounded(&self, weight: u32) -> u32 {
        weight.clamp(1, self.capacity)
    }

    /// Takes credits now, unless there are too few or somebody waits for them already.
    pub(crate) fn try_take(self: &Arc<Self>, weight: u32) -> Result<Credit, NoCredit> {
        if self.waiting.load(Ordering::Acquire) != 0 {
            return Err(if self.is_closed() { NoCredit::Closed } else { NoCredit::Full });
        }
        match self.free.try_acquire_many(self.bounded(weight)) {
            Ok(permit) => Ok(self.credit(permit)),
            Err(TryAcquireError::NoPermits) => Err(NoCredit::Full),
            Err(TryAcquireError::Closed) => Err(NoCredit::Closed),
        }
    }

    /// Waits behind all who came before, then for credits. The turn lasts until the returned
    /// guard is dropped: hold it until the message is in the mailbox, and order is kept.
    pub(crate) async fn take_in_turn(
        self: &Arc<Self>,
        weight: u32,
    ) -> Result<(Credit, Turn<'_>), NoCredit> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let mut turn = Turn { pool: self, permit: None };
        turn.permit = self.turn.acquire().await.ok();
        match self.free.acquire_many(self.bounded(weight)).await {
            Ok(permit) => Ok((self.credit(permit), turn)),
            Err(_closed) => Err(NoCredit::Closed),
        }
    }

    fn credit(self: &Arc<Self>, permit: SemaphorePermit<'_>) -> Credit {
        let weight = u32::try_from(permit.num_permits()).unwrap_or(self.capacity);
        permit.forget();
        Credit { pool: Some(Arc::clone(self)), weight }
    }
}

/// Held by the sender whose turn it is, so that no later one overtakes it.
pub(crate) struct Turn<'a> {
    pool: &'a CreditPool,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permit = None;
        self.pool.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_come_back_when_dropped_and_no_more_are_given_than_there_are() {
        let pool = CreditPool::new(10);
        let first = pool.try_take(6).unwrap();
        assert_eq!(pool.try_take(5).unwrap_err(), NoCredit::Full);
        let second = pool.try_take(4).unwrap();
        assert_eq!((first.weight(), second.weight(), pool.free()), (6, 4, 0));
        drop(first);
        assert_eq!(pool.free(), 6);
        drop(second);
        assert_eq!(pool.free(), 10);
    }

    #[test]
    fn weights_are_at_least_one_and_at_most_the_capacity() {
        let pool = CreditPool::new(4);
        assert_eq!(pool.try_take(0).unwrap().weight(), 1);
        let whole = pool.try_take(u32::MAX).unwrap();
        assert_eq!((whole.weight(), pool.free()), (4, 0));
    }

    #[tokio::test]
    async fn nobody_overtakes_one_who_waits() {
        let pool = CreditPool::new(4);
        let held = pool.try_take(3).unwrap();
        let waiter = {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.take_in_turn(2).await.map(|(credit, _)| credit) })
        };
        tokio::task::yield_now().await;
        assert_eq!(pool.try_take(1).unwrap_err(), NoCredit::Full, "one is free, but not for you");
        drop(held);
        assert_eq!(waiter.await.unwrap().unwrap().weight(), 2);
        assert_eq!(pool.free(), 4);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_lets_the_next_one_through() {
        let pool = CreditPool::new(1);
        let held = pool.try_take(1).unwrap();
        let waiter = {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.take_in_turn(1).await.map(|(credit, _)| credit) })
        };
        tokio::task::yield_now().await;
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        drop(held);
        assert!(pool.try_take(1).is_ok());
    }

    #[tokio::test]
    async fn closing_refuses_takers_and_waiters() {
        let pool = CreditPool::new(1);
        let _held = pool.try_take(1).unwrap();
        let waiter = {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.take_in_turn(1).await.map(|(credit, _)| credit) })
        };
        tokio::task::yield_now().await;
        pool.close();
        assert_eq!(waiter.await.unwrap().unwrap_err(), NoCredit::Closed);
        assert_eq!(pool.try_take(1).unwrap_err(), NoCredit::Closed);
    }
}
