//! The way to an actor that is not ours: one that a user of a library wrote with actix itself.
//!
//! Its mailbox bounds nothing and knows no [`Held`](crate::inbox::Held) messages, so what is sent
//! carries its credits inside, in a field of its own, and gives them back when it is dropped: the
//! bound holds wherever the receiver keeps it.

use std::fmt;
use std::sync::Arc;

use actix::Recipient;

use crate::credit::{Credit, CreditPool};

/// What messages of one type are sent to; made by `address.recipient()`.
pub type ForeignAddress<M> = Recipient<M>;

/// A message whose receiver answers nothing.
pub use actix::Message as ForeignMessage;

/// Bounds what an actor has been sent and not dropped yet, in messages and in bytes.
pub struct Foreign<M: ForeignMessage<Result = ()> + Send + 'static> {
    to: ForeignAddress<M>,
    messages: Arc<CreditPool>,
    bytes: Arc<CreditPool>,
}

/// The credits of one message to a [`Foreign`] actor: a field of the message.
#[derive(Debug)]
pub struct ForeignCredit {
    _message: Credit,
    _bytes: Credit,
}

impl<M: ForeignMessage<Result = ()> + Send + 'static> Foreign<M> {
    /// The way to `to`, for at most so many messages and bytes at once; one message of any size
    /// may be sent when there is none.
    ///
    /// # Panics
    /// When a bound is 0.
    pub fn new(to: ForeignAddress<M>, messages_max: u32, bytes_max: u32) -> Self {
        Self { to, messages: CreditPool::new(messages_max), bytes: CreditPool::new(bytes_max) }
    }

    /// Waits for room for one message of `bytes`.
    pub async fn room(&self, bytes: u32) -> ForeignCredit {
        ForeignCredit {
            _message: take(&self.messages, 1).await,
            _bytes: take(&self.bytes, bytes).await,
        }
    }

    /// Waits until all that was sent has been dropped.
    pub async fn idle(&self) {
        drop(take(&self.messages, u32::MAX).await);
    }

    /// Sends a message, which holds its credits.
    ///
    /// # Errors
    /// Gives it back when the actor has stopped.
    pub fn put(&self, message: M) -> Result<(), M> {
        if !self.to.connected() {
            return Err(message);
        }
        #[expect(clippy::disallowed_methods, reason = "bounded by the credits in the message")]
        self.to.do_send(message);
        Ok(())
    }

    /// Whether the actor has stopped.
    pub fn is_stopped(&self) -> bool {
        !self.to.connected()
    }
}

async fn take(pool: &Arc<CreditPool>, weight: u32) -> Credit {
    match pool.take_in_turn(weight).await {
        Ok((credit, _turn)) => credit,
        Err(_closed) => Credit::unbounded(), // nobody closes it
    }
}

impl<M: ForeignMessage<Result = ()> + Send + 'static> fmt::Debug for Foreign<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Foreign")
            .field("messages_free", &self.messages.free())
            .field("bytes_free", &self.bytes.free())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use actix::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    struct Given {
        number: u32,
        _credit: ForeignCredit,
    }
    impl actix::Message for Given {
        type Result = ();
    }

    struct Keeper(mpsc::UnboundedSender<Given>);
    impl Actor for Keeper {
        type Context = Context<Self>;
    }
    impl Handler<Given> for Keeper {
        type Result = ();
        fn handle(&mut self, given: Given, _: &mut Context<Self>) {
            self.0.send(given).unwrap();
        }
    }

    #[actix::test]
    async fn what_the_receiver_keeps_is_bounded_and_idle_waits_for_all_of_it() {
        let (kept, mut keeps) = mpsc::unbounded_channel();
        let keeper = Keeper(kept).start();
        let foreign = Foreign::new(keeper.recipient::<Given>(), 2, 100);
        for number in 0..2 {
            let credit = foreign.room(10).await;
            assert!(foreign.put(Given { number, _credit: credit }).is_ok());
        }
        let third = tokio::time::timeout(std::time::Duration::ZERO, foreign.room(10)).await;
        assert!(third.is_err(), "two are out");
        let first = keeps.recv().await.unwrap();
        assert_eq!(first.number, 0);
        let mut idle = std::pin::pin!(foreign.idle());
        assert!(futures_poll(idle.as_mut()).await.is_pending());
        drop(first);
        assert!(futures_poll(idle.as_mut()).await.is_pending());
        drop(keeps.recv().await.unwrap());
        idle.await;
        drop(foreign.room(1_000_000).await); // larger than the bound: alone
    }

    async fn futures_poll<F: Future<Output = ()>>(
        future: std::pin::Pin<&mut F>,
    ) -> std::task::Poll<()> {
        let mut future = Some(future);
        std::future::poll_fn(move |context| {
            std::task::Poll::Ready(future.take().unwrap().poll(context))
        })
        .await
    }
}
