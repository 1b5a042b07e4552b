//! Notices when the wall clock jumps against the monotonic one. Plain state.

/// A difference of less is drift, or a late look.
pub const JUMP_MS_MIN: u64 = 1_000;

/// The clock has jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// Ahead by so many milliseconds.
    Forward(u64),
    /// Back by so many milliseconds.
    Back(u64),
}

/// Compares the two clocks from look to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockWatch {
    last: Option<(u64, u64)>,
}

impl ClockWatch {
    /// Looks at both clocks; says so if the wall clock has jumped since the last look.
    pub fn look(&mut self, wall_ms: u64, monotonic_ms: u64) -> Option<Jump> {
        let (wall_before, monotonic_before) = self.last.replace((wall_ms, monotonic_ms))?;
        let expected = wall_before.saturating_add(monotonic_ms.saturating_sub(monotonic_before));
        let ahead = wall_ms.saturating_sub(expected);
        let behind = expected.saturating_sub(wall_ms);
        if ahead >= JUMP_MS_MIN {
            Some(Jump::Forward(ahead))
        } else if behind >= JUMP_MS_MIN {
            Some(Jump::Back(behind))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_named_once_and_a_stall_is_none() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.look(50_000, 10), None);
        assert_eq!(watch.look(50_100, 110), None);
        assert_eq!(watch.look(3_650_200, 210), Some(Jump::Forward(3_600_000)));
        assert_eq!(watch.look(3_650_300, 310), None, "once");
        assert_eq!(watch.look(50_400, 410), Some(Jump::Back(3_600_000)));
        assert_eq!(watch.look(50_500, 510), None);
        assert_eq!(watch.look(110_500, 60_510), None, "nobody looked for a minute: no jump");
    }
}
