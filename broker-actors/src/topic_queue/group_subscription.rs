//! What a queue knows of a subscription that a group's member has. Pure.

use std::collections::BTreeSet;

use grus_protocol::ids::{Offset, TimestampMs};
use grus_protocol::message::MessageFilter;

use super::settling::BURY_RETRY_MS;
use super::sifting::push;
use crate::commands::groups::{Delivered, ELEMENTS_MAX, Holding, Span};
use crate::machine::groups::RANGES_MAX;
use crate::machine::groups::progress::Progress;

/// What is noted of deliveries is proposed at once when there is so much of it.
const NOTED_MAX: usize = 1_024;
/// Most ranges and most retries of one item, of each: some 100 KiB, which fit every log's entries. One
/// turn may note more: those of a compressed batch have no other bound than the batch's own.
const ITEM_MAX: usize = 4_096;
const _: () = assert!(ITEM_MAX <= ELEMENTS_MAX as usize);
/// While so many ranges found no room, nothing more of what lies ahead is sent.
const HOMELESS_MAX: usize = 4 * RANGES_MAX;
/// How long a subscription rests after something about it could not be written, in milliseconds;
/// twice as long after each time that follows.
const REST_MS: u64 = 500;
/// The longest it rests, in milliseconds.
const REST_MS_MAX: u64 = 60_000;

/// What a member has in its hands counts as so many messages at most, where it is asked whether all of
/// it finds room if it fails: what is damaged, and so never settled, holds up nothing.
const IN_HANDS_MAX: u64 = 4_096;

/// Whether what lies at `next` may be sent, where so many more messages find room that are to be
/// delivered again: all that is not dealt with before it could fail, and one more.
pub(super) fn may_send_ahead(progress: &Progress, next: Offset, room: u64) -> bool {
    let floor = progress.floor.0;
    let span = next.0.saturating_sub(floor);
    let in_hands = || span.saturating_sub(progress.passed.covered_within(floor, next.0));
    room > span || room > in_hands().min(IN_HANDS_MAX)
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct GroupSubscription {
    /// By what it is served.
    pub(super) holding: Holding,
    /// What the member wants.
    pub(super) filter: MessageFilter,
    /// Retries that were in the member's hands when it subscribed: it may have lost them.
    pub(super) owed: BTreeSet<Offset>,
    /// Retries that were sent, and whose deliveries are not applied yet.
    pub(super) sent: BTreeSet<Offset>,
    /// Dead letters are under way: what comes next waits for them.
    pub(super) is_burying: bool,
    /// They could not be stored, and are tried again then.
    pub(super) bury_again: Option<TimestampMs>,
    /// The last turn sent retries, so the next one is for what lies ahead.
    pub(super) was_retries: bool,
    /// Deliveries that were not proposed yet.
    end: Option<Offset>,
    passed: Vec<Span>,
    again: Vec<Offset>,
    /// What was passed over and found no room in the state: it is proposed again when there is some.
    homeless: Vec<Span>,
    /// Nothing is sent or proposed before, as it could not be written last.
    rests_until: Option<TimestampMs>,
    /// How often in a row it could not be.
    refusals: u32,
}

impl GroupSubscription {
    pub(super) fn new(holding: Holding, filter: MessageFilter, owed: BTreeSet<Offset>) -> Self {
        Self {
            holding,
            filter,
            owed,
            sent: BTreeSet::new(),
            is_burying: false,
            bury_again: None,
            was_retries: false,
            end: None,
            passed: Vec::new(),
            again: Vec::new(),
            homeless: Vec::new(),
            rests_until: None,
            refusals: 0,
        }
    }

    /// The first retry that is owed is one that a member should have: others are over.
    pub(super) fn owe_only(&mut self, mut is_owed: impl FnMut(Offset) -> bool) {
        while self.owed.first().is_some_and(|offset| !is_owed(*offset)) {
            self.owed.pop_first();
        }
    }

    /// All before `end` was sent or passed over.
    pub(super) fn delivered_to(&mut self, end: Offset, passed: &[Span]) {
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
        for span in passed {
            push(&mut self.passed, span.from.0, span.to.0);
        }
    }

    /// Retries were sent. What the member has `in_hands` since an earlier connection is no delivery more:
    /// it was counted when it was sent first.
    pub(super) fn delivered_again(&mut self, offsets: &[Offset], in_hands: bool) {
        for offset in offsets {
            self.owed.remove(offset);
            if !in_hands {
                self.sent.insert(*offset);
                self.again.push(*offset);
            }
        }
    }

    /// Whether deliveries were not proposed yet.
    pub(super) const fn has_noted(&self) -> bool {
        self.end.is_some() || !self.again.is_empty()
    }

    /// Whether they should be, now.
    pub(super) fn is_full(&self) -> bool {
        self.passed.len() + self.again.len() >= NOTED_MAX
    }

    /// What to propose of deliveries: an item at a time, until there is none.
    pub(super) fn take_noted(&mut self) -> Option<Delivered> {
        if !self.has_noted() {
            return None;
        }
        let passed = first_of(&mut self.passed, ITEM_MAX);
        let again = first_of(&mut self.again, ITEM_MAX);
        let end = self.end.unwrap_or(Offset(0));
        if self.passed.is_empty() {
            self.end = None;
        }
        Some(Delivered { holding: self.holding, end, passed, again })
    }

    /// Deliveries are applied, or perhaps they are: the state tells from here on.
    pub(super) fn noted(&mut self, delivered: &Delivered, progress: &Progress) {
        for offset in &delivered.again {
            self.sent.remove(offset);
        }
        let open = delivered.passed.iter();
        let open =
            open.flat_map(|span| progress.passed.gaps(span.from.max(progress.floor).0, span.to.0));
        let open = open.map(|(from, to)| Span { from: Offset(from), to: Offset(to) });
        self.homeless.extend(open);
        self.went_well();
    }

    /// What found no room in the state before is noted once more, where there is some now.
    pub(super) fn house(&mut self, progress: &Progress) {
        if !self.homeless.is_empty() && progress.passed.len() <= RANGES_MAX / 2 {
            let more = first_of(&mut self.homeless, RANGES_MAX / 2);
            let end = more.last().map_or(Offset(0), |span| span.to);
            self.add_passed(more);
            self.end = Some(self.end.map_or(end, |before| before.max(end)));
        }
    }

    /// Whether so much found no room that nothing more may be passed over.
    pub(super) fn is_crowded(&self) -> bool {
        self.homeless.len() > HOMELESS_MAX
    }

    /// Deliveries were not written: they are noted as they were, and proposed again after a rest.
    pub(super) fn put_back(&mut self, delivered: Delivered, now: TimestampMs) {
        let Delivered { end, passed, mut again, .. } = delivered;
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
        self.add_passed(passed);
        self.sent.extend(&again);
        again.append(&mut self.again);
        self.again = again;
        self.rest(now);
    }

    fn add_passed(&mut self, mut more: Vec<Span>) {
        more.append(&mut self.passed);
        more.sort_unstable();
        for span in more {
            push(&mut self.passed, span.from.0, span.to.0);
        }
    }

    /// Something about it could not be written: it is left alone for a while.
    pub(super) fn rest(&mut self, now: TimestampMs) {
        let wait_ms = REST_MS.saturating_mul(1 << self.refusals.min(16)).min(REST_MS_MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.rests_until = Some(TimestampMs(now.0.saturating_add(wait_ms)));
    }

    /// Something about it was written.
    pub(super) fn went_well(&mut self) {
        (self.refusals, self.rests_until) = (0, None);
    }

    /// The clock may have been set back: nothing waits longer than it would have from now on.
    pub(super) fn bound_waits(&mut self, now: TimestampMs) {
        let near =
            |until: TimestampMs, most: u64| until.min(TimestampMs(now.0.saturating_add(most)));
        self.rests_until = self.rests_until.map(|until| near(until, REST_MS_MAX));
        self.bury_again = self.bury_again.map(|until| near(until, BURY_RETRY_MS));
    }

    /// Until when it rests, if it does at `now`.
    pub(super) fn rests_until(&self, now: TimestampMs) -> Option<TimestampMs> {
        self.rests_until.filter(|until| *until > now)
    }
}

/// Takes so many from the front.
fn first_of<T>(list: &mut Vec<T>, most: usize) -> Vec<T> {
    let rest = list.split_off(list.len().min(most));
    std::mem::replace(list, rest)
}

#[cfg(test)]
pub(super) mod tests {
    use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey};

    use super::*;
    use crate::commands::Command;
    use crate::commands::groups::{GroupItem, ProgressKey};

    #[test]
    fn nothing_is_sent_ahead_unless_all_that_is_in_hands_may_fail() {
        let mut progress = Progress::at(Offset(100));
        let may = |progress: &Progress, next, room| may_send_ahead(progress, Offset(next), room);
        assert_eq!([0, 1].map(|room| may(&progress, 100, room)), [false, true]);
        progress.pass(Offset(110), Offset(150), 9);
        let in_hands = 60; // 100 to 110, 150 to 200
        let rooms = [in_hands, in_hands + 1, 101].map(|room| may(&progress, 200, room));
        assert_eq!(rooms, [false, true, true]);
        assert!(!may(&progress, 1 << 40, IN_HANDS_MAX), "what cannot be settled counts so far");
        assert!(may(&progress, 1 << 40, IN_HANDS_MAX + 1));
    }

    #[test]
    fn deliveries_are_noted_until_they_are_taken_and_those_sent_until_they_are_applied() {
        let place = ProgressKey { queue: QueueKey::default(), group: GroupId(9) };
        let (generation, member) = (Generation(1), MemberId(1));
        let holding = Holding { place, generation, member, round: 0 };
        let owed = BTreeSet::from([Offset(3)]);
        let mut one = GroupSubscription::new(holding, MessageFilter::All, owed);
        assert!(!one.has_noted() && one.take_noted().is_none());
        let span = |from, to| Span { from: Offset(from), to: Offset(to) };
        one.delivered_to(Offset(10), &[span(4, 6)]);
        one.delivered_to(Offset(9), &[span(6, 7), span(8, 9)]);
        one.delivered_again(&[Offset(3)], true);
        one.delivered_again(&[Offset(1), Offset(2)], false);
        assert!(one.owed.is_empty() && !one.sent.contains(&Offset(3)) && !one.is_full());
        let item = one.take_noted().expect("noted");
        assert_eq!((item.end, &item.passed), (Offset(10), &vec![span(4, 7), span(8, 9)]));
        assert_eq!(item.again, [Offset(1), Offset(2)], "3 was in its hands all the while");
        assert!(!one.has_noted() && one.sent.len() == 2);
        let mut progress = Progress::at(Offset(5));
        progress.pass(Offset(5), Offset(7), 9);
        one.noted(&item, &progress);
        assert!(one.sent.is_empty());
        assert_eq!(one.homeless, [span(8, 9)], "that one found no room");
        one.house(&progress);
        let item = one.take_noted().expect("there is some now");
        assert_eq!((item.end, item.passed), (Offset(9), vec![span(8, 9)]));
        for at in 0..NOTED_MAX as u64 {
            one.delivered_to(Offset(at), &[span(2 * at, 2 * at + 1)]);
        }
        assert!(one.is_full());
    }

    pub(in super::super) fn subscription() -> GroupSubscription {
        let place = ProgressKey { queue: QueueKey::default(), group: GroupId(9) };
        let (generation, member) = (Generation(1), MemberId(1));
        let holding = Holding { place, generation, member, round: 0 };
        GroupSubscription::new(holding, MessageFilter::All, BTreeSet::new())
    }

    #[test]
    fn what_was_owed_and_has_failed_since_counts_when_it_is_sent_again() {
        let mut one = subscription();
        one.owed = BTreeSet::from([Offset(1), Offset(2)]);
        one.delivered_again(&[Offset(2)], false);
        assert_eq!(one.take_noted().expect("noted").again, [Offset(2)]);
        assert_eq!(one.owed, BTreeSet::from([Offset(1)]));
    }

    #[test]
    fn what_one_turn_may_note_goes_in_items_that_read() {
        let mut one = subscription();
        let spans: Vec<Span> = (0..u64::from(ELEMENTS_MAX) + 7)
            .map(|at| Span { from: Offset(2 * at), to: Offset(2 * at + 1) })
            .collect();
        one.delivered_to(Offset(u64::from(ELEMENTS_MAX) * 3), &spans);
        let mut seen = Vec::new();
        while let Some(item) = one.take_noted() {
            let command = Command::Group(GroupItem::Delivered(item.clone()));
            let bytes: Vec<u8> = command.encode().concat();
            assert_eq!(Command::decode(command.kind(), bytes.into()), Ok(command));
            seen.extend(item.passed);
        }
        assert_eq!(seen, spans);
    }

    #[test]
    fn what_was_not_written_is_proposed_again_in_order_after_a_rest_that_grows() {
        let mut one = subscription();
        let span = |from, to| Span { from: Offset(from), to: Offset(to) };
        one.delivered_to(Offset(4), &[span(1, 2), span(3, 4)]);
        one.delivered_again(&[Offset(0)], false);
        let first = one.take_noted().expect("noted");
        one.delivered_to(Offset(8), &[span(4, 5), span(7, 8)]);
        one.delivered_again(&[Offset(2)], false);
        let now = TimestampMs(1_000);
        one.put_back(first, now);
        assert_eq!(one.rests_until(now), Some(TimestampMs(1_000 + REST_MS)));
        let both = one.take_noted().expect("noted");
        assert_eq!(both.passed, [span(1, 2), span(3, 5), span(7, 8)]);
        assert_eq!((both.end, &both.again[..]), (Offset(8), &[Offset(0), Offset(2)][..]));
        assert_eq!(one.sent.len(), 2, "nobody sends them meanwhile");
        one.put_back(both, now);
        assert_eq!(one.rests_until(now), Some(TimestampMs(1_000 + 2 * REST_MS)));
        for _ in 0..99 {
            one.rest(now);
        }
        assert_eq!(one.rests_until(now), Some(TimestampMs(1_000 + REST_MS_MAX)));
        one.went_well();
        assert_eq!(one.rests_until(now), None);
    }

    #[test]
    fn a_clock_that_is_set_back_by_an_hour_lets_nothing_rest_for_an_hour() {
        let mut one = subscription();
        let (ahead, now) = (TimestampMs(3_700_000), TimestampMs(100_000));
        one.rest(ahead);
        one.bury_again = Some(ahead);
        one.bound_waits(ahead);
        let until = TimestampMs(ahead.0 + REST_MS);
        assert_eq!(one.rests_until(ahead), Some(until), "it stands as it is");
        one.bound_waits(now);
        assert_eq!(one.rests_until(now), Some(TimestampMs(now.0 + REST_MS_MAX)));
        assert_eq!(one.bury_again, Some(TimestampMs(now.0 + BURY_RETRY_MS)));
    }
}
