//! Where actors live: arbiters with names, and what all actors of one process share.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::thread::ThreadId;

use actix::{Arbiter, ArbiterHandle};

use crate::census::Census;
use crate::clock::Clock;
use crate::fatal::FatalPort;
use crate::reply::{self, Answer};

/// What all actors of one process share. A test process may hold several.
#[derive(Debug, Clone)]
pub struct Process {
    /// The one clock.
    pub clock: Clock,
    /// Who lives here.
    pub census: Census,
    /// Where the end of the process is reported.
    pub fatal: FatalPort,
}

impl Process {
    /// A process with the system's clocks that exits on a fatal.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Clock::system(), FatalPort::exit())
    }

    /// A process with an empty census.
    #[must_use]
    pub fn new(clock: Clock, fatal: FatalPort) -> Self {
        Self { clock, census: Census::new(), fatal }
    }
}

#[derive(Clone)]
enum Thread {
    Arbiter(ArbiterHandle),
    /// The thread that made the place, where a runtime with a local set runs.
    Here(ThreadId),
}

/// One arbiter: a thread with a current-thread runtime, and a name.
#[derive(Clone)]
pub struct Place {
    name: Arc<str>,
    thread: Thread,
    process: Process,
}

impl Place {
    /// The current thread as a place: in tests and simulations, under a runtime with a local set
    /// (`#[actix::test]`, turmoil). Nothing can be spawned here from other threads.
    #[must_use]
    pub fn here(name: &str, process: &Process) -> Self {
        let thread = Thread::Here(std::thread::current().id());
        Self { name: name.into(), thread, process: process.clone() }
    }

    /// Its name, as in `core-0`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is shared by all actors of its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs `work` here. For what must be built on this thread, as a shard's log and consensus;
    /// what it builds stays, its result goes to the asker. Dropped unanswered when the place has
    /// stopped, or when `work` panics.
    pub fn run<T, W>(&self, work: impl FnOnce() -> W + Send + 'static) -> Answer<T>
    where
        T: Send + 'static,
        W: Future<Output = T> + 'static,
    {
        let (port, answer) = reply::port();
        self.spawn_fn(move || {
            actix::spawn(async move { port.send(work().await) });
        });
        answer
    }

    /// Calls `work` on the thread of this place; not at all when it has stopped.
    pub(crate) fn spawn_fn(&self, work: impl FnOnce() + Send + 'static) {
        match &self.thread {
            Thread::Arbiter(arbiter) => {
                arbiter.spawn_fn(work);
            }
            Thread::Here(thread) => {
                assert_eq!(*thread, std::thread::current().id(), "{} is another thread", self.name);
                work();
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Place({})", self.name)
    }
}

/// The arbiters of a process: the owner of its threads.
#[derive(Debug)]
pub struct Places {
    process: Process,
    cores: Vec<Place>,
    arbiters: Vec<(Arc<str>, Arbiter)>,
}

impl Places {
    /// Starts `core_count` core arbiters, `core-0` and on. Needs a running actix `System`.
    ///
    /// # Panics
    /// When `core_count` is 0, or a thread cannot be started.
    #[must_use]
    pub fn start(core_count: usize, process: &Process) -> Self {
        assert!(core_count > 0, "actors need an arbiter to live on");
        let mut places = Self { process: process.clone(), cores: Vec::new(), arbiters: Vec::new() };
        for core in 0..core_count {
            let place = places.open(&format!("core-{core}"));
            places.cores.push(place);
        }
        places
    }

    /// Starts an arbiter of its own, for an actor that may block (a shard's Flush, the registry's
    /// sled) or that must not be disturbed.
    pub fn open(&mut self, name: &str) -> Place {
        let arbiter = Arbiter::new();
        let name: Arc<str> = name.into();
        let thread = Thread::Arbiter(arbiter.handle());
        self.arbiters.push((Arc::clone(&name), arbiter));
        Place { name, thread, process: self.process.clone() }
    }

    /// Core arbiter `number`, counted around: what has a number is placed by it.
    pub fn core(&self, number: usize) -> &Place {
        &self.cores[number % self.cores.len()]
    }

    /// All core arbiters.
    pub fn cores(&self) -> &[Place] {
        &self.cores
    }

    /// What is shared by all actors.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops every arbiter and waits until its thread has ended, in the order of their start. The
    /// actors must have stopped before ([`Shutdown`](crate::Shutdown)): what still lives here is
    /// dropped. Returns the names of arbiters whose thread had panicked.
    pub async fn stop_and_join(self) -> Vec<Arc<str>> {
        for (_, arbiter) in &self.arbiters {
            arbiter.stop();
        }
        let mut panicked = Vec::new();
        for (name, arbiter) in self.arbiters {
            let joined = tokio::task::spawn_blocking(move || arbiter.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!(place = %name, "arbiter ended by a panic");
                panicked.push(name);
            }
        }
        panicked
    }
}
