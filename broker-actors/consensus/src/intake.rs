//! Appends on their way from the door of a member to its openraft.
//!
//! Several of one leader may be here at once. They must reach openraft in the order in which they came, also when
//! the first waits for room: one that overtakes another finds nothing to build on. And each must find
//! room for what it brings behind what those before it bring, as openraft must never wait for room.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use grus_log::Step;
use tokio::sync::{Mutex, MutexGuard};

use crate::types::LogId;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    line: Mutex<()>,
    /// What openraft has been given and has not answered.
    given: RefCell<BTreeMap<u64, Portion>>,
    next: Cell<u64>,
}

/// What openraft is given at once.
#[derive(Debug, Clone)]
pub(crate) struct Portion {
    /// Its last entry; none where nothing is written, but something may be cut off.
    pub(crate) last: Option<LogId>,
    /// What the log will do.
    pub(crate) steps: Vec<Step>,
}

/// Whoever has it is next to give entries to openraft.
pub(crate) type Turn<'a> = MutexGuard<'a, ()>;

impl Intake {
    /// Waits behind those that came before. The place in the line is taken when this is first polled.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        // Unconstrained: tokio's task budget must not let another one go ahead.
        tokio::task::unconstrained(self.line.lock()).await
    }

    /// Notes what openraft is given, until that is dropped.
    pub(crate) fn give(&self, portion: Portion) -> Given<'_> {
        let number = self.next.replace(self.next.get() + 1);
        self.given.borrow_mut().insert(number, portion);
        Given { intake: self, number }
    }

    /// Whether openraft has been given entries up to this one.
    pub(crate) fn has_given(&self, last: LogId) -> bool {
        self.given.borrow().values().any(|given| given.last == Some(last))
    }

    /// What openraft has been given and the log will yet do, in order, and the highest index of that.
    pub(crate) fn unwritten(&self, is_written: impl Fn(LogId) -> bool) -> (Vec<Step>, Option<u64>) {
        let given = self.given.borrow();
        let is_unwritten = |portion: &&Portion| !portion.last.is_some_and(&is_written);
        let (mut steps, mut end) = (Vec::new(), None);
        for portion in given.values().filter(is_unwritten) {
            steps.extend_from_slice(&portion.steps);
            end = end.max(portion.last.map(|last| last.index));
        }
        (steps, end)
    }
}

/// See [`Intake::give`].
pub(crate) struct Given<'a> {
    intake: &'a Intake,
    number: u64,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.intake.given.borrow_mut().remove(&self.number);
    }
}

/// Lets `call` put its message where it goes, then gives `turn` to the next, and waits for the answer.
pub(crate) async fn give_way<T>(turn: Option<Turn<'_>>, call: impl Future<Output = T>) -> T {
    // Unconstrained: tokio's task budget must not make a channel with room look full.
    let mut call = std::pin::pin!(tokio::task::unconstrained(call));
    let answered = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    drop(turn);
    match answered {
        Poll::Ready(answer) => answer,
        Poll::Pending => call.await,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use grus_log::EntryKind;
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::LocalSet;

    use super::*;
    use crate::types::log_id;

    #[test]
    fn appends_go_in_the_order_in_which_they_came_and_do_not_wait_for_answers() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let intake = Rc::new(Intake::default());
            let (gives, mut given) = mpsc::channel(8);
            let (room, waits_for_room) = oneshot::channel::<()>();
            let mut waits_for_room = Some(waits_for_room);
            for number in 0..3 {
                let (intake, gives) = (Rc::clone(&intake), gives.clone());
                let mut waits_for_room = waits_for_room.take();
                tokio::task::spawn_local(async move {
                    let turn = intake.turn().await;
                    if let Some(room) = waits_for_room.take() {
                        room.await.unwrap();
                    }
                    give_way(Some(turn), async move {
                        gives.send(number).await.unwrap();
                        std::future::pending::<()>().await; // the disk is slow
                    })
                    .await;
                });
            }
            tokio::task::yield_now().await;
            assert!(given.try_recv().is_err(), "the others wait for the first one");
            room.send(()).unwrap();
            for number in 0..3 {
                assert_eq!(given.recv().await, Some(number));
            }
        });
    }

    #[test]
    fn what_is_written_counts_no_more_and_what_was_answered_neither() {
        let intake = Intake::default();
        let entry = |payload_bytes| Step::Entry { kind: EntryKind::Normal, payload_bytes };
        let portion =
            |index, steps: &[Step]| Portion { last: Some(log_id(2, index)), steps: steps.to_vec() };
        let first = intake.give(portion(5, &[entry(100), entry(7)]));
        let second = intake.give(portion(9, &[Step::Cut, entry(30)]));
        let log_ends_at = |index| move |last: LogId| last.index <= index;
        let all = vec![entry(100), entry(7), Step::Cut, entry(30)];
        assert_eq!(intake.unwritten(log_ends_at(4)), (all, Some(9)));
        assert_eq!(intake.unwritten(log_ends_at(5)), (vec![Step::Cut, entry(30)], Some(9)));
        assert!(intake.has_given(log_id(2, 9)) && !intake.has_given(log_id(2, 7)));
        drop(second);
        assert!(!intake.has_given(log_id(2, 9)));
        assert_eq!(intake.unwritten(log_ends_at(4)), (vec![entry(100), entry(7)], Some(5)));
        drop(first);
        assert_eq!(intake.unwritten(log_ends_at(0)), (vec![], None));
        // What only cuts is over once it is answered.
        let cut = intake.give(Portion { last: None, steps: vec![Step::Cut] });
        assert_eq!(intake.unwritten(log_ends_at(9)), (vec![Step::Cut], None));
        drop(cut);
        assert_eq!(intake.unwritten(log_ends_at(0)), (vec![], None));
    }
}
