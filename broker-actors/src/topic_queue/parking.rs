//! Long polls at rest: fetches that reached the end of their queue and wait for more.
//!
//! Plain state: a parked fetch is an entry here, not a future. Time arrives from outside.

use std::collections::BTreeMap;

/// Least time that one has its place before another may have it, in milliseconds.
const STAY_MS: u64 = 1_000;

/// Fetches that wait on one queue, by when they give up.
#[derive(Debug)]
pub struct Parking<F> {
    parked: BTreeMap<(u64, u64), F>,
    /// When each came and gives up, by its number: the first one waits longest.
    arrived: BTreeMap<u64, (u64, u64)>,
    parked_max: usize,
    next: u64,
}

impl<F> Parking<F> {
    /// Room for `parked_max` fetches.
    ///
    /// # Panics
    /// When that is none.
    pub const fn new(parked_max: usize) -> Self {
        assert!(parked_max > 0, "one that comes must find room");
        Self { parked: BTreeMap::new(), arrived: BTreeMap::new(), parked_max, next: 0 }
    }

    /// Parks a fetch until `deadline_ms`. Where there is no room, the one that has waited longest
    /// makes place, and is given back: whoever waits in great numbers keeps nobody else out.
    ///
    /// # Errors
    /// Gives the fetch back when there is no room and even that one came less than [`STAY_MS`] ago:
    /// so places do not change hands without end.
    pub fn park(&mut self, now_ms: u64, deadline_ms: u64, fetch: F) -> Result<Option<F>, F> {
        let mut longest = None;
        if self.parked.len() >= self.parked_max {
            let first = self.arrived.first_entry();
            let Some(first) = first.filter(|first| now_ms >= first.get().0 + STAY_MS) else {
                return Err(fetch);
            };
            let (at, (_, deadline)) = first.remove_entry();
            longest = self.parked.remove(&(deadline, at));
        }
        self.parked.insert((deadline_ms, self.next), fetch);
        self.arrived.insert(self.next, (now_ms, deadline_ms));
        self.next += 1;
        Ok(longest)
    }

    /// Takes all: the queue has changed.
    pub fn take_all(&mut self) -> impl Iterator<Item = (u64, F)> + use<F> {
        self.arrived.clear();
        let all = std::mem::take(&mut self.parked);
        all.into_iter().map(|((deadline_ms, _), fetch)| (deadline_ms, fetch))
    }

    /// Takes those whose time is over at `now_ms`.
    pub fn take_expired(&mut self, now_ms: u64) -> impl Iterator<Item = F> + use<F> {
        let later = self.parked.split_off(&(now_ms.saturating_add(1), 0));
        let expired = std::mem::replace(&mut self.parked, later);
        for (_, at) in expired.keys() {
            self.arrived.remove(at);
        }
        expired.into_values()
    }

    /// Drops those for which nobody waits any more.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&F) -> bool) {
        let arrived = &mut self.arrived;
        self.parked.retain(|(_, at), fetch| {
            let stays = is_wanted(fetch);
            if !stays {
                arrived.remove(at);
            }
            stays
        });
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expired_leave_in_the_order_of_their_deadlines_and_the_rest_stays() {
        let mut parking = Parking::new(10);
        for (deadline, name) in [(30, 'c'), (10, 'a'), (20, 'b'), (10, 'z')] {
            assert_eq!(parking.park(0, deadline, name), Ok(None));
        }
        assert_eq!(parking.take_expired(9).count(), 0);
        assert_eq!(parking.take_expired(20).collect::<String>(), "azb");
        assert_eq!(parking.take_all().collect::<Vec<_>>(), [(30, 'c')]);
        assert!(parking.is_empty());
    }

    #[test]
    fn those_nobody_waits_for_leave_their_place() {
        let mut parking = Parking::new(2);
        parking.park(0, 10, 'a').unwrap();
        parking.park(0, 20, 'b').unwrap();
        parking.retain(|fetch| *fetch != 'a');
        assert_eq!(parking.park(0, 5, 'c'), Ok(None));
        assert_eq!(parking.take_all().map(|(_, fetch)| fetch).collect::<String>(), "cb");
    }

    #[test]
    fn a_full_place_is_for_the_newest_and_whoever_has_waited_longest_leaves() {
        let mut parking = Parking::new(2);
        parking.park(0, 90_000, 'a').unwrap();
        parking.park(1, 2_000, 'b').unwrap();
        assert_eq!(parking.park(999, 5_000, 'c'), Err('c'), "nobody has waited long enough");
        assert_eq!(parking.park(1_000, 5_000, 'c'), Ok(Some('a')), "not whose time is over first");
        assert_eq!(parking.take_expired(2_000).collect::<String>(), "b");
        assert_eq!(parking.park(2_000, 6_000, 'd'), Ok(None));
        assert_eq!(parking.park(2_000, 7_000, 'e'), Ok(Some('c')));
        assert_eq!(parking.park(2_000, 8_000, 'f'), Err('f'));
        assert_eq!(parking.take_all().map(|(_, fetch)| fetch).collect::<String>(), "de");
        assert_eq!(parking.park(2_001, 9_000, 'g'), Ok(None));
    }
}
