//! Networks of their own for processes, where the kernel allows that: a namespace for each broker, and what
//! goes from one to another passes through the one of the test, where rules drop it, one way or both.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use crate::broker::Home;
use crate::registry::RegistryHome;
use crate::watch::{PATIENCE, Watch};

/// Set where the namespaces are made.
const INSIDE: &str = "GRUS_TEST_IN_NAMESPACE";
/// Where it is set, a kernel that allows no namespaces fails the test.
const REQUIRED: &str = "GRUS_TEST_NAMESPACES";
/// Where the test itself is, as all see it.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// What the kernel must allow.
const PROBE: &str = "ip link set lo up && ip link add v0 type veth peer name v1 \
    && ip rule add from 10.77.1.2 to 10.77.2.2 blackhole && echo 1 > /proc/sys/net/ipv4/ip_forward \
    && unshare --net true && nsenter --net=/proc/self/ns/net true";

/// A command as the root of namespaces that are made for it: networks and mounts are its own.
pub fn apart(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--"]).arg(program);
    command.env(INSIDE, "1");
    command
}

/// Whether this process is in namespaces of its own.
pub fn is_apart() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Why the kernel allows no namespaces.
///
/// # Panics
/// When it allows none and must.
pub fn refused() -> Option<String> {
    let why = match apart("sh").args(["-c", PROBE]).output() {
        Ok(done) if done.status.success() => return None,
        Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {why}");
    Some(why)
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect("a program that was probed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
}

/// Opens the network of the test, which is in namespaces of its own; a registry that all brokers reach there.
///
/// # Panics
/// When the kernel does not allow what it was asked.
pub fn open(registry: RegistryHome) -> RegistryHome {
    run("ip", &["link", "set", "lo", "up"]);
    run("ip", &["addr", "add", &format!("{HOST}/32"), "dev", "lo"]);
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a file that was probed");
    let at = SocketAddr::from((HOST, registry.listen.port()));
    registry.on_port(at)
}

/// A broker's network. Dropped, it is gone when its processes are.
pub struct Net {
    holder: Child,
    number: u8,
}

impl Net {
    /// The network of broker `number`, from 1.
    ///
    /// # Panics
    /// When the kernel does not allow it after all.
    pub fn new(number: u8) -> Self {
        let mut command = Command::new("unshare");
        // It reads until the test is gone, however that ends.
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = command.spawn().expect("a program that was probed");
        let net = Self { holder, number };
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let (pid, watch) = (net.holder.id().to_string(), Watch::start());
        while of(&pid).is_none() || of(&pid) == of("self") {
            assert!(watch.elapsed() < PATIENCE, "no namespace");
            std::thread::yield_now();
        }
        let outer = format!("v{number}");
        run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["addr", "add", &format!("10.77.{number}.1/24"), "dev", &outer]);
        run("ip", &["link", "set", &outer, "up"]);
        net.run(&["link", "set", "lo", "up"]);
        net.run(&["addr", "add", &format!("10.77.{number}.2/24"), "dev", "eth0"]);
        net.run(&["link", "set", "eth0", "up"]);
        net.run(&["route", "add", "default", "via", &format!("10.77.{number}.1")]);
        net
    }

    fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id())]
    }

    fn run(&self, arguments: &[&str]) {
        let [program, first] = self.enter();
        run(&program, &[&[first.as_str(), "ip"], arguments].concat());
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 2)
    }

    /// A broker's home whose broker runs here.
    #[must_use]
    pub fn house(&self, mut home: Home) -> Home {
        home.listen = SocketAddr::from((self.address(), home.listen.port()));
        home.http = SocketAddr::from((self.address(), home.http.port()));
        home.wrapper = self.enter().map(Into::into).to_vec();
        home
    }

    /// From here on nothing goes from here to there.
    pub fn cut(&self, to: &Self) {
        self.rule("add", to);
    }

    /// What [`Net::cut`] did is undone.
    pub fn mend(&self, to: &Self) {
        self.rule("del", to);
    }

    fn rule(&self, verb: &str, to: &Self) {
        let (from, to) = (self.address().to_string(), to.address().to_string());
        run("ip", &["rule", verb, "from", &from, "to", &to, "blackhole"]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
