//! Which appends to one member may be under way together, and what openraft may be told of their answers.
//! Pure.
//!
//! openraft's request stream runs ahead of its answers as far as it is asked to; what makes that safe is up to
//! whoever asks (docs/adr/0010-pipelined-appends.md):
//! * Answers are told in the order of the requests.
//! * What was sent alone, when all before it had been answered, speaks for itself. What was sent behind others may
//!   only have been overtaken, or have lost what it builds on: of a conflict there openraft would believe that
//!   the member has lost what it acknowledged. So all that is said then is that the rest is to be sent again.
//! * An answer is told only when all requests that end at the same entry are answered: openraft takes it for an
//!   answer to each of them, also to one that was sent after the member spoke, and counts its lease from there.
//! * More than one only while entries come back quickly: a slow member would else be given up with the
//!   last one, and be sent again what it has.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{LogId, RaftVote};

/// Most appends to one member that are under way at once.
pub(crate) const APPENDS_MAX: usize = 4;

/// What a member said to an append, or why nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<E> {
    Appended,
    /// Only up to there, which is between what it builds on and its last entry.
    Partly(Option<LogId>),
    Conflict,
    HigherVote(RaftVote),
    Failed(E),
}

/// What openraft is told. All but the first kind end the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told<E> {
    /// The member has everything up to there.
    Matches(Option<LogId>),
    /// It does not have this entry, on which it was to build.
    Conflict(LogId),
    HigherVote(RaftVote),
    Failed(E),
    /// What is behind the last match is to be sent again.
    Again,
}

/// An append as the window sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outline {
    /// What it builds on.
    pub(crate) prev: Option<LogId>,
    /// Its last entry; without entries that which it builds on.
    pub(crate) last: Option<LogId>,
    pub(crate) has_entries: bool,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Sent<E> {
    outline: Outline,
    /// All before it had been answered when it was sent.
    is_alone: bool,
    answer: Option<Answer<E>>,
}

/// What a window keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// With more bytes than that under way, nothing is sent.
    pub(crate) bytes_max: u64,
    /// An answer to entries that took longer closes the window.
    pub(crate) quick: Duration,
    /// A rule removed for a test: conflicts are told wherever they are.
    pub(crate) tells_every_conflict: bool,
    /// A rule removed for a test: answers are told without those that end at the same entry.
    pub(crate) credits_unanswered: bool,
}

/// The appends of one stream that are under way.
#[derive(Debug)]
pub(crate) struct Window<E> {
    bounds: Bounds,
    sent: VecDeque<Sent<E>>,
    /// The number of the first of them.
    first: u64,
    /// Entries came back quickly.
    is_open: bool,
    is_over: bool,
}

impl<E> Window<E> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, sent: VecDeque::new(), first: 0, is_open: false, is_over: false }
    }

    /// Whether another append may be asked for and sent, once all was told that can be.
    pub(crate) fn has_room(&self) -> bool {
        let is_sound = |sent: &Sent<E>| matches!(sent.answer, None | Some(Answer::Appended));
        let bytes: u64 = self.sent.iter().map(|sent| sent.outline.bytes).sum();
        // Held back for what ends at the same entry: whatever goes now might hold it back longer.
        let is_held = self.sent.front().is_some_and(|front| front.answer.is_some());
        let fits = self.is_open
            && !is_held
            && self.sent.len() < APPENDS_MAX
            && bytes <= self.bounds.bytes_max
            && self.sent.iter().all(is_sound);
        !self.is_over && (self.sent.is_empty() || fits)
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether openraft has been told how the stream ends.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// An append is sent; its number.
    pub(crate) fn sent(&mut self, outline: Outline) -> u64 {
        let is_alone = self.sent.is_empty();
        self.sent.push_back(Sent { outline, is_alone, answer: None });
        self.first + self.sent.len() as u64 - 1
    }

    /// That append was answered, or given up, after so long.
    pub(crate) fn answered(&mut self, number: u64, answer: Answer<E>, took: Duration) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(sent) = at.and_then(|at| self.sent.get_mut(at)) else { return };
        let answer = match answer {
            Answer::Partly(upto) if upto >= sent.outline.last => Answer::Appended,
            other => other,
        };
        if sent.outline.has_entries {
            self.is_open = answer_is_quick(&answer, took <= self.bounds.quick);
        }
        sent.answer = Some(answer);
    }

    /// What openraft is to be told next.
    pub(crate) fn told(&mut self) -> Option<Told<E>> {
        if self.is_over {
            return None;
        }
        // Whoever leads with that vote, it is not this member: the order does not matter any more.
        let higher = self.sent.iter().find_map(|sent| match sent.answer {
            Some(Answer::HigherVote(vote)) => Some(vote),
            _ => None,
        });
        if let Some(vote) = higher {
            return Some(self.end(Told::HigherVote(vote)));
        }
        let front = self.sent.front()?;
        let is_match = matches!(front.answer.as_ref()?, Answer::Appended);
        if is_match && !self.bounds.credits_unanswered {
            let last = front.outline.last;
            let behind = self.sent.iter().skip(1);
            for same in behind.take_while(|sent| sent.outline.last == last) {
                match same.answer.as_ref()? {
                    Answer::Appended => {}
                    _ => return Some(self.end(Told::Again)),
                }
            }
        }
        let Sent { outline: Outline { prev, last, .. }, is_alone, answer } =
            self.sent.pop_front()?;
        self.first += 1;
        let speaks = is_alone || self.bounds.tells_every_conflict;
        Some(match (answer?, prev) {
            (Answer::Appended, _) => Told::Matches(last),
            (Answer::Partly(upto), _) => self.end(Told::Matches(upto)),
            (Answer::Conflict, Some(prev)) if speaks => self.end(Told::Conflict(prev)),
            (Answer::Failed(error), _) if is_alone => self.end(Told::Failed(error)),
            (Answer::HigherVote(vote), _) => self.end(Told::HigherVote(vote)),
            (Answer::Conflict | Answer::Failed(_), _) => self.end(Told::Again),
        })
    }

    fn end(&mut self, told: Told<E>) -> Told<E> {
        self.is_over = true;
        told
    }
}

fn answer_is_quick<E>(answer: &Answer<E>, is_quick: bool) -> bool {
    is_quick && matches!(answer, Answer::Appended)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::log_id;

    const QUICK: Duration = Duration::from_millis(125);
    const AT_ONCE: Duration = Duration::from_millis(1);

    fn window() -> Window<&'static str> {
        Window::new(Bounds {
            bytes_max: 4096,
            quick: QUICK,
            tells_every_conflict: false,
            credits_unanswered: false,
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as appends and answers have it")]
    fn upto(index: u64) -> Option<LogId> {
        Some(log_id(3, index))
    }

    /// Entries up to `last`, of so many bytes, behind `prev`.
    fn entries(prev: u64, last: u64, bytes: u64) -> Outline {
        let (prev, last) = (upto(prev), upto(last));
        Outline { prev, last, has_entries: prev < last, bytes }
    }

    /// A window that is open: entries up to 10 came back at once.
    fn open() -> Window<&'static str> {
        let mut window = window();
        let first = window.sent(entries(0, 10, 100));
        assert!(!window.has_room(), "the first one goes alone");
        window.answered(first, Answer::Appended, AT_ONCE);
        assert_eq!(window.told(), Some(Told::Matches(upto(10))));
        window
    }

    #[test]
    fn answers_are_told_in_the_order_of_their_requests() {
        let mut window = open();
        let numbers: Vec<_> = (10..13).map(|at| window.sent(entries(at, at + 1, 9))).collect();
        window.answered(numbers[2], Answer::Appended, AT_ONCE);
        window.answered(numbers[1], Answer::Appended, AT_ONCE);
        assert_eq!(window.told(), None);
        window.answered(numbers[0], Answer::Appended, AT_ONCE);
        for index in 11..14 {
            assert_eq!(window.told(), Some(Told::Matches(upto(index))));
        }
        assert!(window.told().is_none() && window.is_empty() && window.has_room());
    }

    #[test]
    fn a_full_window_waits_by_count_and_by_bytes() {
        let mut window = open();
        for at in 0..APPENDS_MAX as u64 {
            assert!(window.has_room());
            window.sent(entries(10 + at, 11 + at, 100));
        }
        assert!(!window.has_room(), "that many");
        let mut window = open();
        window.sent(entries(10, 11, 4096));
        assert!(window.has_room());
        window.sent(entries(11, 12, 1));
        assert!(!window.has_room(), "that much");
    }

    #[test]
    fn what_is_lost_in_the_middle_is_sent_again_with_all_behind_it() {
        let mut window = open();
        let (lost, behind) = (window.sent(entries(10, 20, 9)), window.sent(entries(20, 30, 9)));
        window.answered(behind, Answer::Conflict, AT_ONCE);
        assert!(window.told().is_none() && !window.has_room(), "nothing is sent behind that");
        window.answered(lost, Answer::Failed("no answer"), QUICK * 4);
        assert_eq!(window.told(), Some(Told::Failed("no answer")), "it had been sent alone");
        assert!(window.told().is_none() && window.is_over() && !window.has_room());

        let mut window = open();
        let first = window.sent(entries(10, 20, 9));
        let lost = window.sent(entries(20, 30, 9));
        let behind = window.sent(entries(30, 40, 9));
        window.answered(behind, Answer::Conflict, AT_ONCE);
        window.answered(first, Answer::Appended, AT_ONCE);
        assert_eq!(window.told(), Some(Told::Matches(upto(20))));
        window.answered(lost, Answer::Failed("no answer"), QUICK * 4);
        assert_eq!(window.told(), Some(Told::Again), "from 20, alone: that speaks for itself");
        assert_eq!(window.told(), None);
    }

    #[test]
    fn a_conflict_is_told_only_of_what_was_sent_alone() {
        // Overtaken: the member has 20 by now, and a conflict there would be a loss.
        let mut window = open();
        let (first, second) = (window.sent(entries(10, 20, 9)), window.sent(entries(20, 30, 9)));
        window.answered(second, Answer::Conflict, AT_ONCE);
        window.answered(first, Answer::Appended, AT_ONCE);
        assert_eq!(window.told(), Some(Told::Matches(upto(20))));
        assert_eq!(window.told(), Some(Told::Again));
        // The stream that follows begins there, alone.
        let mut window = super::tests::window();
        let alone = window.sent(entries(20, 30, 9));
        window.answered(alone, Answer::Conflict, AT_ONCE);
        assert_eq!(window.told(), Some(Told::Conflict(log_id(3, 20))));
        assert!(window.is_over());
        // Nothing precedes the first entry of all: whoever says so makes no sense.
        let mut window = super::tests::window();
        let outline = Outline { prev: None, ..entries(0, 3, 9) };
        let senseless = window.sent(outline);
        window.answered(senseless, Answer::Conflict, AT_ONCE);
        assert_eq!(window.told(), Some(Told::Again));
    }

    #[test]
    fn an_answer_waits_for_the_others_that_end_at_the_same_entry() {
        let mut window = open();
        let first = window.sent(entries(10, 20, 9));
        let commit = window.sent(entries(20, 20, 1));
        window.sent(entries(20, 30, 9));
        window.answered(first, Answer::Appended, AT_ONCE);
        assert_eq!(window.told(), None, "it was answered before the second was sent, perhaps");
        assert!(!window.has_room(), "or it would be held back for one commit after the other");
        window.answered(commit, Answer::Appended, AT_ONCE);
        assert_eq!(window.told(), Some(Told::Matches(upto(20))));
        assert_eq!(window.told(), Some(Told::Matches(upto(20))));
        assert!(window.told().is_none() && window.has_room());

        let mut window = open();
        let first = window.sent(entries(10, 20, 9));
        let commit = window.sent(entries(20, 20, 1));
        window.answered(first, Answer::Appended, AT_ONCE);
        window.answered(commit, Answer::Failed("lost"), AT_ONCE);
        assert_eq!(window.told(), Some(Told::Again), "its time would count for the lost one, too");
    }

    #[test]
    fn a_member_that_takes_a_part_is_sent_the_rest_anew() {
        let mut window = open();
        let part = window.sent(entries(10, 20, 9));
        let behind = window.sent(entries(20, 30, 9));
        window.answered(behind, Answer::Conflict, AT_ONCE);
        window.answered(part, Answer::Partly(upto(14)), AT_ONCE);
        assert_eq!(window.told(), Some(Told::Matches(upto(14))));
        assert!(window.told().is_none() && window.is_over());

        let mut window = open();
        let whole = window.sent(entries(10, 20, 9));
        window.answered(whole, Answer::Partly(upto(20)), AT_ONCE);
        assert_eq!(window.told(), Some(Told::Matches(upto(20))));
        assert!(!window.is_over());
    }

    #[test]
    fn a_higher_vote_is_told_at_once() {
        let mut window = open();
        window.sent(entries(10, 20, 9));
        let second = window.sent(entries(20, 30, 9));
        let vote = RaftVote::new(9, 2);
        window.answered(second, Answer::HigherVote(vote), AT_ONCE);
        assert_eq!(window.told(), Some(Told::HigherVote(vote)));
        assert!(window.is_over());
    }

    #[test]
    fn a_slow_member_is_sent_one_at_a_time() {
        let mut window = open();
        let slow = window.sent(entries(10, 20, 9));
        window.answered(slow, Answer::Appended, QUICK * 2);
        assert_eq!(window.told(), Some(Told::Matches(upto(20))));
        let next = window.sent(entries(20, 30, 9));
        assert!(!window.has_room());
        window.answered(next, Answer::Appended, QUICK);
        window.told();
        window.sent(entries(30, 40, 9));
        assert!(window.has_room(), "it is quick again");
        // What has no entries says nothing of its disk.
        let mut window = super::tests::window();
        let empty = window.sent(entries(10, 10, 9));
        window.answered(empty, Answer::Appended, AT_ONCE);
        window.told();
        window.sent(entries(10, 20, 9));
        assert!(!window.has_room());
    }

    /// A member as openraft has it: takes what builds on what it has, in whatever order it comes.
    fn member(last: &mut u64, (prev, upto): (u64, u64)) -> Answer<&'static str> {
        if prev > *last {
            return Answer::Conflict;
        }
        *last = (*last).max(upto);
        Answer::Appended
    }

    proptest! {
        /// Whatever is lost or overtaken, openraft is told of nothing that the member does not have, in
        /// order, and of no conflict where it has what it was sent; and in the end it has everything.
        #[test]
        fn nothing_false_is_told(
            sizes in proptest::collection::vec(0_u64..4, 1..40),
            fates in proptest::collection::vec((any::<u8>(), any::<u8>()), 200),
        ) {
            let all: u64 = sizes.iter().sum();
            let (mut has, mut told_upto) = (0, 0);
            let (mut fates, mut sizes) = (fates.into_iter().cycle(), sizes.into_iter().cycle());
            let mut streams = 0;
            while told_upto < all {
                streams += 1;
                prop_assert!(streams < 2_000, "it never comes to an end");
                let (mut window, mut next) = (window(), told_upto);
                // Under way to the member, and its answers on the way back.
                let (mut there, mut back) = (Vec::new(), Vec::new());
                loop {
                    while window.has_room() && next < all {
                        let last = (next + sizes.next().unwrap()).min(all);
                        there.push((window.sent(entries(next, last, 9)), (next, last)));
                        next = last;
                    }
                    let (which, fate) = fates.next().unwrap();
                    let is_lost = fate % 8 == 0;
                    if !there.is_empty() && (back.is_empty() || fate % 2 == 0) {
                        let (number, range) = there.remove(usize::from(which) % there.len());
                        if is_lost {
                            back.push((number, Answer::Failed("lost")));
                        } else {
                            back.push((number, member(&mut has, range)));
                        }
                    } else if !back.is_empty() {
                        let (number, answer) = back.remove(usize::from(which) % back.len());
                        let answer = if is_lost { Answer::Failed("lost") } else { answer };
                        window.answered(number, answer, AT_ONCE);
                    }
                    while let Some(told) = window.told() {
                        match told {
                            Told::Matches(Some(id)) => {
                                prop_assert!(id.index >= told_upto && id.index <= has);
                                told_upto = id.index;
                            }
                            Told::Failed(_) | Told::Again => {}
                            other => prop_assert!(false, "{other:?}, and it has {has}"),
                        }
                    }
                    if window.is_over() || (window.is_empty() && next >= all) {
                        break;
                    }
                }
            }
        }
    }
}
