//! What is to be done about a schedule now: run, skip, or wait.

use grus_protocol::ids::TimestampMs;

use super::Cadence;

/// A run that is this much behind its time, in milliseconds, was missed, and only so many of those
/// are made up for. A run that is less late is always run.
pub const MISSED_AFTER_MS: u64 = 10_000;
/// Most missed runs that a schedule may make up for.
pub const MADE_UP_MAX: u32 = 10_000;
/// The due time of a schedule that will not run again.
pub const NEVER: TimestampMs = TimestampMs(u64::MAX);

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// When it is to run next; [`NEVER`] if it will not.
    pub next: TimestampMs,
    /// Missed runs of the absence that is being made up for.
    pub made_up: u32,
}

/// A step of a schedule: an entry of the log. It counts only while [`Step::due`] is still the
/// schedule's next time, so that no run is ever doubled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The run's time.
    pub due: TimestampMs,
    /// The time of the run after it.
    pub next: TimestampMs,
    /// Whether it is run at all.
    pub runs: bool,
    /// How late it comes.
    pub timing: Timing,
}

/// How late a step comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Its run is in time.
    InTime,
    /// Its run was missed, and the next one too.
    Missed,
    /// Its run was missed, the next one is not: what is missed later is another absence, and is
    /// made up for anew.
    LastMissed,
}

/// What is to be done at `now`, if anything. Of the runs that were missed in one absence, because
/// nobody led the queue at their time, the first `made_up_max` are run: 0 skips them, 1 runs one
/// for all.
pub fn step(
    cadence: &Cadence,
    made_up_max: u32,
    progress: Progress,
    now: TimestampMs,
) -> Option<Step> {
    let due = progress.next;
    if due > now || due == NEVER {
        return None;
    }
    let after = |time| cadence.next(due, time).unwrap_or(NEVER);
    let in_time = TimestampMs(now.0.saturating_sub(MISSED_AFTER_MS));
    if due >= in_time {
        return Some(Step { due, next: after(due), runs: true, timing: Timing::InTime });
    }
    let runs = progress.made_up < made_up_max;
    let goes_on = runs && progress.made_up + 1 < made_up_max;
    // The last millisecond that is missed: what comes after it is in time.
    let next = if goes_on { after(due) } else { after(TimestampMs(in_time.0 - 1)) };
    let timing = if next < in_time { Timing::Missed } else { Timing::LastMissed };
    Some(Step { due, next, runs, timing })
}

impl Progress {
    /// Where the schedule stands once the step is done.
    #[must_use]
    pub fn after(self, step: &Step) -> Self {
        let made_up = match step.timing {
            Timing::Missed => self.made_up.saturating_add(u32::from(step.runs)),
            Timing::InTime | Timing::LastMissed => 0,
        };
        Self { next: step.next, made_up }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CadenceText;
    use super::*;

    fn every_second() -> Cadence {
        Cadence::read(&CadenceText::Every(1_000)).unwrap()
    }

    /// The times that are run when nobody was there until `now`, and where it stands then.
    fn caught_up(made_up_max: u32, from: u64, now: u64) -> (Vec<u64>, Progress) {
        let cadence = every_second();
        let mut progress = Progress { next: TimestampMs(from), made_up: 0 };
        let mut runs = Vec::new();
        while let Some(step) = step(&cadence, made_up_max, progress, TimestampMs(now)) {
            assert!(step.next > step.due, "it goes on");
            if step.runs {
                runs.push(step.due.0 / 1_000);
            }
            progress = progress.after(&step);
        }
        (runs, progress)
    }

    #[test]
    fn what_is_due_runs_once_and_nothing_runs_early() {
        assert_eq!(caught_up(0, 5_000, 4_999).0, [0; 0]);
        assert_eq!(caught_up(0, 5_000, 5_000).0, [5]);
        assert_eq!(caught_up(0, 5_000, 5_999).0, [5]);
    }

    #[test]
    fn a_short_absence_costs_no_run() {
        for made_up_max in [0, 1, 3] {
            let (runs, progress) = caught_up(made_up_max, 5_000, 15_000);
            assert_eq!(runs, (5..=15).collect::<Vec<_>>());
            assert_eq!(progress, Progress { next: TimestampMs(16_000), made_up: 0 });
        }
    }

    #[test]
    fn so_many_missed_runs_are_made_up_for_and_those_in_time_follow() {
        let in_time =
            |missed: &[u64]| -> Vec<u64> { missed.iter().copied().chain(90..=100).collect() };
        assert_eq!(caught_up(1, 5_000, 100_000).0, in_time(&[5]));
        assert_eq!(caught_up(3, 5_000, 100_000).0, in_time(&[5, 6, 7]));
        assert_eq!(caught_up(0, 5_000, 100_000).0, in_time(&[]));
        let everything: Vec<u64> = (5..=100).collect();
        assert_eq!(caught_up(1_000, 5_000, 100_000).0, everything);
        let (_, progress) = caught_up(3, 5_000, 100_000);
        assert_eq!(progress, Progress { next: TimestampMs(101_000), made_up: 0 });
    }

    #[test]
    fn each_absence_is_made_up_for_anew() {
        // Down at its time every day: no run is ever in time.
        let day_ms = 24 * 3_600_000;
        let cadence = Cadence::read(&CadenceText::Every(day_ms)).unwrap();
        for made_up_max in [1, 3] {
            let mut progress = Progress { next: TimestampMs(day_ms), made_up: 0 };
            for day in 1..10 {
                let now = TimestampMs(day * day_ms + 600_000);
                let step = step(&cadence, made_up_max, progress, now).unwrap();
                let wanted = Step {
                    due: TimestampMs(day * day_ms),
                    next: TimestampMs((day + 1) * day_ms),
                    runs: true,
                    timing: Timing::LastMissed,
                };
                assert_eq!(step, wanted, "on day {day}, {made_up_max} at the most");
                progress = progress.after(&step);
                assert_eq!(super::step(&cadence, made_up_max, progress, now), None);
            }
        }
    }

    #[test]
    fn a_year_away_takes_few_steps() {
        let year_ms = 365 * 24 * 3_600_000;
        let (runs, progress) = caught_up(1, 1_000, year_ms);
        assert_eq!((runs[0], runs.len()), (1, 12));
        assert_eq!(progress.next, TimestampMs(year_ms + 1_000));
    }

    #[test]
    fn a_clock_that_goes_back_repeats_nothing() {
        let (_, progress) = caught_up(1, 5_000, 7_000);
        assert_eq!(step(&every_second(), 1, progress, TimestampMs(4_000)), None);
    }

    #[test]
    fn one_that_never_runs_again_is_left_alone() {
        let progress = Progress { next: NEVER, made_up: 0 };
        assert_eq!(step(&every_second(), 1, progress, NEVER), None);
    }
}
