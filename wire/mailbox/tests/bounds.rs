//! What an actor holds is bounded, and is received in the order in which it was put.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{paused_place, settle};
use grus_mailbox::{
    ActorSpec, Credit, Drained, Host, HostHandle, Inbox, Place, PutError, Receive, Resident, Room,
    Weigh,
};

#[derive(Debug, PartialEq)]
struct Job(u64);
impl Weigh for Job {}

/// Weighs its size.
#[derive(Debug)]
struct Blob(Vec<u8>);
impl Weigh for Blob {
    fn weight(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

/// Gives up all it holds.
#[derive(Debug)]
struct LetGo;
impl Weigh for LetGo {}

#[derive(Default, Clone)]
struct Seen {
    events: Rc<RefCell<Vec<String>>>,
}

impl Seen {
    fn add(&self, event: impl Into<String>) {
        self.events.borrow_mut().push(event.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.events.borrow_mut())
    }
}

/// Keeps every credit until it is told to let go.
struct Keeper {
    seen: Seen,
    held: Vec<Credit>,
}

impl Resident for Keeper {}

impl Receive<Job> for Keeper {
    fn receive(&mut self, Job(number): Job, credit: Credit, room: &mut Room<'_, Self>) {
        self.seen.add(format!("job {number}"));
        self.held.push(credit);
        room.notify_drained();
    }
}

impl Receive<Blob> for Keeper {
    fn receive(&mut self, blob: Blob, credit: Credit, _: &mut Room<'_, Self>) {
        self.seen.add(format!("blob {}", blob.0.len()));
        self.held.push(credit);
    }
}

impl Receive<LetGo> for Keeper {
    fn receive(&mut self, _: LetGo, _: Credit, _: &mut Room<'_, Self>) {
        self.held.clear();
    }
}

impl Receive<Drained> for Keeper {
    fn receive(&mut self, _: Drained, _: Credit, _: &mut Room<'_, Self>) {
        self.seen.add("drained");
    }
}

fn keeper(place: &Place) -> (HostHandle<Keeper>, Seen) {
    let seen = Seen::default();
    let shared = seen.clone();
    let spec = ActorSpec::new("Keeper", "k");
    let handle =
        Host::spawn_local(place, spec, move || Keeper { seen: shared.clone(), held: Vec::new() });
    (handle, seen)
}

#[actix::test]
async fn a_flood_stays_at_the_capacity() {
    let place = paused_place();
    let (handle, seen) = keeper(&place);
    let inbox: Inbox<Job> = handle.inbox(4);

    let mut refused = 0;
    for number in 0..100_000 {
        match inbox.clone().try_put(Job(number)) {
            Ok(()) => {}
            Err(PutError::Full(Job(back))) => {
                assert_eq!(back, number);
                refused += 1;
            }
            Err(PutError::Stopped(_)) => panic!("it lives"),
        }
    }
    assert_eq!(refused, 100_000 - 4);
    settle().await;
    assert_eq!(seen.take().len(), 4 + 1, "four jobs, and one drained");

    let report = &place.process().census.snapshot()[0];
    assert_eq!((report.inboxes[0].depth, report.inboxes[0].capacity), (4, 4));
    assert_eq!((report.queued, report.handled), (0, 4), "received, but not over");
    assert!(inbox.try_put(Job(0)).unwrap_err().is_full());

    handle.inbox::<LetGo>(1).try_put(LetGo).unwrap();
    settle().await;
    inbox.try_put(Job(7)).unwrap();
    settle().await;
    assert_eq!(seen.take(), ["job 7", "drained"]);
}

#[actix::test]
async fn a_thousand_senders_that_wait_are_served_in_their_order() {
    let place = paused_place();
    let (handle, seen) = keeper(&place);
    let inbox: Inbox<Job> = handle.inbox(2);
    let let_go: Inbox<LetGo> = handle.inbox(1);

    let senders: Vec<_> = (0..1_000)
        .map(|number| {
            let inbox = inbox.clone();
            actix::spawn(async move { inbox.put(Job(number)).await.unwrap() })
        })
        .collect();
    settle().await;
    assert_eq!(inbox.free(), 0);
    while senders.iter().any(|sender| !sender.is_finished()) {
        // Room was made for the first who waits: nobody comes in between, whatever its verb.
        let_go.try_put(LetGo).unwrap();
        settle().await;
    }
    let jobs: Vec<_> = seen.take().into_iter().filter(|event| event != "drained").collect();
    let expected: Vec<_> = (0..1_000).map(|number| format!("job {number}")).collect();
    assert_eq!(jobs, expected);
}

#[actix::test]
async fn inboxes_of_several_types_share_one_order_and_each_has_its_own_credits() {
    let place = paused_place();
    let (handle, seen) = keeper(&place);
    let jobs: Inbox<Job> = handle.inbox(1);
    let blobs: Inbox<Blob> = handle.inbox(1_000);

    blobs.try_put(Blob(vec![0; 600])).unwrap();
    jobs.try_put(Job(1)).unwrap();
    blobs.try_put(Blob(vec![0; 400])).unwrap();
    assert!(jobs.try_put(Job(2)).unwrap_err().is_full());
    assert!(blobs.try_put(Blob(vec![0; 1])).unwrap_err().is_full());
    settle().await;
    assert_eq!(seen.take(), ["blob 600", "job 1", "blob 400", "drained"]);

    handle.inbox::<LetGo>(1).try_put(LetGo).unwrap();
    settle().await;
    blobs.try_put(Blob(vec![0; 5_000])).unwrap();
    assert_eq!(blobs.free(), 0, "more than the capacity counts as the capacity");
}

#[actix::test]
async fn drained_comes_once_for_all_that_waited() {
    let place = paused_place();
    let (handle, seen) = keeper(&place);
    let inbox: Inbox<Job> = handle.inbox(200);
    for number in 0..200 {
        inbox.try_put(Job(number)).unwrap();
    }
    settle().await;
    let events = seen.take();
    assert_eq!(events.len(), 201);
    assert_eq!(events[200], "drained");
}
