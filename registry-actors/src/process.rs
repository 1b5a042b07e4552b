//! A registry as a process of its own: the one file that says what lives where, in which order it
//! starts, and how it stops.
//!
//! | place | who |
//! |---|---|
//! | `core-0` | Door, Sessions, BrokerTable, Rebalance, Registry, Watch |
//! | `registry-flush`, `registry-disk` | the registry's log and its copy in sled; block |
//! | a worker thread of its own | HTTP |
//!
//! Start: the folder's lock, the port, the registry's own recovery, the table of brokers, and the
//! door last. Stop, in stages: the door with its sessions, the table of brokers, the registry, and
//! every thread.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grus_log::RealDisk;
use grus_mailbox::{HostHandle, Places, Process, Shutdown, StageReport};
use thiserror::Error;

use crate::broker_table::{BROKER_ASKS_MAX, BrokerTable};
use crate::config::{REGISTRY_SCHEMA, RegistryConfig};
use crate::configuration::{Loaded, Setting};
use crate::door::Door;
use crate::folder::{FolderError, LockedFolder};
use crate::http::HttpServer;
use crate::http::host::AllowedHosts;
use crate::http::own::{self, HttpParts};
use crate::ports::{PortError, bind};
use crate::service::{RegistryPlaces, RegistryService, RegistrySettings, RegistryStartError};
use crate::session::Service;

/// Why a registry did not start. One line for the operator.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data folder cannot be served.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The registry itself did not start.
    #[error(transparent)]
    Registry(#[from] RegistryStartError),
}

/// A running registry. Stop it: dropped, it leaves its threads running.
pub struct RegistryProcess {
    address: SocketAddr,
    http: Option<HttpServer>,
    folder: LockedFolder,
    stop_limit: Duration,
    places: Places,
    service: RegistryService<RealDisk>,
    brokers: HostHandle<BrokerTable>,
    door: HostHandle<Door>,
}

impl RegistryProcess {
    /// Starts a registry in this process, which runs an actix `System`. Several fit in one process.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(
        loaded: Loaded<RegistryConfig>,
        process: Process,
    ) -> Result<Self, StartError> {
        let shown = REGISTRY_SCHEMA.settings(&loaded);
        let config = loaded.config;
        let folder = open_folder(&config.data)?;
        let (socket, address) = bind("clients", &config.listen_address)?;
        let http_socket = match config.http_address.as_str() {
            "off" | "" => None,
            http => Some(bind("HTTP", http)?.0),
        };

        let mut places = Places::start(1, &process);
        let registry_places = RegistryPlaces {
            core: places.core(0).clone(),
            flush: places.open("registry-flush"),
            disk: places.open("registry-disk"),
        };
        let settings = RegistrySettings {
            accept_loss: config.accept_loss,
            topic_replicas: config.topic_replicas,
            rebuild_after: config.rebuild_after,
            ..RegistrySettings::new(folder.path())
        };
        let service = match RegistryService::start(registry_places, settings, RealDisk).await {
            Ok(service) => service,
            Err(error) => {
                places.stop_and_join().await;
                return Err(error.into());
            }
        };
        let registry = service.handle().clone();
        let core = places.core(0);
        let loads = service.loads();
        let brokers = BrokerTable::start(core, registry.clone(), loads, config.lease_settings());
        let served = Service {
            registry,
            brokers: brokers.inbox(BROKER_ASKS_MAX),
            policy: Arc::new(config.topic_policy()),
            limits: config.session_limits(),
        };
        let door = Door::start(core, socket, served, config.connections_max);
        let stop_limit = config.shutdown_timeout;
        let mut started =
            Self { address, http: None, folder, stop_limit, places, service, brokers, door };
        if let Some(socket) = http_socket {
            match started.serve_http(socket, &config, shown, process) {
                Ok(http) => started.http = Some(http),
                Err(error) => {
                    started.stop().await;
                    return Err(error);
                }
            }
        }
        Ok(started)
    }

    fn serve_http(
        &self,
        socket: TcpListener,
        config: &RegistryConfig,
        settings: Vec<Setting>,
        process: Process,
    ) -> Result<HttpServer, StartError> {
        let hosts = AllowedHosts::new(&config.http_address, &config.http_hosts);
        let parts = HttpParts {
            process,
            registry: self.service.handle().clone(),
            data: self.folder.path().to_owned(),
            settings: Arc::new(settings),
        };
        let failed = PortError::of("HTTP", &config.http_address);
        Ok(own::start(socket, hosts, parts).map_err(failed)?)
    }

    /// Where HTTP is served, if it is.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::address)
    }

    /// Where it can be reached.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data folder, absolute.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Its number.
    #[must_use]
    pub fn registry(&self) -> u64 {
        self.service.handle().routing().registry
    }

    /// Stops it in stages; says how each went.
    pub async fn stop(self) -> Vec<StageReport> {
        let mut shutdown = Shutdown::new(self.stop_limit);
        shutdown.stage("door");
        shutdown.actor(&self.door);
        if let Some(http) = self.http {
            shutdown.step("http", move || http.stop());
        }
        shutdown.stage("brokers");
        shutdown.actor(&self.brokers);
        shutdown.stage("registry");
        let service = self.service;
        shutdown.step("registry", move || async move { service.stop().await });
        shutdown.stage("threads");
        let places = self.places;
        shutdown.step("threads", move || async move {
            places.stop_and_join().await; // names those that had panicked
        });
        let reports = shutdown.run().await;
        drop(self.folder); // the lock goes last
        reports
    }
}

/// Takes the folder, unless it is a broker's.
fn open_folder(path: &Path) -> Result<LockedFolder, FolderError> {
    if path.join("broker.id").exists() {
        let (owner, wanted) = ("broker", "registry");
        return Err(FolderError::Another { folder: path.to_owned(), owner, wanted });
    }
    LockedFolder::open(path)
}
