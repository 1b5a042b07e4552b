//! Topics in order of their names, cheap to clone: a snapshot is published for each change, and shares
//! all that did not change. A change copies one shelf of at most [`SHELF_TOPICS_MAX`]. Pure.

use std::sync::Arc;

use grus_protocol::names::TopicName;

use super::TopicRoute;

/// Most topics on a shelf.
const SHELF_TOPICS_MAX: usize = 128;

type Shelf = Vec<Arc<TopicRoute>>;

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelves {
    /// None is empty.
    shelves: Vec<Arc<Shelf>>,
}

impl Shelves {
    /// The shelf that has the topic of that name, if any has.
    fn shelf_of(&self, name: &TopicName) -> usize {
        let behind = self.shelves.partition_point(|shelf| shelf[0].name <= *name);
        behind.saturating_sub(1)
    }

    fn place(shelf: &Shelf, name: &TopicName) -> Result<usize, usize> {
        shelf.binary_search_by(|topic| topic.name.cmp(name))
    }

    /// The topic of that name.
    pub(super) fn get(&self, name: &TopicName) -> Option<&Arc<TopicRoute>> {
        let shelf = self.shelves.get(self.shelf_of(name))?;
        Self::place(shelf, name).ok().map(|at| &shelf[at])
    }

    /// Puts a topic in, or in place of what bore its name.
    pub(super) fn put(&mut self, topic: Arc<TopicRoute>) {
        let number = self.shelf_of(&topic.name);
        let Some(shelf) = self.shelves.get_mut(number) else {
            return self.shelves.push(Arc::new(vec![topic]));
        };
        let shelf = Arc::make_mut(shelf);
        match Self::place(shelf, &topic.name) {
            Ok(at) => shelf[at] = topic,
            Err(at) => shelf.insert(at, topic),
        }
        if shelf.len() > SHELF_TOPICS_MAX {
            let upper = shelf.split_off(SHELF_TOPICS_MAX / 2);
            self.shelves.insert(number + 1, Arc::new(upper));
        }
    }

    /// Takes a topic out.
    pub(super) fn remove(&mut self, name: &TopicName) -> Option<Arc<TopicRoute>> {
        let number = self.shelf_of(name);
        let shelf = self.shelves.get_mut(number)?;
        let at = Self::place(shelf, name).ok()?;
        let shelf = Arc::make_mut(shelf);
        let removed = shelf.remove(at);
        if shelf.is_empty() {
            self.shelves.remove(number);
        }
        Some(removed)
    }

    /// All topics.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<TopicRoute>> {
        self.shelves.iter().flat_map(|shelf| shelf.iter())
    }

    /// The topics behind that name, or all.
    pub(super) fn behind(
        &self,
        name: Option<&TopicName>,
    ) -> impl Iterator<Item = &Arc<TopicRoute>> {
        let from = name.map_or(0, |name| self.shelf_of(name));
        let shelves = self.shelves.iter().skip(from).flat_map(|shelf| shelf.iter());
        shelves.skip_while(move |topic| name.is_some_and(|name| topic.name <= *name))
    }

    /// How many topics there are.
    pub(super) fn len(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use grus_protocol::ids::{TimestampMs, TopicId};
    use grus_protocol::message::TopicSettings;
    use proptest::prelude::*;

    use super::*;

    fn topic(number: u32, id: u64) -> Arc<TopicRoute> {
        Arc::new(TopicRoute {
            name: name(number),
            id: TopicId(id),
            settings: TopicSettings::default(),
            created: TimestampMs(0),
            queues: Vec::new(),
        })
    }

    fn name(number: u32) -> TopicName {
        TopicName::try_from(format!("topic-{number:05}").as_str()).unwrap()
    }

    #[test]
    fn a_change_copies_one_shelf_and_the_snapshot_before_stays_as_it_was() {
        let mut shelves = Shelves::default();
        for number in 0..10_000 {
            shelves.put(topic(number * 7 % 10_000, 1));
        }
        let before = shelves.clone();
        shelves.put(topic(5_000, 2));
        let shared = before
            .shelves
            .iter()
            .filter(|shelf| shelves.shelves.iter().any(|other| Arc::ptr_eq(shelf, other)))
            .count();
        assert_eq!(shared, before.shelves.len() - 1);
        assert!(before.shelves.len() < 200, "{} shelves", before.shelves.len());
        assert_eq!(before.get(&name(5_000)).unwrap().id, TopicId(1));
        assert_eq!(shelves.get(&name(5_000)).unwrap().id, TopicId(2));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
            steps in proptest::collection::vec((0_u32..600, 0_u8..4), 0..1_500),
            after in proptest::option::of(0_u32..600),
        ) {
            let mut shelves = Shelves::default();
            let mut model = BTreeMap::new();
            for (step, (number, kind)) in steps.into_iter().enumerate() {
                if kind == 0 {
                    let removed = shelves.remove(&name(number)).map(|topic| topic.id);
                    prop_assert_eq!(removed, model.remove(&name(number)));
                } else {
                    let route = topic(number, step as u64);
                    model.insert(route.name.clone(), route.id);
                    shelves.put(route);
                }
            }
            prop_assert_eq!(shelves.len(), model.len());
            let all: Vec<_> = shelves.iter().map(|topic| (&topic.name, topic.id)).collect();
            let expected: Vec<_> = model.iter().map(|(name, id)| (name, *id)).collect();
            prop_assert_eq!(all, expected);
            let after = after.map(name);
            let behind: Vec<_> = shelves.behind(after.as_ref()).map(|topic| topic.id).collect();
            let is_behind = |at: &&TopicName| after.as_ref().is_none_or(|after| *at > after);
            let expected: Vec<_> =
                model.iter().filter(|(name, _)| is_behind(name)).map(|(_, id)| *id).collect();
            prop_assert_eq!(behind, expected);
            prop_assert!(model.iter().all(|(name, id)| shelves.get(name).unwrap().id == *id));
        }
    }
}
