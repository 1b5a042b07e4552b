//! Reply ports: how an actor is asked something.
//!
//! A question carries a [`Port`]; the actor keeps it in its state until it knows the answer. A
//! port that is dropped unanswered (its actor was rebuilt, or stopped) tells the asker so.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::sync::oneshot;

/// The port was dropped without an answer: whether the work was done is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("dropped without an answer")]
pub struct Dropped;

enum Way<T> {
    Wait(oneshot::Sender<T>),
    Call(Box<dyn Callee<T> + Send>),
}

/// Whom a port calls.
trait Callee<T> {
    fn call(self: Box<Self>, answer: Result<T, Dropped>);
    fn is_gone(&self) -> bool;
}

struct Call<F, G> {
    answered: F,
    gone: G,
}

impl<T, F, G> Callee<T> for Call<F, G>
where
    F: FnOnce(Result<T, Dropped>),
    G: Fn() -> bool,
{
    fn call(self: Box<Self>, answer: Result<T, Dropped>) {
        (self.answered)(answer);
    }

    fn is_gone(&self) -> bool {
        (self.gone)()
    }
}

/// Answers once, from any thread.
pub struct Port<T>(Option<Way<T>>);

/// Opens a port and the place where its answer arrives.
#[must_use]
pub fn port<T>() -> (Port<T>, Answer<T>) {
    let (to, from) = oneshot::channel();
    (Port(Some(Way::Wait(to))), Answer(from))
}

impl<T> Port<T> {
    /// A port that calls `answered` exactly once: with the answer, or with [`Dropped`]. It runs
    /// on the thread of the one who answers, so it must return at once; usually it puts a message
    /// into the asker's inbox.
    pub fn call(answered: impl FnOnce(Result<T, Dropped>) + Send + 'static) -> Self {
        Self::call_unless(|| false, answered)
    }

    /// Like [`Port::call`], for an asker that may leave before the answer: [`Port::is_closed`] says
    /// what `gone` says. It is called all the same.
    pub fn call_unless(
        gone: impl Fn() -> bool + Send + 'static,
        answered: impl FnOnce(Result<T, Dropped>) + Send + 'static,
    ) -> Self {
        Self(Some(Way::Call(Box::new(Call { answered, gone }))))
    }

    /// Answers. The asker may have left meanwhile; that is fine.
    pub fn send(mut self, answer: T) {
        match self.0.take() {
            Some(Way::Wait(to)) => drop(to.send(answer)),
            Some(Way::Call(callee)) => callee.call(Ok(answer)),
            None => {}
        }
    }

    /// Whether nobody waits for the answer any more. A port of [`Port::call`] is never closed.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Some(Way::Wait(to)) => to.is_closed(),
            Some(Way::Call(callee)) => callee.is_gone(),
            None => false,
        }
    }
}

impl<T> Drop for Port<T> {
    fn drop(&mut self) {
        if let Some(Way::Call(callee)) = self.0.take() {
            callee.call(Err(Dropped));
        }
    }
}

impl<T> fmt::Debug for Port<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Port")
    }
}

/// The answer to come. Awaited at the edge of the process and in tests; inside, an actor takes
/// answers as messages ([`Port::call`]).
#[derive(Debug)]
pub struct Answer<T>(oneshot::Receiver<T>);

impl<T> Answer<T> {
    /// The answer, if it is there already.
    ///
    /// # Errors
    /// [`Dropped`] when it will never come.
    pub fn try_take(&mut self) -> Result<Option<T>, Dropped> {
        match self.0.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(Dropped),
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Dropped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| Dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_whose_asker_has_left_is_closed_and_still_called() {
        let (asker, answer) = std::sync::mpsc::channel();
        let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let left = std::sync::Arc::clone(&gone);
        let has_left = move || left.load(std::sync::atomic::Ordering::Relaxed);
        let port = Port::call_unless(has_left, move |answer| asker.send(answer).unwrap());
        assert!(!port.is_closed());
        gone.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(port.is_closed());
        port.send(7);
        assert_eq!(answer.recv().unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn an_answer_arrives_and_a_dropped_port_says_so() {
        let (port, answer) = super::port();
        assert!(!port.is_closed());
        port.send(7);
        assert_eq!(answer.await, Ok(7));

        let (port, mut answer) = super::port::<u32>();
        assert_eq!(answer.try_take(), Ok(None));
        drop(port);
        assert_eq!(answer.try_take(), Err(Dropped));

        let (port, answer) = super::port::<u32>();
        drop(answer);
        assert!(port.is_closed());
    }

    #[test]
    fn a_call_is_made_exactly_once() {
        let (told, seen) = std::sync::mpsc::channel();
        let again = told.clone();
        Port::call(move |answer| told.send(answer).unwrap()).send(1);
        drop(Port::<u32>::call(move |answer| again.send(answer).unwrap()));
        assert_eq!(seen.iter().collect::<Vec<_>>(), [Ok(1), Err(Dropped)]);
    }
}
