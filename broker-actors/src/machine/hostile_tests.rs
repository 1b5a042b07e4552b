//! Items of any bytes: valid ones, changed ones and noise. Nothing of it may panic, make two
//! machines differ, or save a state that does not read back.

use bytes::Bytes;
use grus_protocol::ids::{ShardId, Term, TimestampMs};
use proptest::prelude::*;

use super::model_tests::batch;
use super::{Machine, Moment, Outcome};
use crate::commands::tests::examples;
use crate::commands::{Command, KIND_APPEND};

const SHARD: ShardId = ShardId(3);

/// An item of the log as it may come: a valid one, perhaps with bytes changed, cut or added.
fn item() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let valid = (any::<prop::sample::Index>(), 0_u64..4, 0_u64..6, 1_u32..4).prop_map(
        |(which, producer, first, count)| {
            let mut all = examples();
            all.push(Command::Append {
                queue: super::model_tests::queue(1, 0),
                batch: batch(producer, 0, first, count),
            });
            let command = which.get(&all);
            (command.kind(), command.encode().concat())
        },
    );
    let changed =
        (valid.clone(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4))
            .prop_map(|((kind, mut bytes), changes)| {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                (kind, bytes)
            });
    let cut = (valid.clone(), any::<prop::sample::Index>()).prop_map(|((kind, mut bytes), at)| {
        bytes.truncate(at.index(bytes.len()));
        (kind, bytes)
    });
    let noise =
        (60_u16..100, prop::collection::vec(any::<u8>(), 0..120)).prop_map(|(kind, mut bytes)| {
            if let Some(version) = bytes.first_mut() {
                *version = 1;
            }
            (kind, bytes)
        });
    prop_oneof![6 => valid, 4 => changed, 1 => cut, 1 => noise]
}

fn apply(machine: &mut Machine, index: u64, kind: u16, bytes: &[u8]) -> Option<Outcome> {
    let moment = Moment { term: Term(1), index, time: TimestampMs(index * 600_000), byte: 0 };
    let command = Command::decode(kind, Bytes::copy_from_slice(bytes)).ok()?;
    let outcome = machine.apply(moment, command).outcome;
    machine.entry_applied(moment);
    Some(outcome)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn items_of_any_bytes_never_panic_never_make_machines_differ_and_save_what_reads_back(
        items in prop::collection::vec(item(), 1..80),
        save_every in 1_usize..10,
    ) {
        let (mut one, mut saved) = (Machine::new(SHARD), Machine::new(SHARD));
        for (nth, (kind, bytes)) in items.iter().enumerate() {
            let index = nth as u64 + 1;
            let (first, second) =
                (apply(&mut one, index, *kind, bytes), apply(&mut saved, index, *kind, bytes));
            prop_assert_eq!(first, second);
            if nth % save_every == 0 {
                saved.dirty_parts();
            }
            prop_assert_eq!(one.digest(), saved.digest(), "at item {}", nth);
        }
        let parts = one.all_parts();
        prop_assert_eq!(&parts, &saved.all_parts());
        let mut restored = Machine::new(SHARD);
        restored.restore(parts.clone()).unwrap();
        prop_assert_eq!(restored.digest(), one.digest());
        prop_assert_eq!(restored.all_parts(), parts);
        // The restored one goes on as the others do.
        for (nth, (kind, bytes)) in items.iter().enumerate() {
            let index = (items.len() + nth) as u64 + 1;
            let outcome = apply(&mut restored, index, *kind, bytes);
            prop_assert_eq!(outcome, apply(&mut one, index, *kind, bytes));
        }
        prop_assert_eq!(restored.digest(), one.digest());
    }

    #[test]
    fn an_item_that_reads_is_written_back_as_one_that_reads_the_same((kind, bytes) in item()) {
        if let Ok(command) = Command::decode(kind, bytes.into()) {
            let written = Bytes::from(command.encode().concat());
            prop_assert_eq!(Command::decode(command.kind(), written), Ok(command));
        }
    }

    #[test]
    fn parts_of_any_bytes_are_refused_or_restore_a_state(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut machine = Machine::new(SHARD);
        for (nth, command) in examples().iter().enumerate() {
            apply(&mut machine, nth as u64 + 1, command.kind(), &command.encode().concat());
        }
        let mut append = Vec::new();
        append.extend(Command::Append { queue: super::model_tests::queue(1, 0), batch: batch(2, 0, 0, 1) }.encode().concat());
        apply(&mut machine, 50, KIND_APPEND, &append);
        let mut parts = machine.all_parts();
        for (part, at, byte) in changes {
            let part = part.index(parts.len());
            let mut value = parts[part].value.clone().unwrap_or_default().to_vec();
            if !value.is_empty() {
                let at = at.index(value.len());
                value[at] = byte;
            }
            parts[part].value = Some(value.into());
        }
        let mut restored = Machine::new(SHARD);
        if restored.restore(parts).is_ok() {
            // Of the bytes as they came: a digest that was written beside them would not fit.
            let again = restored.all_parts();
            prop_assert!(restored.restore(again.clone()).is_ok());
            prop_assert_eq!(restored.all_parts(), again);
        }
    }
}
