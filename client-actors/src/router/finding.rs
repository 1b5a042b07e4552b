//! Questions for routes that are under way: one of each topic at a time, however many ask it. Pure;
//! `W` is who waits.
//!
//! Who asks while a question is under way may have a reason that is newer than its answer will be, so
//! it waits for the next one: of ten thousand consumers that lose a broker at once, the first one asks, and
//! then all others together.

use std::collections::HashMap;

use grus_protocol::TopicName;

/// A question that is not answered so long after its time is lost.
const SLACK_MS: u64 = 1_000;

/// What is asked: a topic, and whether it is made where it is not there.
pub(super) type Question = (TopicName, bool);

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Finding<W> {
    under_way: HashMap<Question, UnderWay<W>>,
}

#[derive(Debug)]
struct UnderWay<W> {
    deadline_ms: u64,
    asked: Vec<W>,
    /// With the time at which each is told that there was no answer.
    next: Vec<(u64, W)>,
}

impl<W> Default for Finding<W> {
    fn default() -> Self {
        Self { under_way: HashMap::new() }
    }
}

impl<W> Finding<W> {
    /// One more asks; whether the question is to be sent now.
    pub(super) fn add(&mut self, question: Question, waiter: W, deadline_ms: u64) -> bool {
        if let Some(known) = self.under_way.get_mut(&question) {
            known.next.push((deadline_ms, waiter));
            return false;
        }
        let one = UnderWay { deadline_ms, asked: vec![waiter], next: Vec::new() };
        self.under_way.insert(question, one);
        true
    }

    /// A question is answered: who hears it, and until when it is asked again for others, if it is.
    pub(super) fn answered(&mut self, question: &Question) -> (Vec<W>, Option<u64>) {
        let Some(UnderWay { asked, next, .. }) = self.under_way.remove(question) else {
            return (Vec::new(), None);
        };
        let again_ms = next.iter().map(|(deadline_ms, _)| *deadline_ms).max();
        if let Some(deadline_ms) = again_ms {
            let asked_next = next.into_iter().map(|(_, waiter)| waiter).collect();
            let one = UnderWay { deadline_ms, asked: asked_next, next: Vec::new() };
            self.under_way.insert(question.clone(), one);
        }
        (asked, again_ms)
    }

    /// Those whose time is over before their question was sent; and questions whose answer is lost, which
    /// are to be answered as such.
    pub(super) fn overdue(&mut self, now_ms: u64) -> (Vec<(TopicName, W)>, Vec<Question>) {
        let (mut late, mut lost) = (Vec::new(), Vec::new());
        for (question, one) in &mut self.under_way {
            let over = one.next.extract_if(.., |(deadline_ms, _)| *deadline_ms <= now_ms);
            late.extend(over.map(|(_, waiter)| (question.0.clone(), waiter)));
            if one.deadline_ms.saturating_add(SLACK_MS) <= now_ms {
                lost.push(question.clone());
            }
        }
        (late, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(topic: &str) -> Question {
        (TopicName::try_from(topic).unwrap(), false)
    }

    #[test]
    fn those_who_ask_meanwhile_ask_together_once_the_first_is_answered() {
        let mut finding = Finding::default();
        assert!(finding.add(question("a"), 1, 100));
        assert!(!finding.add(question("a"), 2, 150) && !finding.add(question("a"), 3, 120));
        assert!(finding.add(question("b"), 4, 100), "another topic");
        assert!(finding.add((question("a").0, true), 5, 100), "another question");
        assert_eq!(finding.answered(&question("a")), (vec![1], Some(150)));
        assert!(!finding.add(question("a"), 6, 200), "it is under way again");
        assert_eq!(finding.answered(&question("a")), (vec![2, 3], Some(200)));
        assert_eq!(finding.answered(&question("a")), (vec![6], None));
        assert_eq!(finding.answered(&question("a")), (vec![], None), "nobody asks");
        assert!(finding.add(question("a"), 7, 300));
    }

    #[test]
    fn nobody_waits_longer_than_it_said_and_a_lost_answer_is_given_up() {
        let mut finding = Finding::default();
        finding.add(question("a"), 1, 100);
        finding.add(question("a"), 2, 50);
        finding.add(question("a"), 3, 5_000);
        assert_eq!(finding.overdue(49), (vec![], vec![]));
        assert_eq!(finding.overdue(50), (vec![(question("a").0, 2)], vec![]));
        assert_eq!(finding.overdue(100 + SLACK_MS), (vec![], vec![question("a")]));
        assert_eq!(finding.answered(&question("a")), (vec![1], Some(5_000)));
    }
}
