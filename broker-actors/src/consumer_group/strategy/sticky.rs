//! The sticky strategy: as even as the subscriptions allow, and as few queues as possible change
//! hands. Pure.
//!
//! Queues whose topics have the same members are a class. Every queue stays where it is, if that
//! member subscribes to it still; each free queue goes to the member of its class with the fewest.
//! Then, as long as a member can pass a queue on, perhaps by way of others, to one that has at
//! least two fewer, it does. What is left is as even as can be: the loads, from the greatest down,
//! are the least possible.
//!
//! Three members, all of whom subscribe to one topic of five queues; the first has them all:
//!
//! ```text
//! 5 0 0  ->  4 1 0  ->  3 1 1  ->  2 2 1     three queues change hands
//! ```
//!
//! What that costs grows with members times classes. Where it would be too much (very many members that
//! subscribe to different topics), the classes are divided one after the other, each so that all is as even
//! as it can be with what the ones before have given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grus_protocol::ids::{MemberId, QueueKey};

use super::super::field::{Field, FieldTopic};
use super::Target;

/// The queues of one class that a member has.
#[derive(Debug, Default)]
struct Held {
    /// It had them before.
    kept: Vec<QueueKey>,
    /// They are new to it.
    new: Vec<QueueKey>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.new.is_empty()
    }

    /// The queue that is passed on: one that has changed hands already costs nothing more.
    fn take(&mut self) -> QueueKey {
        self.new.pop().or_else(|| self.kept.pop()).expect("only asked of one that has some")
    }
}

/// Members with the same queues to choose from.
struct Class {
    members: Vec<usize>,
    /// The same by what they have.
    by_load: BTreeSet<(usize, usize)>,
}

/// A queue of a class is passed on by one member to another.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: usize,
    to: usize,
    class: usize,
}

struct Division {
    ids: Vec<MemberId>,
    classes: Vec<Class>,
    /// The classes that each member is of.
    classes_of: Vec<Vec<usize>>,
    held: Vec<BTreeMap<usize, Held>>,
    loads: Vec<usize>,
}

/// Classes are divided together while members, times members of all classes, are no more than this: some
/// 100 ms.
const SEARCHED_MAX: usize = 20_000_000;
/// And while queues, times the classes of the member that is of the most, are no more than this.
const COUNTED_MAX: usize = 1_000_000;

pub(super) fn divide(field: &Field, owner: impl Fn(QueueKey) -> Option<MemberId>) -> Target {
    let mut by_class: BTreeMap<&[MemberId], Vec<&FieldTopic>> = BTreeMap::new();
    for topic in field.topics() {
        by_class.entry(&topic.members).or_default().push(topic);
    }
    let mut loads = BTreeMap::new();
    if is_small(field, &by_class) {
        let topics: Vec<_> = field.topics().collect();
        return divided(&topics, &owner, &mut loads);
    }
    let parts = by_class.values();
    parts.flat_map(|topics| divided(topics, &owner, &mut loads)).collect()
}

/// Whether the classes can be divided together.
fn is_small(field: &Field, by_class: &BTreeMap<&[MemberId], Vec<&FieldTopic>>) -> bool {
    let mut classes_of: BTreeMap<MemberId, usize> = BTreeMap::new();
    for member in by_class.keys().flat_map(|members| members.iter()) {
        *classes_of.entry(*member).or_default() += 1;
    }
    let ties: usize = classes_of.values().sum();
    let most = classes_of.values().max().copied().unwrap_or(0);
    let searched = classes_of.len().saturating_mul(ties);
    by_class.len() <= 1
        || (searched <= SEARCHED_MAX && field.len().saturating_mul(most) <= COUNTED_MAX)
}

/// Divides the queues of some topics among members that have so many of others already.
fn divided(
    topics: &[&FieldTopic],
    owner: &impl Fn(QueueKey) -> Option<MemberId>,
    loads: &mut BTreeMap<MemberId, usize>,
) -> Target {
    let mut division = Division::new(topics, loads);
    let mut numbers: BTreeMap<&[MemberId], usize> = BTreeMap::new();
    let mut free: Vec<Vec<QueueKey>> = Vec::new();
    for topic in topics {
        let next = numbers.len();
        let class = *numbers.entry(&topic.members).or_insert(next);
        free.resize_with(numbers.len(), Vec::new);
        for queue in &topic.queues {
            let key = QueueKey { topic: topic.id, queue: *queue };
            let kept = owner(key).filter(|owner| topic.members.binary_search(owner).is_ok());
            match kept.and_then(|owner| division.ids.binary_search(&owner).ok()) {
                Some(member) => division.keep(member, class, key),
                None => free[class].push(key),
            }
        }
    }
    division.place(free);
    division.even_out();
    loads.extend(division.ids.iter().copied().zip(division.loads.iter().copied()));
    division.target()
}

impl Division {
    fn new(topics: &[&FieldTopic], loads: &BTreeMap<MemberId, usize>) -> Self {
        let ids: BTreeSet<MemberId> =
            topics.iter().flat_map(|topic| topic.members.iter().copied()).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let mut division = Self {
            classes: Vec::new(),
            classes_of: vec![Vec::new(); ids.len()],
            held: ids.iter().map(|_| BTreeMap::new()).collect(),
            loads: ids.iter().map(|id| loads.get(id).copied().unwrap_or(0)).collect(),
            ids,
        };
        let mut known: BTreeSet<&[MemberId]> = BTreeSet::new();
        for topic in topics.iter().filter(|topic| known.insert(&topic.members)) {
            let number = |id: &MemberId| division.ids.binary_search(id).expect("all are there");
            let members: Vec<usize> = topic.members.iter().map(number).collect();
            for member in &members {
                division.classes_of[*member].push(division.classes.len());
            }
            let by_load = members.iter().map(|member| (division.loads[*member], *member)).collect();
            division.classes.push(Class { members, by_load });
        }
        division
    }

    fn keep(&mut self, member: usize, class: usize, queue: QueueKey) {
        self.held[member].entry(class).or_default().kept.push(queue);
        self.set_load(member, self.loads[member] + 1);
    }

    fn set_load(&mut self, member: usize, load: usize) {
        for class in &self.classes_of[member] {
            let by_load = &mut self.classes[*class].by_load;
            by_load.remove(&(self.loads[member], member));
            by_load.insert((load, member));
        }
        self.loads[member] = load;
    }

    /// Each free queue goes to the member with the fewest; those with the smallest choice first.
    fn place(&mut self, free: Vec<Vec<QueueKey>>) {
        let mut order: Vec<_> = (0..).zip(free).collect();
        order.sort_by_key(|(class, _): &(usize, _)| self.classes[*class].members.len());
        for (class, queues) in order {
            for queue in queues {
                let (load, member) =
                    *self.classes[class].by_load.first().expect("a class has members");
                self.held[member].entry(class).or_default().new.push(queue);
                self.set_load(member, load + 1);
            }
        }
    }

    /// The members from the greatest load down pass queues on until they cannot. Who once could
    /// not never can again: all that it could reach has at most one queue fewer, and stays so.
    fn even_out(&mut self) {
        let mut unsettled: BTreeSet<(usize, usize)> =
            self.loads.iter().enumerate().map(|(member, load)| (*load, member)).collect();
        while let Some((load, member)) = unsettled.pop_last() {
            let Some(way) = self.way_down(member) else { continue };
            let last = way.last().expect("a way has a step").to;
            unsettled.remove(&(self.loads[last], last));
            for step in way {
                let queue = self.take(step.from, step.class);
                self.held[step.to].entry(step.class).or_default().new.push(queue);
            }
            self.set_load(member, load - 1);
            self.set_load(last, self.loads[last] + 1);
            unsettled.insert((self.loads[member], member));
            unsettled.insert((self.loads[last], last));
        }
    }

    fn take(&mut self, member: usize, class: usize) -> QueueKey {
        let held = self.held[member].get_mut(&class).expect("it has some of that class");
        let queue = held.take();
        if held.is_empty() {
            self.held[member].remove(&class);
        }
        queue
    }

    /// The shortest way by which a queue less for `start` is one more for a member that has at
    /// least two fewer.
    fn way_down(&self, start: usize) -> Option<Vec<Step>> {
        let low_enough = self.loads[start].checked_sub(2)?;
        let mut came_by: Vec<Option<Step>> = vec![None; self.ids.len()];
        let mut seen = vec![false; self.classes.len()];
        let mut next = VecDeque::from([start]);
        while let Some(from) = next.pop_front() {
            for class in self.held[from].keys().copied() {
                if std::mem::replace(&mut seen[class], true) {
                    continue;
                }
                let (load, to) = *self.classes[class].by_load.first()?;
                if load <= low_enough {
                    came_by[to] = Some(Step { from, to, class });
                    return Some(way_to(to, start, &came_by));
                }
                if self.classes.len() == 1 {
                    return None; // nobody leads anywhere else
                }
                for to in &self.classes[class].members {
                    if *to != start && came_by[*to].is_none() {
                        came_by[*to] = Some(Step { from, to: *to, class });
                        next.push_back(*to);
                    }
                }
            }
        }
        None
    }

    fn target(self) -> Target {
        let of = |(member, held): (MemberId, BTreeMap<usize, Held>)| {
            let queues = held.into_values().flat_map(|held| held.kept.into_iter().chain(held.new));
            queues.map(move |queue| (queue, member))
        };
        self.ids.into_iter().zip(self.held).flat_map(of).collect()
    }
}

/// The steps from `start` to `end`.
fn way_to(end: usize, start: usize, came_by: &[Option<Step>]) -> Vec<Step> {
    let mut way = Vec::new();
    let mut at = end;
    while at != start {
        let step = came_by[at].expect("everybody on the way came by somebody");
        way.push(step);
        at = step.from;
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{QueueId, TopicId};

    use super::*;

    /// Topics of a thousand queues each; those who subscribe to one are all but some of so many members.
    fn field(topics: u64, members: u64) -> Field {
        let topic = |number: u64| FieldTopic {
            name: format!("t{number}").as_str().try_into().unwrap(),
            id: TopicId(number),
            queues: (0..1_000).map(QueueId).collect(),
            members: (1..=members).filter(|id| id % 7 != number).map(MemberId).collect(),
        };
        Field::from_topics((0..topics).map(topic).collect())
    }

    #[test]
    fn very_many_members_of_different_topics_are_divided_in_parts_and_as_evenly() {
        for (members, together) in [(700, true), (7_000, false)] {
            let field = field(3, members);
            let mut by_class: BTreeMap<&[MemberId], Vec<&FieldTopic>> = BTreeMap::new();
            for topic in field.topics() {
                by_class.entry(&topic.members).or_default().push(topic);
            }
            assert_eq!(is_small(&field, &by_class), together);
            let target = divide(&field, |_| None);
            assert_eq!(target.len(), 3_000);
            let mut loads: BTreeMap<MemberId, usize> = BTreeMap::new();
            for (queue, member) in &target {
                let topic = field.topic(queue.topic).expect("it is in the field");
                assert!(topic.members.binary_search(member).is_ok(), "it subscribes to that");
                *loads.entry(*member).or_default() += 1;
            }
            let most = 3_000_usize.div_ceil(usize::try_from(members).unwrap());
            assert_eq!(loads.values().max(), Some(&most));
            assert_eq!(divide(&field, |queue| target.get(&queue).copied()), target, "it stays");
        }
    }
}
