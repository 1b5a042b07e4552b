//! The index against a plain list, through seals, restarts, purges and damage, with a hash that
//! collides all the time and one that does not.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::batch::{BatchBuilder, Compression, NewRecord, RecordBatch};
use grus_protocol::ids::QueueId;
use grus_protocol::limits::BatchLimits;
use proptest::prelude::*;

use super::*;
use crate::checkpoint::CheckpointData;
use crate::config::LogConfig;
use crate::disk::{DiskFile, SimDisk};
use crate::entry::{EntryId, EntryKind, NewEntry};
use crate::index::{Position, Run};
use crate::layout::FileName;
use crate::log::Log;

const FOLDER: &str = "/data";
const PREFIX: usize = 5;
/// Shorter when it is compressed.
const BODY: &str = "body body body body body body body body";

#[derive(Debug, Clone)]
struct Stored {
    queue: QueueKey,
    offset: u64,
    id: MessageId,
    keys: Vec<Bytes>,
    index: u64,
}

struct World {
    disk: SimDisk,
    log: Log<SimDisk>,
    index: FindIndex<SimDisk>,
    mask: u32,
    /// Each entry's runs, to be applied again after a restart.
    runs: Vec<Vec<Run>>,
    stored: Vec<Stored>,
    ends: BTreeMap<QueueKey, u64>,
    born: u64,
    seals: Vec<u64>,
    purged: Option<u64>,
}

fn config() -> LogConfig {
    let (segment_bytes, first_segment_bytes) = (64 * 1024, 64 * 1024);
    LogConfig { segment_bytes, first_segment_bytes, find_index: true, ..LogConfig::default() }
}

fn queue(topic: u64, queue: u32) -> QueueKey {
    QueueKey { topic: TopicId(topic), queue: QueueId(queue) }
}

fn key(number: u8) -> Bytes {
    format!("key-{number}").into_bytes().into()
}

impl World {
    fn new(mask: u32) -> Self {
        let disk = SimDisk::new(1);
        let (log, _) = Log::open(&disk, Path::new(FOLDER), config()).unwrap();
        let index = FindIndex::new(disk.clone(), FOLDER.into()).with_weak_hash(mask);
        let (runs, stored, ends) = (vec![Vec::new()], Vec::new(), BTreeMap::new());
        let (born, seals, purged) = (1_000_000, Vec::new(), None);
        Self { disk, log, index, mask, runs, stored, ends, born, seals, purged }
    }

    fn work(&mut self) {
        while let Some(job) = self.log.next_job() {
            self.log.complete(job.run()).unwrap();
        }
    }

    /// One entry with a batch for each of `batches`: topic, keys of its records.
    fn produce(&mut self, batches: &[(u64, Vec<u8>)], kind: EntryKind) -> u64 {
        let index = self.runs.len() as u64;
        let mut payload = BytesMut::new();
        let mut runs = Vec::new();
        for (topic, keys) in batches {
            payload.put_bytes(0xee, PREFIX);
            let queue = queue(*topic, u32::from(keys.len() > 2));
            let base = *self.ends.entry(queue).or_default();
            let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
            for (nth, number) in (0..).zip(keys) {
                self.born += 1;
                let mut record = NewRecord::new(self.next_id(), TimestampMs(self.born), BODY);
                // Key 0 is none, the greater ones come with a second one.
                record.keys.extend((*number > 0).then(|| key(*number)));
                record.keys.extend((*number > 6).then(|| key(1)));
                let (id, keys) = (record.id, record.keys.clone());
                self.stored.push(Stored { queue, offset: base + nth, id, keys, index });
                builder.push(&record).unwrap();
            }
            let compression = u8::try_from(self.born % 3).unwrap();
            builder.compress(Compression::from_number(compression).unwrap());
            let batch = builder.finish();
            let count = u32::try_from(keys.len()).unwrap();
            self.ends.insert(queue, base + u64::from(count));
            runs.push(Run {
                queue,
                base: Offset(base),
                count,
                at: Position { index, byte: u32::try_from(payload.len()).unwrap() },
                length: u32::try_from(batch.len()).unwrap(),
                term: Term(1),
                stored: TimestampMs(index),
                born_max: TimestampMs(self.born),
                tag_bloom: 0,
            });
            payload.extend_from_slice(&batch);
        }
        let payload = [payload.freeze()];
        self.log.append(&[NewEntry { kind, term: 1, index, payload: &payload }]).unwrap();
        self.work();
        for run in &runs {
            self.log.index_add(*run);
        }
        self.runs.push(runs);
        index
    }

    /// Mostly ids of version 7; some of another kind, some sent twice.
    fn next_id(&self) -> MessageId {
        match self.born % 11 {
            3 => self.stored.last().map_or(MessageId::from_bytes([7; 16]), |last| last.id),
            7 => {
                MessageId::from_bytes(u128::from(self.born).wrapping_mul(0x9e37_79b9).to_le_bytes())
            }
            _ => {
                MessageId::from_parts(TimestampMs(self.born / 3), &[self.born.to_le_bytes()[0]; 10])
            }
        }
    }

    fn seal(&mut self) {
        let index = self.produce(&[(1, vec![3])], EntryKind::Seal);
        let (membership, full) = ("m".into(), self.seals.is_empty());
        let data =
            CheckpointData { index, term: 1, membership, full, parts: Vec::new(), digest: 0 };
        self.log.checkpoint(data).unwrap();
        self.work();
        self.seals.push(index);
    }

    fn feed(&mut self, bytes_max: u64) {
        let feed = self.log.find_feed(bytes_max);
        for gap in self.index.feed(feed) {
            self.log.find_again(gap);
        }
    }

    fn build(&mut self, steps: usize) {
        for _ in 0..steps {
            let built = if self.index.is_building() {
                self.index.build_step()
            } else {
                let Some(view) = self.log.next_find_build() else { return };
                self.index.begin_build(view)
            };
            if let Some(built) = built {
                // Its segment may have gone meanwhile; nothing else stands in the way.
                assert!(built.failure.is_none() || self.purged.is_some(), "{built:?}");
                self.log.find_built(&built);
            }
        }
    }

    fn forget_index(&mut self) {
        // As when its actor was rebuilt: the log still believes that it was told.
        self.index = FindIndex::new(self.disk.clone(), FOLDER.into()).with_weak_hash(self.mask);
    }

    fn restart(&mut self) {
        let disk = self.disk.clone();
        let other = SimDisk::new(0);
        let (spare, _) = Log::open(&other, Path::new(FOLDER), config()).unwrap();
        drop(std::mem::replace(&mut self.log, spare));
        self.forget_index();
        let (log, recovered) = Log::open(&disk, Path::new(FOLDER), config()).unwrap();
        self.log = log;
        let applied = recovered.checkpoints.last().map_or(0, |checkpoint| checkpoint.index);
        let first = usize::try_from(applied + 1).unwrap();
        for run in self.runs[first..].iter().flatten() {
            self.log.index_add(*run);
        }
    }

    fn purge(&mut self) {
        let Some(index) = self.seals.first().copied() else { return };
        if self.log.newest_checkpoint().is_none_or(|newest| newest.index < index) {
            return;
        }
        self.seals.remove(0);
        let id = EntryId { term: 1, index };
        self.log.set_floor(id);
        self.log.purge(id);
        self.work();
        self.purged = Some(index);
    }

    /// Spoils one byte of a table, if there is one.
    fn damage(&mut self, nth: usize, at: u64) {
        let names = self.disk.names(Path::new(FOLDER)).unwrap();
        let finds =
            names.iter().filter(|name| matches!(FileName::parse(name), Some(FileName::Find(_))));
        let finds: Vec<_> = finds.collect();
        if finds.is_empty() {
            return;
        }
        let file = self.disk.open(&Path::new(FOLDER).join(finds[nth % finds.len()])).unwrap();
        let at = at % DiskFile::length(&file).unwrap();
        let mut byte = [0];
        DiskFile::read_at(&file, at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 0x10]).unwrap();
    }

    /// As the shard does: fed first, and once more where the index lacks something.
    fn search(&mut self, query: &FindQuery) -> FindOutcome {
        self.feed(u64::MAX);
        self.feed(u64::MAX);
        let views = self.log.find_views();
        let outcome = self.index.search(query, &views);
        for gap in outcome.gaps.iter().chain(&outcome.without_table) {
            self.log.find_again(*gap);
        }
        if outcome.gaps.is_empty() {
            return outcome;
        }
        self.feed(u64::MAX);
        self.index.search(query, &self.log.find_views())
    }

    fn check(&mut self, by: &FindBy, messages_max: usize) -> Result<(), TestCaseError> {
        let query = FindQuery { by: by.clone(), messages_max, scope: None };
        let outcome = self.search(&query);
        let is_of = |held: &&Stored| match by {
            FindBy::Id(id) => held.id == *id,
            FindBy::Key { topic, key } => held.queue.topic == *topic && held.keys.contains(key),
        };
        let there = |held: &&Stored| self.purged.is_none_or(|purged| held.index > purged);
        let mut expected: Vec<_> = self.stored.iter().filter(is_of).filter(there).collect();
        let total = expected.len();
        expected.drain(..total.saturating_sub(messages_max));
        let places = |held: &&Stored| (held.queue, Offset(held.offset));
        let expected_at: Vec<_> = expected.iter().map(places).collect();
        let found_at: Vec<_> = outcome.matches.iter().map(|m| (m.queue, m.offset)).collect();
        prop_assert_eq!(found_at, expected_at, "{:?}", by);
        prop_assert!(outcome.more || total <= messages_max);
        prop_assert_eq!((outcome.unsearched_bytes, outcome.gaps), (0, Vec::new()));
        for (found, held) in outcome.matches.iter().zip(&expected) {
            let batch = RecordBatch::check(found.batch.clone(), &BatchLimits::FORMAT).unwrap();
            let record = batch.records().next().unwrap().unwrap();
            prop_assert_eq!((batch.count(), record.id()), (1, held.id));
            prop_assert_eq!(record.body(), BODY.as_bytes());
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Produce(Vec<(u64, Vec<u8>)>),
    Seal,
    Feed(u64),
    Build(usize),
    ForgetIndex,
    Restart,
    Purge,
    Damage(usize, u64),
    Retry,
    ById(usize),
    ByKey(u64, u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let batch = (1_u64..4, prop::collection::vec(0_u8..9, 1..6));
    prop_oneof![
        6 => prop::collection::vec(batch, 1..4).prop_map(Step::Produce),
        3 => Just(Step::Seal),
        2 => (1_u64..4000).prop_map(Step::Feed),
        4 => (1_usize..200).prop_map(Step::Build),
        1 => Just(Step::ForgetIndex),
        1 => Just(Step::Restart),
        1 => Just(Step::Purge),
        1 => (0_usize..9, 0_u64..100_000).prop_map(|(nth, at)| Step::Damage(nth, at)),
        1 => Just(Step::Retry),
        4 => (0_usize..500).prop_map(Step::ById),
        4 => (1_u64..5, 1_u8..9, 1_usize..12).prop_map(|(t, k, max)| Step::ByKey(t, k, max)),
    ]
}

fn play(steps: Vec<Step>, mask: u32) -> Result<(), TestCaseError> {
    let mut world = World::new(mask);
    world.work();
    for step in steps {
        match step {
            Step::Produce(batches) => {
                world.produce(&batches, EntryKind::Normal);
            }
            Step::Seal => world.seal(),
            Step::Feed(bytes) => world.feed(bytes),
            Step::Build(steps) => world.build(steps),
            Step::ForgetIndex => world.forget_index(),
            Step::Restart => world.restart(),
            Step::Purge => world.purge(),
            Step::Damage(nth, at) => world.damage(nth, at),
            Step::Retry => world.log.find_retry(),
            Step::ById(nth) => {
                let held = world.stored.get(nth % world.stored.len().max(1));
                let id = held.map_or(MessageId::from_bytes([9; 16]), |held| held.id);
                world.check(&FindBy::Id(id), 10)?;
            }
            Step::ByKey(topic, number, max) => {
                world.check(&FindBy::Key { topic: TopicId(topic), key: key(number) }, max)?;
            }
        }
    }
    // In the end every table is made, and all of it is found by them.
    for _ in 0..3 {
        world.feed(u64::MAX);
        world.build(10_000);
    }
    for id in world.stored.iter().map(|held| held.id).collect::<Vec<_>>() {
        world.check(&FindBy::Id(id), 1000)?;
    }
    world.check(&FindBy::Id(MessageId::from_bytes([9; 16])), 1)?;
    for (topic, number) in [(1, 1), (2, 3), (3, 8), (4, 1)] {
        world.check(&FindBy::Key { topic: TopicId(topic), key: key(number) }, 1000)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_agrees_with_a_plain_list(steps in prop::collection::vec(step(), 1..60)) {
        play(steps, u32::MAX)?;
    }

    #[test]
    fn it_agrees_when_everything_collides(
        steps in prop::collection::vec(step(), 1..40),
        mask in prop::sample::select(vec![0_u32, 1, 0x8000_0001]),
    ) {
        play(steps, mask)?;
    }
}

fn sealed_world(seals: usize) -> World {
    let mut world = World::new(u32::MAX);
    world.work();
    for _ in 0..seals {
        for _ in 0..20 {
            world.produce(&[(1, vec![1, 2, 0]), (2, vec![1])], EntryKind::Normal);
        }
        world.seal();
    }
    world
}

fn finds(world: &World) -> usize {
    let names = world.disk.names(Path::new(FOLDER)).unwrap();
    names.iter().filter(|name| name.starts_with("find-")).count()
}

#[test]
fn a_table_is_made_at_each_seal_found_again_and_goes_with_its_segment() {
    let mut world = sealed_world(3);
    world.feed(u64::MAX);
    world.build(1000);
    assert_eq!(finds(&world), 3);
    let id = world.stored[5].id;
    let query = FindQuery { by: FindBy::Id(id), messages_max: 5, scope: None };
    world.restart();
    let outcome = world.search(&query);
    assert_eq!((outcome.matches.len(), outcome.scanned_bytes), (1, 0), "by the table alone");
    world.index.building = None;
    world.build(3);
    assert!(world.index.building.is_none() && finds(&world) == 3, "they are taken as they are");
    world.purge();
    world.work();
    assert_eq!(finds(&world), 2);
    assert_eq!(world.search(&query), FindOutcome::default());
}

#[test]
fn without_a_table_a_segment_is_read_and_the_answer_says_so() {
    let mut world = sealed_world(1);
    world.restart();
    let id = world.stored[5].id;
    let query = FindQuery { by: FindBy::Id(id), messages_max: 5, scope: None };
    let outcome = world.search(&query);
    assert_eq!((outcome.matches.len(), outcome.unsearched_bytes), (1, 0));
    assert!(outcome.scanned_bytes > 0);
    world.build(1000);
    let outcome = world.search(&query);
    assert_eq!((outcome.matches.len(), outcome.scanned_bytes), (1, 0), "made since");
}

#[test]
fn a_damaged_table_is_passed_over_and_made_again() {
    let mut world = sealed_world(1);
    world.feed(u64::MAX);
    world.build(1000);
    for at in [0, 20, 4096 + 900, 2 * 4096 + 3] {
        let id = world.stored[5].id;
        let query = FindQuery { by: FindBy::Id(id), messages_max: 5, scope: None };
        world.damage(0, at);
        if at != 4096 + 900 {
            world.restart(); // head and directory are read when it is opened
        }
        let outcome = world.search(&query);
        assert_eq!((outcome.matches.len(), outcome.unsearched_bytes), (1, 0), "at {at}");
        assert!(outcome.scanned_bytes > 0, "at {at}: the damage is noticed");
        world.build(1000);
        let outcome = world.search(&query);
        assert_eq!((outcome.matches.len(), outcome.scanned_bytes), (1, 0), "at {at}");
    }
}

#[test]
fn one_key_in_very_many_batches_gives_the_newest_ones() {
    let mut world = World::new(u32::MAX);
    world.work();
    for _ in 0..1500 {
        world.produce(&[(1, vec![5])], EntryKind::Normal);
        if world.log.should_seal() {
            world.seal();
        }
    }
    world.produce(&[(1, vec![5, 5, 5])], EntryKind::Normal);
    world.seal();
    world.feed(u64::MAX);
    world.build(10_000);
    world.check(&FindBy::Key { topic: TopicId(1), key: key(5) }, 4).unwrap();
    world.check(&FindBy::Key { topic: TopicId(1), key: key(5) }, 2000).unwrap();
}

#[test]
fn a_segment_with_too_many_entries_is_read_instead() {
    let mut world = World::new(u32::MAX);
    world.work();
    world.index.entries_max = 32; // six batches and a part of the seventh
    for _ in 0..20 {
        world.produce(&[(1, vec![1, 2, 0])], EntryKind::Normal);
    }
    let check = |world: &mut World| {
        for nth in [18, 50] {
            let by = FindBy::Id(world.stored[nth].id);
            let query = FindQuery { by, messages_max: 5, scope: None };
            let outcome = world.search(&query);
            assert_eq!((outcome.matches.len(), outcome.unsearched_bytes), (1, 0), "{nth}");
            assert!(outcome.scanned_bytes > 0);
        }
    };
    check(&mut world);
    world.seal();
    check(&mut world);
    let mut built = None;
    while built.is_none() {
        built = if world.index.is_building() {
            world.index.build_step()
        } else {
            let view = world.log.next_find_build().unwrap();
            world.index.begin_build(view)
        };
    }
    let built = built.unwrap();
    assert_eq!((built.failure.as_deref(), built.try_again), (Some("it has too many keys"), false));
    world.log.find_built(&built);
    check(&mut world);
    assert!(world.log.next_find_build().is_none(), "it is not tried again and again");
    assert_eq!(finds(&world), 0);
}

#[test]
fn only_what_is_in_scope_is_found() {
    let mut world = sealed_world(2);
    let by = FindBy::Key { topic: TopicId(1), key: key(1) };
    let in_queue_1 = queue(1, 1);
    let scope = BTreeMap::from([(in_queue_1, (Offset(3), Offset(10)))]);
    let query = FindQuery { by, messages_max: 100, scope: Some(scope) };
    let found: Vec<_> =
        world.search(&query).matches.iter().map(|m| (m.queue, m.offset.0)).collect();
    assert_eq!(found, [(in_queue_1, 3), (in_queue_1, 6), (in_queue_1, 9)]);
}
