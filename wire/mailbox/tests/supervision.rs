//! A panic costs the message that did it and the state of its actor, and nothing else.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{pass, paused_process, settle};
use grus_mailbox::{
    ActorSpec, Credit, Dropped, FatalReason, Host, HostHandle, Inbox, Place, Port, Process,
    PutError, Receive, Resident, RestartPolicy, Room, Weigh, reply,
};

enum Ask {
    /// Answers how many were asked before, in this life.
    Count(Port<u32>),
    /// Keeps the port and the credit.
    Keep(Port<u32>),
    Panic(Port<u32>),
    PanicInFuture,
    PanicInDrop,
}
impl Weigh for Ask {}

struct Server {
    asked: u32,
    kept: Vec<(Port<u32>, Credit)>,
    panics_in_drop: bool,
}

impl Resident for Server {}

impl Receive<Ask> for Server {
    fn receive(&mut self, ask: Ask, credit: Credit, room: &mut Room<'_, Self>) {
        match ask {
            Ask::Count(port) => {
                port.send(self.asked);
                self.asked += 1;
            }
            Ask::Keep(port) => self.kept.push((port, credit)),
            Ask::Panic(_port) => panic!("injected"),
            Ask::PanicInFuture => room.spawn(async { panic!("injected in a future") }),
            Ask::PanicInDrop => {
                self.panics_in_drop = true;
                panic!("injected, and again in the drop");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        assert!(!self.panics_in_drop, "injected in a drop");
    }
}

fn server(place: &Place, restart: RestartPolicy) -> HostHandle<Server> {
    let spec = ActorSpec { kind: "Server", name: "s".into(), restart };
    Host::spawn_local(place, spec, || Server { asked: 0, kept: Vec::new(), panics_in_drop: false })
}

async fn count(inbox: &Inbox<Ask>) -> Result<u32, Dropped> {
    let (port, answer) = reply::port();
    inbox.put(Ask::Count(port)).await.map_err(|_| Dropped)?;
    answer.await
}

#[actix::test]
async fn a_panicked_actor_serves_again_and_its_credits_and_ports_come_back() {
    let (process, mut fatals) = paused_process();
    let place = Place::here("test", &process);
    let handle = server(&place, RestartPolicy::default());
    let neighbour = server(&place, RestartPolicy::default()).inbox::<Ask>(1);
    let inbox: Inbox<Ask> = handle.inbox(4);
    assert_eq!(count(&inbox).await, Ok(0));
    assert_eq!(count(&neighbour).await, Ok(0));

    let (port, kept) = reply::port();
    inbox.try_put(Ask::Keep(port)).unwrap();
    let (port, panicked) = reply::port();
    inbox.try_put(Ask::Panic(port)).unwrap();
    let (port, behind) = reply::port();
    inbox.try_put(Ask::Count(port)).unwrap();

    assert_eq!(behind.await, Ok(0), "what waited behind is served by the new one");
    assert_eq!((kept.await, panicked.await), (Err(Dropped), Err(Dropped)));
    settle().await;
    assert_eq!(inbox.free(), 4, "all credits came back");
    assert_eq!(count(&inbox).await, Ok(1));
    assert_eq!(count(&neighbour).await, Ok(1), "the neighbour kept its state");

    let restarts: Vec<_> = process.census.snapshot().iter().map(|actor| actor.restarts).collect();
    assert_eq!(restarts, [1, 0]);
    assert!(fatals.try_recv().is_err());
}

#[actix::test]
async fn a_panic_in_a_future_or_in_a_drop_counts_once_and_heals_too() {
    let (process, _fatals) = paused_process();
    let handle = server(&Place::here("test", &process), RestartPolicy::default());
    let inbox: Inbox<Ask> = handle.inbox(4);
    assert_eq!(count(&inbox).await, Ok(0));

    inbox.try_put(Ask::PanicInFuture).unwrap();
    settle().await;
    assert_eq!(count(&inbox).await, Ok(0), "rebuilt");
    inbox.try_put(Ask::PanicInDrop).unwrap();
    pass(1_000).await;
    assert_eq!(count(&inbox).await, Ok(0), "rebuilt again");
    assert_eq!(process.census.restarts_total(), 2);
}

#[actix::test]
async fn the_restart_limit_ends_the_process() {
    let (process, mut fatals) = paused_process();
    let policy = RestartPolicy::Rebuild { restarts_max: 3, window_ms: 60_000 };
    let handle = server(&Place::here("test", &process), policy);
    let inbox: Inbox<Ask> = handle.inbox(4);
    for _ in 0..3 {
        let (port, _answer) = reply::port();
        inbox.try_put(Ask::Panic(port)).unwrap();
        assert_eq!(count(&inbox).await, Ok(0), "within the limit it serves again");
    }
    let (port, answer) = reply::port();
    inbox.try_put(Ask::Panic(port)).unwrap();
    assert_eq!(answer.await, Err(Dropped));
    let fatal = fatals.recv().await.unwrap();
    assert_eq!((fatal.reason, fatal.actor.as_str()), (FatalReason::RestartLimit, "Server/s"));
    assert_eq!(fatal.detail, "injected");
    settle().await;
    assert!(matches!(inbox.try_put(Ask::PanicInFuture), Err(PutError::Stopped(_))));
    assert!(process.census.is_empty());
}

#[actix::test]
async fn panics_far_apart_never_reach_the_limit() {
    let (process, mut fatals) = paused_process();
    let policy = RestartPolicy::Rebuild { restarts_max: 1, window_ms: 1_000 };
    let handle = server(&Place::here("test", &process), policy);
    let inbox: Inbox<Ask> = handle.inbox(4);
    for _ in 0..10 {
        let (port, _answer) = reply::port();
        inbox.try_put(Ask::Panic(port)).unwrap();
        assert_eq!(count(&inbox).await, Ok(0));
        pass(1_001).await;
    }
    assert!(fatals.try_recv().is_err());
}

#[actix::test]
async fn an_actor_that_never_restarts_ends_the_process_at_its_first_panic() {
    let (process, mut fatals) = paused_process();
    let handle = server(&Place::here("test", &process), RestartPolicy::Never);
    let inbox: Inbox<Ask> = handle.inbox(4);
    let (port, kept) = reply::port();
    inbox.try_put(Ask::Keep(port)).unwrap();
    let (port, _answer) = reply::port();
    inbox.try_put(Ask::Panic(port)).unwrap();
    assert_eq!(fatals.recv().await.unwrap().reason, FatalReason::Panicked);
    assert_eq!(kept.await, Err(Dropped));
    assert!(matches!(inbox.put(Ask::PanicInFuture).await, Err(PutError::Stopped(_))));
    assert!(fatals.try_recv().is_err(), "reported once");
}

struct Flaky {
    _lives: u32,
}
impl Resident for Flaky {}
impl Receive<Ask> for Flaky {
    fn receive(&mut self, ask: Ask, _: Credit, _: &mut Room<'_, Self>) {
        if let Ask::Count(port) = ask {
            port.send(42);
        }
    }
}

#[actix::test]
async fn a_factory_that_panics_is_tried_again_later_and_later() {
    let (process, mut fatals) = paused_process();
    let place = Place::here("test", &process);
    let built_at = Rc::new(RefCell::new(Vec::new()));
    let (clock, log) = (process.clock, Rc::clone(&built_at));
    let handle = Host::spawn_local(&place, ActorSpec::new("Flaky", "f"), move || {
        log.borrow_mut().push(clock.monotonic_ms());
        assert!(log.borrow().len() >= 4, "not yet");
        Flaky { _lives: 1 }
    });
    let inbox: Inbox<Ask> = handle.inbox(1);
    assert_eq!(count(&inbox).await, Ok(42), "the message waits for the actor");
    let delays: Vec<_> = built_at.borrow().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(delays[0], 0, "at once");
    assert!(delays[1] >= 10 && delays[2] >= 20, "then later and later: {delays:?}");
    assert!(fatals.try_recv().is_err());
}

#[actix::test]
async fn an_actor_on_another_arbiter_is_rebuilt_there() {
    let process = Process::system();
    let places = grus_mailbox::Places::start(1, &process);
    let handle = Host::spawn(places.core(0), ActorSpec::new("Server", "far"), || Server {
        asked: 0,
        kept: Vec::new(),
        panics_in_drop: false,
    });
    let inbox: Inbox<Ask> = handle.inbox(4);
    assert_eq!(count(&inbox).await, Ok(0));
    let (port, answer) = reply::port();
    inbox.put(Ask::Panic(port)).await.unwrap();
    assert_eq!(answer.await, Err(Dropped));
    assert_eq!(count(&inbox).await, Ok(0));
    handle.stop().await;
    assert_eq!(process.census.restarts_total(), 1, "the stopped are counted too");
    assert!(places.stop_and_join().await.is_empty());
}
