//! The cluster with everything that can be done to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::Signal;

use super::schedule::{Blow, CLOCK_MS_MAX, Fault};
use super::sight::{Reign, Sight};
use super::{HASTE, PACE, TOPIC};
use crate::cluster::Cluster;
use crate::history::{Act, Event, Kind, Scribe};
use crate::http;
use crate::network::Net;
use crate::random::Random;
use crate::small_disk::SmallDisk;
use crate::watch::{PATIENCE, Watch};

/// A blow that was dealt: to whom, and in which of its lives.
struct Dealt {
    fault: Fault,
    broker: usize,
    life: u32,
    ends_ms: u64,
    /// Those that it killed.
    killed: Vec<usize>,
}

/// See the module documentation.
pub struct Field {
    /// The brokers and their registry; ended before what they stand on.
    pub cluster: Cluster,
    nets: Vec<Net>,
    disks: Vec<SmallDisk>,
    /// Messages a second of each producer.
    pub pace: Arc<AtomicU64>,
    scribe: Scribe,
    /// How often each broker was started anew.
    lives: [u32; 3],
    is_frozen: [bool; 3],
    /// How many blows cut each way.
    cuts: BTreeMap<(usize, usize), u32>,
    reigns: BTreeMap<u64, Reign>,
    troubles: Vec<String>,
}

impl Field {
    pub fn new(
        cluster: Cluster,
        nets: Vec<Net>,
        disks: Vec<SmallDisk>,
        pace: Arc<AtomicU64>,
        scribe: Scribe,
    ) -> Self {
        let (lives, is_frozen) = ([0; 3], [false; 3]);
        let (cuts, reigns, troubles) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { cluster, nets, disks, pace, scribe, lives, is_frozen, cuts, reigns, troubles }
    }

    /// Deals all blows, and undoes them; what went wrong beside them.
    pub fn suffer(&mut self, blows: &[Blow], random: &mut Random) -> Vec<String> {
        let at: Vec<_> = self.cluster.homes.iter().map(|home| home.http).collect();
        let sight = Sight::of(&at, &self.scribe);
        let (_never, rest) = channel::<()>();
        let watch = Watch::start();
        let mut under_way: Vec<Dealt> = Vec::new();
        let mut blows = blows.iter().peekable();
        loop {
            for reign in sight.seen.try_iter() {
                let known = self.reigns.get(&reign.shard);
                if known.is_none_or(|known| known.term <= reign.term) {
                    self.reigns.insert(reign.shard, reign);
                }
            }
            self.look_for_the_dead();
            let now_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Some(at) = under_way.iter().position(|dealt| dealt.ends_ms <= now_ms) {
                let dealt = under_way.remove(at);
                self.undo(dealt);
            } else if let Some(blow) = blows.next_if(|blow| blow.begins_ms <= now_ms) {
                under_way.extend(self.deal(*blow, now_ms, random));
            } else if blows.peek().is_none() && under_way.is_empty() {
                break;
            } else {
                let pause = rest.recv_timeout(Duration::from_millis(20));
                assert_eq!(pause, Err(RecvTimeoutError::Timeout), "nobody sends");
            }
        }
        self.cluster.await_all_led(TOPIC);
        drop(sight);
        self.look_for_the_dead();
        self.look_for_panics();
        std::mem::take(&mut self.troubles)
    }

    fn tell(&self, kind: Kind, what: String) {
        println!("{kind:?}: {what}");
        self.scribe.tell(Event::new("nemesis", kind, Act::Fault).note(what));
    }

    fn trouble(&mut self, what: String) {
        println!("TROUBLE: {what}");
        self.troubles.push(what);
    }

    fn is_up(&self, broker: usize) -> bool {
        self.cluster.brokers[broker].is_some()
    }

    fn look_for_the_dead(&mut self) {
        for broker in 0..3 {
            let Some(running) = &mut self.cluster.brokers[broker] else { continue };
            if let Some(status) = running.process.ended() {
                let log = running.process.log();
                self.trouble(format!("broker {broker} ended by itself, {status:?}:\n{log}"));
                self.cluster.brokers[broker] = None;
                self.start(broker);
            }
        }
    }

    fn look_for_panics(&mut self) {
        for broker in 0..3 {
            self.look_for_panics_of(broker);
        }
    }

    fn look_for_panics_of(&mut self, broker: usize) {
        let Some(running) = &mut self.cluster.brokers[broker] else { return };
        let _ = running.process.ended(); // takes in what it has said
        let log = running.process.log();
        if log.contains("panicked") {
            self.trouble(format!("broker {broker} panicked:\n{log}"));
        }
    }

    fn kill(&mut self, broker: usize) {
        self.look_for_panics_of(broker);
        self.cluster.kill(broker);
        self.is_frozen[broker] = false;
    }

    fn start(&mut self, broker: usize) {
        self.lives[broker] += 1;
        self.cluster.start_again(broker);
    }

    /// Who is struck: whoever leads some shard, or anybody else, of those that are there and go on.
    fn victim(&self, blow: Blow, random: &mut Random) -> Option<usize> {
        let mut may: Vec<usize> =
            (0..3).filter(|n| self.is_up(*n) && !self.is_frozen[*n]).collect();
        if may.is_empty() {
            return None;
        }
        let mut pick = |bound: usize| usize::try_from(random.below(bound as u64)).unwrap_or(0);
        let leaders: Vec<usize> = self.reigns.values().map(|reign| reign.broker).collect();
        if blow.at_leader && !leaders.is_empty() {
            let leader = leaders[pick(leaders.len())];
            may.sort_by_key(|broker| *broker != leader);
            return may.first().copied();
        }
        Some(may[pick(may.len())])
    }

    fn deal(&mut self, blow: Blow, now_ms: u64, random: &mut Random) -> Option<Dealt> {
        let fault = blow.fault;
        let Some(broker) = self.victim(blow, random) else {
            self.tell(Kind::Info, format!("{fault:?}: nobody is left"));
            return None;
        };
        self.tell(Kind::Invoke, format!("{fault:?} of {broker}"));
        let ends_ms = now_ms + (blow.ends_ms - blow.begins_ms);
        let life = self.lives[broker];
        let mut dealt = Dealt { fault, broker, life, ends_ms, killed: Vec::new() };
        match fault {
            Fault::Kill => {
                self.kill(broker);
                dealt.killed.push(broker);
            }
            Fault::KillAll => {
                dealt.killed = (0..3).filter(|broker| self.is_up(*broker)).collect();
                for broker in dealt.killed.clone() {
                    self.kill(broker);
                }
            }
            Fault::Freeze => {
                self.cluster.signal(broker, Signal::STOP);
                self.is_frozen[broker] = true;
            }
            Fault::Restart => {
                self.end(broker);
                dealt.killed.push(broker);
            }
            Fault::CutOff | Fault::Unheard | Fault::Deaf => self.cut(fault, broker, true),
            Fault::FullDisk => {
                _ = self.disks[broker].fill();
                self.pace.store(HASTE, Relaxed);
            }
            Fault::Clock(ms) => self.move_clock(broker, ms),
        }
        Some(dealt)
    }

    fn undo(&mut self, dealt: Dealt) {
        let Dealt { fault, broker, life, killed, .. } = dealt;
        let is_same_life = self.is_up(broker) && self.lives[broker] == life;
        match fault {
            Fault::Kill | Fault::KillAll | Fault::Restart => {
                for broker in killed {
                    self.start(broker);
                }
            }
            Fault::Freeze if is_same_life => {
                self.cluster.signal(broker, Signal::CONT);
                self.is_frozen[broker] = false;
            }
            Fault::CutOff | Fault::Unheard | Fault::Deaf => self.cut(fault, broker, false),
            Fault::FullDisk => {
                let ballast = self.disks[broker].path().join("ballast");
                std::fs::remove_dir_all(ballast).expect("the ballast goes");
                self.pace.store(PACE, Relaxed);
            }
            Fault::Clock(ms) if is_same_life && !self.is_frozen[broker] => {
                self.move_clock(broker, -ms);
            }
            Fault::Freeze | Fault::Clock(_) => {} // gone with the process, or with the end
        }
        self.tell(Kind::Ok, format!("{fault:?} of {broker} is over"));
    }

    /// An orderly end.
    fn end(&mut self, broker: usize) {
        let watch = Watch::start();
        let running = self.cluster.brokers[broker].as_mut().expect("it is up");
        running.process.signal(Signal::TERM);
        let status = running.process.wait(PATIENCE);
        let (took, log) = (watch.elapsed(), running.process.log());
        println!("it ended after {took:?}");
        if !status.success() || log.contains("panicked") {
            self.trouble(format!("broker {broker} ended with {status:?} after {took:?}:\n{log}"));
        }
        self.cluster.brokers[broker] = None;
    }

    /// Moves all clocks ahead by as much as one of them may have stood ahead.
    pub fn move_clocks_ahead(&mut self) -> Vec<String> {
        for broker in 0..self.cluster.homes.len() {
            self.move_clock(broker, CLOCK_MS_MAX.cast_signed());
        }
        std::mem::take(&mut self.troubles)
    }

    fn move_clock(&mut self, broker: usize, ms: i64) {
        let path = format!("/fault/clock?ms={ms}");
        let answer = http::post(self.cluster.homes[broker].http, &path);
        if !matches!(answer, Ok((202, _))) {
            self.trouble(format!("the clock of broker {broker} cannot be moved: {answer:?}"));
        }
    }

    fn cut(&mut self, fault: Fault, broker: usize, begins: bool) {
        let mut ways = Vec::new();
        for other in (0..3).filter(|other| *other != broker) {
            if fault != Fault::Deaf {
                ways.push((broker, other));
            }
            if fault != Fault::Unheard {
                ways.push((other, broker));
            }
        }
        for (from, to) in ways {
            let count = self.cuts.entry((from, to)).or_default();
            let was_cut = *count > 0;
            *count = if begins { *count + 1 } else { *count - 1 };
            let is_cut = *count > 0;
            match (was_cut, is_cut) {
                (false, true) => self.nets[from].cut(&self.nets[to]),
                (true, false) => self.nets[from].mend(&self.nets[to]),
                _ => {}
            }
        }
    }
}
