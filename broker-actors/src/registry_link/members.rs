//! What the link makes of the shards that this broker is a member of: their queues are opened where
//! it leads, and the registry is told so.

use std::collections::{BTreeMap, BTreeSet};

use grus_mailbox::{Credit, Dropped, Inbox, Receive, Room, Weigh};
use grus_protocol::ids::{ShardId, Term};
use grus_registry::command::ToldMembers;
use grus_registry::{RegistryRequest, ShardPlace};

use super::{Heard, RegistryLink};
use crate::shard::StandingWatch;

/// Changes of standings that wait to be looked at.
const STANDINGS_MAX: u32 = 1_024;

/// The standings of members that are followed.
#[derive(Debug, Default)]
pub(super) struct Standings {
    known: BTreeMap<ShardId, StandingWatch>,
    /// The shards that this broker has alone.
    alone: BTreeSet<ShardId>,
    /// The registry is being told of what is led here.
    pub(super) is_telling: bool,
}

impl Standings {
    /// Of a broker that has these alone.
    pub(super) fn of(alone: BTreeSet<ShardId>) -> Self {
        Self { alone, ..Self::default() }
    }
}

/// There are fewer shards that this broker has alone. At most one waits.
#[derive(Debug)]
pub(super) struct FewerAlone;

impl Weigh for FewerAlone {}

/// There are more members. At most one waits.
#[derive(Debug)]
pub(super) struct MoreMembers;

impl Weigh for MoreMembers {}

/// A member stands differently.
#[derive(Debug)]
pub(super) struct StandsAnew {
    shard: ShardId,
}

impl Weigh for StandsAnew {}

impl RegistryLink {
    /// Has this actor told of members as they come.
    pub(super) fn watch_members(&self, room: &mut Room<'_, Self>) {
        let (mut replicated, to) = (self.parts.replicated.clone(), room.inbox::<MoreMembers>(1));
        room.spawn(async move {
            replicated.mark_changed();
            while replicated.changed().await.is_ok() && to.put(MoreMembers).await.is_ok() {}
        });
        let (mut alone, to) = (self.parts.shards.watch_own(), room.inbox::<FewerAlone>(1));
        room.spawn(async move {
            alone.mark_changed();
            while alone.changed().await.is_ok() && to.put(FewerAlone).await.is_ok() {}
        });
    }

    /// Who leads a shard of several members is as its member here says; of one that is being started,
    /// nobody.
    fn look_at(&mut self, shard: ShardId, room: &mut Room<'_, Self>) {
        let member = self.parts.shards.get(shard);
        let standing = member.map(|member| *member.standing.borrow());
        let reign = standing.filter(|standing| standing.leads).map(|standing| standing.reign);
        let leader = standing.and_then(|standing| standing.leader);
        let actions = self.ledger.stands(shard, reign, leader);
        self.carry_out(actions, room);
        self.publish();
    }

    /// Tells the registry what is led here, unless it knows.
    pub(super) fn tell_leads(&mut self, room: &mut Room<'_, Self>) {
        if self.standings.is_telling {
            return;
        }
        let (broker, table) = (self.parts.broker, self.ledger.table());
        let (mut news, mut members): (Vec<(ShardId, Term)>, Vec<ToldMembers>) = Default::default();
        for shard in self.parts.replicated.borrow().iter() {
            let standing = *shard.standing.borrow();
            let is_news = |place: &ShardPlace| place.term < standing.term;
            if standing.leads && table.shards.get(&shard.shard).is_some_and(is_news) {
                let shard = shard.shard;
                news.push((shard, standing.term));
                // By that the registry knows a copy of before others came, whatever its term is.
                let told = |at| ToldMembers { shard, members: vec![broker], at };
                members.extend(standing.alone_at.map(told));
            }
        }
        if news.is_empty() {
            return;
        }
        self.standings.is_telling = true;
        // Whatever is answered: what the routes do not say then is told again at the next tick.
        let reply = self.port(room, |_: Result<_, Dropped>| Heard::Led);
        let lead = RegistryRequest::LeadShards { broker, shards: news, members, reply };
        let _ = self.parts.registry.ask.try_put(lead); // refused: heard as told
    }
}

impl Receive<MoreMembers> for RegistryLink {
    fn receive(&mut self, _: MoreMembers, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit); // what comes from here on needs another one
        let to: Inbox<StandsAnew> = room.inbox(STANDINGS_MAX);
        for member in self.parts.replicated.borrow().iter() {
            // One that was out and is in again is another one.
            let before = self.standings.known.insert(member.shard, member.standing.clone());
            if before.is_some_and(|before| before.same_channel(&member.standing)) {
                continue;
            }
            let (mut standing, to, shard) = (member.standing.clone(), to.clone(), member.shard);
            room.spawn(async move {
                standing.mark_changed();
                let told = async || to.put(StandsAnew { shard }).await.is_ok();
                while standing.changed().await.is_ok() && told().await {}
            });
        }
    }
}

impl Receive<StandsAnew> for RegistryLink {
    fn receive(&mut self, anew: StandsAnew, _: Credit, room: &mut Room<'_, Self>) {
        if self.parts.shards.get(anew.shard).is_some() {
            self.look_at(anew.shard, room);
            self.tell_leads(room);
        }
    }
}

impl Receive<FewerAlone> for RegistryLink {
    fn receive(&mut self, _: FewerAlone, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit); // what goes from here on needs another one
        let alone = self.parts.shards.own().iter().map(|shard| shard.shard).collect();
        let before = std::mem::replace(&mut self.standings.alone, alone);
        for shard in before {
            if !self.standings.alone.contains(&shard) {
                self.look_at(shard, room);
            }
        }
    }
}
