//! Members of the group that are consumers of the client: its own logic joins, claims, subscribes, acknowledges and
//! lets go, by the frames that go over a connection; the program works on what it is given. Its process may stand
//! still, also between looking at the clock and speaking, and its connections may be cut.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use grus_client::simulated::{ConsumerStep, GivenMessage, GivenVerdict, SimulatedConsumer};
use grus_protocol::frame::{Frame, FrameHead, decode, encode};
use grus_protocol::ids::QueueKey;
use grus_protocol::limits::FrameLimits;
use grus_protocol::message::{GroupOptions, JoinGroupReply};
use grus_protocol::names::{GroupName, TopicName};
use grus_protocol::{ErrorCode, ErrorReply, Opcode};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::clients::find_links;
use super::kinds::Kind;
use super::lines::{Line, Ways};
use super::senders::{BROKERS, Lines};
use super::{CONSUMED, ORDERS_NAME};
use crate::groups::facts::{Dice, Fact};
use crate::groups::member::{
    DELIVERIES_MAX, FAILS_REASON, GIVES_UP_REASON, Life, SESSION_MS, live,
};
use crate::later::number_of;
use coordinator::ask_coordinator;
use leaders::{Way, ask_leader, tell_leader};

mod coordinator;
mod leaders;
mod sink;

const TICK: Duration = Duration::from_millis(25);
/// The coordinator's answer is not waited for any longer: a heartbeat is held for a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Messages that it works on at once: few, so that others are in its hands unseen when it lets go of them.
const IN_WORK_MAX: usize = 2;
/// How long it waits for what is in work as it leaves, in milliseconds.
const LEAVES_WITHIN_MS: u64 = 2_000;

enum Event {
    Up(u32),
    Down(u32),
    Coordinator(u64, Option<Frame>),
    Leader((u64, u64), Frame),
    Pushed(Frame),
    Route(TopicName, Option<Vec<Option<u32>>>),
}

struct Member {
    life: Life,
    ways: Rc<Ways>,
    events: UnboundedSender<Event>,
    lines: Vec<Rc<Line<Event>>>,
    consumer: SimulatedConsumer,
    /// What it works on, by when it is done.
    work: BTreeMap<(u64, u64), GivenMessage>,
    taken: u64,
    is_leaving: bool,
}

/// A member of the group goes to work: a consumer of the client, or a program that speaks for itself.
pub(super) fn begin_to_live(kind: Kind, life: Life, lines: &Rc<Lines>) -> JoinHandle<()> {
    if kind.is_by_client {
        spawn_local(consume_by_client(life, Rc::clone(lines)))
    } else {
        spawn_local(live(life))
    }
}

/// Lives until it has left, or is aborted.
async fn consume_by_client(life: Life, lines: Rc<Lines>) {
    let (events, mut happens) = unbounded_channel();
    let ways = Rc::new(Ways {
        town: Rc::clone(&life.town),
        lines,
        dice: RefCell::new(life.dice.clone()),
        strings: Some(Rc::clone(&life.strings)),
        loss_part: 8,
    });
    let mut connections = JoinSet::new();
    let mut to_brokers = Vec::new();
    for broker in 1..=BROKERS {
        let line = Line::new(broker, &ways, &events);
        connections.spawn_local(Rc::clone(&line).keep(Event::Up, Event::Down));
        to_brokers.push(line);
    }
    let options = GroupOptions {
        session_ms: Some(SESSION_MS),
        ladder_ms: Some(vec![50, 200]),
        max_deliveries: Some(DELIVERIES_MAX),
        ..GroupOptions::default()
    };
    let who = (life.session, format!("c{}", life.number));
    let subscriptions = life.subscriptions.clone();
    let seed = ways.dice.borrow_mut().next();
    let group = GroupName::try_from("g").unwrap();
    let consumer = SimulatedConsumer::new(group, who, subscriptions, options, seed);
    let (work, lines) = (BTreeMap::new(), to_brokers);
    let (taken, is_leaving) = (0, false);
    let mut member = Member { life, ways, events, lines, consumer, work, taken, is_leaving };
    loop {
        let event = tokio::select! {
            biased;
            event = happens.recv() => event,
            () = sleep(TICK) => None,
        };
        let stall_ms = member.life.strings.stall_ms.take();
        if stall_ms > 0 {
            let looked_ms = member.now_ms();
            sleep(Duration::from_millis(stall_ms)).await;
            member.act(looked_ms); // as if it had stood still between looking at the clock and speaking
        }
        let now_ms = member.now_ms();
        if let Some(event) = event {
            member.hear(event, now_ms);
        }
        member.consumer.tick(now_ms);
        member.act(now_ms);
        if member.consumer.is_over(now_ms) {
            return;
        }
    }
}

impl Member {
    fn now_ms(&self) -> u64 {
        self.life.town.scribe.now_ms()
    }

    fn hear(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Up(link) => self.consumer.link_up(link),
            Event::Down(link) => self.consumer.link_down(link),
            Event::Coordinator(number, answer) => {
                let joined = answer.as_ref().filter(|frame| frame.head.opcode == Opcode::JoinGroup);
                if let Some(Ok(joined)) = joined.map(Frame::reply::<JoinGroupReply>) {
                    self.life.strings.is_heard_as(joined.member);
                }
                self.consumer.coordinator_answered(number, answer.as_ref(), now_ms);
            }
            Event::Leader(token, frame) => self.consumer.leader_answered(token, &frame, now_ms),
            Event::Pushed(frame) => self.consumer.pushed(&frame, now_ms),
            Event::Route(topic, links) => {
                let none = || ErrorReply::new(ErrorCode::Unavailable, "not heard");
                let route = links.map(|links| (CONSUMED[0].topic, links)).ok_or_else(none);
                self.consumer.route(&topic, route, now_ms);
            }
        }
    }

    /// Does all there is to do, by this time.
    fn act(&mut self, now_ms: u64) {
        if self.life.strings.leaves.get() && !std::mem::replace(&mut self.is_leaving, true) {
            self.consumer.leave(LEAVES_WITHIN_MS, now_ms);
        }
        self.finish(now_ms);
        if self.is_leaving {
            while self.consumer.give(now_ms).is_some() {}
            self.consumer.give_back(now_ms);
        } else {
            self.take_on(now_ms);
        }
        while let Some(step) = self.consumer.poll(now_ms) {
            self.step(step);
        }
        let member = self.life.strings.member();
        for (topic, queue) in self.consumer.poll_revoked() {
            let queue = QueueKey { topic, queue };
            let member = member.map_or(0, |member| member.0);
            self.life.town.scribe.note(Fact::LetGo { queue, member });
        }
    }

    fn take_on(&mut self, now_ms: u64) {
        while self.work.len() < IN_WORK_MAX
            && let Some(message) = self.consumer.give(now_ms)
        {
            self.note_given(&message);
            self.taken += 1;
            let done_ms = now_ms + 1 + self.ways.below(60);
            self.work.insert((done_ms, self.taken), message);
        }
    }

    fn note_given(&self, message: &GivenMessage) {
        let (session, slot) = (self.life.session, message.slot());
        let queue = QueueKey { topic: CONSUMED[0].topic, queue: message.queue };
        let (offset, before) = (message.offset.0, message.deliveries);
        let number = number_of(message.body.as_ref().expect("it can be read"));
        let given = Fact::Given { session, slot, queue, offset, number, before };
        self.life.town.scribe.note(given);
    }

    /// Answers for what is done by now.
    fn finish(&mut self, now_ms: u64) {
        while let Some(entry) = self.work.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let message = entry.remove();
            let queue = QueueKey { topic: CONSUMED[0].topic, queue: message.queue };
            self.life.town.scribe.note(Fact::Handled(queue, message.offset.0));
            let odds = Dice::new(queue.queue.0.into(), message.offset.0).below(40);
            let verdict = match (odds, self.ways.below(100)) {
                (0, _) | (_, 0..6) => GivenVerdict::Nack(FAILS_REASON.into()),
                (_, 6) => GivenVerdict::Dead(GIVES_UP_REASON.into()),
                _ => GivenVerdict::Ack,
            };
            if matches!(verdict, GivenVerdict::Nack(_)) {
                let (session, slot) = (self.life.session, message.slot());
                let offset = message.offset.0;
                self.life.town.scribe.note(Fact::Failed { session, slot, queue, offset });
            }
            self.consumer.settle(&message, verdict, now_ms);
        }
    }

    fn step(&mut self, step: ConsumerStep) {
        match step {
            ConsumerStep::AskCoordinator { number, frame } => self.ask(number, &opened(frame)),
            ConsumerStep::AskLeader { link, token, frame } => {
                let (frame, scribe) = (opened(frame), self.life.town.scribe.clone());
                let session = self.life.session;
                self.lines[link as usize - 1].send(move |broker, back, connection| {
                    let from = (session << 16) | connection;
                    ask_leader(broker, &frame, &Way { token, back: back.clone(), scribe, from });
                });
            }
            ConsumerStep::Tell { link, frame } => {
                let (frame, session) = (opened(frame), self.life.session);
                self.lines[link as usize - 1].send(move |broker, _, connection| {
                    tell_leader(broker, &frame, (session << 16) | connection);
                });
            }
            ConsumerStep::FindRoute(topic) => {
                assert_eq!(topic.as_str(), ORDERS_NAME, "a topic that the group consumes");
                let (ways, events) = (Rc::clone(&self.ways), self.events.clone());
                let queues = u32::try_from(CONSUMED.len()).unwrap();
                spawn_local(async move {
                    let links = find_links(&ways, CONSUMED[0].topic, queues).await;
                    let _ = events.send(Event::Route(topic, links)); // it has ended
                });
            }
        }
    }

    /// Asks the coordinator, wherever it is.
    fn ask(&self, number: u64, frame: &Frame) {
        let (ways, events) = (Rc::clone(&self.ways), self.events.clone());
        let connection = self.life.strings.connection(self.life.number);
        let is_cut = self.life.strings.flag();
        let frame = frame.clone();
        spawn_local(async move {
            let asked = async {
                sleep(ways.way()?).await;
                let handle = ways.town.coordinator()?;
                let answer = ask_coordinator(&frame, connection, |ask| {
                    let _ = handle.asks.try_put(ask); // refused: its port is dropped
                });
                let answer = timeout(ANSWER_WITHIN, answer).await.ok()??;
                sleep(ways.way()?).await;
                Some(answer)
            };
            let answer = asked.await;
            let is_heard = !is_cut.load(Relaxed);
            let answer = answer.filter(|_| is_heard);
            let _ = events.send(Event::Coordinator(number, answer)); // it has ended
        });
    }
}

/// A frame as a broker, or a client, gets it.
fn opened(mut bytes: BytesMut) -> Frame {
    decode(&mut bytes, &FrameLimits::REPLIES).expect("a frame").expect("all of it")
}

/// The answer to a request, as the client gets it.
fn answer_of<T: Serialize>(head: FrameHead, answer: &Result<T, ErrorReply>) -> Frame {
    let mut bytes = BytesMut::new();
    match answer {
        Ok(reply) => encode(head.reply(), reply, 0, &mut bytes),
        Err(error) => encode(head.error_reply(), error, 0, &mut bytes),
    }
    .expect("an answer");
    opened(bytes)
}
