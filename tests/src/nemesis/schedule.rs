//! What goes wrong when, and for how long: by a seed. Plain logic.

use crate::random::Random;

/// A clock is moved by so much at most.
pub(super) const CLOCK_MS_MAX: u64 = 3_600_000;

/// Something that goes wrong with one broker, or with all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL; started again.
    Kill,
    /// SIGKILL of all; all started again.
    KillAll,
    /// SIGSTOP; SIGCONT.
    Freeze,
    /// SIGTERM, and started again once it has ended.
    Restart,
    /// Nothing goes from or to the other brokers.
    CutOff,
    /// It hears the other brokers, and they do not hear it.
    Unheard,
    /// The other brokers hear it, and it does not hear them.
    Deaf,
    /// No room is left on its disk.
    FullDisk,
    /// Its wall clock jumps by so many milliseconds; and back again.
    Clock(i64),
}

/// All faults, the clock's with any jump.
pub const ALL: [Fault; 9] = [
    Fault::Kill,
    Fault::KillAll,
    Fault::Freeze,
    Fault::Restart,
    Fault::CutOff,
    Fault::Unheard,
    Fault::Deaf,
    Fault::FullDisk,
    Fault::Clock(0),
];

impl Fault {
    /// Whether it needs networks of the brokers' own.
    pub const fn is_of_network(self) -> bool {
        matches!(self, Self::CutOff | Self::Unheard | Self::Deaf)
    }
}

/// One fault, with its times since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    /// What goes wrong.
    pub fault: Fault,
    /// Whether it is whoever leads then; else another one of the brokers.
    pub at_leader: bool,
    /// When it begins.
    pub begins_ms: u64,
    /// When it is over.
    pub ends_ms: u64,
}

/// Blows until `total_ms`, each of `faults` about equally often and the first ones each once; some begin before the
/// one before is over.
pub fn schedule(random: &mut Random, total_ms: u64, faults: &[Fault]) -> Vec<Blow> {
    let mut blows = Vec::new();
    let (mut now_ms, mut bag) = (1_000, Vec::new());
    loop {
        if bag.is_empty() {
            bag = faults.to_vec();
        }
        let pick = random.below(bag.len() as u64);
        let fault = match bag.swap_remove(usize::try_from(pick).expect("it is below a length")) {
            Fault::Clock(_) => {
                let ms = i64::try_from(random.below(CLOCK_MS_MAX)).expect("an hour");
                Fault::Clock(if random.below(2) == 0 { ms } else { -ms })
            }
            other => other,
        };
        let lasts_ms = match fault {
            Fault::FullDisk => 12_000 + random.below(12_000),
            Fault::Restart | Fault::KillAll => random.below(1_000),
            _ => 1_000 + random.below(7_000),
        };
        let (begins_ms, ends_ms) = (now_ms, now_ms + lasts_ms);
        if ends_ms > total_ms {
            return blows;
        }
        let at_leader = random.below(3) > 0;
        blows.push(Blow { fault, at_leader, begins_ms, ends_ms });
        now_ms = if random.below(3) == 0 {
            begins_ms + lasts_ms / 2 // two at once
        } else {
            ends_ms + 500 + random.below(3_500)
        };
    }
}

#[test]
fn all_faults_come_again_and_again_and_a_seed_gives_one_schedule() {
    let of = |seed| schedule(&mut Random::of(seed), 900_000, &ALL);
    let blows = of(1);
    assert_eq!(blows, of(1));
    assert_ne!(blows, of(2));
    for fault in ALL {
        let is =
            |blow: &&Blow| std::mem::discriminant(&blow.fault) == std::mem::discriminant(&fault);
        assert!(blows.iter().filter(is).count() >= 8, "{fault:?}");
    }
    assert!(blows.iter().all(|blow| blow.begins_ms <= blow.ends_ms && blow.ends_ms <= 900_000));
    assert!(blows.is_sorted_by_key(|blow| blow.begins_ms));
    assert!(blows.windows(2).any(|two| two[1].begins_ms < two[0].ends_ms), "two at once");
}
