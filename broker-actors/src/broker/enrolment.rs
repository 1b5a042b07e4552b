//! How a broker comes to its shards: from the registry in its own process, from one that is a process
//! of its own, or, while that is away, from what it knew last.

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
use crate::config::BrokerConfig;
use crate::kept::Kept;
use crate::metrics::EdgeMetrics;
use crate::registry_link::ledger::Home;

/// How long a broker that knows its shards waits for its registry before it goes on without.
const REGISTRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a broker says that it waits.
const SAY_PERIOD: Duration = Duration::from_secs(10);

/// What a broker serves, and whom it asks.
pub(super) struct Enrolment {
    pub(super) registry: RegistryHandle,
    pub(super) plan: ShardPlan,
    pub(super) home: Home,
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
        let kept = Kept::load(&self.folder.routes());
        let own = kept.table.shards_of(address.id);
        let wanted = match config.shards_per_durability {
            0 => config.core_arbiters_resolved(),
            some => some,
        };
        let claims = Claims { shards: own.clone(), wanted };
        let (registry, table, shards) = if config.registry_addresses.is_empty() {
            let registry = self.start_registry(config.log.accept_loss).await?;
            let enrolled = enrol_here(&registry, address, self.folder.disk(), claims).await?;
            (registry, enrolled.table, enrolled.shards)
        } else {
            let remote = self.start_remote(config, address, &kept, claims, metrics);
            let registry = remote.handle().clone();
            let state = remote.state();
            self.remote = Some(remote);
            let shards = await_shards(state, !own.is_empty()).await?.unwrap_or_else(|| own.clone());
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
        Ok(Enrolment { registry, plan: ShardPlan::new(shards), home: kept.home })
    }

    async fn start_registry(&mut self, accept_loss: bool) -> Result<RegistryHandle, StartError> {
        let places = RegistryPlaces {
            core: self.places.core(0).clone(),
            flush: self.places.open("registry-flush"),
            disk: self.places.open("registry-disk"),
        };
        let settings =
            RegistrySettings { accept_loss, ..RegistrySettings::new(self.folder.registry()) };
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
    ) -> RemoteService {
        let metrics = metrics.clone();
        let settings = RemoteSettings {
            addresses: config.registry_addresses.clone(),
            broker: address.clone(),
            disk: self.folder.disk(),
            session: draw_number(),
            claims,
            // Number 0: hearsay, by which nothing is thrown away.
            known: Arc::new(RoutingTable { registry: 0, ..RoutingTable::clone(&kept.table) }),
            produced_bytes: Arc::new(move || metrics.produced_bytes()),
        };
        RemoteService::start(self.places.core(0), settings)
    }
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
