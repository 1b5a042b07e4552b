//! Subscriptions against a model: batches of any size, credit in any portions, turns that come
//! late or in vain, seeks and ends at any time. What is sent must follow on without gap or
//! repetition, keep to its credit, come from behind the last seek, and come to an end.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const SUBSCRIBERS: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    Store { records: u64, bytes: u64 },
    Open { who: u64, from: u64, credit: (u32, u32) },
    Close { who: u64 },
    Credit { who: u64, credit: (u32, u32) },
    Seek { who: u64, from: u64, credit: (u32, u32) },
    GiveTurn,
    Cold,
    Warm,
    PutOff,
    Resume,
}

/// What the model knows of a subscriber.
#[derive(Debug)]
struct Subscriber {
    next: u64,
    given: (i64, i64),
    sent: (i64, i64),
    /// The largest batch it was sent.
    batch_max: (i64, i64),
}

struct World {
    subscriptions: Subscriptions<u64>,
    /// First offset, records, bytes.
    batches: Vec<(u64, u64, u64)>,
    end: u64,
    subscribers: BTreeMap<u64, Subscriber>,
    asked: VecDeque<SubscriptionKey>,
    cold: Vec<(SubscriptionKey, Turn)>,
    /// Who was sent something, in order.
    served: Vec<u64>,
}

fn key(who: u64) -> SubscriptionKey {
    SubscriptionKey { connection: who % 2, id: SubscriptionId(who) }
}

fn account(credit: (u32, u32)) -> Account {
    Account::new(credit.0, credit.1)
}

impl World {
    fn new() -> Self {
        Self {
            subscriptions: Subscriptions::new(usize::try_from(SUBSCRIBERS).unwrap()),
            batches: Vec::new(),
            end: 0,
            subscribers: BTreeMap::new(),
            asked: VecDeque::new(),
            cold: Vec::new(),
            served: Vec::new(),
        }
    }

    fn ask_all(&mut self) {
        let asked = self.subscriptions.ask_all(Offset(self.end));
        self.asked.extend(asked);
    }

    fn stands(next: u64) -> Standing {
        Standing { next: Offset(next), last_term: Term(1) }
    }

    fn subscriber(from: u64, credit: (u32, u32)) -> Subscriber {
        let given = (i64::from(credit.0), i64::from(credit.1));
        Subscriber { next: from, given, sent: (0, 0), batch_max: (0, 0) }
    }

    /// Sends what the turn allows, as the shell does.
    fn read(&mut self, key: SubscriptionKey, turn: Turn) {
        if !self.subscriptions.is_current(key, turn.course) {
            return self.ask_all();
        }
        let next = turn.standing.next.0;
        let (mut messages, mut bytes, mut to) = (0, 0, next);
        let model = self.subscribers.get_mut(&key.id.0).expect("only the living have turns");
        assert_eq!(next, model.next, "a gap or a repetition");
        for (base, records, length) in &self.batches {
            let is_before = base + records <= to;
            let is_full = messages >= turn.messages_max || bytes + length > turn.bytes_max.into();
            if is_before || (messages > 0 && is_full) {
                continue;
            }
            let left = (model.given.0 - model.sent.0, model.given.1 - model.sent.1);
            assert!(left.0 > 0 && left.1 > 0, "sent without credit");
            let size = (records.cast_signed(), length.cast_signed());
            model.sent = (model.sent.0 + size.0, model.sent.1 + size.1);
            model.batch_max = (model.batch_max.0.max(size.0), model.batch_max.1.max(size.1));
            (messages, bytes, to) = (messages + records, bytes + length, base + records);
        }
        if messages == 0 {
            self.subscriptions.nothing_sent(key);
        } else {
            model.next = to;
            self.served.push(key.id.0);
            self.subscriptions.sent(key, Spent { standing: Self::stands(to), messages, bytes });
        }
        self.ask_all();
    }

    fn take_turn(&mut self) -> Option<(SubscriptionKey, Turn)> {
        let key = self.asked.pop_front()?;
        let turn = self.subscriptions.turn(key);
        if turn.is_none() {
            self.ask_all();
        }
        Some((key, turn?))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Store { records, bytes } => {
                self.batches.push((self.end, records, bytes));
                self.end += records;
            }
            Step::Open { who, from, credit } => {
                let from = from.min(self.end);
                if self
                    .subscriptions
                    .open(key(who), Self::stands(from), account(credit), who)
                    .is_ok()
                {
                    // What is read for the one before comes all the same.
                    self.asked.retain(|asked| *asked != key(who));
                    self.subscribers.insert(who, Self::subscriber(from, credit));
                }
            }
            Step::Close { who } => {
                let closed = self.subscriptions.close(key(who));
                assert_eq!(closed.is_some(), self.subscribers.remove(&who).is_some());
            }
            Step::Credit { who, credit } => {
                let known = self.subscriptions.credit(key(who), account(credit));
                assert_eq!(known, self.subscribers.contains_key(&who));
                if let Some(model) = self.subscribers.get_mut(&who) {
                    model.given.0 += i64::from(credit.0);
                    model.given.1 += i64::from(credit.1);
                }
            }
            Step::Seek { who, from, credit } => {
                let from = from.min(self.end);
                if self.subscriptions.seek(key(who), Self::stands(from), account(credit)) {
                    self.subscribers.insert(who, Self::subscriber(from, credit));
                }
            }
            Step::GiveTurn => {
                if let Some((key, turn)) = self.take_turn() {
                    self.read(key, turn);
                }
            }
            Step::Cold => self.cold.extend(self.asked.pop_front().and_then(|key| {
                let turn = self.subscriptions.turn(key)?;
                Some((key, turn))
            })),
            Step::Warm => {
                if let Some((key, turn)) = self.cold.pop() {
                    self.read(key, turn);
                }
            }
            Step::PutOff => {
                if let Some((key, _)) = self.take_turn() {
                    self.subscriptions.put_off(key);
                    assert!(self.subscriptions.has_put_off());
                }
            }
            Step::Resume => self.subscriptions.resume(),
        }
        self.ask_all();
        for (who, model) in &self.subscribers {
            let (given, sent, most) = (model.given, model.sent, model.batch_max);
            assert!(sent.0 < given.0.max(1) + most.0, "messages beyond the credit of {who}");
            assert!(sent.1 < given.1.max(1) + most.1, "bytes beyond the credit of {who}");
        }
    }

    /// With credit enough, everybody gets to the end, taking turns.
    fn calm(&mut self) {
        self.step(Step::Resume);
        while !self.cold.is_empty() {
            self.step(Step::Warm);
        }
        for who in 0..SUBSCRIBERS {
            self.step(Step::Credit { who, credit: (1 << 20, 1 << 30) });
        }
        self.served.clear();
        let waiting: Vec<u64> = self.asked.iter().map(|key| key.id.0).collect();
        for _ in 0..10_000 {
            if self.asked.is_empty() {
                break;
            }
            self.step(Step::GiveTurn);
        }
        let first: Vec<u64> = self.served.iter().copied().take(waiting.len()).collect();
        let mut once = first.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), first.len(), "somebody had two turns before another had one");
        for (who, model) in &self.subscribers {
            assert_eq!(model.next, self.end, "subscriber {who} stands still");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..SUBSCRIBERS;
    let credit = || (0_u32..6, 0_u32..3_000);
    prop_oneof![
        4 => (1_u64..5, 64_u64..1_500).prop_map(|(records, bytes)| Step::Store { records, bytes }),
        2 => (who(), 0_u64..60, credit())
            .prop_map(|(who, from, credit)| Step::Open { who, from, credit }),
        1 => who().prop_map(|who| Step::Close { who }),
        3 => (who(), credit()).prop_map(|(who, credit)| Step::Credit { who, credit }),
        1 => (who(), 0_u64..60, credit())
            .prop_map(|(who, from, credit)| Step::Seek { who, from, credit }),
        6 => Just(Step::GiveTurn),
        1 => Just(Step::Cold),
        1 => Just(Step::Warm),
        1 => Just(Step::PutOff),
        1 => Just(Step::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_subscriber_gets_its_queue_in_order_within_its_credit(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for one in steps {
            world.step(one);
        }
        world.calm();
    }
}

#[test]
fn a_credit_smaller_than_a_batch_makes_progress_by_one_batch() {
    let mut subscriptions = Subscriptions::new(1);
    let (key, end) = (key(0), Offset(10));
    subscriptions.open(key, World::stands(0), Account::new(1, 1), 0).unwrap();
    assert!(subscriptions.ask(key, end));
    let turn = subscriptions.turn(key).unwrap();
    assert_eq!((turn.bytes_max, turn.messages_max), (1, 1));
    let spent = Spent { standing: World::stands(10), messages: 10, bytes: 5_000 };
    subscriptions.sent(key, spent);
    assert!(!subscriptions.ask(key, Offset(20)), "the accounts are below 0");
    subscriptions.credit(key, Account::new(10, 4_999));
    assert!(!subscriptions.ask(key, Offset(20)), "bytes are at 0");
    subscriptions.credit(key, Account::new(0, 1));
    assert!(subscriptions.ask(key, Offset(20)));
}

#[test]
fn what_was_read_for_one_that_ended_is_none_of_the_next_one_of_its_key() {
    let mut subscriptions = Subscriptions::new(1);
    let (key, end) = (key(0), Offset(9_000));
    let turn_of = |subscriptions: &mut Subscriptions<u64>, from| {
        subscriptions.open(key, World::stands(from), Account::new(9, 9_000), 0).unwrap();
        assert!(subscriptions.ask(key, end));
        subscriptions.turn(key).unwrap()
    };
    let first = turn_of(&mut subscriptions, 10);
    subscriptions.close(key);
    let second = turn_of(&mut subscriptions, 5_000);
    assert!(!subscriptions.is_current(key, first.course));
    assert!(subscriptions.is_current(key, second.course), "and its own goes on");
}

#[test]
fn a_full_queue_gives_the_sink_back_but_takes_the_same_key_again() {
    let mut subscriptions = Subscriptions::new(1);
    subscriptions.open(key(0), World::stands(0), Account::new(1, 1), 'a').unwrap();
    let refused = subscriptions.open(key(1), World::stands(0), Account::new(1, 1), 'b');
    assert_eq!(refused, Err('b'));
    subscriptions.open(key(0), World::stands(0), Account::new(1, 1), 'c').unwrap();
    assert_eq!((subscriptions.sink(key(0)), subscriptions.len()), (Some(&'c'), 1));
}

#[test]
fn credit_beyond_all_measure_is_not_counted() {
    let mut account = Account::new(u32::MAX, u32::MAX);
    for _ in 0..10_000 {
        account.add(Account::new(u32::MAX, u32::MAX));
    }
    account.spend(CREDIT_MAX.unsigned_abs(), 0);
    assert!(!account.is_open());
}
