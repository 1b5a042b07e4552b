//! Checkpoints in slices, while items are applied between them.

use super::*;

/// The parts by key, as a checkpoint lays them over each other.
fn by_key(parts: &[Part]) -> BTreeMap<Bytes, Option<Bytes>> {
    let all: BTreeMap<_, _> = parts.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
    assert_eq!(all.len(), parts.len(), "each part is given once");
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_checkpoint_in_slices_is_that_of_its_moment_whatever_is_applied_between_them(
        before in prop::collection::vec(step(), 1..60),
        between in prop::collection::vec(step(), 1..60),
        whole in any::<bool>(),
        every in 1_usize..8,
    ) {
        // Two that apply the same: one is asked in one go, the other in slices of one part.
        let (mut one, mut sliced) = (Pair::new(), Pair::new());
        for pair in [&mut one, &mut sliced] {
            pair.step(&Step::Topic { topic: 1, queues: 3 });
            for step in &before {
                pair.step(step);
            }
        }
        let wanted_digest = one.machine.digest();
        let dirty = one.machine.dirty_parts();
        let wanted = if whole { one.machine.all_parts() } else { dirty };

        sliced.machine.freeze(whole);
        let mut parts = Vec::new();
        let mut digest = None;
        let steps = between.iter().filter(|step| !matches!(step, Step::Checkpoint));
        for (nth, step) in steps.enumerate() {
            one.step(step);
            sliced.step(step);
            prop_assert_eq!(sliced.machine.digest(), one.machine.digest(), "step {}", nth);
            if nth % every == 0 && digest.is_none() {
                digest = sliced.machine.slice_of(1, &mut parts);
            }
        }
        while digest.is_none() {
            let had = parts.len();
            digest = sliced.machine.slice_of(1, &mut parts);
            prop_assert!(parts.len() <= had + 1 + between.len() * 4, "a slice is small");
        }
        prop_assert_eq!(by_key(&parts), by_key(&wanted));
        prop_assert_eq!(digest, Some(wanted_digest));
        prop_assert_eq!(sliced.machine.digest(), one.machine.digest());
        let (after, wanted) = (sliced.machine.dirty_parts(), one.machine.dirty_parts());
        prop_assert_eq!(by_key(&after), by_key(&wanted), "the next delta goes on from there");
    }
}

#[test]
fn no_slice_of_ten_thousand_queues_gives_more_than_its_bound() {
    let mut machine = Machine::new(SHARD);
    let moment = Moment { term: Term(1), index: 1, time: TimestampMs(1), byte: 0 };
    for topic in 0..10 {
        machine.apply(moment, Command::TopicConfig(config(topic, 1_000)));
    }
    for whole in [false, true] {
        let wanted = by_key(&machine.all_parts());
        machine.freeze(whole);
        let (mut parts, mut slices) = (Vec::new(), 0);
        loop {
            let had = parts.len();
            let done = machine.frozen_parts(&mut parts);
            slices += 1;
            let new: usize =
                parts[had..].iter().map(|part| part.value.as_ref().map_or(0, Bytes::len)).sum();
            assert!(parts.len() - had <= crate::machine::SLICE_PARTS_MAX);
            assert!(new < crate::machine::SLICE_BYTES_MAX + 64 * 1024, "{new} bytes in one slice");
            if done.is_some() {
                break;
            }
        }
        assert!(slices >= 10_011 / crate::machine::SLICE_PARTS_MAX, "{slices} slices");
        assert_eq!(by_key(&parts), wanted);
    }
}
