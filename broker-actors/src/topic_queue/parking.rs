//! Long polls at rest: fetches that reached the end of their queue and wait for more.
//!
//! Plain state: a parked fetch is an entry here, not a future. Time arrives from outside.

use std::collections::BTreeMap;

/// Fetches that wait on one queue, by when they give up.
#[derive(Debug)]
pub struct Parking<F> {
    parked: BTreeMap<(u64, u64), F>,
    parked_max: usize,
    next: u64,
}

impl<F> Parking<F> {
    /// Room for `parked_max` fetches.
    pub const fn new(parked_max: usize) -> Self {
        Self { parked: BTreeMap::new(), parked_max, next: 0 }
    }

    /// Parks a fetch until `deadline_ms`.
    ///
    /// # Errors
    /// Gives the fetch back when there is no room.
    pub fn park(&mut self, deadline_ms: u64, fetch: F) -> Result<(), F> {
        if self.parked.len() >= self.parked_max {
            return Err(fetch);
        }
        self.parked.insert((deadline_ms, self.next), fetch);
        self.next += 1;
        Ok(())
    }

    /// Takes all: the queue has changed.
    pub fn take_all(&mut self) -> impl Iterator<Item = (u64, F)> + use<F> {
        let all = std::mem::take(&mut self.parked);
        all.into_iter().map(|((deadline_ms, _), fetch)| (deadline_ms, fetch))
    }

    /// Takes those whose time is over at `now_ms`.
    pub fn take_expired(&mut self, now_ms: u64) -> impl Iterator<Item = F> + use<F> {
        let later = self.parked.split_off(&(now_ms.saturating_add(1), 0));
        std::mem::replace(&mut self.parked, later).into_values()
    }

    /// Drops those for which nobody waits any more.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&F) -> bool) {
        self.parked.retain(|_, fetch| is_wanted(fetch));
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
            parking.park(deadline, name).unwrap();
        }
        assert_eq!(parking.take_expired(9).count(), 0);
        assert_eq!(parking.take_expired(20).collect::<String>(), "azb");
        assert_eq!(parking.take_all().collect::<Vec<_>>(), [(30, 'c')]);
        assert!(parking.is_empty());
    }

    #[test]
    fn those_nobody_waits_for_leave_their_place() {
        let mut parking = Parking::new(2);
        parking.park(10, 'a').unwrap();
        parking.park(20, 'b').unwrap();
        parking.retain(|fetch| *fetch != 'a');
        assert_eq!(parking.park(5, 'c'), Ok(()));
        assert_eq!(parking.take_all().map(|(_, fetch)| fetch).collect::<String>(), "cb");
    }

    #[test]
    fn a_full_place_gives_the_fetch_back() {
        let mut parking = Parking::new(1);
        assert_eq!(parking.park(1, 'a'), Ok(()));
        assert_eq!(parking.park(1, 'b'), Err('b'));
    }
}
