//! A reader against modelled queues: answers and pushes of any size, late, lost, refused or
//! damaged, connections that break, seeks. What comes out of each queue must follow on without gap or
//! repetition.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use grus_protocol::error::ErrorDetail;
use grus_protocol::{
    BatchBuilder, BatchLimits, ErrorCode, ErrorReply, MessageId, NewRecord, Offset, QueueId,
    RecordBatch, Term, TimestampMs, TopicId,
};
use proptest::prelude::*;

use super::asking::{Ask, Asking, Telling};
use super::cursor::{Content, Fetched, Want};
use super::state::ReaderState;
use crate::config::{OutOfRange, ReadMode, ReaderConfig, StartAt};
use crate::error::{ReadError, Refusal};
use crate::route::{LinkId, Route};

const QUEUES: u32 = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    Store {
        queue: u32,
        records: u32,
    },
    Route {
        works: bool,
    },
    Ask {
        has_room: bool,
    },
    Answer(How),
    /// Something for one of the subscriptions.
    Push {
        which: usize,
        how: How,
    },
    Tell {
        has_room: bool,
    },
    Up,
    Down,
    Wait {
        ms: u64,
    },
    Take,
    Seek {
        queue: u32,
        to: u64,
    },
    Remove {
        queue: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Well {
        batches: usize,
    },
    Refused(ErrorCode),
    Damaged,
    Skipping,
    /// One batch more than was asked for, before the others.
    Early,
}

fn batch(records: u32) -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for number in 0..records {
        let id = MessageId(uuid::Uuid::from_u128(u128::from(number) + 1));
        builder.push(&NewRecord::new(id, TimestampMs(1), vec![1; 300])).unwrap();
    }
    RecordBatch::from_log(builder.finish()).unwrap()
}

/// The same batch with one of its last bytes changed.
fn damaged(batch: &RecordBatch) -> RecordBatch {
    let mut bytes = batch.bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    RecordBatch::from_log(Bytes::from(bytes)).unwrap()
}

#[derive(Default)]
struct Queue {
    log_start: u64,
    end: u64,
    batches: Vec<(u64, RecordBatch)>,
}

/// A subscription at the broker.
#[derive(Debug)]
struct Live {
    queue: u32,
    next: u64,
    credit: (i64, i64),
}

struct World {
    live: BTreeMap<u64, Live>,
    state: ReaderState,
    queues: Vec<Queue>,
    asked: VecDeque<Asking>,
    next: HashMap<u32, u64>,
    /// Where a queue went on when the wanted offset was gone.
    jumps: HashMap<(u32, u64), u64>,
    sought: HashMap<u32, u32>,
    is_up: bool,
    is_routed: bool,
    now_ms: u64,
    buffer_max: u64,
}

impl World {
    fn new(seed: u64, mode: ReadMode) -> Self {
        let mut config = ReaderConfig::new("t", StartAt::First).unwrap();
        config.out_of_range = OutOfRange::Nearest;
        config.mode = mode;
        config.push_messages_max = 6;
        config.fetch_bytes_max = 2_048;
        config.buffer_bytes_max = 4_096;
        Self {
            live: BTreeMap::new(),
            state: ReaderState::new(&config, seed),
            queues: (0..QUEUES).map(|_| Queue::default()).collect(),
            asked: VecDeque::new(),
            next: HashMap::new(),
            jumps: HashMap::new(),
            sought: HashMap::new(),
            is_up: false,
            is_routed: false,
            now_ms: 0,
            buffer_max: 4_096,
        }
    }

    fn answer(&mut self, how: How) {
        let Some(asking) = self.asked.pop_front() else { return };
        let Asking { queue, number, want, ask, .. } = asking;
        let Queue { log_start, end, batches } = &self.queues[queue.0 as usize];
        if let How::Refused(code) = how {
            let refusal = Refusal::from(ErrorReply::new(code, ""));
            return self.state.refused((queue, number), refusal, self.now_ms);
        }
        let Want::Fetch(offset, _) = want else {
            let start = *log_start;
            return match ask {
                Ask::Once { .. } => self.state.located(queue, number, Offset(start)),
                Ask::Subscribe { credit } => self.subscribe(queue, number, start, credit),
            };
        };
        if offset.0 < *log_start || offset.0 > *end {
            let bounds =
                ErrorDetail::Bounds { log_start: Offset(*log_start), end_offset: Offset(*end) };
            let reply = ErrorReply::new(ErrorCode::OffsetOutOfRange, "").with_detail(bounds);
            // By policy it goes on at the nearest one.
            self.jumps.insert((queue.0, offset.0), offset.0.clamp(*log_start, *end));
            return self.state.refused((queue, number), reply.into(), self.now_ms);
        }
        if let Ask::Subscribe { credit } = ask {
            return self.subscribe(queue, number, offset.0, credit);
        }
        let early = u64::from(how == How::Early);
        let wanted =
            batches.iter().filter(|(base, kept)| base + u64::from(kept.count()) + early > offset.0);
        let (skip, most) = match how {
            How::Well { batches } => (0, batches),
            How::Skipping => (1, 2),
            How::Early => (0, 2),
            _ => (0, 1),
        };
        let fetched: Vec<_> = wanted
            .skip(skip)
            .take(most)
            .map(|(base, kept)| Fetched {
                base_offset: Offset(*base),
                term: Term(1),
                stored: TimestampMs(0),
                content: Content::Batch(if how == How::Damaged {
                    damaged(kept)
                } else {
                    kept.clone()
                }),
            })
            .collect();
        self.state.fetched((queue, number), fetched, self.now_ms);
    }

    fn subscribe(&mut self, queue: QueueId, number: u64, next: u64, credit: (u32, u32)) {
        let credit = (i64::from(credit.0), i64::from(credit.1));
        assert!(credit.0 > 0 && credit.1 > 0, "a subscription without credit");
        self.live.insert(number, Live { queue: queue.0, next, credit });
        self.state.subscribed(queue, number, Offset(next));
    }

    fn push(&mut self, which: usize, how: How) {
        let count = self.live.len().max(1);
        let Some((&number, live)) = self.live.iter_mut().nth(which % count) else { return };
        let queue = &self.queues[live.queue as usize];
        let end = |refusal: ErrorReply, world: &mut Self| {
            world.live.remove(&number);
            world.state.ended(number, refusal.into(), world.now_ms);
        };
        if live.next < queue.log_start {
            let (log_start, end_offset) = (Offset(queue.log_start), Offset(queue.end));
            let bounds = ErrorDetail::Bounds { log_start, end_offset };
            let gone = ErrorReply::new(ErrorCode::OffsetOutOfRange, "").with_detail(bounds);
            self.jumps.insert((live.queue, live.next), queue.log_start);
            return end(gone, self);
        }
        let most = match how {
            How::Refused(code) => return end(ErrorReply::new(code, ""), self),
            How::Well { batches } => batches,
            _ => 1,
        };
        let from = live.next;
        let wanted =
            queue.batches.iter().filter(|(base, one)| base + u64::from(one.count()) > from);
        let mut pushed = Vec::new();
        for (base, kept) in wanted.skip(usize::from(how == How::Skipping)).take(most) {
            if live.credit.0 <= 0 || live.credit.1 <= 0 {
                break;
            }
            live.credit.0 -= i64::from(kept.count());
            live.credit.1 -= i64::from(kept.len_bytes());
            live.next = base + u64::from(kept.count());
            pushed.push(Fetched {
                base_offset: Offset(*base),
                term: Term(1),
                stored: TimestampMs(0),
                content: Content::Batch(if how == How::Damaged {
                    damaged(kept)
                } else {
                    kept.clone()
                }),
            });
        }
        if !pushed.is_empty() {
            self.state.delivered(number, pushed, self.now_ms);
        }
    }

    fn tell(&mut self, has_room: bool) {
        while let Some(telling) = self.state.poll_tell() {
            if !has_room || !self.is_up {
                return self.state.not_told(telling);
            }
            match telling {
                Telling::Leave { number, .. } => {
                    self.live.remove(&number);
                    // It may be on its way: then it is left as soon as it stands.
                    self.asked.retain(|asking| asking.number != number);
                }
                Telling::Credit { number, credit, .. } => {
                    if let Some(live) = self.live.get_mut(&number) {
                        live.credit.0 += i64::from(credit.0);
                        live.credit.1 += i64::from(credit.1);
                    }
                }
            }
        }
        for queue in 0..QUEUES {
            let most = self.live.values().filter(|live| live.queue == queue).count();
            assert!(most <= 1, "{most} subscriptions of queue {queue}");
        }
    }

    fn take(&mut self) {
        match self.state.take() {
            Some(Ok(items)) => {
                let bytes: u64 = items.iter().map(|item| u64::from(item.batch.len_bytes())).sum();
                let in_hand = self.buffer_max + u64::from(QUEUES) * 4 * 2_048;
                assert!(bytes <= in_hand, "{bytes} bytes were read ahead");
                for item in items {
                    let queue = item.queue.0;
                    let sought = self.sought.get(&queue).copied().unwrap_or(0);
                    assert!(item.seeks >= sought, "read before the seek");
                    assert!(item.skip < item.batch.count(), "a batch without anything wanted");
                    let from = item.base_offset.0 + u64::from(item.skip);
                    let mut expected = *self.next.entry(queue).or_insert(from);
                    while from > expected
                        && let Some(jump) = self.jumps.get(&(queue, expected))
                    {
                        expected = *jump;
                    }
                    assert_eq!(from, expected, "queue {queue}");
                    let end = item.base_offset.0 + u64::from(item.batch.count());
                    item.batch.verify_checksum().unwrap();
                    self.next.insert(queue, end);
                }
            }
            Some(Err(ReadError::Damaged { queue, at, .. })) => {
                // The program decides to go on from there.
                let sought = self.state.seek(queue, StartAt::Offset(at));
                self.sought.insert(queue.0, sought);
            }
            Some(Err(other)) => panic!("{other}"),
            None => {}
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Store { queue, records } => {
                let Queue { end, batches, .. } = &mut self.queues[queue as usize];
                batches.push((*end, batch(records)));
                *end += u64::from(records);
            }
            Step::Route { works } => {
                if self.state.poll_route(self.now_ms) {
                    let links = vec![Some(LinkId(0)); QUEUES as usize];
                    let refusal = Refusal::from(ErrorReply::new(ErrorCode::Unavailable, ""));
                    let route = Route { topic_id: TopicId(1), links: links.into() };
                    self.is_routed |= works;
                    self.state.route(if works { Ok(route) } else { Err(refusal) }, self.now_ms);
                }
            }
            Step::Ask { has_room } => {
                while let Some(asking) = self.state.poll_ask(self.now_ms) {
                    assert!(self.is_up, "asked over a connection that is down");
                    if has_room {
                        self.asked.push_back(asking);
                    } else {
                        self.state.not_asked(asking.queue, self.now_ms);
                    }
                }
            }
            Step::Answer(how) => self.answer(how),
            Step::Push { which, how } => self.push(which, how),
            Step::Tell { has_room } => self.tell(has_room),
            Step::Up if !self.is_up => {
                self.is_up = true;
                self.state.link_up(LinkId(0));
            }
            Step::Down if self.is_up => {
                self.is_up = false;
                self.asked.clear();
                self.live.clear();
                self.state.link_down(LinkId(0));
            }
            Step::Up | Step::Down => {}
            Step::Wait { ms } => {
                self.now_ms += ms;
                self.state.tick(self.now_ms);
            }
            Step::Take => self.take(),
            Step::Seek { queue, to } => {
                let Queue { log_start, end, .. } = self.queues[queue as usize];
                let to = to.clamp(log_start, end);
                let sought = self.state.seek(QueueId(queue), StartAt::Offset(Offset(to)));
                self.sought.insert(queue, sought);
                self.next.insert(queue, to);
            }
            Step::Remove { queue } => {
                let Queue { log_start, batches, .. } = &mut self.queues[queue as usize];
                if batches.len() > 2 {
                    let (base, removed) = batches.remove(0);
                    *log_start = base + u64::from(removed.count());
                }
            }
        }
    }

    /// From here on nothing goes wrong any more, and all there is must come.
    fn calm(&mut self) {
        for _ in 0..500 {
            for step in [
                Step::Route { works: true },
                Step::Up,
                Step::Ask { has_room: true },
                Step::Answer(How::Well { batches: 3 }),
                Step::Push { which: 0, how: How::Well { batches: 3 } },
                Step::Push { which: 1, how: How::Well { batches: 3 } },
                Step::Take,
                Step::Tell { has_room: true },
                Step::Wait { ms: 60 },
            ] {
                self.step(step);
            }
            let is_read = |(number, queue): (u32, &Queue)| {
                queue.end == queue.log_start || self.next.get(&number) == Some(&queue.end)
            };
            if (0..).zip(&self.queues).all(is_read) {
                return;
            }
        }
        panic!("the reader stands still: {:?}", self.state);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let how = || {
        prop_oneof![
            6 => (0_usize..4).prop_map(|batches| How::Well { batches }),
            1 => Just(How::Refused(ErrorCode::Overloaded)),
            1 => Just(How::Refused(ErrorCode::NotLeader)),
            1 => Just(How::Damaged),
            1 => Just(How::Skipping),
            1 => Just(How::Early),
        ]
    };
    let queue = || 0..QUEUES;
    prop_oneof![
        6 => (queue(), 1_u32..5).prop_map(|(queue, records)| Step::Store { queue, records }),
        2 => any::<bool>().prop_map(|works| Step::Route { works }),
        8 => prop::bool::weighted(0.9).prop_map(|has_room| Step::Ask { has_room }),
        8 => how().prop_map(Step::Answer),
        8 => (0_usize..3, how()).prop_map(|(which, how)| Step::Push { which, how }),
        4 => prop::bool::weighted(0.9).prop_map(|has_room| Step::Tell { has_room }),
        4 => Just(Step::Up),
        1 => Just(Step::Down),
        3 => (1_u64..400).prop_map(|ms| Step::Wait { ms }),
        4 => Just(Step::Take),
        1 => (queue(), 0_u64..40).prop_map(|(queue, to)| Step::Seek { queue, to }),
        1 => queue().prop_map(|queue| Step::Remove { queue }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_queue_comes_without_gap_or_repetition(
        steps in prop::collection::vec(step(), 1..150),
        seed: u64,
    ) {
        for mode in [ReadMode::Poll, ReadMode::Push] {
            let mut world = World::new(seed, mode);
            for one in &steps {
                world.step(*one);
            }
            world.calm();
        }
    }
}
