//! A broker as a process of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports::Port;
use crate::process::Process;
use crate::program::{self, Done};
use crate::random::Random;
use crate::{http, ports};

/// Where a broker lives: its folder and its ports. It may be started and killed there many times.
pub struct Home {
    /// Removed with the home; `None` when the folder is the caller's.
    folder: Option<TempDir>,
    /// The data folder.
    pub data: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Settings, as the environment names them (`GRUS__SECTION__KEY`).
    pub settings: Vec<(String, String)>,
    /// A command to run the broker under, such as strace.
    pub wrapper: Vec<OsString>,
    /// Nobody else's for as long as it stands.
    ports: Vec<Port>,
}

impl Home {
    /// A new folder and free ports.
    pub fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("grus-test-").tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let mut home = Self::at(&data);
        home.folder = Some(folder);
        home
    }

    /// A given folder, and free ports.
    pub fn at(data: &Path) -> Self {
        let mut random = Random::seeded("ports");
        let ports = [(); 2].map(|()| ports::free(&mut random));
        let [listen, http] = [&ports[0], &ports[1]].map(|port| port.address);
        Self {
            folder: None,
            data: data.to_owned(),
            listen,
            http,
            settings: Vec::new(),
            wrapper: Vec::new(),
            ports: ports.into(),
        }
    }

    /// The same with a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command that starts the broker here.
    pub fn command(&self) -> Command {
        let arguments = [
            OsString::from("broker"),
            OsString::from("--data"),
            self.data.clone().into_os_string(),
            OsString::from("--listen"),
            OsString::from(self.listen.to_string()),
            OsString::from("--http"),
            OsString::from(self.http.to_string()),
        ];
        let plain = program::grus(&[]);
        let mut command = match self.wrapper.split_first() {
            None => plain,
            Some((first, rest)) => {
                let mut wrapped = Command::new(first);
                wrapped.args(rest).arg(plain.get_program());
                wrapped
            }
        };
        command.args(arguments);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Where clients connect from now on: somewhere else.
    pub fn move_elsewhere(&mut self) {
        let port = ports::free(&mut Random::seeded("elsewhere"));
        self.listen = port.address;
        self.ports.push(port);
    }

    /// Starts a broker here and waits until it is ready.
    pub fn start(&self) -> Broker {
        let mut broker = self.begin();
        broker.wait_ready();
        broker
    }

    /// Starts a broker here without waiting.
    pub fn begin(&self) -> Broker {
        let process = Process::start("broker", self.command());
        Broker { process, listen: self.listen, http: self.http }
    }

    /// Runs a broker here that is expected to refuse to start.
    pub fn run_to_end(&self) -> Done {
        program::run(self.command(), b"")
    }

    /// Runs `grus` against the broker here.
    pub fn grus(&self, arguments: &[&str]) -> Done {
        self.grus_fed(arguments, b"")
    }

    /// Runs `grus` against the broker here, with `input` on its standard input.
    pub fn grus_fed(&self, arguments: &[&str], input: &[u8]) -> Done {
        program::run(program::grus_at(self.listen, arguments), input)
    }

    /// Starts `grus` against the broker here, and leaves it running.
    pub fn grus_running(&self, arguments: &[&str]) -> Process {
        Process::start(arguments[0], program::grus_at(self.listen, arguments))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(folder) = &mut self.folder
            && std::thread::panicking()
            && std::env::var_os("GRUS_TEST_KEEP").is_some()
        {
            folder.disable_cleanup(true);
            println!("kept: {}", self.data.display());
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// A broker that runs. Dropped, it is killed.
pub struct Broker {
    /// The process.
    pub process: Process,
    listen: SocketAddr,
    http: SocketAddr,
}

impl Broker {
    /// Waits for the ready line, and checks that it names both addresses.
    pub fn wait_ready(&mut self) {
        self.process.wait_ready(&[self.listen, self.http]);
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Asks it to end by `signal`; it must end with exit code 0 in less than 5 s of a machine that has time
    /// for it.
    pub fn end(mut self, signal: Signal) {
        self.process.end(signal);
    }

    /// POSTs to a path of its HTTP side, as one who means to change something: status and body.
    pub fn change(&self, path: &str) -> (u16, String) {
        let meant = "Grus-Change: yes\r\n";
        http::post_with(self.http, path, meant).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// GETs a path from its HTTP side: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.http, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }
}
