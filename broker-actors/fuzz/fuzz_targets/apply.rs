//! Items applied by two machines, one of which is saved in slices all the while: never a panic,
//! never a difference, and what was saved is the state.
//!
//! Input: items, each `kind u8 | length u8 | bytes`.

#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_broker::commands::Command;
use grus_broker::machine::{Machine, Moment};
use grus_protocol::ids::{ShardId, Term, TimestampMs};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (mut one, mut saved) = (Machine::new(ShardId(3)), Machine::new(ShardId(3)));
    let (mut rest, mut index) = (data, 0_u64);
    let (mut state, mut slices, mut frozen) = (BTreeMap::new(), Vec::new(), false);
    while let [kind, length, behind @ ..] = rest {
        let (item, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        index += 1;
        let moment =
            Moment { term: Term(1), index, time: TimestampMs(index * u64::from(*kind) * 60_000), byte: 0 };
        let kind_of = 64 + u16::from(kind % 40);
        if let Ok(command) = Command::decode(kind_of, Bytes::copy_from_slice(item)) {
            let (first, second) = (one.apply(moment, command.clone()), saved.apply(moment, command));
            assert_eq!(first.outcome, second.outcome);
            one.entry_applied(moment);
            saved.entry_applied(moment);
        }
        assert_eq!(one.digest(), saved.digest());
        if !frozen {
            saved.freeze(false);
            frozen = true;
        }
        if kind % 3 == 0 && saved.frozen_parts(&mut slices).is_some() {
            frozen = false;
            lay(&mut state, &mut slices);
        }
    }
    for _ in 0..2 {
        if frozen {
            while saved.frozen_parts(&mut slices).is_none() {}
            lay(&mut state, &mut slices);
        }
        saved.freeze(false);
        frozen = true;
    }
    let parts = one.all_parts();
    let whole: BTreeMap<_, _> = parts.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
    assert_eq!(state, whole);
    let mut restored = Machine::new(ShardId(3));
    restored.restore(parts).expect("what was saved reads back");
    assert_eq!(restored.digest(), one.digest());
});

fn lay(
    state: &mut BTreeMap<Bytes, Option<Bytes>>,
    slices: &mut Vec<grus_log::Part>,
) {
    for part in slices.drain(..) {
        match part.value {
            Some(value) => state.insert(part.key, Some(value)),
            None => state.remove(&part.key),
        };
    }
}
