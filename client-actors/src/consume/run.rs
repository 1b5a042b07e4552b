//! Messages handled by a function of the program.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::message::{Consumed, Handed, Outcome};
use super::{AckMode, ConsumeError, Consumer};

impl Consumer {
    /// Handles each message by `handler`, [`concurrency_max`](super::ConsumerConfig::concurrency_max)
    /// at once, until the consumer is stopped ([`Consumer::stopper`]). What the handler returns is the
    /// answer; one that panics or takes too long fails its message. The handler runs in this future:
    /// one that blocks holds the others up, so work for the processor belongs into a task or a thread
    /// of its own.
    ///
    /// Dropping the future drops the handlers; their messages have failed then.
    ///
    /// # Errors
    /// [`ConsumeError::Refused`], once what is in work is done.
    ///
    /// # Panics
    /// With [`AckMode::Manual`], which is for those who answer by themselves.
    pub async fn run<O: Into<Outcome>>(
        &mut self,
        handler: impl AsyncFn(Consumed) -> O,
    ) -> Result<(), ConsumeError> {
        assert!(self.config.ack_mode != AckMode::Manual, "run answers by what its handler returns");
        let (most, limit) = (self.config.concurrency_max, self.config.handler_timeout);
        let mut working = FuturesUnordered::new();
        let result = loop {
            tokio::select! {
                Some(()) = working.next(), if !working.is_empty() => {}
                next = self.next(), if working.len() < most => match next {
                    Ok(handed) => working.push(handle(handed, &handler, limit)),
                    Err(ConsumeError::Closed) => break Ok(()),
                    Err(error) => break Err(error),
                },
            }
        };
        while let Some(()) = working.next().await {}
        result
    }

    /// The same for many messages at once: `handler` has up to `messages_max` of them, as many as
    /// there are, and answers for each, in order. Those that it does not answer for fail.
    ///
    /// # Errors
    /// As [`Consumer::run`].
    ///
    /// # Panics
    /// As [`Consumer::run`].
    pub async fn run_batches(
        &mut self,
        messages_max: usize,
        handler: impl AsyncFn(Vec<Consumed>) -> Vec<Outcome>,
    ) -> Result<(), ConsumeError> {
        assert!(self.config.ack_mode != AckMode::Manual, "run answers by what its handler returns");
        let limit = self.config.handler_timeout;
        loop {
            let batch = match self.next_batch(messages_max, Duration::MAX).await {
                Ok(batch) => batch,
                Err(ConsumeError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            };
            let messages = batch.iter().map(|handed| handed.consumed().clone()).collect();
            let outcomes = guarded(async || handler(messages).await, limit).await;
            let (mut outcomes, reason) = match outcomes {
                Ok(outcomes) => (outcomes.into_iter(), "the handler did not answer for it"),
                Err(reason) => (Vec::new().into_iter(), reason),
            };
            Handed::answer_all(batch.into_iter().map(|handed| {
                let outcome = outcomes.next();
                (handed, outcome.unwrap_or_else(|| Outcome::Nack(reason.to_owned())))
            }));
        }
    }
}

async fn handle<O: Into<Outcome>>(
    handed: Handed,
    handler: &impl AsyncFn(Consumed) -> O,
    limit: Duration,
) {
    let message = handed.consumed().clone();
    let outcome = match guarded(async || handler(message).await, limit).await {
        Ok(outcome) => outcome.into(),
        Err(reason) => Outcome::Nack(reason.to_owned()),
    };
    handed.answer(outcome);
}

/// The handler's answer, or why there is none.
async fn guarded<T>(handler: impl AsyncFnOnce() -> T, limit: Duration) -> Result<T, &'static str> {
    // The call is in the future: a panic before its first await is one of it, too.
    let work = AssertUnwindSafe(async move { handler().await }).catch_unwind();
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_panic)) => {
            tracing::error!(
                "a handler panicked over a message; it fails, and the consumer goes on"
            );
            Err("the handler panicked")
        }
        Err(_elapsed) => Err("the handler took too long"),
    }
}
