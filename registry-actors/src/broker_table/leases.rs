//! Which brokers are there: leases, counted from when this process heard of them. Pure: told the
//! time in milliseconds of the process's own clock.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::BrokerId;

/// How long a process that served a broker counts as alive after its last sign, while its
/// connection is open: another one with the same data is refused meanwhile.
pub const ALIVE_MS: u64 = 3_000;
/// A gap between two ticks above which this process itself stood still: leases are not held
/// against brokers that could not be heard.
const STALL_MS: u64 = 2_000;

/// Why a session is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionRefused {
    /// Another process of this broker was heard of just now.
    Alive,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Leases {
    lease_ms: u64,
    brokers: BTreeMap<BrokerId, Lease>,
    /// Told to be dead, and not known to be written yet.
    expired: BTreeSet<BrokerId>,
    last_tick_ms: Option<u64>,
}

#[derive(Debug)]
struct Lease {
    /// 0: a broker that was live before this process started, and has not come back yet.
    session: u64,
    heard_ms: u64,
    connected: bool,
    load: u64,
}

impl Leases {
    /// Every broker that was live gets a full lease from now on.
    pub fn new(lease_ms: u64, live: impl IntoIterator<Item = BrokerId>, now_ms: u64) -> Self {
        let lease = || Lease { session: 0, heard_ms: now_ms, connected: false, load: 0 };
        let brokers = live.into_iter().map(|broker| (broker, lease())).collect();
        Self { lease_ms, brokers, expired: BTreeSet::new(), last_tick_ms: None }
    }

    /// The length of a lease.
    pub fn lease_ms(&self) -> u64 {
        self.lease_ms
    }

    /// Whether a broker may register with `session`.
    ///
    /// # Errors
    /// [`SessionRefused`].
    pub fn check(&self, broker: BrokerId, session: u64, now_ms: u64) -> Result<(), SessionRefused> {
        match self.brokers.get(&broker) {
            Some(lease)
                if lease.session != session
                    && lease.connected
                    && now_ms.saturating_sub(lease.heard_ms) < ALIVE_MS =>
            {
                Err(SessionRefused::Alive)
            }
            _ => Ok(()),
        }
    }

    /// The broker asks to be registered: a lease that it has does not end meanwhile.
    pub fn registers(&mut self, broker: BrokerId, now_ms: u64) {
        self.expired.remove(&broker);
        if let Some(lease) = self.brokers.get_mut(&broker) {
            lease.heard_ms = now_ms;
        }
    }

    /// The broker is registered: its lease begins.
    pub fn registered(&mut self, broker: BrokerId, session: u64, now_ms: u64) {
        self.expired.remove(&broker);
        let lease = Lease { session, heard_ms: now_ms, connected: true, load: 0 };
        self.brokers.insert(broker, lease);
    }

    /// A sign of life; false when the session is not known.
    pub fn beat(&mut self, broker: BrokerId, session: u64, load: u64, now_ms: u64) -> bool {
        match self.brokers.get_mut(&broker) {
            Some(lease) if lease.session == session => {
                lease.heard_ms = now_ms;
                lease.connected = true;
                lease.load = load;
                true
            }
            _ => false,
        }
    }

    /// Whether that is the session of the broker.
    pub fn knows(&self, broker: BrokerId, session: u64) -> bool {
        self.brokers.get(&broker).is_some_and(|lease| lease.session == session)
    }

    /// The connection of a session is gone; its lease goes on.
    pub fn disconnected(&mut self, broker: BrokerId, session: u64) {
        if let Some(lease) = self.brokers.get_mut(&broker)
            && lease.session == session
        {
            lease.connected = false;
        }
    }

    /// A broker stops: its lease ends now.
    pub fn leaves(&mut self, broker: BrokerId, session: u64) -> bool {
        let known = self.knows(broker, session);
        if known {
            self.brokers.remove(&broker);
            self.expired.insert(broker);
        }
        known
    }

    /// Some time has passed: all brokers whose lease is over and for whom that is not written yet.
    pub fn tick(&mut self, now_ms: u64) -> Vec<BrokerId> {
        let since_ms = self.last_tick_ms.map_or(0, |last| now_ms.saturating_sub(last));
        self.last_tick_ms = Some(now_ms);
        if since_ms > STALL_MS {
            for lease in self.brokers.values_mut() {
                lease.heard_ms = lease.heard_ms.saturating_add(since_ms).min(now_ms);
            }
        }
        let lease_ms = self.lease_ms;
        let over = |lease: &Lease| now_ms.saturating_sub(lease.heard_ms) >= lease_ms;
        let gone: Vec<_> =
            self.brokers.iter().filter(|(_, lease)| over(lease)).map(|(id, _)| *id).collect();
        for broker in gone {
            self.brokers.remove(&broker);
            self.expired.insert(broker);
        }
        self.expired.iter().copied().collect()
    }

    /// It is written that the broker is not live.
    pub fn written(&mut self, broker: BrokerId) {
        self.expired.remove(&broker);
    }

    /// What brokers said of their load.
    pub fn loads(&self) -> BTreeMap<BrokerId, u64> {
        self.brokers.iter().map(|(broker, lease)| (*broker, lease.load)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE_MS: u64 = 10_000;
    const A: BrokerId = BrokerId(1);

    /// Ticks every 250 ms from `from_ms` to `to_ms`; the first time at which something was told.
    fn run(leases: &mut Leases, from_ms: u64, to_ms: u64) -> Option<u64> {
        (from_ms..=to_ms).step_by(250).find(|now_ms| !leases.tick(*now_ms).is_empty())
    }

    #[test]
    fn a_broker_that_is_silent_leaves_after_one_lease_and_not_before() {
        let mut leases = Leases::new(LEASE_MS, [], 0);
        leases.registered(A, 7, 1_000);
        assert!(leases.beat(A, 7, 5, 4_000));
        assert_eq!(run(&mut leases, 1_000, 60_000), Some(14_000));
        assert_eq!(leases.tick(14_250), [A], "told until it is written");
        leases.written(A);
        assert_eq!(leases.tick(14_500), []);
        assert!(!leases.beat(A, 7, 5, 14_600), "it has to register again");
        leases.registered(A, 7, 14_700);
        assert!(leases.beat(A, 7, 5, 14_800));
    }

    #[test]
    fn after_a_restart_of_the_registry_everyone_has_a_full_lease() {
        let mut leases = Leases::new(LEASE_MS, [A], 50_000);
        assert!(!leases.beat(A, 7, 0, 50_100), "its session is not known: it registers again");
        assert_eq!(run(&mut leases, 50_000, 99_000), Some(60_000));
    }

    #[test]
    fn a_second_process_waits_until_the_first_is_gone() {
        let mut leases = Leases::new(LEASE_MS, [], 0);
        leases.registered(A, 7, 0);
        assert_eq!(leases.check(A, 8, 100), Err(SessionRefused::Alive));
        assert_eq!(leases.check(A, 7, 100), Ok(()), "the same one may register again");
        leases.disconnected(A, 8);
        assert_eq!(leases.check(A, 8, 100), Err(SessionRefused::Alive), "not its connection");
        assert_eq!(leases.check(A, 8, ALIVE_MS), Ok(()), "nothing was heard of it");
        leases.disconnected(A, 7);
        assert_eq!(leases.check(A, 8, 100), Ok(()), "killed: the system closed its connection");
        leases.registered(A, 8, 200);
        assert!(!leases.beat(A, 7, 0, 300), "the old one is told that it is not known");
        assert_eq!(run(&mut leases, 200, 10_000), None, "its lease went on");
    }

    #[test]
    fn a_registry_that_stood_still_blames_nobody() {
        let mut leases = Leases::new(LEASE_MS, [], 0);
        leases.registered(A, 7, 0);
        leases.tick(250);
        assert_eq!(leases.tick(60_000), []);
        assert!(leases.beat(A, 7, 0, 60_100));
        leases.tick(60_250);
        assert!(leases.leaves(A, 7) && !leases.leaves(A, 7));
        assert_eq!(leases.tick(60_500), [A], "at once");
    }

    proptest! {
        /// Whatever happens: a broker is given up only after a whole lease without a sign, and
        /// is given up then.
        #[test]
        fn a_lease_is_what_it_says(beats in prop::collection::vec(1..4_000_u64, 0..20)) {
            let mut leases = Leases::new(LEASE_MS, [], 0);
            leases.registered(A, 1, 0);
            let mut heard_ms = 0;
            let mut next = beats.into_iter();
            let mut beat_at = next.next();
            for now_ms in (0..200_000_u64).step_by(50) {
                if beat_at.is_some_and(|at| now_ms >= heard_ms + at) {
                    prop_assert!(leases.beat(A, 1, 0, now_ms));
                    heard_ms = now_ms;
                    beat_at = next.next();
                }
                let told = !leases.tick(now_ms).is_empty();
                prop_assert_eq!(told, now_ms - heard_ms >= LEASE_MS, "at {}", now_ms);
                if told {
                    return Ok(());
                }
            }
            prop_assert!(false, "it was never given up");
        }
    }
}
