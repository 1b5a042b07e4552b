//! A registry to be asked, for the tests of this crate.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;

use grus_log::{Disk, RealDisk};
use grus_mailbox::{
    Clock, Dropped, Fatal, FatalPort, Inbox, Outlet, Places, Port, Process, outlet, reply,
};
use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, ShardId, TopicId};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;
use grus_registry::command::AlterTopic;
use grus_registry::{
    RegistryError, RegistryPlaces, RegistryRequest, RegistryService, RegistrySettings,
    RegistryStartError, RoutingChanged, RoutingTable, TopicCreated, TopicRoutes, Watch,
};
use tokio::sync::mpsc::UnboundedReceiver;

pub const CLASS: Durability = Durability::Persisted;

/// A running registry, and the threads it lives on.
pub struct Bench<D: Disk> {
    pub places: Places,
    pub service: RegistryService<D>,
    pub told: Outlet<RoutingChanged>,
    pub fatals: UnboundedReceiver<Fatal>,
}

impl Bench<RealDisk> {
    pub async fn start(dir: &Path) -> Self {
        Self::start_on(RegistrySettings::new(dir), RealDisk).await.expect("it starts")
    }
}

impl<D: Disk> Bench<D> {
    pub async fn start_on(settings: RegistrySettings, disk: D) -> Result<Self, RegistryStartError> {
        let (fatal, fatals) = FatalPort::channel();
        let process = Process::new(Clock::system(), fatal);
        let mut places = Places::start(1, &process);
        let registry_places = RegistryPlaces {
            core: places.core(0).clone(),
            flush: places.open("registry-flush"),
            disk: places.open("registry-sled"),
        };
        let service = match RegistryService::start(registry_places, settings, disk).await {
            Ok(service) => service,
            Err(error) => {
                assert!(process.census.is_empty(), "nothing is left of a start that failed");
                places.stop_and_join().await;
                return Err(error);
            }
        };
        let (to, told) = outlet(1);
        service.handle().watch.try_put(Watch { to }).expect("room for a watcher");
        Ok(Self { places, service, told, fatals })
    }

    pub async fn stop(self) {
        self.service.stop().await;
        assert!(self.places.process().census.is_empty(), "everyone has stopped");
        assert!(self.places.stop_and_join().await.is_empty());
    }

    pub async fn ask<T>(
        &self,
        request: impl FnOnce(Port<Result<T, RegistryError>>) -> RegistryRequest,
    ) -> Result<T, RegistryError> {
        self.try_ask(request).await.expect("it lives, and answers")
    }

    /// Like `ask`, of a registry that may die meanwhile.
    pub async fn try_ask<T>(
        &self,
        request: impl FnOnce(Port<Result<T, RegistryError>>) -> RegistryRequest,
    ) -> Result<Result<T, RegistryError>, Dropped> {
        let (port, answer) = reply::port();
        let ask: &Inbox<RegistryRequest> = &self.service.handle().ask;
        ask.put(request(port)).await.map_err(|_| Dropped)?;
        answer.await
    }

    pub async fn register(&self, shards: &[u32]) -> Arc<RoutingTable> {
        let address = BrokerAddress { id: BrokerId(1), host: "localhost".into(), port: 6086 };
        let shards = shards.iter().map(|shard| (ShardId(*shard), CLASS)).collect();
        let enrolled = self.ask(|reply| RegistryRequest::EnrolBroker {
            address,
            disk: 7,
            shards,
            shards_wanted: 0,
            memberships: Vec::new(),
            shards_below: 0,
            reply,
        });
        enrolled.await.expect("it is taken").table
    }

    pub async fn create(&self, topic: &str, queues: u32) -> Result<TopicCreated, RegistryError> {
        self.create_if(topic, queues, false).await
    }

    pub async fn create_if(
        &self,
        topic: &str,
        queues: u32,
        if_not_exists: bool,
    ) -> Result<TopicCreated, RegistryError> {
        let settings = TopicSettings { queues, ..TopicSettings::default() };
        let name = name(topic);
        self.ask(|reply| RegistryRequest::CreateTopic { name, settings, if_not_exists, reply })
            .await
    }

    pub async fn add_queues(
        &self,
        topic: &str,
        to: u32,
    ) -> Result<Arc<TopicRoutes>, RegistryError> {
        let alter = AlterTopic {
            name: name(topic),
            id: TopicId::UNKNOWN,
            queues: Some(to),
            retention_ms: None,
            retention_bytes: None,
            dedup_window_ms: None,
            expired: None,
            retention_messages: None,
            when_full: None,
        };
        self.ask(|reply| RegistryRequest::AlterTopic { alter, reply }).await
    }

    pub async fn delete(&self, topic: &str) -> Result<TopicId, RegistryError> {
        let name = name(topic);
        self.ask(|reply| RegistryRequest::DeleteTopic { name, id: TopicId::UNKNOWN, reply }).await
    }

    /// The first table of that version or a later one that the watcher is told.
    pub async fn told(&mut self, version: u64) -> Arc<RoutingTable> {
        loop {
            let (RoutingChanged { table }, _) = self.told.take().await.expect("it lives");
            if table.version >= version {
                return table;
            }
        }
    }

    /// Stops it once its copy is made good; how often it had to be rebuilt.
    pub async fn rebuilds(self) -> u64 {
        let copy = Arc::clone(&self.service.handle().copy);
        while copy.applied_index() == 0 {
            tokio::task::yield_now().await;
        }
        self.stop().await;
        copy.rebuilds()
    }
}

pub fn name(topic: &str) -> TopicName {
    TopicName::try_from(topic).expect("a valid name")
}
