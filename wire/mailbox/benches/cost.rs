//! What a message costs. Not a test of speed: run by hand, in release, on a quiet machine:
//! `cargo bench -p grus-mailbox --bench cost`

use std::time::Duration;

use grus_mailbox::{
    ActorSpec, Credit, Host, Inbox, Place, Places, Port, Process, Receive, Resident, Room, System,
    Weigh, reply,
};

const MESSAGES: u32 = 2_000_000;
const CAPACITY: u32 = 1_024;

enum Count {
    One,
    Answer(Port<u32>),
}
impl Weigh for Count {}

struct Counter(u32);
impl Resident for Counter {}
impl Receive<Count> for Counter {
    fn receive(&mut self, count: Count, _: Credit, _: &mut Room<'_, Self>) {
        match count {
            Count::One => self.0 += 1,
            Count::Answer(port) => port.send(self.0),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
async fn measure(what: &str, inbox: &Inbox<Count>) {
    let begun = std::time::Instant::now();
    for _ in 0..MESSAGES {
        inbox.put(Count::One).await.expect("it lives");
    }
    let (port, answer) = reply::port();
    inbox.put(Count::Answer(port)).await.expect("it lives");
    assert_eq!(answer.await, Ok(MESSAGES));
    report(what, begun.elapsed(), MESSAGES);

    let questions = 100_000;
    let begun = std::time::Instant::now();
    for _ in 0..questions {
        let (port, answer) = reply::port();
        inbox.put(Count::Answer(port)).await.expect("it lives");
        assert_eq!(answer.await, Ok(MESSAGES));
    }
    report(&format!("{what}, question and answer"), begun.elapsed(), questions);
}

fn report(what: &str, time: Duration, count: u32) {
    println!("{what}: {:.0} ns each", time.as_secs_f64() * 1e9 / f64::from(count));
}

fn main() {
    System::new().block_on(what_a_message_costs());
}

async fn what_a_message_costs() {
    let process = Process::system();
    let here = Place::here("here", &process);
    let near = Host::spawn_local(&here, ActorSpec::new("Counter", "near"), || Counter(0));
    measure("on one arbiter", &near.inbox(CAPACITY)).await;
    near.stop().await;

    let places = Places::start(1, &process);
    let far = Host::spawn(places.core(0), ActorSpec::new("Counter", "far"), || Counter(0));
    measure("to another arbiter", &far.inbox(CAPACITY)).await;
    far.stop().await;
    places.stop_and_join().await;
}
