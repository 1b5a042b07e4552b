//! The host of an actor: an actix actor that keeps its resident alive.
//!
//! ```text
//! Inbox<M> --Held<M>--> [ mailbox | Shell { resident, factory } ] --receive--> Resident
//! ```
//!
//! * A panic in a handler drops the resident, and with it all credits and reply ports it held, and
//!   the message that did it. The factory then builds another in its place; the mailbox and all
//!   inboxes stay, so senders notice a short wait at most. Too many panics end the process.
//! * An actix mailbox is drained to its end before timers and neighbours run, and what an actor tells
//!   itself then as well; a shell gives way after [`BURST_MESSAGES_MAX`] calls or
//!   [`BURST_BUSY_NS_MAX`] of work.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Running};
use tokio::task::JoinSet;

use crate::census::{ActorStats, CensusEntry};
use crate::credit::Weigh;
use crate::fatal::{Fatal, FatalReason};
use crate::inbox::{Held, Inbox};
use crate::panics::panic_text;
use crate::place::Place;
use crate::reply::{self, Answer, Port};
use crate::resident::{Receive, Resident};
use crate::restart::{RestartHistory, RestartPolicy, Verdict};
use crate::room::{Furniture, Room};

/// Most messages received (`Drained` is one) before timers and neighbours on the same arbiter have
/// their turn.
pub const BURST_MESSAGES_MAX: u32 = 256;
/// Most time in handlers before timers and neighbours have their turn, in nanoseconds.
pub const BURST_BUSY_NS_MAX: u64 = 1_000_000;

/// What an actor is called, and what becomes of it when it panics.
#[derive(Debug, Clone)]
pub struct ActorSpec {
    /// What it is, as in `TopicQueue`: the same for all of its kind.
    pub kind: &'static str,
    /// Which one it is, as in `orders/3`.
    pub name: String,
    /// What becomes of it when it panics.
    pub restart: RestartPolicy,
}

impl ActorSpec {
    /// An actor that is rebuilt by the default policy.
    pub fn new(kind: &'static str, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), restart: RestartPolicy::default() }
    }

    /// The same, but a panic ends the process.
    #[must_use]
    pub fn never_restarts(mut self) -> Self {
        self.restart = RestartPolicy::Never;
        self
    }
}

/// Starts actors.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// Starts an actor at `place`, from any thread. `factory` runs there, now and after each panic.
    pub fn spawn<A: Resident>(
        place: &Place,
        spec: ActorSpec,
        factory: impl FnMut() -> A + Send + 'static,
    ) -> HostHandle<A> {
        let (address, receiver) = mailbox::<A>();
        let restart = spec.restart;
        let stats = new_stats(place, spec);
        let entry = place.process().census.enter(&stats);
        let handle = HostHandle::new(address, &stats);
        let home = place.clone();
        place.spawn_fn(move || {
            Shell::new(home, restart, stats, entry, Box::new(factory)).run(receiver);
        });
        handle
    }

    /// Starts an actor on the current thread, which must be `place`; `factory` may hold what is
    /// shared with others there (`Rc`).
    pub fn spawn_local<A: Resident>(
        place: &Place,
        spec: ActorSpec,
        factory: impl FnMut() -> A + 'static,
    ) -> HostHandle<A> {
        let (address, receiver) = mailbox::<A>();
        let restart = spec.restart;
        let stats = new_stats(place, spec);
        let entry = place.process().census.enter(&stats);
        let handle = HostHandle::new(address, &stats);
        Shell::new(place.clone(), restart, stats, entry, Box::new(factory)).run(receiver);
        handle
    }
}

type Mail<A> = actix::dev::channel::AddressReceiver<Shell<A>>;

fn mailbox<A: Resident>() -> (Addr<Shell<A>>, Mail<A>) {
    let (to, from) = actix::dev::channel::channel(1);
    (Addr::new(to), from)
}

fn new_stats(place: &Place, spec: ActorSpec) -> Arc<ActorStats> {
    let clock = place.process().clock;
    Arc::new(ActorStats::new(spec.kind, spec.name, Arc::clone(place.name()), clock))
}

/// The owner's handle to an actor: opens its inboxes and stops it.
pub struct HostHandle<A: Resident> {
    address: Addr<Shell<A>>,
    stats: Arc<ActorStats>,
}

impl<A: Resident> HostHandle<A> {
    pub(crate) fn new(address: Addr<Shell<A>>, stats: &Arc<ActorStats>) -> Self {
        Self { address, stats: Arc::clone(stats) }
    }

    /// Opens an inbox of `capacity` credits for messages of type `M`. All inboxes of an actor end
    /// in one mailbox; each has credits of its own.
    ///
    /// # Panics
    /// When `capacity` is 0.
    pub fn inbox<M: Weigh + Send + 'static>(&self, capacity: u32) -> Inbox<M>
    where
        A: Receive<M>,
    {
        let inbox = Inbox::to_actor(self.address.clone().recipient(), &self.stats, capacity);
        if !self.address.connected() {
            self.stats.close_inboxes();
        }
        inbox
    }

    /// Tells it to stop once it has received what was put before. The answer comes when it has
    /// stopped and its state is dropped; also when it had stopped long ago.
    pub fn stop(&self) -> Stopped {
        let (port, answer) = reply::port();
        #[expect(clippy::disallowed_methods, reason = "control, sent once by the owner")]
        self.address.do_send(StopNow { port });
        Stopped(answer)
    }

    /// Whether it has stopped for good.
    pub fn is_stopped(&self) -> bool {
        !self.address.connected()
    }
}

impl<A: Resident> Clone for HostHandle<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), stats: Arc::clone(&self.stats) }
    }
}

impl<A: Resident> std::fmt::Debug for HostHandle<A> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "HostHandle({})", self.stats.full_name())
    }
}

/// Resolves when an actor has stopped.
#[derive(Debug)]
pub struct Stopped(Answer<()>);

impl Future for Stopped {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(|_answered_or_long_gone| ())
    }
}

/// Tells a shell to stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopNow {
    port: Port<()>,
}

/// The mailbox was drained.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DrainedNotice;

/// A future of the resident panicked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Poisoned {
    pub(crate) text: String,
}

/// The actix actor around a resident.
pub struct Shell<A: Resident> {
    resident: Option<A>,
    factory: Box<dyn FnMut() -> A>,
    furniture: Furniture<A>,
    history: RestartHistory,
    stop_ports: Vec<Port<()>>,
    stopping: bool,
    burst_messages: u32,
    burst_busy_ns: u64,
    /// When the last handler ended, if the next message follows it at once.
    handler_ended_ns: Option<u64>,
    census: Option<CensusEntry>,
}

impl<A: Resident> Shell<A> {
    fn new(
        place: Place,
        restart: RestartPolicy,
        stats: Arc<ActorStats>,
        census: CensusEntry,
        factory: Box<dyn FnMut() -> A>,
    ) -> Self {
        Self {
            resident: None,
            factory,
            furniture: Furniture {
                place,
                stats,
                tasks: JoinSet::new(),
                ticker: None,
                on_drained: None,
                notice_pending: false,
                lingers: false,
            },
            history: RestartHistory::new(restart),
            stop_ports: Vec::new(),
            stopping: false,
            burst_messages: 0,
            burst_busy_ns: 0,
            handler_ended_ns: None,
            census: Some(census),
        }
    }

    fn run(self, mail: Mail<A>) {
        let context = Context::with_receiver(mail);
        actix::spawn(context.into_future(self));
    }

    /// Calls the resident, if there is one; a panic is what comes back.
    fn call(
        &mut self,
        context: &mut Context<Self>,
        work: impl FnOnce(&mut A, &mut Room<'_, A>),
    ) -> Result<(), String> {
        let Some(resident) = self.resident.as_mut() else { return Ok(()) };
        let mut room = Room { furniture: &mut self.furniture, context };
        catch_unwind(AssertUnwindSafe(|| work(resident, &mut room)))
            .map_err(|panic| panic_text(&*panic))
    }

    /// Calls the resident, and rebuilds it after a panic.
    fn call_or_rebuild(
        &mut self,
        context: &mut Context<Self>,
        work: impl FnOnce(&mut A, &mut Room<'_, A>),
    ) {
        if let Err(text) = self.call(context, work) {
            self.panicked(context, &text);
        }
    }

    /// Deals with a panic: drops the resident and builds another, now or soon, or gives up.
    fn panicked(&mut self, context: &mut Context<Self>, first_text: &str) {
        let mut text = first_text.to_owned();
        loop {
            self.evict();
            let stats = &self.furniture.stats;
            let now_ms = self.furniture.place.process().clock.monotonic_ms();
            let verdict = self.history.panicked(now_ms);
            tracing::error!(actor = %stats.full_name(), panic = %text, ?verdict, "actor panicked");
            match verdict {
                Verdict::NeverRestarts => {
                    return self.give_up(context, FatalReason::Panicked, text);
                }
                Verdict::LimitReached => {
                    return self.give_up(context, FatalReason::RestartLimit, text);
                }
                Verdict::RebuildIn { delay_ms } => {
                    stats.restarted();
                    if delay_ms > 0 {
                        return Self::rebuild_after(context, Duration::from_millis(delay_ms));
                    }
                }
            }
            match self.build(context) {
                Ok(()) => return,
                Err(again) => text = again,
            }
        }
    }

    fn rebuild_after(context: &mut Context<Self>, delay: Duration) {
        let wait = wrap_future::<_, Self>(tokio::time::sleep(delay));
        context.wait(wait.map(|(), shell, context| {
            if let Err(text) = shell.build(context) {
                shell.panicked(context, &text);
            }
        }));
    }

    /// Builds a resident and starts it.
    fn build(&mut self, context: &mut Context<Self>) -> Result<(), String> {
        let factory = &mut self.factory;
        let built = catch_unwind(AssertUnwindSafe(factory)).map_err(|panic| panic_text(&*panic))?;
        self.resident = Some(built);
        self.call(context, Resident::started)?;
        if self.stopping {
            self.begin_stopping(context);
        }
        Ok(())
    }

    /// Drops the resident and all that runs for it. A panic in its drop is the same panic.
    fn evict(&mut self) {
        self.furniture.ticker = None;
        self.furniture.on_drained = None;
        self.furniture.tasks = JoinSet::new();
        self.furniture.stats.set_tasks(0);
        let resident = self.resident.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(resident))) {
            let actor = self.furniture.stats.full_name();
            tracing::error!(%actor, panic = %panic_text(&*panic), "actor panicked in its drop");
        }
    }

    fn give_up(&mut self, context: &mut Context<Self>, reason: FatalReason, detail: String) {
        let fatal = Fatal { actor: self.furniture.stats.full_name(), reason, detail };
        self.furniture.place.process().fatal.report(fatal);
        context.stop();
    }

    fn begin_stopping(&mut self, context: &mut Context<Self>) {
        self.furniture.lingers = false;
        self.call_or_rebuild(context, Resident::stopping);
        if !self.furniture.lingers && self.resident.is_some() {
            context.stop();
        }
    }

    /// Counts one handler, and gives way to timers and neighbours when it is their turn.
    fn handler_ended(&mut self, context: &mut Context<Self>, begun_ns: u64, more: bool) {
        let now_ns = self.furniture.place.process().clock.monotonic_ns();
        let busy_ns = now_ns.saturating_sub(begun_ns);
        self.furniture.stats.received(busy_ns);
        self.handler_ended_ns = more.then_some(now_ns);
        if !self.is_burst_over(busy_ns) {
            return;
        }
        self.handler_ended_ns = None;
        if let Some(on_drained) = self.furniture.on_drained.take() {
            self.call_or_rebuild(context, on_drained);
        }
        Self::give_way(context);
    }

    /// Counts one call; true when it is the turn of timers and neighbours.
    const fn is_burst_over(&mut self, busy_ns: u64) -> bool {
        self.burst_messages += 1;
        self.burst_busy_ns += busy_ns;
        if self.burst_messages < BURST_MESSAGES_MAX && self.burst_busy_ns < BURST_BUSY_NS_MAX {
            return false;
        }
        self.burst_messages = 0;
        self.burst_busy_ns = 0;
        true
    }

    fn give_way(context: &mut Context<Self>) {
        context.wait(wrap_future::<_, Self>(tokio::task::yield_now()));
    }

    /// Leaves: drops the resident, refuses senders, answers those who wait for the stop.
    fn leave(&mut self) {
        self.furniture.stats.close_inboxes();
        self.evict();
        self.census = None;
        for port in self.stop_ports.drain(..) {
            port.send(());
        }
    }
}

// A shell never pins its resident.
impl<A: Resident> Unpin for Shell<A> {}

impl<A: Resident> Actor for Shell<A> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Err(text) = self.build(context) {
            self.panicked(context, &text);
        }
    }

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        if !self.stopping && self.resident.is_some() {
            self.stopping = true; // nobody can reach it any more: no lingering
            let _ = self.call(context, Resident::stopping);
        }
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.leave();
    }
}

impl<A: Resident> Drop for Shell<A> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<A, M> Handler<Held<M>> for Shell<A>
where
    A: Receive<M>,
    M: Weigh + Send + 'static,
{
    type Result = ();

    fn handle(&mut self, held: Held<M>, context: &mut Context<Self>) {
        let Held { msg, credit, put_ns } = held;
        let more = self.furniture.stats.receive_one(put_ns);
        let begun_ns = match self.handler_ended_ns {
            Some(ended_ns) => ended_ns,
            None => self.furniture.place.process().clock.monotonic_ns(),
        };
        self.call_or_rebuild(context, |resident, room| resident.receive(msg, credit, room));
        self.handler_ended(context, begun_ns, more);
    }
}

impl<A: Resident> Handler<DrainedNotice> for Shell<A> {
    type Result = ();

    fn handle(&mut self, _: DrainedNotice, context: &mut Context<Self>) {
        self.furniture.notice_pending = false;
        self.handler_ended_ns = None;
        let Some(on_drained) = self.furniture.on_drained.take() else { return };
        let clock = self.furniture.place.process().clock;
        let begun_ns = clock.monotonic_ns();
        self.call_or_rebuild(context, on_drained);
        // A resident that goes on in slices asks for the next one here; actix has all of them run
        // before anything else does.
        if self.is_burst_over(clock.monotonic_ns().saturating_sub(begun_ns)) {
            Self::give_way(context);
        }
    }
}

impl<A: Resident> Handler<Poisoned> for Shell<A> {
    type Result = ();

    fn handle(&mut self, Poisoned { text }: Poisoned, context: &mut Context<Self>) {
        self.handler_ended_ns = None;
        if self.resident.is_some() {
            self.panicked(context, &text);
        }
    }
}

impl<A: Resident> Handler<StopNow> for Shell<A> {
    type Result = ();

    fn handle(&mut self, StopNow { port }: StopNow, context: &mut Context<Self>) {
        self.handler_ended_ns = None;
        self.stop_ports.push(port);
        if !self.stopping {
            self.stopping = true;
            self.begin_stopping(context);
        }
    }
}
