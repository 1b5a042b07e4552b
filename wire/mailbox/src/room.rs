//! What an actor can do besides answering: its room.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context};
use tokio::task::JoinSet;

use crate::census::ActorStats;
use crate::clock::Clock;
use crate::credit::{Credit, CreditPool, Weigh};
use crate::host::{DrainedNotice, HostHandle, Poisoned, Shell};
use crate::inbox::{Held, Inbox, message_name};
use crate::panics::{CatchPanic, Panic, panic_text};
use crate::place::Place;
use crate::resident::{Drained, Receive, Resident};
use crate::ticker::{Beat, Tick, Ticker};

/// Most futures an actor may have under way: reaching it is a bug, and a panic.
pub const ROOM_TASKS_MAX: usize = 65_536;

/// Called when the mailbox is drained.
pub(crate) type OnDrained<A> = fn(&mut A, &mut Room<'_, A>);

/// What belongs to an actor besides its resident, and outlives a panic of it.
pub(crate) struct Furniture<A: Resident> {
    pub(crate) place: Place,
    pub(crate) stats: Arc<ActorStats>,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) ticker: Option<Ticker>,
    pub(crate) on_drained: Option<OnDrained<A>>,
    pub(crate) notice_pending: bool,
    pub(crate) lingers: bool,
}

/// An actor's view of its host, handed to every handler.
pub struct Room<'a, A: Resident> {
    pub(crate) furniture: &'a mut Furniture<A>,
    pub(crate) context: &'a mut Context<Shell<A>>,
}

impl<A: Resident> Room<'_, A> {
    /// Opens an inbox to this actor itself: for its reply ports, and for those it starts.
    ///
    /// # Panics
    /// When `capacity` is 0.
    pub fn inbox<M: Weigh + Send + 'static>(&self, capacity: u32) -> Inbox<M>
    where
        A: Receive<M>,
    {
        Inbox::to_actor(self.context.address().recipient(), &self.furniture.stats, capacity)
    }

    /// A handle to this actor itself. Keeping it in the actor's own state keeps the actor alive
    /// until it is told to stop.
    pub fn handle(&self) -> HostHandle<A> {
        HostHandle::new(self.context.address(), &self.furniture.stats)
    }

    /// The clock of the process. Logic is told the time, it does not see the clock.
    pub fn clock(&self) -> Clock {
        self.furniture.place.process().clock
    }

    /// Where this actor lives: for those it starts beside itself.
    pub fn place(&self) -> &Place {
        &self.furniture.place
    }

    /// Has [`Drained`] received once all that now waits in the mailbox has been received: one
    /// answer, or one flush, for many messages. Under a flow that never lets the mailbox drain, it
    /// comes at the latest after the 256 messages, or 1 ms of work, after which an actor gives way.
    pub fn notify_drained(&mut self)
    where
        A: Receive<Drained>,
    {
        self.furniture.on_drained =
            Some(|resident, room| resident.receive(Drained, Credit::unbounded(), room));
        if !self.furniture.notice_pending {
            self.furniture.notice_pending = true;
            self.context.notify(DrainedNotice);
        }
    }

    /// Has a [`Tick`] received every `period`, at most one waiting; replaces the ticker before.
    /// Ends with the resident: call it in [`Resident::started`].
    pub fn tick_every(&mut self, period: Duration)
    where
        A: Receive<Tick>,
    {
        let pool = CreditPool::new(1);
        let stats = Arc::clone(&self.furniture.stats);
        stats.add_inbox(message_name::<Tick>(), &pool);
        let clock = self.clock();
        let address = self.context.address().downgrade();
        self.furniture.ticker = Some(Ticker::run(period, move || {
            let Some(address) = address.upgrade() else { return Beat::Stop };
            if let Ok(credit) = pool.try_take(1) {
                let put_ns = stats.put_one();
                #[expect(clippy::disallowed_methods, reason = "its credit is held")]
                address.do_send(Held { msg: Tick::of(&clock), credit, put_ns });
            }
            Beat::GoOn
        }));
    }

    /// Runs `future` beside this actor, on its thread. It sees none of the actor's state; it ends
    /// when the resident does (at a stop, and at a panic). If it panics, the resident is rebuilt.
    ///
    /// For few and bounded things, such as a proposal to consensus under way: each holds the
    /// credit of the message it serves. Long polls wait as reply ports in state instead.
    ///
    /// # Panics
    /// When [`ROOM_TASKS_MAX`] are under way.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        self.spawn_caught(CatchPanic::new(future));
    }

    /// Like [`Room::spawn`]; what comes out of `future` is received by this actor, without
    /// credits.
    pub fn spawn_into<M>(&mut self, future: impl Future<Output = M> + 'static)
    where
        M: Weigh + Send + 'static,
        A: Receive<M>,
    {
        let address = self.context.address();
        let stats = Arc::clone(&self.furniture.stats);
        // Boxed before it is captured: a future that is moved in and awaited takes twice its size.
        let future = CatchPanic::new(future);
        self.spawn_caught(async move {
            let msg = future.await?;
            let put_ns = stats.put_one();
            #[expect(clippy::disallowed_methods, reason = "bounded by the futures under way")]
            address.do_send(Held { msg, credit: Credit::unbounded(), put_ns });
            Ok(())
        });
    }

    fn spawn_caught(&mut self, future: impl Future<Output = Result<(), Panic>> + 'static) {
        let tasks = &mut self.furniture.tasks;
        while tasks.try_join_next().is_some() {}
        assert!(tasks.len() < ROOM_TASKS_MAX, "futures under way are not bounded");
        let address = self.context.address();
        tasks.spawn_local(async move {
            if let Err(panic) = future.await {
                let text = panic_text(&*panic);
                #[expect(clippy::disallowed_methods, reason = "at most one for each task")]
                address.do_send(Poisoned { text });
            }
        });
        self.furniture.stats.set_tasks(tasks.len());
    }

    /// Goes on receiving after [`Resident::stopping`], until [`Room::stop`].
    pub fn linger(&mut self) {
        self.furniture.lingers = true;
    }

    /// Stops this actor after the present message: what still waits is dropped, and its credits
    /// and reply ports with it.
    pub fn stop(&mut self) {
        self.context.stop();
    }
}

impl<A: Resident> std::fmt::Debug for Room<'_, A>
where
    Shell<A>: Actor,
{
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Room({})", self.furniture.stats.full_name())
    }
}
