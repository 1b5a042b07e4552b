//! The network between brokers breaks, and no broker does: each has a network namespace of its own, and what
//! goes from one to another passes through the one of the test, where rules drop it, one way or both. Clients and
//! the registry reach all of them all the time, so the leader that is cut off goes on being asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use grus_tests::broker::Home;
use grus_tests::cluster::{
    Cluster, Sender, await_leaders, block_on, check, leaders, quick_registry,
};
use grus_tests::http;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

/// Set where the namespaces are made.
const INSIDE: &str = "GRUS_TEST_IN_NAMESPACE";
/// Where it is set, a kernel that allows no namespaces fails the test.
const REQUIRED: &str = "GRUS_TEST_NAMESPACES";
/// Where the registry is, as all see it.
const REGISTRY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// What the kernel must allow.
const PROBE: &str = "ip link set lo up && ip link add v0 type veth peer name v1 \
    && ip rule add from 10.77.1.2 to 10.77.2.2 blackhole && echo 1 > /proc/sys/net/ipv4/ip_forward \
    && unshare --net true && nsenter --net=/proc/self/ns/net true";

/// A command as the root of namespaces that are made for it.
fn apart(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--"]).arg(program);
    command
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect("a program that was probed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
}

/// A broker's network.
struct Net {
    holder: Child,
    number: u8,
}

impl Net {
    fn new(number: u8) -> Self {
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
    fn house(&self, mut home: Home) -> Home {
        home.listen = SocketAddr::from((self.address(), home.listen.port()));
        home.http = SocketAddr::from((self.address(), home.http.port()));
        home.wrapper = self.enter().map(Into::into).to_vec();
        home
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Drops what goes from one broker to another, or no longer does.
fn rule(verb: &str, from: &Net, to: &Net) {
    let (from, to) = (from.address().to_string(), to.address().to_string());
    run("ip", &["rule", verb, "from", &from, "to", &to, "blackhole"]);
}

/// What each broker says of the replicated shards.
fn shards(cluster: &Cluster) -> Vec<Vec<Value>> {
    let said = cluster.homes.iter().map(|home| {
        let (_, body) = http::get(home.http, "/cluster/shards").expect("it runs");
        let all: Vec<Value> = serde_json::from_str(&body).expect("a list");
        all.into_iter().filter(|shard| shard["replicated"] == true).collect()
    });
    said.collect()
}

/// Who was seen to lead which shard in which term.
#[derive(Default)]
struct Reigns(BTreeMap<(u64, u64), usize>);

impl Reigns {
    fn look(&mut self, cluster: &Cluster) {
        for (broker, shards) in shards(cluster).iter().enumerate() {
            for shard in shards.iter().filter(|shard| shard["leads"] == true) {
                let number = |name: &str| shard[name].as_u64().expect("a number");
                let first = *self.0.entry((number("shard"), number("term"))).or_insert(broker);
                assert_eq!(first, broker, "two lead in one term: {shard}");
            }
        }
    }
}

/// Waits until all members of each shard follow one leader and have applied all that it has.
fn await_agreement(cluster: &Cluster) {
    let watch = Watch::start();
    loop {
        let said = shards(cluster);
        let state = |shards: &Vec<Value>| -> Vec<_> {
            let fields = ["shard", "term", "leader", "lastIndex", "appliedIndex"];
            let of = |shard: &Value| fields.map(|name| shard[name].as_u64());
            shards.iter().map(of).collect()
        };
        let states: Vec<_> = said.iter().map(state).collect();
        let is_whole = |state: &[Option<u64>; 5]| state[2].is_some() && state[3] == state[4];
        let agree = states.iter().all(|state| *state == states[0] && !state.is_empty());
        if agree && states[0].iter().all(is_whole) {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "they do not agree: {states:?}");
    }
}

fn a_leader_is_cut_off() {
    run("ip", &["link", "set", "lo", "up"]);
    run("ip", &["addr", "add", &format!("{REGISTRY}/32"), "dev", "lo"]);
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a file that was probed");
    let registry = quick_registry();
    let at = SocketAddr::from((REGISTRY, registry.listen.port()));
    let registry = registry.on_port(at);
    let nets: Vec<Net> = (1..=3).map(Net::new).collect();
    let homes = nets.iter().map(|net| net.house(registry.broker())).collect();
    let cluster = Cluster::of(registry, homes);
    cluster.topic("t", 1, "persisted");
    let reigns = RefCell::new(Reigns::default());
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(100).await;
        for hears in [false, true] {
            cluster.await_all_led("t");
            let before = leaders(at, "t")[0].expect("it is led");
            let leader = cluster.number_of(before);
            reigns.borrow_mut().look(&cluster);
            let cut = |verb: &str| {
                for other in (0..3).filter(|other| *other != leader) {
                    rule(verb, &nets[leader], &nets[other]);
                    if !hears {
                        rule(verb, &nets[other], &nets[leader]);
                    }
                }
            };
            cut("add");
            for _ in 0..10 {
                let longest = sender.go_on(20).await;
                println!("a leader is cut off, it hears the others: {hears}: waited {longest:?}");
                reigns.borrow_mut().look(&cluster);
            }
            let is_another = |leads: &[Option<u64>]| {
                reigns.borrow_mut().look(&cluster);
                leads[0].is_some_and(|now| now != before)
            };
            await_leaders(at, "t", PATIENCE, is_another);
            cut("del");
            for _ in 0..5 {
                sender.go_on(20).await;
                reigns.borrow_mut().look(&cluster);
            }
        }
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    await_agreement(&cluster);
    reigns.borrow_mut().look(&cluster);
    check(&cluster, "t", &sent);
}

#[test]
fn a_leader_that_is_cut_off_from_the_others_is_replaced_and_nothing_is_lost() {
    if std::env::var_os(INSIDE).is_some() {
        return a_leader_is_cut_off();
    }
    let probed = apart("sh").args(["-c", PROBE]).output();
    let refused = match &probed {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = refused {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {why}");
        // Past what the harness keeps to itself of a test that passes.
        let said = format!("\nSKIPPED registry::partition, no network namespaces here: {why}\n");
        let _ = std::io::stderr().write_all(said.as_bytes());
        return;
    }
    let name = "a_leader_that_is_cut_off_from_the_others_is_replaced_and_nothing_is_lost";
    let mut inside = apart(std::env::current_exe().expect("this program"));
    inside.args(["--exact", &format!("partition::{name}"), "--nocapture"]).env(INSIDE, "1");
    let done = inside.output().expect("a program that was probed");
    let said = [done.stdout, done.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    println!("{}", said.join("\n"));
    assert!(done.status.success(), "see above");
    assert!(said[0].contains("1 passed"), "it was run");
}
