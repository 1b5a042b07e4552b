//! Whether the broker that tells the routes is still there: one that stands still tells of no change, not of
//! that of its own queues either. Pure.

use crate::route::LinkId;

/// How often it is asked for a sign of life, in milliseconds.
const PING_MS: u64 = 1_000;
/// After so long without an answer somebody else is to tell, in milliseconds.
const MUTE_MS: u64 = 3_000;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Rest,
    Ping,
    /// It is mute: told once, until it answers.
    Mute,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Answered, or not asked yet.
    #[default]
    Heard,
    Asked,
    Mute,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    over: Option<(LinkId, u64)>,
    stage: Stage,
    since_ms: u64,
}

impl Pulse {
    /// It is `now_ms`, and this connection, in this session, tells the routes.
    pub(super) fn tick(&mut self, over: Option<(LinkId, u64)>, now_ms: u64) -> Beat {
        if over != self.over {
            *self = Self { over, stage: Stage::Heard, since_ms: now_ms };
        }
        // Counted from the question: this process may have been stopped.
        let waited_ms = now_ms.saturating_sub(self.since_ms);
        match self.stage {
            Stage::Heard if over.is_some() && waited_ms >= PING_MS => {
                (self.stage, self.since_ms) = (Stage::Asked, now_ms);
                Beat::Ping
            }
            Stage::Asked if waited_ms >= MUTE_MS => {
                self.stage = Stage::Mute;
                Beat::Mute
            }
            _ => Beat::Rest,
        }
    }

    /// A question has been answered over this connection.
    pub(super) fn answered(&mut self, over: (LinkId, u64), now_ms: u64) {
        if self.over == Some(over) {
            (self.stage, self.since_ms) = (Stage::Heard, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tells_is_asked_each_second_and_mute_after_three() {
        let (first, other) = (Some((LinkId(0), 1)), Some((LinkId(1), 1)));
        let mut pulse = Pulse::default();
        assert_eq!(pulse.tick(None, 5_000), Beat::Rest, "nobody tells");
        assert_eq!(pulse.tick(first, 6_000), Beat::Rest);
        assert_eq!(pulse.tick(first, 6_999), Beat::Rest);
        assert_eq!(pulse.tick(first, 7_000), Beat::Ping);
        pulse.answered((LinkId(1), 1), 7_100);
        pulse.answered((LinkId(0), 1), 7_100);
        assert_eq!(pulse.tick(first, 8_099), Beat::Rest);
        assert_eq!(pulse.tick(first, 8_100), Beat::Ping);
        assert_eq!(pulse.tick(first, 11_099), Beat::Rest);
        assert_eq!(pulse.tick(first, 11_100), Beat::Mute);
        assert_eq!(pulse.tick(first, 20_000), Beat::Rest, "once");
        pulse.answered((LinkId(0), 1), 20_100);
        assert_eq!(pulse.tick(first, 21_100), Beat::Ping, "it is back");
        assert_eq!(pulse.tick(other, 30_000), Beat::Rest, "another one from here on");
        assert_eq!(pulse.tick(other, 31_000), Beat::Ping);
    }
}
