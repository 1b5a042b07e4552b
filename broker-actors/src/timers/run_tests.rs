//! Runs of timers against plain lists.

use bytes::Bytes;
use grus_log::Position;
use grus_protocol::ids::{QueueId, QueueKey, TimestampMs, TopicId};
use proptest::prelude::*;

use super::TimerId;
use super::done::Done;
use super::run::{Content, NewBatch, RUN_TIMERS_MAX, RunForm, Timer};

fn key(topic: u64) -> QueueKey {
    QueueKey { topic: TopicId(topic), queue: QueueId(1) }
}

/// Batches as (topic, entries on, place, due times).
type Batches = Vec<(u64, u32, u32, Vec<u64>)>;

fn batches() -> impl Strategy<Value = Batches> {
    let due = prop_oneof![0_u64..2_000, any::<u64>()];
    let batch = (1_u64..4, 0_u32..3, 0_u32..500, prop::collection::vec(due, 1..6));
    prop::collection::vec(batch, 1..40)
}

fn form() -> impl Strategy<Value = RunForm> {
    prop_oneof![Just(RunForm::Rows), Just(RunForm::Columns)]
}

/// A run of these batches, and what should be in it.
fn run_of(batches: &Batches, form: RunForm) -> (Content, Vec<Timer>) {
    let mut content = Content::new(100, form);
    let mut timers = Vec::new();
    let (mut index, mut behind) = (100, 0);
    for (topic, on, place, due) in batches {
        index += u64::from(*on);
        behind = if *on > 0 { *place } else { behind + place };
        let first = TimerId { index, place: behind };
        let due: Vec<TimestampMs> = due.iter().copied().map(TimestampMs).collect();
        let count = u32::try_from(due.len()).unwrap();
        let length = 100 + count;
        content.push(&NewBatch { queue: key(*topic), first, length, due: &due });
        for (number, due) in (0..).zip(due) {
            timers.push(Timer {
                id: first.nth(number),
                queue: key(*topic),
                due,
                batch: first,
                count,
                at: Position { index, byte: first.place },
                length,
            });
        }
        behind += count;
    }
    (content, timers)
}

fn all(content: &Content) -> Vec<Timer> {
    (0..content.len()).map(|position| content.timer(position)).collect()
}

proptest! {
    #[test]
    fn timers_are_found_sorted_and_read_back(
        batches in batches(), form in form(), is_packed in any::<bool>(),
    ) {
        let (mut content, timers) = run_of(&batches, form);
        let open = content.encode();
        if is_packed {
            content.pack();
        }
        prop_assert_eq!(content.encode(), open, "packed or not");
        prop_assert_eq!(&all(&content), &timers);
        for (position, timer) in timers.iter().enumerate() {
            prop_assert_eq!(content.find(timer.id), Some(position));
            let after = TimerId { index: timer.id.index + 1, place: 0 };
            for id in [timer.id, timer.id.nth(1), timer.id.nth(5), after, timer.batch] {
                let rank = timers.iter().filter(|timer| timer.id <= id).count();
                prop_assert_eq!(content.rank(id), rank, "{:?}", id);
            }
        }
        prop_assert_eq!(content.rank(TimerId::FIRST), 0);
        prop_assert_eq!(content.find(TimerId::FIRST), None);
        prop_assert_eq!(content.find(timers.last().unwrap().id.nth(1)), None);

        let mut sorted = timers.clone();
        sorted.sort_by_key(|timer| (timer.due, timer.id));
        let order: Vec<Timer> =
            content.sorted().iter().map(|position| timers[usize::from(*position)]).collect();
        prop_assert_eq!(&order, &sorted);
        prop_assert_eq!(content.min_due(), sorted[0].due);

        content.pack();
        prop_assert_eq!(&all(&content), &timers);
        prop_assert_eq!(Content::decode(content.encode()).unwrap(), content);
    }

    #[test]
    fn what_is_over_goes_by_batches_and_what_was_carried_on_stays_there(
        batches in batches(),
        over in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        carried in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        form in form(),
    ) {
        let (mut content, mut timers) = run_of(&batches, form);
        for (nth, index) in (0..).zip(carried) {
            let batch = timers[index.index(timers.len())].batch;
            let to = Position { index: 9_000 + nth, byte: 7 };
            prop_assert!(content.carry(batch, to));
            timers.iter_mut().filter(|timer| timer.batch == batch).for_each(|timer| timer.at = to);
        }
        let unknown = TimerId { index: 5, place: 5 };
        let is_carried = content.carry(unknown, Position { index: 1, byte: 1 });
        prop_assert!(!is_carried);
        let mut done = Done::default();
        for index in over {
            let position = index.index(timers.len());
            let was_over = done.contains(position);
            prop_assert_eq!(done.insert(position), !was_over);
        }
        let pending: Vec<Timer> = (0..timers.len())
            .filter(|position| !done.contains(*position)).map(|position| timers[position]).collect();
        prop_assert_eq!(done.count() + pending.len(), timers.len());
        let entries = pending.iter().map(|timer| timer.at.index);
        prop_assert_eq!(content.reach(&done), entries.clone().min().zip(entries.max()));
        prop_assert_eq!(Content::decode(content.encode()).unwrap(), content.clone());
        if let Some(bytes) = done.encode() {
            prop_assert_eq!(Done::decode(bytes, timers.len()).unwrap(), done.clone());
        }

        let (left, left_done) = content.without(&done);
        let still: Vec<Timer> = (0..left.len())
            .filter(|position| !left_done.contains(*position))
            .map(|position| left.timer(position)).collect();
        prop_assert_eq!(&still, &pending);
        let batches_left = all(&left).iter().all(|timer| pending.iter().any(|p| p.batch == timer.batch));
        prop_assert!(batches_left, "a batch that is over was kept");
    }

    #[test]
    fn bytes_of_no_run_are_refused_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), known in 1_u8..=2,
    ) {
        if let Some(version) = bytes.first_mut() {
            *version = known;
        }
        let _ = Content::decode(Bytes::from(bytes.clone()));
        let _ = Done::decode(Bytes::from(bytes), 100);
    }
}

#[test]
fn a_run_that_is_cut_short_anywhere_is_refused() {
    for form in [RunForm::Rows, RunForm::Columns] {
        let batches = vec![(1, 0, 3, vec![5, 900]), (2, 1, 9, vec![1 << 50])];
        let bytes = run_of(&batches, form).0.encode();
        for length in 0..bytes.len() {
            assert!(Content::decode(bytes.slice(..length)).is_err(), "at {length}");
        }
    }
    let mut done = Done::default();
    done.insert(70);
    assert!(Done::decode(done.encode().unwrap(), 70).is_err(), "beyond the run's end");
    assert!(Done::decode(done.encode().unwrap(), 71).is_ok());
}

#[test]
fn a_run_is_full_at_its_limit_and_a_large_batch_has_one_of_its_own() {
    let due = vec![TimestampMs(5); RUN_TIMERS_MAX + 1];
    let batch = |place, count: usize| NewBatch {
        queue: key(1),
        first: TimerId { index: 7, place },
        length: 1,
        due: &due[..count],
    };
    let mut content = Content::new(7, RunForm::Columns);
    content.push(&batch(0, RUN_TIMERS_MAX - 1));
    assert!(content.takes(&batch(90_000, 1)) && !content.takes(&batch(90_000, 2)));
    let far = NewBatch { first: TimerId { index: 8 + (1 << 32), place: 0 }, ..batch(0, 1) };
    assert!(!content.takes(&far), "its index does not fit");
    let mut large = Content::new(7, RunForm::Columns);
    large.push(&batch(0, RUN_TIMERS_MAX + 1));
    assert!(!large.takes(&batch(90_000, 1)));
    assert_eq!(Content::decode(large.encode()).unwrap(), large);
}

#[test]
fn golden_bytes_of_a_run_and_of_what_is_over() {
    let hex = |bytes: Bytes| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    let run_of = |form| {
        let (mut run, _) = run_of(&vec![(1, 0, 3, vec![5, 900]), (2, 1, 9, vec![300])], form);
        run.carry(TimerId { index: 101, place: 9 }, Position { index: 130, byte: 64 });
        hex(run.encode())
    };
    let run = "016400000000000000020100000000000000010000000200000000000000010000000200036600020109650101\
               0afe0daf0901018201 40";
    assert_eq!(run_of(RunForm::Rows), run.replace(' ', ""));
    let run = "02640000000000000002010000000000000001000000020000000000000001000000 02 00000201 00060c01\
               01650100 00000201 00040101 020500007f032701 0101820140";
    assert_eq!(run_of(RunForm::Columns), run.replace(' ', ""));
    let mut done = Done::default();
    done.insert(1);
    assert_eq!(hex(done.encode().unwrap()), "010200000000000000");
}
