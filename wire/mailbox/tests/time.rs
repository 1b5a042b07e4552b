//! Time arrives as a message: at most one waits, none is made up for, and none is starved.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use common::{pass, paused_place, settle};
use grus_mailbox::{
    ActorSpec, Credit, Drained, Host, HostHandle, Inbox, Place, Receive, Resident, Room, Tick,
    Ticker, Weigh, outlet,
};
use grus_protocol::ids::TimestampMs;

const PERIOD: Duration = Duration::from_millis(100);
/// Longest that anything may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug)]
struct Stall(Duration);
impl Weigh for Stall {}

/// Sends itself the next one, forever.
#[derive(Debug)]
struct Again;
impl Weigh for Again {}

#[derive(Debug, Clone, Default)]
struct Seen {
    ticks: Rc<RefCell<Vec<Tick>>>,
    drained: Rc<RefCell<u32>>,
}

struct Watcher {
    seen: Seen,
    again: Option<Inbox<Again>>,
}

impl Resident for Watcher {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(PERIOD);
        self.again = Some(room.inbox(2));
    }
}

impl Receive<Tick> for Watcher {
    fn receive(&mut self, tick: Tick, _: Credit, _: &mut Room<'_, Self>) {
        self.seen.ticks.borrow_mut().push(tick);
    }
}

impl Receive<Stall> for Watcher {
    fn receive(&mut self, Stall(time): Stall, _: Credit, _: &mut Room<'_, Self>) {
        // What a handler must never do: time passes, and nothing else runs.
        block_for(time);
    }
}

/// Keeps this thread busy for `time` of real time.
#[expect(clippy::disallowed_methods, reason = "stands in for a handler that takes too long")]
fn block_for(time: Duration) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

impl Receive<Again> for Watcher {
    fn receive(&mut self, _: Again, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit);
        let again = self.again.as_ref().expect("opened at the start");
        again.try_put(Again).expect("its own credit is back");
        room.notify_drained();
    }
}

impl Receive<Drained> for Watcher {
    fn receive(&mut self, _: Drained, _: Credit, _: &mut Room<'_, Self>) {
        *self.seen.drained.borrow_mut() += 1;
    }
}

fn watcher(place: &Place) -> (HostHandle<Watcher>, Seen) {
    let seen = Seen::default();
    let shared = seen.clone();
    let handle = Host::spawn_local(place, ActorSpec::new("Watcher", "w"), move || Watcher {
        seen: shared.clone(),
        again: None,
    });
    (handle, seen)
}

#[actix::test]
async fn ticks_come_every_period_and_carry_the_time() {
    let place = paused_place();
    let (_handle, seen) = watcher(&place);
    pass(350).await;
    let expected: Vec<_> = [100, 200, 300]
        .map(|ms| Tick { now: TimestampMs(1_000_000 + ms), monotonic_ms: ms })
        .into();
    let ticks: Vec<_> = seen.ticks.take();
    assert_eq!(ticks.len(), 3);
    for (tick, expected) in ticks.iter().zip(expected) {
        // The paused clock rounds timers up to a whole millisecond.
        assert!(tick.monotonic_ms - expected.monotonic_ms <= 3, "{tick:?} {expected:?}");
        assert_eq!(tick.now.0 - 1_000_000, tick.monotonic_ms);
    }
}

#[actix::test]
async fn a_stall_is_followed_by_one_tick_and_not_by_a_burst() {
    let place = paused_place();
    let (_handle, seen) = watcher(&place);
    pass(50).await;
    tokio::time::advance(Duration::from_mins(1)).await; // 600 periods in one jump
    settle().await;
    assert_eq!(seen.ticks.take().len(), 1);
    pass(110).await;
    assert_eq!(seen.ticks.take().len(), 1, "and then on in the old step");
}

#[actix::test]
async fn at_most_one_tick_waits_for_an_actor_that_is_busy() {
    let (inbox, mut late) = outlet::<Tick>(1);
    let place = paused_place();
    let ticker = Ticker::start(inbox, PERIOD, place.process().clock);
    pass(1_050).await;
    let (tick, credit) = late.try_take().expect("the first");
    assert!(tick.monotonic_ms < 110, "it is the first that waited: {tick:?}");
    assert!(late.try_take().is_none(), "nine others found no room");
    drop(credit);
    pass(100).await;
    assert!(late.try_take().is_some());
    drop(ticker);
    pass(1_000).await;
    assert!(late.try_take().is_none(), "a dropped ticker ticks no more");
}

#[actix::test]
async fn a_mailbox_that_never_drains_starves_neither_ticker_nor_neighbour_nor_drained() {
    // Real time: on paused time the clock stands still while anyone is busy.
    let process = grus_mailbox::Process::system();
    let place = Place::here("test", &process);
    let (handle, seen) = watcher(&place);
    let again: Inbox<Again> = handle.inbox(2);
    again.put(Again).await.unwrap();
    let neighbour = actix::spawn(async {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    });
    neighbour.await.unwrap();
    let limit = tokio::time::Instant::now() + PATIENCE;
    while seen.ticks.borrow().len() < 3 || *seen.drained.borrow() <= 10 {
        let (ticks, drained) = (seen.ticks.borrow().len(), *seen.drained.borrow());
        assert!(
            tokio::time::Instant::now() < limit,
            "it never drains: it has seen {ticks} ticks and was told {drained} times"
        );
        tokio::task::yield_now().await;
    }
    handle.stop().await;
}

/// Has more to do each time, as one that works in slices.
struct Slicer {
    slices: Rc<Cell<u32>>,
    is_over: Rc<Cell<bool>>,
}

const SLICES_MAX: u32 = 100_000;

impl Resident for Slicer {}

impl Receive<Again> for Slicer {
    fn receive(&mut self, _: Again, _: Credit, room: &mut Room<'_, Self>) {
        room.notify_drained();
    }
}

impl Receive<Drained> for Slicer {
    fn receive(&mut self, _: Drained, _: Credit, room: &mut Room<'_, Self>) {
        self.slices.set(self.slices.get() + 1);
        if !self.is_over.get() && self.slices.get() < SLICES_MAX {
            room.notify_drained();
        }
    }
}

#[actix::test]
async fn one_that_works_in_slices_gives_way_between_them() {
    let place = paused_place(); // its clock stands still: slices are counted
    let (slices, is_over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let own = (Rc::clone(&slices), Rc::clone(&is_over));
    let handle = Host::spawn_local(&place, ActorSpec::new("Slicer", "s"), move || Slicer {
        slices: Rc::clone(&own.0),
        is_over: Rc::clone(&own.1),
    });
    handle.inbox(1).put(Again).await.unwrap();
    while slices.get() == 0 {
        tokio::task::yield_now().await;
    }
    is_over.set(true);
    assert!(slices.get() < SLICES_MAX / 10, "{} slices in a row", slices.get());
    handle.stop().await;
}

#[actix::test]
async fn slow_handlers_give_way_after_each() {
    let process = grus_mailbox::Process::system();
    let place = Place::here("test", &process);
    let (handle, seen) = watcher(&place);
    let stalls: Inbox<Stall> = handle.inbox(100);
    for _ in 0..100 {
        stalls.try_put(Stall(Duration::from_millis(2))).unwrap();
    }
    let turns = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&turns);
    let neighbour = actix::spawn(async move {
        loop {
            *counted.borrow_mut() += 1;
            tokio::task::yield_now().await;
        }
    });
    let limit = tokio::time::Instant::now() + PATIENCE;
    while stalls.free() < 100 || seen.ticks.borrow().is_empty() {
        assert!(tokio::time::Instant::now() < limit);
        tokio::task::yield_now().await;
    }
    assert!(*turns.borrow() >= 100, "a neighbour had {} turns in 200 ms", turns.borrow());
    let report = &process.census.snapshot()[0];
    assert!(report.busy_us >= 200_000, "busy {} us", report.busy_us);
    neighbour.abort();
    handle.stop().await;
}
