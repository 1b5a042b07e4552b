//! The threads a client's actors live on.

use std::thread::JoinHandle;

use grus_mailbox::{Clock, FatalPort, Place, Places, Process, System};
use tokio::sync::oneshot;

use crate::error::ClientError;

/// One arbiter for all actors of a client: inside the actix system the program runs in, if it
/// does; otherwise in a system of the client's own, whose thread sleeps.
#[derive(Debug)]
pub(crate) struct Runtime {
    place: Place,
    owner: Owner,
}

#[derive(Debug)]
enum Owner {
    Here(Places),
    Thread { stop: oneshot::Sender<()>, stopped: oneshot::Receiver<()>, thread: JoinHandle<()> },
}

impl Runtime {
    pub(crate) fn start() -> Result<Self, ClientError> {
        let fatal = FatalPort::new(|fatal| {
            // A library does not end its program: the actor stays dead, its callers hear so.
            tracing::error!(%fatal, "client actor given up");
        });
        let process = Process::new(Clock::system(), fatal);
        if System::try_current().is_some() {
            let places = Places::start(1, &process);
            return Ok(Self { place: places.core(0).clone(), owner: Owner::Here(places) });
        }
        let (started, place) = std::sync::mpsc::sync_channel(1);
        let (stop, told_to_stop) = oneshot::channel();
        let (ended, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("grus-client".to_owned())
            .spawn(move || {
                System::new().block_on(async move {
                    let places = Places::start(1, &process);
                    if started.send(places.core(0).clone()).is_ok() {
                        let _ = told_to_stop.await; // also when the client is dropped
                    }
                    places.stop_and_join().await;
                });
                let _ = ended.send(());
            })
            .map_err(|error| ClientError::Start(error.to_string()))?;
        let place = place.recv().map_err(|_| ClientError::Start("thread ended".to_owned()))?;
        Ok(Self { place, owner: Owner::Thread { stop, stopped, thread } })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Stops the threads and waits for them.
    pub(crate) async fn stop(self) {
        match self.owner {
            Owner::Here(places) => {
                places.stop_and_join().await;
            }
            Owner::Thread { stop, stopped, thread } => {
                let _ = stop.send(());
                let _ = stopped.await;
                let _ = thread.join(); // it has nothing left to do
            }
        }
    }

    /// Has the threads stop, and does not wait.
    pub(crate) fn abandon(self) {
        if let (Owner::Here(places), Ok(here)) = (self.owner, tokio::runtime::Handle::try_current())
        {
            here.spawn(async move { places.stop_and_join().await });
        }
    }
}
