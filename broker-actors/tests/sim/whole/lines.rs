//! Connections of a client, one to each broker: what goes over one keeps its order, there and back, and one that loses
//! anything is lost as a whole, with all answers that were to come over it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grus_broker::shard::ShardHandle;
use grus_mailbox::Port;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use super::senders::Lines;
use crate::groups::facts::Dice;
use crate::groups::member::Strings;
use crate::groups::town::Town;

/// How often a connection looks whether its broker is there.
const LOOK: Duration = Duration::from_millis(50);

/// What all ways of a client have in common.
pub(super) struct Ways {
    pub(super) town: Rc<Town>,
    pub(super) lines: Rc<Lines>,
    pub(super) dice: RefCell<Dice>,
    /// By which the story cuts it off.
    pub(super) strings: Option<Rc<Strings>>,
    /// Of requests that are lost, this part loses a connection.
    pub(super) loss_part: u64,
}

impl Ways {
    pub(super) fn below(&self, below: u64) -> u64 {
        self.dice.borrow_mut().below(below)
    }

    /// How long a way takes; none: what goes it is lost.
    pub(super) fn way(&self) -> Option<Duration> {
        let takes = Duration::from_millis(1 + self.below(8));
        let is_lost = self.below(1_000 * self.loss_part) < self.lines.loss.get();
        (!is_lost && !self.is_cut_off()).then_some(takes)
    }

    fn is_cut_off(&self) -> bool {
        let now_ms = self.town.scribe.now_ms();
        self.strings.as_ref().is_some_and(|strings| strings.cut_until_ms.get() > now_ms)
    }

    /// What says that the connections of now are cut.
    fn flag(&self) -> Arc<AtomicBool> {
        self.strings.as_ref().map_or_else(Arc::default, |strings| strings.flag())
    }
}

/// The way back of one connection; none: the connection is lost.
pub(super) type Back<E> = UnboundedSender<Option<E>>;

/// What arrives at a broker, and the way back. The second number is that of the connection.
type Request<E> = Box<dyn FnOnce(&ShardHandle, &Back<E>, u64)>;

/// A port whose answer goes back; a port that is dropped loses the connection, as whether it was heard is not known.
pub(super) fn port_back<T, E>(
    back: &Back<E>,
    event: impl FnOnce(T) -> E + Send + 'static,
) -> Port<T>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let back = back.clone();
    Port::call(move |answer: Result<T, _>| {
        let _ = back.send(answer.ok().map(event)); // lost meanwhile
    })
}

/// A connection to a broker, or the want of one.
pub(super) struct Line<E> {
    pub(super) broker: u32,
    ways: Rc<Ways>,
    events: UnboundedSender<E>,
    /// Which one it is.
    session: Cell<u64>,
    requests: RefCell<Option<UnboundedSender<Request<E>>>>,
}

impl<E: Send + 'static> Line<E> {
    pub(super) fn new(broker: u32, ways: &Rc<Ways>, events: &UnboundedSender<E>) -> Rc<Self> {
        let (session, requests) = (Cell::new(0), RefCell::default());
        Rc::new(Self { broker, ways: Rc::clone(ways), events: events.clone(), session, requests })
    }

    /// Sends something, where there is a connection; else its owner is about to hear that there is none.
    pub(super) fn send(&self, request: impl FnOnce(&ShardHandle, &Back<E>, u64) + 'static) {
        if let Some(requests) = &*self.requests.borrow() {
            let _ = requests.send(Box::new(request)); // just lost
        }
    }

    /// Keeps a connection to its broker.
    pub(super) async fn keep(self: Rc<Self>, up: impl Fn(u32) -> E, down: impl Fn(u32) -> E) {
        loop {
            if let Some(way) = self.ways.way() {
                sleep(way).await;
                if self.ways.town.broker(self.broker).is_some() {
                    self.serve(&up).await;
                    let _ = self.events.send(down(self.broker)); // the story may be over
                }
            }
            sleep(Duration::from_millis(20 + self.ways.below(100))).await;
        }
    }

    /// One connection, until it is lost.
    async fn serve(&self, up: &impl Fn(u32) -> E) {
        self.session.set(self.session.get() + 1);
        let (is_cut, (put, requests)) = (self.ways.flag(), unbounded_channel());
        let (back, answers) = unbounded_channel();
        *self.requests.borrow_mut() = Some(put);
        let _ = self.events.send(up(self.broker));
        tokio::select! {
            biased;
            () = self.bring_back(&is_cut, answers) => {}
            () = self.carry(&is_cut, requests, &back) => {}
        }
        *self.requests.borrow_mut() = None;
    }

    async fn carry(
        &self,
        is_cut: &AtomicBool,
        mut requests: UnboundedReceiver<Request<E>>,
        back: &Back<E>,
    ) {
        loop {
            let request = tokio::select! {
                biased;
                Some(request) = requests.recv() => request,
                () = sleep(LOOK) => {
                    if is_cut.load(Relaxed) || self.ways.town.broker(self.broker).is_none() {
                        return;
                    }
                    continue;
                }
            };
            let Some(way) = self.ways.way() else { return };
            sleep(way).await;
            let broker = self.ways.town.broker(self.broker).filter(|_| !is_cut.load(Relaxed));
            let Some(broker) = broker else { return };
            request(&broker, back, self.session.get());
        }
    }

    async fn bring_back(&self, is_cut: &AtomicBool, mut answers: UnboundedReceiver<Option<E>>) {
        while let Some(Some(event)) = answers.recv().await {
            let Some(way) = self.ways.way() else { return };
            sleep(way).await;
            if is_cut.load(Relaxed) {
                return;
            }
            let _ = self.events.send(event); // the story may be over
        }
    }
}
