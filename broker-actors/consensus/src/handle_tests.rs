//! What a member answers to appends while its disk is full: it never waits for room in the middle of one, as it
//! would answer nobody then, not even a candidate.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grus_log::{EntryKind, Job, JobDone, Log, LogConfig, SimDisk, Step};
use grus_protocol::ids::{Durability, ShardId, TimestampMs};
use openraft::entry::RaftEntry as _;
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::ballot::Ballot;
use crate::config::{GroupConfig, Sabotage, Timings};
use crate::group::Group;
use crate::jobs::JobPort;
use crate::machine::NewItem;
use crate::payload;
use crate::peers::NoPeers;
use crate::suite_tests::Nothing;
use crate::types::{Payload, RaftEntry, RaftVote, log_id};
use crate::wire::{Reply, Request, VoteRequest, gather};

/// Bytes of the body of an entry.
const BODY_BYTES: usize = 4_000;
/// The leader, and its term.
const LEADER: (u64, u64) = (5, 1);

/// Jobs take a moment, somewhere else.
struct LaterJobs(mpsc::UnboundedSender<Job<SimDisk>>);

impl JobPort<SimDisk> for LaterJobs {
    fn submit(&self, job: Job<SimDisk>) -> Option<JobDone<SimDisk>> {
        let _ = self.0.send(job); // the group may be gone
        None
    }
}

/// Member 2 of three.
#[derive(Clone)]
struct Follower {
    group: Group<Nothing, SimDisk, TokioRuntime>,
    log: Rc<RefCell<Log<SimDisk>>>,
    disk: SimDisk,
}

fn entry(term: u64, index: u64, is_seal: bool) -> RaftEntry {
    let body = NewItem { kind: 64, bytes: vec![Bytes::from(vec![7; BODY_BYTES])] };
    let items = if is_seal { vec![] } else { vec![body] };
    let command = payload::encode(TimestampMs(1), &items, is_seal);
    RaftEntry::new(log_id(term, index), Payload::Normal(command))
}

/// Entries of the leader with these indexes.
fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<RaftEntry> {
    indexes.map(|index| entry(LEADER.0, index, false)).collect()
}

impl Follower {
    async fn start(sabotage: Sabotage) -> Self {
        let disk = SimDisk::new(1);
        let bytes = 64 * 1024;
        let log_config =
            LogConfig { segment_bytes: bytes, first_segment_bytes: bytes, ..LogConfig::default() };
        let (log, recovered) = Log::open(&disk, Path::new("/log"), log_config).unwrap();
        let log = Rc::new(RefCell::new(log));
        let (clock, fatal) = (Rc::new(|| TimestampMs(1)), Rc::new(|fault: &_| panic!("{fault}")));
        let alone = GroupConfig::single(ShardId(1), 2, Durability::Persisted, clock, fatal);
        let members = (1..=3).map(|node| (node, String::new())).collect();
        let config = GroupConfig { members, timings: Timings::default(), sabotage, ..alone };
        let machine = Rc::new(RefCell::new(Nothing));
        let (jobs, mut to_do) = mpsc::unbounded_channel();
        let jobs = LaterJobs(jobs);
        let group = Group::start(config, Rc::clone(&log), &recovered, machine, jobs, NoPeers);
        let group = group.await.unwrap();
        let follower = Self { group: group.clone(), log, disk };
        spawn_local(async move {
            while let Some(job) = to_do.recv().await {
                sleep(Duration::from_millis(1)).await;
                group.job_done(job.run());
            }
        });
        sleep(Duration::from_secs(2)).await; // it votes from here on
        follower
    }

    /// The same, whose disk is full: what room there is is that in the segment it writes to, of at least four
    /// entries. Gives the index of its last entry.
    async fn full(sabotage: Sabotage) -> (Self, u64) {
        let follower = Self::start(sabotage).await;
        follower.disk.set_capacity_bytes(follower.disk.used_bytes());
        let large = Step::Entry { kind: EntryKind::Normal, payload_bytes: BODY_BYTES + 100 };
        let seal = Step::Entry { kind: EntryKind::Seal, payload_bytes: 100 };
        let mut last = 0;
        while follower.log.borrow().fits([seal, large]) == 2 {
            let prev = if last > 0 { (LEADER.0, last) } else { (0, 0) };
            last += 1;
            let reply = follower.append(LEADER, prev, entries(last..=last)).await;
            assert!(matches!(reply, Reply::Appended), "{reply:?}");
            assert!(last < 1_000, "its disk is never full");
        }
        assert_eq!(follower.log.borrow().fits([large; 4]), 4);
        (follower, last)
    }

    async fn ask(&self, request: Request) -> Reply {
        Reply::decode(self.group.handle(gather(&request.encode())).await).unwrap()
    }

    /// An append of the leader with this term and node, behind `prev`.
    async fn append(
        &self,
        (term, node): (u64, u64),
        prev: (u64, u64),
        entries: Vec<RaftEntry>,
    ) -> Reply {
        let vote = RaftVote::new_committed(term, node);
        let prev = Some(log_id(prev.0, prev.1));
        self.ask(Request::Append { vote, prev, commit: None, entries }).await
    }

    /// The same, as a task that begins now.
    fn begin(
        &self,
        leader: (u64, u64),
        prev: (u64, u64),
        entries: Vec<RaftEntry>,
    ) -> tokio::task::JoinHandle<Reply> {
        let this = self.clone();
        spawn_local(async move { this.append(leader, prev, entries).await })
    }

    async fn answers_candidates(&self) -> bool {
        let request = VoteRequest { vote: RaftVote::new(9, 3), last: None, transfer: false };
        let voted = timeout(Duration::from_secs(5), self.ask(Request::Vote(request))).await;
        matches!(voted, Ok(Reply::Vote { .. }))
    }

    fn make_room(&self) {
        self.disk.set_capacity_bytes(u64::MAX);
        self.group.request_room();
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Fills what is left of the segment, and gives the index of the last entry.
async fn fill(follower: &Follower, mut last: u64) -> u64 {
    loop {
        let reply = follower.append(LEADER, (LEADER.0, last), entries(last + 1..=last + 1)).await;
        match reply {
            Reply::Appended => last += 1,
            Reply::Refused => return last,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_given_before_counts_as_the_log_will_do_it() {
    // A Seal, then an entry for which there is room only as long as the Seal is not written.
    let story = async |sabotage| {
        let (follower, last) = Follower::full(sabotage).await;
        let seal = vec![entry(LEADER.0, last + 1, true)];
        let first = follower.begin(LEADER, (LEADER.0, last), seal);
        let behind = entries(last + 2..=last + 2);
        let second = follower.begin(LEADER, (LEADER.0, last + 1), behind);
        sleep(Duration::from_millis(300)).await;
        let answers = follower.answers_candidates().await;
        assert_eq!(answers, first.is_finished(), "what was given together is written together");
        let is_refused = second.is_finished() && matches!(second.await.unwrap(), Reply::Refused);
        assert_eq!(answers, is_refused);
        answers
    };
    run(async { assert!(story(Sabotage::default()).await) });
    let sabotage = Sabotage { counts_no_given: true, ..Sabotage::default() };
    run(async { assert!(!story(sabotage).await, "nobody misses the rule") });
}

#[test]
fn a_seal_in_the_middle_leaves_no_room_behind_it() {
    run(async {
        let (follower, last) = Follower::full(Sabotage::default()).await;
        let mut all = entries(last + 1..=last + 3);
        all[1] = entry(LEADER.0, last + 2, true);
        let reply = follower.append(LEADER, (LEADER.0, last), all).await;
        let upto = Some(log_id(LEADER.0, last + 2));
        assert!(matches!(&reply, Reply::PartlyAppended(id) if *id == upto), "{reply:?}");
        assert!(follower.answers_candidates().await);
    });
}

#[test]
fn what_overrides_a_tail_finds_no_room_in_the_segment_that_it_closes() {
    run(async {
        let (follower, last) = Follower::full(Sabotage::default()).await;
        let other = vec![entry(6, last, false)];
        let sent = follower.begin((6, 3), (LEADER.0, last - 1), other.clone());
        sleep(Duration::from_millis(300)).await;
        assert!(follower.answers_candidates().await);
        assert!(matches!(sent.await.unwrap(), Reply::Refused));
        follower.make_room();
        sleep(Duration::from_millis(10)).await;
        let reply = follower.append((10, 3), (LEADER.0, last - 1), other).await;
        assert!(matches!(reply, Reply::Appended), "{reply:?}");
    });
}

/// One that only cuts is given before one that would find room in the segment which that closes.
#[test]
fn what_a_conflict_cuts_off_closes_the_segment_for_what_comes_behind_it() {
    run(async {
        let (follower, last) = Follower::full(Sabotage::default()).await;
        let conflict = follower.begin((6, 3), (6, last), vec![]);
        let behind = vec![entry(6, last, false)];
        let second = follower.begin((6, 3), (LEADER.0, last - 1), behind);
        sleep(Duration::from_millis(300)).await;
        assert!(matches!(conflict.await.unwrap(), Reply::Conflict));
        assert!(follower.answers_candidates().await);
        assert!(matches!(second.await.unwrap(), Reply::Refused));
    });
}

#[test]
fn without_room_it_takes_what_it_has_and_says_what_it_lacks() {
    run(async {
        let (follower, last) = Follower::full(Sabotage::default()).await;
        let last = fill(&follower, last).await;
        let prev = (LEADER.0, last - 3);
        let reply = follower.append(LEADER, prev, entries(last - 2..=last)).await;
        assert!(matches!(reply, Reply::Appended), "{reply:?}");
        let reply = follower.append(LEADER, prev, entries(last - 2..=last + 2)).await;
        let upto = Some(log_id(LEADER.0, last));
        assert!(matches!(&reply, Reply::PartlyAppended(id) if *id == upto), "{reply:?}");
        // The leader hears that something is missing before it, and it asks for room, too.
        let prev = (LEADER.0, last + 5);
        follower.disk.set_capacity_bytes(u64::MAX);
        let reply = follower.append(LEADER, prev, entries(last + 6..=last + 6)).await;
        assert!(matches!(reply, Reply::Conflict), "{reply:?}");
        sleep(Duration::from_millis(10)).await;
        assert!(!follower.log.borrow().is_disk_full());
    });
}

#[test]
fn one_that_waits_for_room_is_not_overtaken() {
    let overtakes = async |sabotage| {
        let (follower, last) = Follower::full(sabotage).await;
        let last = fill(&follower, last).await;
        let (first, second) = (entries(last + 1..=last + 1), entries(last + 2..=last + 2));
        let first = follower.begin(LEADER, (LEADER.0, last), first);
        let second = follower.begin(LEADER, (LEADER.0, last + 1), second);
        for _ in 0..100 {
            tokio::task::yield_now().await; // no time passes
        }
        assert!(!first.is_finished(), "it waits for room");
        second.is_finished()
    };
    run(async { assert!(!overtakes(Sabotage::default()).await) });
    let sabotage = Sabotage { no_intake_line: true, ..Sabotage::default() };
    run(async { assert!(overtakes(sabotage).await, "nobody misses the line") });
}

#[test]
fn a_heartbeat_stands_in_no_line() {
    run(async {
        let (follower, last) = Follower::full(Sabotage::default()).await;
        let last = fill(&follower, last).await;
        let next = entries(last + 1..=last + 1);
        let waits = follower.begin(LEADER, (LEADER.0, last), next);
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let reply = follower.append(LEADER, (LEADER.0, last), vec![]).await;
        assert!(matches!(reply, Reply::Appended), "{reply:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(!waits.is_finished());
        assert!(matches!(waits.await.unwrap(), Reply::Refused));
    });
}

#[test]
fn who_was_followed_when_an_append_came_may_not_be_when_it_is_its_turn() {
    run(async {
        let (follower, last) = Follower::full(Sabotage::default()).await;
        let last = fill(&follower, last).await;
        // It has lost its memory, and this leader has taken it back.
        let mut ballot = Ballot::new(Duration::from_secs(1), true);
        ballot.rejoined(RaftVote::new_committed(LEADER.0, LEADER.1));
        *follower.group.inner.shared.ballot.borrow_mut() = ballot;
        let next = entries(last + 1..=last + 1);
        let waits = follower.begin(LEADER, (LEADER.0, last), next);
        // It needs no room, and stands behind one that waits for some.
        let had = follower.begin(LEADER, (LEADER.0, last - 1), entries(last..=last));
        tokio::task::yield_now().await;
        let later = RaftVote::new_committed(6, 3);
        follower.group.inner.shared.ballot.borrow_mut().rejoined(later);
        assert!(matches!(waits.await.unwrap(), Reply::Refused));
        assert!(matches!(had.await.unwrap(), Reply::Refused));
    });
}
