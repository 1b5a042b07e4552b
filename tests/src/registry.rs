//! A registry as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::broker::Home;
use crate::ports::{self, Port};
use crate::process::Process;
use crate::program::{self, Done};
use crate::random::Random;

/// Where a registry lives: its folder and its port.
pub struct RegistryHome {
    /// The data folder.
    pub data: PathBuf,
    /// Where brokers and clients connect.
    pub listen: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// What it is told of that.
    http_address: String,
    /// Settings, as the environment names them (`GRUS__SECTION__KEY`).
    pub settings: Vec<(String, String)>,
    _folder: TempDir,
    _ports: [Port; 2],
}

impl RegistryHome {
    /// A new folder and a free port.
    pub fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("grus-test-").tempdir().expect("a temporary folder");
        let data = folder.path().join("registry");
        let mut random = Random::seeded("ports");
        let ports = [(); 2].map(|()| ports::free(&mut random));
        let [listen, http] = [&ports[0], &ports[1]].map(|port| port.address);
        let http_address = http.to_string();
        let settings = Vec::new();
        Self { data, listen, http, http_address, settings, _folder: folder, _ports: ports }
    }

    /// The same with a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with another data folder.
    #[must_use]
    pub fn in_folder(mut self, data: &Path) -> Self {
        data.clone_into(&mut self.data);
        self
    }

    /// The same with another `http.address`.
    #[must_use]
    pub fn with_http(mut self, address: &str) -> Self {
        address.clone_into(&mut self.http_address);
        self
    }

    /// The same on another port.
    #[must_use]
    pub fn on_port(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// A new home for a broker of this registry.
    pub fn broker(&self) -> Home {
        Home::new()
            .with("GRUS__REGISTRY__ADDRESSES", &self.listen.to_string())
            .with("GRUS__BROKER__CORE_ARBITERS", "1")
    }

    /// The command that starts the registry here.
    pub fn command(&self) -> Command {
        let mut command = program::grus(&["registry", "--data"]);
        command.arg(&self.data).args(["--listen", &self.listen.to_string()]);
        command.args(["--http", &self.http_address]);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a registry here and waits until it is ready.
    pub fn start(&self) -> Registry {
        let mut process = Process::start("registry", self.command());
        process.wait_ready(&[self.listen]);
        Registry { process }
    }

    /// Runs a registry here that is expected to refuse to start.
    pub fn run_to_end(&self) -> Done {
        program::run(self.command(), b"")
    }

    /// Runs `grus` against the registry here.
    pub fn grus(&self, arguments: &[&str]) -> Done {
        self.grus_fed(arguments, b"")
    }

    /// Runs `grus` against the registry here, with `input` on its standard input.
    pub fn grus_fed(&self, arguments: &[&str], input: &[u8]) -> Done {
        program::run(program::grus_at(self.listen, arguments), input)
    }
}

impl Default for RegistryHome {
    fn default() -> Self {
        Self::new()
    }
}

/// A registry that runs. Dropped, it is killed.
pub struct Registry {
    /// The process.
    pub process: Process,
}

impl Registry {
    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Asks it to end by `signal`; it must end with exit code 0 in less than 5 s of a machine that has time
    /// for it.
    pub fn end(mut self, signal: Signal) {
        self.process.end(signal);
    }
}
