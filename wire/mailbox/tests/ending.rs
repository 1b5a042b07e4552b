//! How actors end: in stages, with their last work done, and with every thread joined.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{pass, paused_place, settle};
use grus_mailbox::{
    ActorSpec, Answer, Credit, Dropped, Host, HostHandle, Inbox, Place, Places, Port, Process,
    PutError, Receive, Resident, Room, Shutdown, Tick, Weigh, reply,
};

#[derive(Debug)]
struct Work(u32);
impl Weigh for Work {}

/// What happened, in its order, on any thread.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn add(&self, event: impl Into<String>) {
        self.0.lock().expect("no panic in here").push(event.into());
    }

    fn events(&self) -> Vec<String> {
        self.0.lock().expect("no panic in here").clone()
    }
}

/// Hands its work on to the next, if there is one; the last one writes it down, slowly.
struct Link {
    name: &'static str,
    next: Option<Inbox<Work>>,
    diary: Diary,
}

impl Resident for Link {
    fn stopping(&mut self, _: &mut Room<'_, Self>) {
        self.diary.add(format!("{} stops", self.name));
    }
}

impl Receive<Work> for Link {
    fn receive(&mut self, work: Work, _: Credit, _: &mut Room<'_, Self>) {
        if let Some(next) = &self.next {
            return next.try_put(work).expect("sized for all, and stopped later");
        }
        block_for(Duration::from_micros(200));
        self.diary.add(format!("{} stored {}", self.name, work.0));
    }
}

/// Keeps this thread busy for `time` of real time.
#[expect(clippy::disallowed_methods, reason = "stands in for a disk")]
fn block_for(time: Duration) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn link(
    place: &Place,
    name: &'static str,
    next: Option<Inbox<Work>>,
    diary: &Diary,
) -> HostHandle<Link> {
    let diary = diary.clone();
    Host::spawn(place, ActorSpec::new("Link", name), move || Link {
        name,
        next: next.clone(),
        diary: diary.clone(),
    })
}

#[actix::test]
async fn shutdown_runs_its_stages_in_order_and_the_last_work_of_storage_is_not_lost() {
    let process = Process::system();
    let mut places = Places::start(2, &process);
    let disk = places.open("flush-0");
    let diary = Diary::default();
    let storage = link(&disk, "storage", None, &diary);
    let queue = link(places.core(1), "queue", Some(storage.inbox(500)), &diary);
    let edge = link(places.core(0), "edge", Some(queue.inbox(500)), &diary);

    let inbox: Inbox<Work> = edge.inbox(500);
    for number in 0..300 {
        inbox.try_put(Work(number)).unwrap();
    }
    let mut shutdown = Shutdown::new(Duration::from_mins(2));
    shutdown.stage("edge").actor(&edge).stage("queues").actor(&queue);
    shutdown.stage("storage").actor(&storage);
    let reports = shutdown.run().await;
    let told: Vec<_> = reports.iter().map(|report| report.name).collect();
    assert_eq!(told, ["edge", "queues", "storage"]);
    assert!(reports.iter().all(|report| report.overdue.is_empty()), "{reports:?}");

    let events = diary.events();
    let stored: Vec<_> = events.iter().filter(|event| event.contains("stored")).cloned().collect();
    let expected: Vec<_> = (0..300).map(|number| format!("storage stored {number}")).collect();
    assert_eq!(stored, expected);
    let stops: Vec<_> = events.iter().filter(|event| event.ends_with("stops")).cloned().collect();
    assert_eq!(stops, ["edge stops", "queue stops", "storage stops"]);
    assert!(process.census.is_empty());
    assert!(places.stop_and_join().await.is_empty());
}

/// Counts itself while it lives.
struct Living(Arc<AtomicUsize>);

impl Living {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[actix::test]
async fn every_arbiter_is_joined_and_what_still_lived_there_is_dropped() {
    thread_local! {
        static ON_THREAD: std::cell::RefCell<Option<Living>> = const { std::cell::RefCell::new(None) };
    }
    let process = Process::system();
    let mut places = Places::start(3, &process);
    let flush = places.open("flush-0");
    let living = Arc::new(AtomicUsize::new(0));
    let mut there: Vec<Answer<()>> = Vec::new();
    let homes: Vec<_> = places.cores().iter().chain([&flush]).cloned().collect();
    for place in &homes {
        let living = Arc::clone(&living);
        there.push(place.run(move || async move {
            ON_THREAD.with(|cell| *cell.borrow_mut() = Some(Living::new(&living)));
        }));
    }
    for answer in there {
        answer.await.unwrap();
    }
    let diary = Diary::default();
    let forgotten = link(&homes[0], "forgotten", None, &diary);
    let inbox: Inbox<Work> = forgotten.inbox(1);
    inbox.put(Work(1)).await.unwrap();
    assert_eq!(living.load(Ordering::SeqCst), 4);

    assert!(places.stop_and_join().await.is_empty());
    assert_eq!(living.load(Ordering::SeqCst), 0, "a thread's locals are dropped at its end");
    assert!(matches!(inbox.put(Work(2)).await, Err(PutError::Stopped(_))));
    assert!(process.census.is_empty());
    forgotten.stop().await; // answered at once: it is long gone
    assert_eq!(homes[0].run(|| async { 1 }).await, Err(Dropped));
}

/// Holds an inbox of another, which holds one of it.
struct Friend {
    other: Option<Inbox<Meet>>,
    _living: Living,
}

struct Meet(Option<Inbox<Meet>>);
impl Weigh for Meet {}

impl Resident for Friend {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(Duration::from_millis(10));
    }
}
impl Receive<Tick> for Friend {
    fn receive(&mut self, _: Tick, _: Credit, _: &mut Room<'_, Self>) {}
}
impl Receive<Meet> for Friend {
    fn receive(&mut self, Meet(other): Meet, _: Credit, _: &mut Room<'_, Self>) {
        if other.is_some() {
            self.other = other;
        }
    }
}

fn friend(place: &Place, living: &Arc<AtomicUsize>) -> HostHandle<Friend> {
    let living = Arc::clone(living);
    Host::spawn_local(place, ActorSpec::new("Friend", "f"), move || Friend {
        other: None,
        _living: Living::new(&living),
    })
}

#[actix::test]
async fn two_actors_that_hold_inboxes_of_each_other_still_stop() {
    let place = paused_place();
    let living = Arc::new(AtomicUsize::new(0));
    let (one, two) = (friend(&place, &living), friend(&place, &living));
    let to_two: Inbox<Meet> = two.inbox(1);
    one.inbox::<Meet>(1).put(Meet(Some(to_two.clone()))).await.unwrap();
    two.inbox::<Meet>(1).put(Meet(Some(one.inbox(1)))).await.unwrap();
    settle().await;
    assert_eq!(living.load(Ordering::SeqCst), 2);

    one.stop().await;
    assert_eq!(living.load(Ordering::SeqCst), 1, "its state is dropped when stop answers");
    to_two.try_put(Meet(None)).unwrap();
    two.stop().await;
    assert_eq!(living.load(Ordering::SeqCst), 0);
    assert!(matches!(to_two.try_put(Meet(None)), Err(PutError::Stopped(_))));
    assert!(place.process().census.is_empty());
}

#[actix::test]
async fn an_actor_that_nobody_holds_stops_though_its_ticker_runs() {
    let place = paused_place();
    let living = Arc::new(AtomicUsize::new(0));
    drop(friend(&place, &living));
    pass(50).await;
    assert_eq!(living.load(Ordering::SeqCst), 0);
    assert!(place.process().census.is_empty());
}

/// Finishes what it has under way before it stops.
struct Finisher {
    under_way: u32,
    ending: bool,
}

struct Finished;
impl Weigh for Finished {}
struct Begin(Port<&'static str>);
impl Weigh for Begin {}

impl Resident for Finisher {
    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.ending = true;
        if self.under_way > 0 {
            room.linger();
        }
    }
}
impl Receive<Begin> for Finisher {
    fn receive(&mut self, Begin(port): Begin, _: Credit, room: &mut Room<'_, Self>) {
        self.under_way += 1;
        room.spawn_into(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            port.send("done");
            Finished
        });
    }
}
impl Receive<Finished> for Finisher {
    fn receive(&mut self, _: Finished, _: Credit, room: &mut Room<'_, Self>) {
        self.under_way -= 1;
        if self.ending && self.under_way == 0 {
            room.stop();
        }
    }
}

#[actix::test]
async fn an_actor_may_linger_to_finish_what_is_under_way() {
    let place = paused_place();
    let spec = ActorSpec::new("Finisher", "f");
    let handle = Host::spawn_local(&place, spec, || Finisher { under_way: 0, ending: false });
    let (port, answer) = reply::port();
    handle.inbox(1).try_put(Begin(port)).unwrap();
    settle().await;
    assert_eq!(place.process().census.snapshot()[0].tasks, 1);
    handle.stop().await;
    assert_eq!(answer.await, Ok("done"));
    assert!(handle.is_stopped());

    let idle = Host::spawn_local(&place, ActorSpec::new("Finisher", "g"), || Finisher {
        under_way: 0,
        ending: false,
    });
    idle.stop().await;
    assert!(idle.is_stopped());
}

/// Never stops by itself.
struct Stubborn;
impl Resident for Stubborn {
    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        room.linger();
    }
}

#[actix::test]
async fn a_stage_that_is_overdue_is_named_and_the_next_one_runs() {
    let place = paused_place();
    let stubborn = Host::spawn_local(&place, ActorSpec::new("Stubborn", "s"), || Stubborn);
    let diary = Diary::default();
    let last = link(&place, "last", None, &diary);
    let mut shutdown = Shutdown::new(Duration::from_secs(4));
    shutdown.stage("first").actor(&stubborn).stage("second").actor(&last);
    let reports = shutdown.run().await;
    assert_eq!(reports[0].overdue, ["HostHandle(Stubborn/s)"]);
    assert!(reports[0].took_ms >= 2_000);
    assert!(reports[1].overdue.is_empty());
    assert_eq!(diary.events(), ["last stops"]);
}

/// Stages of these shares that stop at once, or never: how long each takes of 12 seconds, in seconds.
async fn seconds_of(stages: &[(u32, bool)]) -> Vec<u64> {
    let mut shutdown = Shutdown::new(Duration::from_secs(12));
    for (shares, ends) in stages.iter().copied() {
        shutdown.long_stage("stage", shares).step("step", move || async move {
            if !ends {
                std::future::pending::<()>().await;
            }
        });
    }
    let reports = shutdown.run().await;
    reports.iter().map(|report| (report.took_ms + 500) / 1_000).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stage_has_its_share_of_what_is_left_and_all_of_them_keep_to_the_whole() {
    assert_eq!(seconds_of(&[(1, false), (1, false), (1, false)]).await, [4, 4, 4]);
    assert_eq!(seconds_of(&[(2, false), (1, false), (1, false)]).await, [6, 3, 3]);
    assert_eq!(seconds_of(&[(2, true), (1, false), (1, false)]).await, [0, 6, 6], "goes on");
    assert_eq!(seconds_of(&[(1, false), (1, true), (1, false)]).await, [4, 0, 8], "goes on");
    assert_eq!(seconds_of(&[(0, false), (1, false)]).await, [6, 6], "never none");
    assert_eq!(seconds_of(&[]).await, Vec::<u64>::new());
}
