//! How a broker comes to its shards: from the registry in its own process, from one that is a process
//! of its own, or, while that is away, from what it knew last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grus_log::RealDisk;
use grus_mailbox::reply;
use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, ShardId};
use grus_registry::{
    BrokerPlace, Claims, Enrolled, RegistryHandle, RegistryPlaces, RegistryRequest,
    RegistryService, RegistrySettings, RemoteService, RemoteSettings, RemoteState, RoutingTable,
    ShardPlace, draw_number,
};
use tokio::sync::watch;

use super::{Running, ShardPlan, StartError};
use crate::begun::{Begun, BegunError, Noted};
use crate::config::BrokerConfig;
use crate::kept::Kept;
use crate::metrics::EdgeMetrics;
use crate::registry_link::ledger::Home;
use crate::shard::{FailedShard, FailedShards};

/// How long a broker that knows its shards waits for its registry before it goes on without.
const REGISTRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a broker says that it waits.
const SAY_PERIOD: Duration = Duration::from_secs(10);

/// What a broker serves, and whom it asks.
pub(super) struct Enrolment {
    pub(super) registry: RegistryHandle,
    pub(super) plan: ShardPlan,
    pub(super) home: Home,
    /// What the registry says this broker has alone, and is not served.
    pub(super) refused: FailedShards,
}

type Shards = Vec<(ShardId, Durability)>;

impl Running {
    /// Comes to the broker's shards, and remembers them before any of them is made.
    pub(super) async fn enrol(
        &mut self,
        config: &BrokerConfig,
        address: &BrokerAddress,
        metrics: &EdgeMetrics,
    ) -> Result<Enrolment, StartError> {
        let mut kept = Kept::load(&self.folder.routes());
        if !config.registry_addresses.is_empty() {
            let notes = self.folder.members();
            kept.table = with_groups(kept.table, address.id, |shard| Begun::of(&notes, shard))?;
        }
        let own = kept.table.shards_of(address.id);
        let wanted = match config.shards_per_durability {
            0 => config.core_arbiters_resolved(),
            some => some,
        };
        let claims = Claims { shards: own.clone(), wanted };
        let mut refused = FailedShards::default();
        let (registry, table, shards) = if config.registry_addresses.is_empty() {
            if let Some(shard) = Begun::all(&self.folder.members())?.first() {
                return Err(StartError::OfACluster { shard: *shard });
            }
            let registry = self.start_registry(config.log.accept_loss).await?;
            let enrolled = enrol_here(&registry, address, self.folder.disk(), claims).await?;
            (registry, enrolled.table, enrolled.shards)
        } else {
            let (registry, told) =
                self.enrol_there(config, address, &mut kept, &claims, metrics).await?;
            let shards = told.unwrap_or_else(|| own.clone());
            let notes = self.folder.members();
            let (shards, others) = never_a_groups(shards, |shard| Begun::of(&notes, shard))?;
            refused = Arc::new(others);
            (registry, Arc::clone(&kept.table), shards)
        };
        if own != shards {
            let table = Arc::new(with_shards(&table, address, self.folder.disk(), &shards));
            let kept = Kept { home: kept.home.clone(), table };
            let path = self.folder.routes();
            match kept.save(&path) {
                // Its own registry remembers the shards as well: a full disk stops no start.
                Err(error) if self.remote.is_none() => {
                    tracing::warn!(path = %path.display(), %error, "not written");
                }
                saved => saved.map_err(|source| StartError::Keep { path, source })?,
            }
        }
        Ok(Enrolment { registry, plan: ShardPlan::new(shards), home: kept.home, refused })
    }

    /// Comes to the shards that a registry gives which is a process of its own. Where it names one as this
    /// broker's alone of which a note is left that it has become a group's, and nothing else, it is told so.
    async fn enrol_there(
        &mut self,
        config: &BrokerConfig,
        address: &BrokerAddress,
        kept: &mut Kept,
        claims: &Claims,
        metrics: &EdgeMetrics,
    ) -> Result<(RegistryHandle, Option<Shards>), StartError> {
        loop {
            let remote = self.start_remote(config, address, kept, claims.clone(), metrics)?;
            let (registry, state) = (remote.handle().clone(), remote.state());
            self.remote = Some(remote);
            let knows_own = kept.table.shards.values().any(|place| place.is_on(address.id));
            let told = await_shards(state, knows_own).await?;
            let (notes, told_shards) = (self.folder.members(), told.as_deref().unwrap_or_default());
            let noted = |shard| Begun::of(&notes, shard);
            let Some(table) = with_forgotten(&kept.table, address.id, told_shards, noted)? else {
                return Ok((registry, told));
            };
            kept.table = table;
            let path = self.folder.routes();
            kept.save(&path).map_err(|source| StartError::Keep { path, source })?;
            if let Some(remote) = self.remote.take() {
                remote.stop().await; // the next one claims what it has just learnt
            }
        }
    }

    async fn start_registry(&mut self, accept_loss: bool) -> Result<RegistryHandle, StartError> {
        let places = RegistryPlaces {
            core: self.places.core(0).clone(),
            flush: self.places.open("registry-flush"),
            disk: self.places.open("registry-disk"),
        };
        // One broker is all that it serves, whatever else its folder may have been told of.
        let topic_replicas = 1;
        let settings = RegistrySettings {
            accept_loss,
            topic_replicas,
            ..RegistrySettings::new(self.folder.registry())
        };
        let registry = RegistryService::start(places, settings, RealDisk).await?;
        let handle = registry.handle().clone();
        self.registry = Some(registry);
        Ok(handle)
    }

    fn start_remote(
        &self,
        config: &BrokerConfig,
        address: &BrokerAddress,
        kept: &Kept,
        claims: Claims,
        metrics: &EdgeMetrics,
    ) -> Result<RemoteService, StartError> {
        let metrics = metrics.clone();
        let settings = RemoteSettings {
            addresses: config.registry_addresses.clone(),
            broker: address.clone(),
            disk: self.folder.disk(),
            session: draw_number(),
            claims,
            shards_below: shards_below(&[self.folder.members(), self.folder.shards()])?,
            // Number 0: hearsay, by which nothing is thrown away.
            known: Arc::new(RoutingTable { registry: 0, ..RoutingTable::clone(&kept.table) }),
            produced_bytes: Arc::new(move || metrics.produced_bytes()),
            drained: self.drained.subscribe(),
        };
        Ok(RemoteService::start(self.places.core(0), settings))
    }
}

/// All shards that one of these folders names have lower numbers.
fn shards_below(folders: &[PathBuf]) -> Result<u32, BegunError> {
    let mut below = 0;
    for folder in folders {
        let last = Begun::all(folder)?.into_iter().max();
        below = below.max(last.map_or(0, |shard| shard.0.saturating_add(1)));
    }
    Ok(below)
}

/// Names this broker and its shards to the registry in this process.
async fn enrol_here(
    registry: &RegistryHandle,
    address: &BrokerAddress,
    disk: u64,
    claims: Claims,
) -> Result<Enrolled, StartError> {
    let (port, answer) = reply::port();
    let request = RegistryRequest::EnrolBroker {
        address: address.clone(),
        disk,
        shards: claims.shards,
        shards_wanted: claims.wanted,
        memberships: Vec::new(),
        shards_below: 0, // there is no other broker that could have seen more
        reply: port,
    };
    let gone = || StartError::Gone("the registry");
    registry.ask.try_put(request).map_err(|_| gone())?;
    Ok(answer.await.map_err(|_| gone())??)
}

/// Waits for the shards that a remote registry gives this broker. One that knows its own shards
/// does not wait for long.
async fn await_shards(
    mut state: watch::Receiver<RemoteState>,
    knows_own: bool,
) -> Result<Option<Shards>, StartError> {
    let told = async {
        loop {
            match state.borrow_and_update().clone() {
                RemoteState::Registered { shards, .. } => return Ok(shards),
                RemoteState::Refused(error) => return Err(StartError::Refused(error)),
                RemoteState::Away { .. } => {}
            }
            state.changed().await.map_err(|_| StartError::Gone("the link to the registry"))?;
        }
    };
    tokio::pin!(told);
    let patience = if knows_own { REGISTRY_WAIT_MAX } else { SAY_PERIOD };
    loop {
        match tokio::time::timeout(patience, &mut told).await {
            Ok(told) => return told.map(Some),
            Err(_elapsed) if knows_own => {
                tracing::warn!("the registry is away: serving what this broker has");
                return Ok(None);
            }
            Err(_elapsed) => tracing::warn!("waiting for the registry, to be given shards"),
        }
    }
}

/// What is known, with those shards as a group's of which it is noted that they have become so, though
/// the routes that were kept are of before: the log says who else is in the group. Those that a group has
/// let go of here are nobody's that is known: to begin them anew would be another shard of their number.
fn with_groups(
    table: Arc<RoutingTable>,
    broker: BrokerId,
    noted: impl Fn(ShardId) -> Result<Noted, BegunError>,
) -> Result<Arc<RoutingTable>, BegunError> {
    let mut known = Vec::new();
    for (shard, _) in table.shards_of(broker) {
        match noted(shard)? {
            Noted::Nothing => {}
            noted => known.push((shard, noted)),
        }
    }
    if known.is_empty() {
        return Ok(table);
    }
    let mut table = RoutingTable::clone(&table);
    for (shard, noted) in known {
        if let Noted::In(group) = noted
            && let Some(place) = table.shards.get_mut(&shard)
        {
            (place.members, place.group) = (vec![broker], group);
        } else {
            table.shards.remove(&shard);
        }
    }
    Ok(Arc::new(table))
}

/// What is known, with those shards as a group's that a registry says this broker has alone, of which nothing
/// is known here but a note that they have become so: the routes that were kept are lost, and the registry is
/// of before. Nobody else may have them: they are this broker's to claim. None where there are no such.
fn with_forgotten(
    table: &Arc<RoutingTable>,
    broker: BrokerId,
    told: &[(ShardId, Durability)],
    noted: impl Fn(ShardId) -> Result<Noted, BegunError>,
) -> Result<Option<Arc<RoutingTable>>, BegunError> {
    let mut found = RoutingTable::clone(table);
    for (shard, durability) in told {
        if !table.shards.contains_key(shard)
            && let Noted::In(group) = noted(*shard)?
        {
            let alone = ShardPlace::alone(*durability, broker);
            found.shards.insert(*shard, ShardPlace { members: vec![broker], group, ..alone });
        }
    }
    Ok((found.shards.len() > table.shards.len()).then(|| Arc::new(found)))
}

/// Of the shards that a registry says this broker has alone, those that never were a group's here, and why
/// the others are not served. It may have been restored from a copy of before a shard grew, or give the
/// number of one anew: that one is not this broker's alone any more, whoever has it now.
fn never_a_groups(
    shards: Shards,
    noted: impl Fn(ShardId) -> Result<Noted, BegunError>,
) -> Result<(Shards, BTreeMap<ShardId, FailedShard>), BegunError> {
    let (mut own, mut refused) = (Shards::new(), BTreeMap::new());
    for (shard, durability) in shards {
        if noted(shard)? == Noted::Nothing {
            own.push((shard, durability));
            continue;
        }
        let why = format!(
            "the registry says that this broker has shard {shard} alone, but the file members/{shard} notes \
             that it has become one of several brokers: it is not served. Let the brokers that have it \
             come, or restore the registry from a later copy; where no broker has anything of it, remove \
             that file, and start this broker again"
        );
        tracing::error!(%shard, why, "not served");
        refused.insert(shard, FailedShard { durability, why });
    }
    Ok((own, refused))
}

/// What is known, with these shards as this broker's.
fn with_shards(
    table: &RoutingTable,
    address: &BrokerAddress,
    disk: u64,
    shards: &[(ShardId, Durability)],
) -> RoutingTable {
    let mut table = table.clone();
    let broker: BrokerId = address.id;
    for (shard, durability) in shards {
        table.shards.entry(*shard).or_insert_with(|| ShardPlace::alone(*durability, broker));
    }
    let place = BrokerPlace { address: address.clone(), live: true, disk };
    table.brokers.insert(broker, place);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_is_noted_as_a_groups_is_not_taken_for_one_that_the_broker_has_alone() {
        let own = BrokerId(1);
        let mut table = RoutingTable::default();
        for (shard, broker) in [(0, 1), (1, 1), (2, 2)] {
            let place = ShardPlace::alone(Durability::Persisted, BrokerId(broker));
            table.shards.insert(ShardId(shard), place);
        }
        let known = Arc::new(table);
        let noted =
            |shard: ShardId| Ok(if shard == ShardId(1) { Noted::Nothing } else { Noted::In(40) });
        let table = with_groups(Arc::clone(&known), own, noted).unwrap();
        assert_eq!(table.shards_of(own), [(ShardId(1), Durability::Persisted)]);
        let place = &table.shards[&ShardId(0)];
        assert_eq!((&place.members[..], place.group), (&[own][..], 40));
        assert!(!place.is_founder(own), "its log is there");
        assert!(!table.shards[&ShardId(2)].is_replicated(), "another broker's");
        let none = with_groups(Arc::clone(&known), own, |_| Ok(Noted::Nothing)).unwrap();
        assert!(Arc::ptr_eq(&none, &known));
    }

    #[test]
    fn numbers_of_which_anything_is_here_are_told_also_where_only_a_note_is_left() {
        let data = tempfile::tempdir().unwrap();
        let folders = ["members", "shards", "none"].map(|name| data.path().join(name));
        assert_eq!(shards_below(&folders).unwrap(), 0, "it is new");
        std::fs::create_dir_all(folders[1].join("3")).unwrap();
        std::fs::create_dir_all(folders[1].join("9.gone")).unwrap();
        assert_eq!(shards_below(&folders).unwrap(), 4);
        std::fs::create_dir_all(&folders[0]).unwrap();
        Begun::new(&folders[0], ShardId(7), 40).note_out().unwrap();
        assert_eq!(shards_below(&folders).unwrap(), 8);
    }

    #[test]
    fn a_shard_that_a_group_has_let_go_of_here_is_not_begun_anew() {
        let own = BrokerId(1);
        let mut table = RoutingTable::default();
        for shard in [0, 1] {
            table.shards.insert(ShardId(shard), ShardPlace::alone(Durability::Persisted, own));
        }
        let noted =
            |shard: ShardId| Ok(if shard == ShardId(1) { Noted::Nothing } else { Noted::Out });
        let table = with_groups(Arc::new(table), own, noted).unwrap();
        assert_eq!(table.shards_of(own), [(ShardId(1), Durability::Persisted)]);
        assert_eq!(table.memberships_of(own).count(), 0, "it is others'");
        // The same where a registry that forgot it says so.
        let told = [0, 1].map(|shard| (ShardId(shard), Durability::Persisted)).to_vec();
        let (left, refused) = never_a_groups(told, noted).unwrap();
        assert_eq!(left, [(ShardId(1), Durability::Persisted)]);
        let why = &refused[&ShardId(0)].why;
        assert!(why.contains("not served") && why.contains("members/0"), "{why}");
        assert_eq!(refused.len(), 1);
    }

    #[test]
    fn what_is_only_noted_is_claimed_where_a_registry_of_before_names_it_as_this_brokers() {
        let (own, persisted) = (BrokerId(1), Durability::Persisted);
        let told = [0, 1, 2, 3].map(|shard| (ShardId(shard), persisted));
        let noted = |shard: ShardId| {
            Ok(match shard.0 {
                0 | 3 => Noted::In(40 + u64::from(shard.0)),
                1 => Noted::Out,
                _ => Noted::Nothing,
            })
        };
        // Of this one it is known who has it.
        let mut known = RoutingTable::default();
        known.shards.insert(ShardId(3), ShardPlace::alone(persisted, BrokerId(2)));
        let known = Arc::new(known);
        let table = with_forgotten(&known, own, &told, noted).unwrap().expect("there is one");
        let claimed: Vec<_> = table.memberships_of(own).collect();
        let [(ShardId(0), place)] = claimed[..] else { panic!("{claimed:?}") };
        assert_eq!(
            (&place.members[..], place.group, place.durability),
            (&[own][..], 40, persisted)
        );
        assert!(!place.is_founder(own), "its log is there, or was");
        assert!(with_forgotten(&table, own, &told, noted).unwrap().is_none(), "once");
    }
}
