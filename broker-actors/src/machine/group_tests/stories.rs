//! Groups in the machine, story by story.

use super::*;
use crate::commands::coordination::{Grant, GroupChange};

impl Pair {
    pub(super) fn hand_back(&mut self, from: u64, (seen, seen_to): (u64, u64)) {
        let in_work = vec![Span { from: Offset(seen), to: Offset(seen_to) }];
        let (holding, unseen_from) = (self.holding(), Offset(from));
        let item = GroupItem::HandBack(HandBack { holding, unseen_from, in_work });
        let effect = self.group(item);
        assert_eq!(effect.outcome, Outcome::Delivered(self.model.is_held()));
        if !self.model.is_held() {
            return;
        }
        let now = self.moment.time.0;
        for (at, fate) in (0_u64..).zip(&mut self.model.fates) {
            if let Fate::Waits { due, deliveries } = fate
                && *due == IN_HANDS.0
                && !(seen..seen_to).contains(&at)
            {
                (*due, *deliveries) = (now, (*deliveries - 1).max(1));
            }
        }
        let from = usize::try_from(from).unwrap();
        self.model.delivered_to = self.model.delivered_to.min(from);
    }
}

#[test]
fn a_group_that_is_not_known_in_the_shard_gets_no_progress() {
    let mut pair = Pair::new();
    let unknown = ProgressKey { group: GroupId(1), ..place() };
    let holding =
        Holding { place: unknown, generation: Generation(1), member: MemberId(1), round: 0 };
    let terms = RetryTerms::default();
    let claim = GroupItem::Claim { holding, start: Offset(0), terms };
    let refused = Outcome::Claim(Err(Refusal::UnknownGroup));
    assert_eq!(pair.group(claim.clone()).outcome, refused, "topic 1 is nobody's dead letters");
    let reset = GroupItem::Reset { place: unknown, to: Offset(0) };
    assert_eq!(pair.group(reset).outcome, Outcome::Reset(Err(Refusal::UnknownGroup)));
    pair.step(&Step::Claim { generation: 1, member: 1, start: 0 });
    pair.apply(Command::TopicDrop { topic: LETTERS.topic });
    assert_eq!(pair.machine.progress_count(), 0, "a group goes with its topic");
    let holding = Holding { place: place(), ..holding };
    let claim = GroupItem::Claim { holding, start: Offset(0), terms: RetryTerms::default() };
    assert_eq!(pair.group(claim).outcome, refused, "and does not come back");
}

#[test]
fn no_claim_and_no_reset_moves_what_is_settled_of_dead_letters() {
    let mut pair = Pair::new();
    let place = ProgressKey { queue: LETTERS, group: GROUP };
    let reset = GroupItem::Reset { place, to: Offset(0) };
    assert_eq!(pair.group(reset).outcome, Outcome::Reset(Err(Refusal::UnknownQueue)));
    let holding = Holding { place, generation: Generation(1), member: MemberId(1), round: 0 };
    let claim = GroupItem::Claim { holding, start: Offset(0), terms: RetryTerms::default() };
    assert_eq!(pair.group(claim).outcome, Outcome::Claim(Err(Refusal::UnknownQueue)));
    assert_eq!(pair.machine.progress_count(), 0);
}

#[test]
fn what_a_member_hands_back_unseen_was_not_delivered() {
    let mut pair = Pair::new();
    pair.step(&Step::Append(10));
    for generation in 1..=20 {
        pair.step(&Step::Claim { generation, member: generation, start: 0 });
        let again = if generation > 1 { vec![1] } else { Vec::new() };
        pair.step(&Step::Deliver { to: 10, passed: None, again });
        pair.step(&Step::Ack { from: 0, count: 1 });
        pair.step(&Step::Nack { offset: 1, after: 0 });
        pair.step(&Step::HandBack { from: 3, in_work: (0, 0) });
    }
    let numbers = pair.machine.progress(place()).unwrap().numbers();
    assert_eq!(numbers.deliveries(Offset(2)), 20, "it was handed out each time");
    assert_eq!(numbers.deliveries(Offset(3)), 0, "nobody ever saw it");
    let seen = pair.machine.progress(place()).unwrap().retry(Offset(1)).unwrap();
    assert_eq!(seen.deliveries, 20, "seen each time");
    pair.step(&Step::Claim { generation: 30, member: 1, start: 0 });
    pair.step(&Step::Deliver { to: 10, passed: None, again: vec![1] });
    pair.step(&Step::HandBack { from: 3, in_work: (0, 0) });
    let unseen = pair.machine.progress(place()).unwrap().retry(Offset(1)).unwrap();
    assert_eq!(unseen.deliveries, 20, "not this time");
}

#[test]
fn dead_letters_go_back_once_and_what_is_purged_does_not() {
    let mut pair = Pair::new();
    pair.step(&Step::Append(3));
    pair.step(&Step::Claim { generation: 1, member: 1, start: 0 });
    for offset in 0..3 {
        pair.step(&Step::Letter { offset, is_gone: false });
    }
    let letters = ProgressKey { queue: LETTERS, group: GROUP };
    let purge =
        GroupItem::Purge { place: letters, spans: vec![Span { from: Offset(2), to: Offset(9) }] };
    assert_eq!(pair.group(purge.clone()).outcome, Outcome::Purge(Ok(1)));
    assert_eq!(pair.group(purge).outcome, Outcome::Purge(Ok(0)));
    let all = || (0..3).map(|at| Letter { offset: Offset(at), batch: batch(0, 0, 0, 1) }).collect();
    let redrive = || GroupItem::Redrive { place: letters, to: queue(1, 0), letters: all() };
    let effect = pair.group(redrive());
    assert_eq!(effect.outcome, Outcome::Redrive(Ok(2)), "the third was purged");
    let Some(IndexChange::Released { queue: to, runs }) = effect.index else { panic!("two runs") };
    let offsets: Vec<u64> = runs.iter().map(|run| run.appended.base_offset.0).collect();
    assert_eq!((to, offsets), (queue(1, 0), vec![3, 4]));
    assert_eq!(pair.group(redrive()).outcome, Outcome::Redrive(Ok(0)), "none goes twice");
    assert_eq!(pair.machine.progress(letters).unwrap().lag(Offset(0), Offset(3)), 0);
    let elsewhere = GroupItem::Redrive { place: letters, to: queue(5, 0), letters: Vec::new() };
    assert_eq!(pair.group(elsewhere).outcome, Outcome::Redrive(Ok(0)));
    let wrong = GroupItem::Purge { place: place(), spans: Vec::new() };
    assert_eq!(pair.group(wrong).outcome, Outcome::Purge(Err(Refusal::UnknownQueue)));
}

#[test]
fn what_finds_no_room_is_named_and_what_fills_a_gap_always_finds_some() {
    let mut pair = Pair::new();
    let count = 2 * crate::machine::groups::RANGES_MAX as u64 + 4;
    for _ in 0..=count / 256 {
        pair.apply(Command::Append { queue: queue(1, 0), batch: batch(0, 0, 0, 256) });
    }
    pair.group(GroupItem::Claim {
        holding: Holding {
            place: place(),
            generation: Generation(1),
            member: MemberId(1),
            round: 0,
        },
        start: Offset(0),
        terms: RetryTerms::default(),
    });
    pair.model.holder = (1, 1);
    let one = |at: u64| Span { from: Offset(at), to: Offset(at + 1) };
    let odd: Vec<Span> =
        (0..=crate::machine::groups::RANGES_MAX as u64).map(|at| one(2 * at + 1)).collect();
    let last = odd.last().unwrap().from.0;
    let effect = pair.settle(odd, vec![], vec![]);
    let left = |effect: &Effect| match effect.outcome {
        Outcome::Settle(Ok(settled)) => (settled.floor.0, settled.left, settled.dead),
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(left(&effect), (0, 1, 0), "the last one found no room");
    let nack = Nack { offset: Offset(last), due: TimestampMs(1) };
    let letter = Letter { offset: Offset(last), batch: batch(0, 0, 0, 1) };
    let effect = pair.settle(vec![], vec![nack], vec![letter]);
    assert_eq!(left(&effect), (0, 2, 0), "nor there: no letter without its settling");
    let effect = pair.settle(vec![one(4), one(0), one(last)], vec![], vec![]);
    assert_eq!(left(&effect), (2, 0, 0), "a gap was filled, so there is room");
}

#[test]
fn a_full_table_leaves_new_retries_and_one_that_waits_is_not_put_off_by_being_told_again() {
    use crate::machine::groups::RETRIES_EACH_MAX;
    let mut pair = Pair::new();
    let most = RETRIES_EACH_MAX as u64;
    for _ in 0..=most / 256 {
        pair.apply(Command::Append { queue: queue(1, 0), batch: batch(0, 0, 0, 256) });
    }
    pair.step(&Step::Claim { generation: 1, member: 1, start: 0 });
    let nack = |at: u64, due| Nack { offset: Offset(at), due: TimestampMs(due) };
    let left = |effect: &Effect| match effect.outcome {
        Outcome::Settle(Ok(settled)) => (settled.retries, settled.left),
        outcome => panic!("{outcome:?}"),
    };
    let effect = pair.settle(vec![], (0..most).map(|at| nack(at, 5_000)).collect(), vec![]);
    assert_eq!(left(&effect), (most, 0));
    let held = GroupItem::Delivered(Delivered {
        holding: pair.holding(),
        end: Offset(0),
        passed: Vec::new(),
        again: vec![Offset(3)],
    });
    pair.group(held);
    let due =
        |pair: &Pair, at| pair.machine.progress(place()).unwrap().retry(Offset(at)).unwrap().due;
    assert_eq!(due(&pair, 3), IN_HANDS);
    for later in [6_000, 7_000] {
        let effect = pair.settle(vec![], vec![nack(3, later), nack(most, later)], vec![]);
        assert_eq!(left(&effect), (most, 1), "the new one finds no room");
        assert_eq!(due(&pair, 3), TimestampMs(6_000), "its first word counts");
    }
    pair.moment.time = TimestampMs(6_000);
    pair.settle(vec![], vec![nack(3, 8_000)], vec![]);
    assert_eq!(due(&pair, 3), TimestampMs(8_000), "it was due, and is put off");
    let done = Span { from: Offset(4), to: Offset(5) };
    let effect = pair.settle(vec![done], vec![nack(most, 9_000)], vec![]);
    assert_eq!(left(&effect), (most, 0), "there is room for it now");
}

fn change(generation: u64, members: &[(u64, &'static str)]) -> GroupChange {
    let set =
        members.iter().map(|(id, bytes)| (MemberId(*id), Bytes::from_static(bytes.as_bytes())));
    GroupChange {
        group: GROUP,
        generation: Generation(generation),
        head: None,
        members_set: set.collect(),
        members_gone: Vec::new(),
        grants: Vec::new(),
    }
}

#[test]
fn a_coordinators_notes_are_kept_whole_or_not_at_all_and_read_back() {
    let mut pair = Pair::new();
    let mut apply = |change: GroupChange| pair.group(GroupItem::Change(change)).outcome;
    let done = Outcome::GroupChange(Ok(()));
    let grant =
        |member, generation| Grant { member: MemberId(member), generation: Generation(generation) };
    let first = GroupChange {
        head: Some(Bytes::from_static(b"settings")),
        grants: vec![(queue(1, 0), grant(1, 3)), (queue(1, 1), grant(2, 3))],
        ..change(3, &[(1, "one"), (2, "two")])
    };
    assert_eq!(apply(first), done);
    let stale = Outcome::GroupChange(Err(Refusal::NotHeld { generation: Generation(3) }));
    assert_eq!(apply(change(2, &[(9, "late")])), stale);
    let second = GroupChange {
        members_gone: vec![MemberId(2), MemberId(77)],
        grants: vec![
            (queue(1, 1), grant(0, 4)),
            (queue(1, 0), grant(1, 4)),
            (queue(5, 5), grant(0, 4)),
        ],
        ..change(4, &[(1, "uno")])
    };
    assert_eq!(apply(second), done);
    // A coordinator that was rebuilt while a change was under way does not know of it.
    let stale = Outcome::GroupChange(Err(Refusal::NotHeld { generation: Generation(4) }));
    assert_eq!(apply(change(4, &[(9, "late")])), stale, "two changes of one generation");
    let elsewhere = GroupChange { group: GroupId(1), ..change(9, &[]) };
    assert_eq!(apply(elsewhere), Outcome::GroupChange(Err(Refusal::UnknownGroup)));

    pair.checkpoint();
    let state = pair.machine.group(GROUP).unwrap();
    assert_eq!(
        (state.head().generation, &state.head().bytes[..]),
        (Generation(4), &b"settings"[..])
    );
    let members: Vec<_> = state.members().map(|(id, bytes)| (id.0, bytes.to_vec())).collect();
    assert_eq!(members, [(1, b"uno".to_vec())]);
    assert_eq!(state.grants().collect::<Vec<_>>(), [(queue(1, 0), grant(1, 4))]);
    pair.apply(Command::TopicDrop { topic: LETTERS.topic });
    assert!(pair.machine.group(GROUP).is_none());
    pair.checkpoint();
    assert_eq!(pair.machine.groups().count(), 0);
}

#[test]
fn all_queues_that_there_can_be_are_given_and_taken_by_items_that_read() {
    let mut pair = Pair::new();
    let grants = |member, generation| -> Vec<_> {
        let grant = Grant { member: MemberId(member), generation: Generation(generation) };
        let queues = 0..u32::try_from(crate::machine::groups::GRANTS_MAX).unwrap();
        queues.map(|number| (queue(1, number), grant)).collect()
    };
    // Given, given to another one, and taken: what is there already takes no room.
    for (member, generation) in [(1, 1), (2, 2), (0, 3)] {
        let change = GroupChange { grants: grants(member, generation), ..change(generation, &[]) };
        let command = Command::Group(GroupItem::Change(change));
        let bytes = command.encode().concat();
        assert!(bytes.len() < 8 * 1024 * 1024, "{} bytes find room in an entry", bytes.len());
        let command = Command::decode(command.kind(), bytes.into()).expect("it reads");
        assert_eq!(pair.apply(command).outcome, Outcome::GroupChange(Ok(())));
    }
    let one_more = GroupChange {
        grants: vec![(queue(2, 0), Grant { member: MemberId(1), generation: Generation(4) })],
        ..change(4, &[])
    };
    let outcome = pair.group(GroupItem::Change(one_more)).outcome;
    assert_eq!(outcome, Outcome::GroupChange(Ok(())), "there is room again");
}
