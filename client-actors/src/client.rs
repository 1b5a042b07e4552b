//! The door to a broker.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use grus_mailbox::{ActorSpec, Clock, Dropped, Host, HostHandle, Inbox, System, reply};
use grus_protocol::batch::Compression;
use grus_protocol::message::HelloReply;
use grus_protocol::names::NameError;
use grus_protocol::{BatchLimits, BrokerId, TopicName};
use tokio::runtime::Handle;

use crate::config::{ClientConfig, ProducerConfig, ReaderConfig, millis};
use crate::deliver::{DeliverTo, DeliveryHandle};
use crate::error::ClientError;
use crate::guard::Guard;
use crate::hooks::ReceiveHooks;
use crate::link::LinkSettings;
use crate::producer::RouterDoors;
use crate::pull::Puller;
use crate::read::Reader;
use crate::router::{ASKS_MAX, Ask, AskOutlook, Await, FindRoute, Router};
use crate::runtime::Runtime;
use crate::send::{Producer, ProducerCore};

/// A connection to a broker, that finds it again whenever it is lost. Cheap to clone; all clones
/// are the same client.
///
/// Its actors run on a thread of their own, so it can be used from any tokio runtime. The last
/// one to be dropped, with its producers and readers, ends them without waiting;
/// [`Client::close`] waits.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use grus_client::{Client, ClientConfig, Message, ProducerConfig};
///
/// let client = Client::connect(ClientConfig::new(["127.0.0.1:6086"])).await?;
/// let producer = client.producer(ProducerConfig::new("orders")?)?;
/// let receipt = producer.send(Message::new("42 EUR").key("order-7")).await?;
/// println!("{} is at {} of queue {}", receipt.id, receipt.offset, receipt.queue);
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<ClientCore>,
}

pub(crate) struct ClientCore {
    pub(crate) config: ClientConfig,
    pub(crate) clock: Clock,
    pub(crate) doors: RouterDoors,
    owners: AtomicU32,
    pub(crate) guard: Guard,
    awaits: Inbox<Await>,
    pub(crate) router: HostHandle<Router>,
    /// What changes when a client is connected, opens a producer, or is closed: not between
    /// actors, and never held for long.
    owned: Mutex<Owned>,
}

struct Owned {
    runtime: Option<Runtime>,
    producers: Vec<Weak<ProducerCore>>,
    hello: Option<Arc<HelloReply>>,
}

/// What the broker takes, as it said when the client connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of one message's body.
    pub message_bytes_max: u32,
    /// Most bytes of a record batch.
    pub batch_bytes_max: u32,
    /// Most messages of a batch.
    pub batch_records_max: u32,
    /// Most bytes of one message's headers, names and values.
    pub headers_bytes_max: u32,
    /// Most bytes of a key.
    pub key_bytes_max: u32,
    /// Most bytes of a tag.
    pub tag_bytes_max: u32,
}

impl Client {
    /// Starts a client and waits until a broker answers, as long as `connect_wait_max` says. It
    /// says once, by a `tracing` warning, that it waits.
    ///
    /// # Errors
    /// [`ClientError::Config`], [`ClientError::Start`], or [`ClientError::NoBroker`] when none
    /// answers in time.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let client = match Handle::try_current() {
            // The thread of this runtime has others to serve while another one is started.
            Ok(runtime) if System::try_current().is_none() => {
                let started = runtime.spawn_blocking(move || Self::start(config)).await;
                started.map_err(|error| ClientError::Start(error.to_string()))??
            }
            _ => Self::start(config)?,
        };
        client.ready().await?;
        Ok(client)
    }

    /// Starts a client without waiting for a broker: what is sent meanwhile waits, and what is
    /// asked, within their timeouts. Outside of an actix system it blocks its caller until a thread
    /// has started.
    ///
    /// # Errors
    /// [`ClientError::Config`] or [`ClientError::Start`].
    pub fn start(config: ClientConfig) -> Result<Self, ClientError> {
        config.check()?;
        let runtime = Runtime::start()?;
        let place = runtime.place().clone();
        let settings = LinkSettings {
            addresses: config.bootstrap.clone(),
            client_id: config.client_id.clone(),
            open_ms_max: millis(config.open_timeout),
            silence_ms_max: millis(config.silence_max),
            reconnect_ms_max: millis(config.reconnect_wait_max),
            seed: random(),
        };
        let spec = ActorSpec::new("Router", config.client_id.clone());
        let mut lives = 0;
        let router = Host::spawn(&place, spec, move || {
            let router = Router::new(settings.clone(), lives);
            lives += 1;
            router
        });
        let core = ClientCore {
            clock: place.process().clock,
            doors: RouterDoors {
                ask: router.inbox::<Ask>(ASKS_MAX),
                find: router.inbox::<FindRoute>(ASKS_MAX),
                outlook: router.inbox::<AskOutlook>(ASKS_MAX),
            },
            awaits: router.inbox::<Await>(ASKS_MAX),
            router,
            config,
            owners: AtomicU32::new(1),
            guard: Guard::default(),
            owned: Mutex::new(Owned { runtime: Some(runtime), producers: Vec::new(), hello: None }),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// How often code of the program that this client has called panicked: callbacks, interceptors,
    /// queue selectors. No message is lost by it.
    pub fn panics(&self) -> u64 {
        self.core.guard.panics()
    }

    /// Waits until a broker answers, as long as `connect_wait_max` says.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] when none answers in time, [`ClientError::Closed`].
    pub async fn ready(&self) -> Result<(), ClientError> {
        let core = &self.core;
        let now_ms = core.clock.monotonic_ms();
        let deadline_ms = core.config.connect_wait_max.map(|wait| now_ms + millis(wait));
        loop {
            let (port, answer) = reply::port();
            let wait = Await { deadline_ms, answer: port };
            core.awaits.put(wait).await.map_err(|_stopped| ClientError::Closed)?;
            match answer.await {
                Ok(Ok(hello)) => {
                    self.core.owned().hello = Some(hello);
                    return Ok(());
                }
                Ok(Err(reason)) => {
                    return Err(ClientError::NoBroker {
                        bootstrap: core.config.bootstrap.join(", "),
                        reason: reason.to_string(),
                    });
                }
                Err(Dropped) if core.awaits.is_stopped() => return Err(ClientError::Closed),
                Err(Dropped) => {} // the router was rebuilt: asked again
            }
        }
    }

    /// What the broker takes, as it said when the client connected; the usual limits before that.
    pub fn limits(&self) -> Limits {
        let limits = self.core.batch_limits();
        Limits {
            message_bytes_max: limits.message_bytes_max,
            batch_bytes_max: limits.batch_bytes_max,
            batch_records_max: limits.records_max,
            headers_bytes_max: limits.headers_bytes_max,
            key_bytes_max: limits.key_bytes_max,
            tag_bytes_max: limits.tag_bytes_max,
        }
    }

    /// The broker that answered when the client connected.
    pub fn broker(&self) -> Option<BrokerId> {
        self.core.owned().hello.as_ref().map(|hello| hello.broker_id)
    }

    /// Opens a producer for one topic. It asks for the topic's queues when it first sends; for
    /// several topics open several, they share the connection.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the configuration makes no sense, [`ClientError::Closed`].
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, ClientError> {
        config.check()?;
        let place = self.core.place()?;
        let producer = Producer::open(self, &place, config);
        let mut owned = self.core.owned();
        owned.producers.retain(|producer| producer.strong_count() > 0);
        owned.producers.push(producer.downgrade());
        Ok(producer)
    }

    /// Opens a reader of one topic. It begins to read ahead at once.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the configuration makes no sense, [`ClientError::Closed`].
    pub fn reader(&self, config: ReaderConfig) -> Result<Reader, ClientError> {
        config.check()?;
        Ok(Reader::open(self, &self.core.place()?, config, ReceiveHooks::of(self)))
    }

    /// Opens a puller of one topic, which asks nothing until it is told to.
    ///
    /// # Errors
    /// When the topic's name breaks the rule of names.
    pub fn puller(&self, topic: &str) -> Result<Puller, NameError> {
        Ok(Puller::new(self.clone(), TopicName::try_from(topic)?))
    }

    /// Brings the messages of one topic to an actor of the program's own, each as a
    /// [`Delivery`](crate::Delivery), in order for each queue, as long as the handle is held. The
    /// receiver is sent no more than it may have in hand: what it drops makes room for more.
    ///
    /// ```no_run
    /// use actix::{Actor, Context, Handler};
    /// use grus_client::{Client, DeliverTo, Delivery, ReaderConfig, StartAt};
    ///
    /// struct Printer;
    /// impl Actor for Printer {
    ///     type Context = Context<Self>;
    /// }
    /// impl Handler<Delivery> for Printer {
    ///     type Result = ();
    ///     fn handle(&mut self, delivery: Delivery, _: &mut Context<Self>) {
    ///         println!("{}: {} bytes", delivery.offset, delivery.body().len());
    ///     } // dropped: handled
    /// }
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let printer = Printer.start();
    /// let config = ReaderConfig::new("orders", StartAt::First)?;
    /// let delivery = client.deliver_to(config, DeliverTo::new(printer.recipient()))?;
    /// # drop(delivery);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Config`] when the configuration makes no sense, [`ClientError::Closed`].
    pub fn deliver_to(
        &self,
        config: ReaderConfig,
        to: DeliverTo,
    ) -> Result<DeliveryHandle, ClientError> {
        config.check()?;
        Ok(DeliveryHandle::open(self, &self.core.place()?, config, to))
    }

    /// Sends what its producers have taken (as long as their send windows last), ends all actors
    /// of this client and joins its threads. Producers, readers and clones of it are closed then.
    pub async fn close(self) {
        let (producers, runtime) = {
            let mut owned = self.core.owned();
            (std::mem::take(&mut owned.producers), owned.runtime.take())
        };
        let stopped: Vec<_> =
            producers.iter().filter_map(Weak::upgrade).map(|producer| producer.stop()).collect();
        for one in stopped {
            one.await;
        }
        self.core.router.stop().await;
        if let Some(runtime) = runtime {
            runtime.stop().await;
        }
    }
}

impl ClientCore {
    /// A number for one that takes pushes, from 1 on; 0 is that of calls.
    pub(crate) fn next_owner(&self) -> u32 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn place(&self) -> Result<grus_mailbox::Place, ClientError> {
        let owned = self.owned();
        owned.runtime.as_ref().map(|runtime| runtime.place().clone()).ok_or(ClientError::Closed)
    }

    pub(crate) fn batch_limits(&self) -> BatchLimits {
        let owned = self.owned();
        owned.hello.as_ref().map_or(BatchLimits::PRODUCE, |hello| hello.batch_limits())
    }
}

impl ClientCore {
    /// Compressions that the broker has agreed to so far: bit n for compression n.
    pub(crate) fn agreed_compressions(&self) -> u32 {
        let owned = self.owned();
        owned.hello.as_ref().map_or(Compression::None.bit(), |hello| hello.compressions)
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        drop(self.router.stop());
        if let Some(runtime) = self.owned().runtime.take() {
            runtime.abandon();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("config", &self.core.config).finish()
    }
}

/// 64 bits from the source that the standard library seeds its hash maps with.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
