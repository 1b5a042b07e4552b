//! The line behind an outlet: first in, first out, from any thread to one taker. It holds no memory
//! of its own while no more than one item waits, and little after a rush: there may be ten thousand
//! of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Most room that an empty line keeps, in items.
const KEPT_ITEMS_MAX: usize = 64;

/// What waits, in order.
#[derive(Debug)]
struct Items<T> {
    /// The next one; `rest` is empty without it.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Items<T> {
    const fn new() -> Self {
        Self { first: None, rest: VecDeque::new() }
    }

    fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
    }

    fn pop(&mut self) -> Option<T> {
        let next = self.rest.pop_front();
        if self.rest.is_empty() && self.rest.capacity() > KEPT_ITEMS_MAX {
            self.rest = VecDeque::new();
        }
        std::mem::replace(&mut self.first, next)
    }
}

#[derive(Debug)]
struct Line<T> {
    /// Held for a push or a pop, never for longer.
    items: Mutex<Items<T>>,
    arrived: Notify,
    head_is_gone: AtomicBool,
    end_is_gone: AtomicBool,
}

impl<T> Line<T> {
    fn items(&self) -> MutexGuard<'_, Items<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where items are pushed.
#[derive(Debug)]
pub(crate) struct LineEnd<T>(Arc<Line<T>>);

/// Where they are taken.
#[derive(Debug)]
pub(crate) struct LineHead<T>(Arc<Line<T>>);

/// An empty line.
pub(crate) fn line<T>() -> (LineEnd<T>, LineHead<T>) {
    let line = Arc::new(Line {
        items: Mutex::new(Items::new()),
        arrived: Notify::new(),
        head_is_gone: AtomicBool::new(false),
        end_is_gone: AtomicBool::new(false),
    });
    (LineEnd(Arc::clone(&line)), LineHead(line))
}

impl<T> LineEnd<T> {
    /// Adds an item; gives it back when nobody takes any more.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        {
            let mut items = self.0.items();
            if self.0.head_is_gone.load(Ordering::Acquire) {
                return Err(item);
            }
            items.push(item);
        }
        self.0.arrived.notify_one();
        Ok(())
    }
}

impl<T> Drop for LineEnd<T> {
    fn drop(&mut self) {
        self.0.end_is_gone.store(true, Ordering::Release);
        self.0.arrived.notify_one();
    }
}

impl<T> LineHead<T> {
    /// The next item; `None` when there is none and never will be.
    pub(crate) async fn take(&mut self) -> Option<T> {
        loop {
            // Looked at before the items: what was pushed before the end left is still taken.
            let is_last = self.0.end_is_gone.load(Ordering::Acquire);
            if let Some(item) = self.try_take() {
                return Some(item);
            }
            if is_last {
                return None;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next item if there is one now.
    pub(crate) fn try_take(&mut self) -> Option<T> {
        self.0.items().pop()
    }
}

impl<T> Drop for LineHead<T> {
    fn drop(&mut self) {
        let left = {
            let mut items = self.0.items();
            self.0.head_is_gone.store(true, Ordering::Release);
            std::mem::replace(&mut *items, Items::new())
        };
        drop(left); // outside of the lock: an item may push when it is dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn items_come_in_order_and_the_last_is_known() {
        let (end, mut head) = line();
        for item in 0..200 {
            end.push(item).unwrap();
        }
        drop(end);
        for item in 0..200 {
            assert_eq!(head.take().await, Some(item));
        }
        assert_eq!(head.take().await, None);
        assert!(head.0.items().rest.capacity() <= KEPT_ITEMS_MAX, "the rush is over");
    }

    #[tokio::test]
    async fn a_question_and_its_answer_at_a_time_take_no_memory() {
        let (end, mut head) = line();
        for item in 0..100 {
            end.push(item).unwrap();
            assert_eq!(head.take().await, Some(item));
        }
        assert_eq!(head.0.items().rest.capacity(), 0);
    }

    #[tokio::test]
    async fn one_who_waits_is_woken_by_an_item_and_by_the_end() {
        let (end, mut head) = line();
        let taker = tokio::spawn(async move { (head.take().await, head.take().await) });
        tokio::task::yield_now().await;
        end.push(1).unwrap();
        tokio::task::yield_now().await;
        drop(end);
        assert_eq!(taker.await.unwrap(), (Some(1), None));
    }

    #[tokio::test]
    async fn a_taker_that_is_dropped_while_it_waits_loses_nothing() {
        let (end, mut head) = line();
        {
            let mut take = std::pin::pin!(head.take());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(take.as_mut().poll(&mut context).is_pending());
            end.push(7).unwrap();
        }
        assert_eq!(head.take().await, Some(7));
    }

    #[test]
    fn what_is_pushed_from_many_threads_arrives_once() {
        let (end, mut head) = line();
        let end = Arc::new(end);
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let end = Arc::clone(&end);
                std::thread::spawn(move || {
                    for n in 0..10_000 {
                        end.push((thread, n)).unwrap();
                    }
                })
            })
            .collect();
        drop(end);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut next = [0; 4];
        while let Some((thread, n)) = runtime.block_on(head.take()) {
            let thread = usize::try_from(thread).unwrap();
            assert_eq!(next[thread], n, "in the order of its thread");
            next[thread] += 1;
        }
        assert_eq!(next, [10_000; 4]);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn nothing_is_taken_in_once_the_taker_has_left() {
        struct Pushes(Option<Arc<LineEnd<Pushes>>>);
        impl Drop for Pushes {
            fn drop(&mut self) {
                if let Some(end) = self.0.take() {
                    assert!(end.push(Pushes(None)).is_err());
                }
            }
        }
        let (end, head) = line();
        let end = Arc::new(end);
        assert!(end.push(Pushes(Some(Arc::clone(&end)))).is_ok());
        drop(head);
        assert!(end.push(Pushes(None)).is_err());
    }
}
