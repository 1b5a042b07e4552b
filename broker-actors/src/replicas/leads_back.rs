//! Shards that are led here although another broker stands first in their list: they are given back to that
//! one. The registry makes each broker the first of as many lists as any other, so that leaders are spread
//! when each first one leads; after a restart they would stay where they went.
//!
//! Nobody waits for it, so it is done when all is calm: the first one is there by the routes, no other
//! members are wanted, the Member has seen it keep up for [`CALM_MS`], and the shard holds nothing in memory
//! alone, which would be gone. One shard of this broker at a time, and one a second: a broker that comes back
//! is not given hundreds at once. Each time that one was given away, or could not be, it waits twice as long
//! as the last time, so that two brokers, one of which does not stay up, do not move it to and fro.

use std::collections::BTreeMap;

use grus_consensus::GivenBack;
use grus_mailbox::{Credit, Receive, Room, Weigh, reply};
use grus_protocol::ids::{BrokerId, ShardId, Term};
use grus_registry::RoutingTable;

use super::Replicas;
use crate::member::{CALM_MS, GiveBack};
use crate::shard::ShardStanding;
use crate::statuses::shard_statuses;

/// How long nothing is given to a broker that was asked to take a shard over and did not: nothing is taken
/// meanwhile.
const FAILED_REST_MS: u64 = 30_000;
/// The longest that a shard waits which comes back again and again.
const PAUSE_MS_MAX: u64 = 600_000;
/// One that has not come back for so long, or longer, waits no longer than any other.
const STEADY_MS: u64 = 600_000;
/// When one is looked at again that could not be given back.
const LOOK_AGAIN_MS: u64 = 2_000;

/// Led here, in this term, and to be led by another broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Misplaced {
    first: BrokerId,
    term: Term,
}

#[derive(Debug)]
struct Lead {
    /// None: there is nothing to give back now.
    now: Option<Misplaced>,
    due_ms: u64,
    /// How long it is led here before it is due.
    pause_ms: u64,
    /// When it was given back, or could not be, last.
    tried_ms: Option<u64>,
}

impl Default for Lead {
    fn default() -> Self {
        Self { now: None, due_ms: 0, pause_ms: CALM_MS, tried_ms: None }
    }
}

/// Which shards are to be given back, and when. Plain state; time is told.
#[derive(Debug, Default)]
pub(super) struct LeadsBack {
    leads: BTreeMap<ShardId, Lead>,
    /// The one that is being given back, and to whom.
    asked: Option<(ShardId, BrokerId)>,
}

impl LeadsBack {
    /// These are misplaced now, and no others.
    fn follow(&mut self, misplaced: &BTreeMap<ShardId, Misplaced>, now_ms: u64) {
        for (shard, now) in misplaced {
            let lead = self.leads.entry(*shard).or_default();
            if lead.now != Some(*now) {
                lead.now = Some(*now);
                lead.due_ms = now_ms + lead.pause_ms;
            }
        }
        let asked = self.asked.map(|(shard, _)| shard);
        self.leads.retain(|shard, lead| {
            if !misplaced.contains_key(shard) {
                lead.now = None;
            }
            let is_recent = |tried_ms: u64| now_ms.saturating_sub(tried_ms) < STEADY_MS;
            lead.now.is_some() || asked == Some(*shard) || lead.tried_ms.is_some_and(is_recent)
        });
    }

    /// The one to be given back now, and to whom, unless another one is being: that which has been due longest.
    fn next(&mut self, now_ms: u64) -> Option<(ShardId, BrokerId)> {
        if self.asked.is_some() {
            return None;
        }
        let due = self.leads.iter().filter(|(_, lead)| lead.due_ms <= now_ms);
        let due = due.filter_map(|(shard, lead)| Some((lead.due_ms, *shard, lead.now?.first)));
        let (_, shard, first) = due.min()?;
        self.asked = Some((shard, first));
        self.asked
    }

    /// What came of it.
    fn heard(&mut self, outcome: GivenBack, now_ms: u64) {
        let Some((shard, to)) = self.asked.take() else { return };
        let lead = self.leads.entry(shard).or_default();
        if outcome == GivenBack::NotNow {
            lead.due_ms = now_ms + LOOK_AGAIN_MS;
            return;
        }
        let is_in_vain = outcome == GivenBack::InVain;
        let least = if is_in_vain { FAILED_REST_MS } else { CALM_MS };
        lead.pause_ms = (lead.pause_ms * 2).clamp(least, PAUSE_MS_MAX);
        lead.tried_ms = Some(now_ms);
        lead.due_ms = now_ms + lead.pause_ms;
        if is_in_vain {
            // What it did not take is not tried with each other shard in turn.
            let is_its = |lead: &&mut Lead| lead.now.is_some_and(|now| now.first == to);
            for lead in self.leads.values_mut().filter(is_its) {
                lead.due_ms = lead.due_ms.max(now_ms + FAILED_REST_MS);
            }
        }
    }
}

/// Whether a shard is led here, is to be led by another broker, and could be as far as the routes say.
fn misplaced(
    own: BrokerId,
    shard: ShardId,
    standing: ShardStanding,
    table: &RoutingTable,
) -> Option<Misplaced> {
    let place = table.shards.get(&shard).filter(|place| place.wanted.is_empty())?;
    let first = *place.members.first()?;
    let is_live = table.brokers.get(&first).is_some_and(|broker| broker.live);
    let is_misplaced = standing.leads && first != own && is_live;
    is_misplaced.then_some(Misplaced { first, term: standing.term })
}

/// What came of giving back the one that was asked for.
pub(super) struct GaveBack {
    shard: ShardId,
    to: BrokerId,
    outcome: GivenBack,
}

impl Weigh for GaveBack {}

impl Replicas {
    /// Gives the next shard back that is led here and is to be led by another broker, if one is due.
    pub(super) fn give_leads_back(&mut self, room: &mut Room<'_, Self>) {
        if self.is_stopping || !self.parts.config.return_leadership {
            return;
        }
        let (own, table) = (self.parts.broker, &self.table);
        let all = self.running.iter().filter_map(|(shard, running)| {
            let standing = *running.shard.handle().standing.borrow();
            Some((*shard, misplaced(own, *shard, standing, table)?))
        });
        let all: BTreeMap<ShardId, Misplaced> = all.collect();
        let now_ms = room.clock().monotonic_ms();
        self.leads_back.follow(&all, now_ms);
        let Some((shard, to)) = self.leads_back.next(now_ms) else { return };
        let running = self.running.get(&shard);
        let asked = running.map(|running| (running.shard.handle().clone(), running.ear.inbox(1)));
        room.spawn_into(async move {
            let Some((handle, ear)) = asked else {
                return GaveBack { shard, to, outcome: GivenBack::NotNow };
            };
            let status = shard_statuses(&[handle]).await;
            let (reply, answer) = reply::port();
            if status.first().is_some_and(|status| status.temporary_bytes == 0) {
                let _ = ear.try_put(GiveBack { to, reply }); // if it is gone, so is the port
            } else {
                drop(reply);
            }
            GaveBack { shard, to, outcome: answer.await.unwrap_or(GivenBack::NotNow) }
        });
    }
}

impl Receive<GaveBack> for Replicas {
    fn receive(&mut self, gave_back: GaveBack, _: Credit, room: &mut Room<'_, Self>) {
        let GaveBack { shard, to, outcome } = gave_back;
        self.leads_back.heard(outcome, room.clock().monotonic_ms());
        match outcome {
            GivenBack::Done => {
                tracing::info!(%shard, %to, "given back to the first of its brokers");
            }
            GivenBack::InVain => {
                tracing::warn!(%shard, %to, "the first of its brokers did not take it back");
            }
            // Nothing was moved, so the next one need not wait for its second.
            GivenBack::NotNow => self.give_leads_back(room),
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{BrokerAddress, Durability};
    use grus_registry::{BrokerPlace, ShardPlace};

    use super::*;

    const OWN: BrokerId = BrokerId(2);
    const SHARD: ShardId = ShardId(4);

    fn table(members: &[u64], wanted: &[u64], gone: &[u64]) -> RoutingTable {
        let list = |list: &[u64]| list.iter().copied().map(BrokerId).collect();
        let alone = ShardPlace::alone(Durability::Persisted, OWN);
        let (members, wanted) = (list(members), list(wanted));
        let mut table = RoutingTable::default();
        table.shards.insert(SHARD, ShardPlace { members, wanted, ..alone });
        for broker in 1..=3 {
            let id = BrokerId(broker);
            let address = BrokerAddress { id, host: "h".into(), port: 1 };
            let live = !gone.contains(&broker);
            table.brokers.insert(id, BrokerPlace { address, live, disk: broker });
        }
        table
    }

    #[test]
    fn what_is_led_here_is_given_back_only_to_a_first_that_is_there_while_no_others_are_wanted() {
        let of = |leads, members: &[u64], wanted: &[u64], gone: &[u64]| {
            let first = ShardStanding {
                leads,
                leader: None,
                term: Term(7),
                reign: 1,
                is_replicated: true,
                alone_at: None,
            };
            let found = misplaced(OWN, SHARD, first, &table(members, wanted, gone));
            found.map(|found| (found.first.0, found.term.0))
        };
        assert_eq!(of(true, &[1, 2, 3], &[], &[]), Some((1, 7)));
        assert_eq!(of(true, &[1, 2, 3], &[], &[3]), Some((1, 7)), "another one is away");
        assert_eq!(of(true, &[2, 1, 3], &[], &[]), None, "it is the first");
        assert_eq!(of(false, &[1, 2, 3], &[], &[]), None, "another one leads");
        assert_eq!(of(true, &[1, 2, 3], &[], &[1]), None, "the first is away");
        assert_eq!(of(true, &[9, 2, 3], &[], &[]), None, "nobody knows the first");
        assert_eq!(of(true, &[1, 2, 3], &[1, 2, 4], &[]), None, "its members change");
        assert_eq!(of(true, &[], &[], &[]), None, "it is nobody else's");
    }

    /// Shards that are led here in a term and are the first broker's.
    fn here(shards: &[u32], first: u64, term: u64) -> BTreeMap<ShardId, Misplaced> {
        let misplaced = Misplaced { first: BrokerId(first), term: Term(term) };
        shards.iter().map(|shard| (ShardId(*shard), misplaced)).collect()
    }

    /// Which one is asked for at which moment, of moments that follow one another by a second.
    fn asked(
        leads: &mut LeadsBack,
        now: &BTreeMap<ShardId, Misplaced>,
        mut seconds: std::ops::Range<u64>,
    ) -> Option<(u64, u32)> {
        seconds.find_map(|second| {
            leads.follow(now, second * 1_000);
            leads.next(second * 1_000).map(|(shard, _)| (second, shard.0))
        })
    }

    #[test]
    fn one_at_a_time_and_none_before_it_has_been_calm() {
        let (mut leads, all) = (LeadsBack::default(), here(&[4, 5, 6], 1, 7));
        assert_eq!(asked(&mut leads, &all, 100..200), Some((110, 4)));
        assert_eq!(asked(&mut leads, &all, 111..300), None, "one is under way");
        leads.heard(GivenBack::Done, 300_000);
        assert_eq!(asked(&mut leads, &here(&[5, 6], 1, 7), 301..400), Some((301, 5)));
        // One that cannot be given back now holds the others up for nothing.
        leads.heard(GivenBack::NotNow, 301_000);
        assert_eq!(asked(&mut leads, &here(&[5, 6], 1, 7), 301..400), Some((301, 6)));
        leads.heard(GivenBack::Done, 301_000);
        assert_eq!(asked(&mut leads, &here(&[5], 1, 7), 301..400), Some((303, 5)));
    }

    #[test]
    fn the_time_begins_anew_with_each_term_and_when_its_first_was_away() {
        let mut leads = LeadsBack::default();
        assert_eq!(asked(&mut leads, &here(&[4], 1, 7), 0..9), None);
        assert_eq!(asked(&mut leads, &here(&[4], 1, 8), 9..19), None, "led anew");
        assert_eq!(asked(&mut leads, &BTreeMap::new(), 19..20), None, "its first is away");
        assert_eq!(asked(&mut leads, &here(&[4], 1, 8), 20..99), Some((30, 4)));
    }

    #[test]
    fn one_that_comes_back_again_and_again_waits_longer_each_time_and_no_longer_for_ever() {
        let (mut leads, mut second, mut waits) = (LeadsBack::default(), 0, Vec::new());
        for term in 7..16 {
            let begun = second;
            let (at, _) = asked(&mut leads, &here(&[4], 1, term), begun..begun + 1_000).unwrap();
            waits.push(at - begun);
            leads.heard(GivenBack::Done, at * 1_000);
            // Its first leads it for a minute, and dies.
            second = at + 60;
            assert_eq!(asked(&mut leads, &BTreeMap::new(), at + 1..second), None);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        // Its first has led it for long: it is as any other one.
        second += 600;
        assert_eq!(asked(&mut leads, &BTreeMap::new(), second - 600..second), None);
        let (at, _) = asked(&mut leads, &here(&[4], 1, 99), second..second + 99).unwrap();
        assert_eq!(at - second, 10);
    }

    #[test]
    fn a_broker_that_does_not_take_over_rests_with_all_its_shards_and_others_do_not() {
        let mut leads = LeadsBack::default();
        let mut all = here(&[4, 5], 1, 7);
        all.extend(here(&[6], 3, 7));
        assert_eq!(asked(&mut leads, &all, 0..99), Some((10, 4)));
        leads.heard(GivenBack::InVain, 13_000);
        all.extend(here(&[4], 1, 9)); // it was elected anew
        assert_eq!(asked(&mut leads, &all, 13..99), Some((13, 6)));
        leads.heard(GivenBack::Done, 13_000);
        all.remove(&ShardId(6));
        assert_eq!(asked(&mut leads, &all, 14..99), Some((43, 4)));
        leads.heard(GivenBack::InVain, 44_000);
        assert_eq!(asked(&mut leads, &all, 45..200), Some((74, 5)));
        leads.heard(GivenBack::InVain, 75_000);
        // It waits for 60 s, and its broker rests for 30.
        assert_eq!(asked(&mut leads, &all, 76..200), Some((105, 4)));
    }
}
