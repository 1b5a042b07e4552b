//! Rebalance: says where new queues go.
//!
//! ```text
//! Registry --Plan--> [Rebalance] --shards--> Registry (proposes them)
//! BrokerTable --Loads--^   ^--RoutingChanged-- Watch
//! ```
//!
//! * Owns: the newest routes, the brokers' loads as they told them, and what it has planned that the
//!   routes do not show yet ([`placement`]).
//! * Lives on: the registry's core arbiter.
//! * Inbox: `Plan`, `Loads`, [`RoutingChanged`], counted in messages.
//! * Talks to: nobody; it answers by reply port.
//! * Stops: at once; a plan that is not made is made by the state machine itself.
//! * If it panics: it is rebuilt without loads, which come again within a second.
//!
//! Moving queues that exist comes with the cluster issue.

pub mod placement;

use std::collections::BTreeMap;

use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Port, Receive, Resident, Room, Weigh,
};
use grus_protocol::ids::{BrokerId, Durability, ShardId, TopicId};

use crate::watch::{RoutingChanged, Watch};
use placement::Placement;

/// Asks where new queues of a topic go.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) topic: TopicId,
    pub(crate) durability: Durability,
    pub(crate) queues: u32,
    /// Gets one shard for each queue; none when there is nowhere to put them.
    pub(crate) reply: Port<Vec<ShardId>>,
}

impl Weigh for Plan {}

/// What brokers said of their load, in bytes of batches per second.
#[derive(Debug)]
pub(crate) struct Loads(pub(crate) BTreeMap<BrokerId, u64>);

impl Weigh for Loads {}

/// See the module documentation.
pub(crate) struct Rebalance {
    placement: Placement,
    watch: Inbox<Watch>,
}

impl Rebalance {
    /// Starts it at `place`; it is told the routes by `watch`.
    pub(crate) fn start(place: &Place, watch: Inbox<Watch>) -> HostHandle<Self> {
        Host::spawn_local(place, ActorSpec::new("Rebalance", "registry"), move || Self {
            placement: Placement::default(),
            watch: watch.clone(),
        })
    }
}

impl Resident for Rebalance {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        if self.watch.try_put(Watch { to: room.inbox(1) }).is_err() {
            tracing::error!("the registry takes no watch");
        }
    }
}

impl Receive<Plan> for Rebalance {
    fn receive(&mut self, plan: Plan, _: Credit, _: &mut Room<'_, Self>) {
        plan.reply.send(self.placement.plan(plan.topic, plan.durability, plan.queues));
    }
}

impl Receive<Loads> for Rebalance {
    fn receive(&mut self, Loads(loads): Loads, _: Credit, _: &mut Room<'_, Self>) {
        self.placement.loads_are(loads);
    }
}

impl Receive<RoutingChanged> for Rebalance {
    fn receive(&mut self, changed: RoutingChanged, _: Credit, _: &mut Room<'_, Self>) {
        self.placement.table_is(changed.table);
    }
}
