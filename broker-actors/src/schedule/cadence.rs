//! When a schedule runs: by a cron expression in a time zone, or every so often.

use chrono::{DateTime, Datelike, NaiveDate};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday};
use grus_protocol::ids::TimestampMs;
use thiserror::Error;

/// The shortest time between two runs, in milliseconds.
pub const EVERY_MS_MIN: u64 = 1_000;
/// The longest time between two runs of a schedule that runs every so often: ten years.
pub const EVERY_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// The longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 200;
/// The longest name of a time zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;

/// Years that begin with each day of the week, leap years among them: a day that is in none of
/// them is in no year.
const CALENDAR: std::ops::RangeInclusive<i32> = 2001..=2028;
/// As croner names them.
const WEEKDAYS: [Weekday; 7] = [
    Weekday::Sunday,
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
];

/// A cadence as it is written down. What it means is in [`Cadence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CadenceText {
    /// By the clock of a time zone.
    Cron {
        /// Five fields (minute, hour, day of month, month, day of week), or six with the second
        /// before them.
        expression: String,
        /// A name of the IANA database, as in `Europe/Berlin`.
        zone: String,
    },
    /// Again and again after this many milliseconds.
    Every(u64),
}

/// Why there is no such cadence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CadenceError {
    /// The expression is longer than [`CRON_BYTES_MAX`], or the zone than [`ZONE_BYTES_MAX`].
    #[error("cron expression or time zone is too long")]
    TooLong,
    /// The expression cannot be read.
    #[error("cron expression `{expression}`: {reason}")]
    Cron {
        /// What was given.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No day of the calendar fits, as with 30 February.
    #[error("cron expression `{0}` fits no day of the calendar")]
    NoSuchDay(String),
    /// There is no such time zone.
    #[error("unknown time zone `{0}`; a name such as Europe/Berlin or UTC is wanted")]
    Zone(String),
    /// The time between two runs is out of bounds.
    #[error("every {0} ms is out of bounds: {EVERY_MS_MIN} to {EVERY_MS_MAX}")]
    Every(u64),
}

/// When a schedule runs. The same text means the same runs as long as the zone's rules are those
/// of one edition of the IANA database; so a log never has a cadence decide what a replica does:
/// its entries name the times.
#[derive(Debug, Clone)]
pub enum Cadence {
    /// By the clock of a time zone. A fixed time of day that a clock change skips is made up for
    /// at the end of the gap, one that comes twice runs the first time only; `*` and steps go on
    /// through both.
    Cron(Box<Cron>, Tz),
    /// So many milliseconds after the run before.
    Every(u64),
}

impl Cadence {
    /// Reads a cadence.
    ///
    /// # Errors
    /// [`CadenceError`].
    pub fn read(text: &CadenceText) -> Result<Self, CadenceError> {
        match text {
            CadenceText::Every(every_ms) => {
                if !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(every_ms) {
                    return Err(CadenceError::Every(*every_ms));
                }
                Ok(Self::Every(*every_ms))
            }
            CadenceText::Cron { expression, zone } => {
                if expression.len() > CRON_BYTES_MAX || zone.len() > ZONE_BYTES_MAX {
                    return Err(CadenceError::TooLong);
                }
                let cron = read_cron(expression)?;
                let zone: Tz = zone.parse().map_err(|_| CadenceError::Zone(zone.clone()))?;
                Ok(Self::Cron(Box::new(cron), zone))
            }
        }
    }

    /// The first run after `time`; `None` when there is none before the calendar ends. For a
    /// cadence that runs every so often, `before` is a run; the runs after it are counted from
    /// there, so that what is late moves none of them.
    pub fn next(&self, before: TimestampMs, time: TimestampMs) -> Option<TimestampMs> {
        match self {
            Self::Every(every_ms) => {
                let passed = time.0.saturating_sub(before.0) / every_ms;
                before.0.checked_add((passed + 1).checked_mul(*every_ms)?).map(TimestampMs)
            }
            Self::Cron(cron, zone) => {
                let from = DateTime::from_timestamp_millis(i64::try_from(time.0).ok()?)?;
                let next = cron.find_next_occurrence(&from.with_timezone(zone), false).ok()?;
                u64::try_from(next.timestamp_millis()).ok().map(TimestampMs)
            }
        }
    }

    /// The `count` runs from `first` on, `first` being one.
    pub fn runs(&self, first: TimestampMs, count: usize) -> Vec<TimestampMs> {
        let next = |before: &TimestampMs| self.next(*before, *before);
        std::iter::successors(Some(first), next).take(count).collect()
    }
}

fn read_cron(expression: &str) -> Result<Cron, CadenceError> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(expression).map_err(|error| {
        let (expression, reason) = (expression.to_owned(), error.to_string());
        CadenceError::Cron { expression, reason }
    })?;
    // What never comes would be looked for through thousands of years.
    let comes = |date: &NaiveDate| fits(&cron, *date);
    if !CALENDAR.flat_map(days_of).any(|date| comes(&date)) {
        return Err(CadenceError::NoSuchDay(expression.to_owned()));
    }
    Ok(cron)
}

fn days_of(year: i32) -> impl Iterator<Item = NaiveDate> {
    let first = NaiveDate::from_ymd_opt(year, 1, 1).expect("each year has a first day");
    first.iter_days().take_while(move |date| date.year() == year)
}

/// Whether the expression names the day; one that croner cannot tell is none.
fn fits(cron: &Cron, date: NaiveDate) -> bool {
    let weekday = WEEKDAYS[date.weekday().num_days_from_sunday() as usize];
    let (year, month, day) = (date.year(), date.month(), date.day());
    let pattern = &cron.pattern;
    matches!(pattern.month_match(month), Ok(true))
        && matches!(pattern.day_match(year, month, day, weekday), Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> TimestampMs {
        let time = DateTime::parse_from_rfc3339(text).unwrap();
        TimestampMs(u64::try_from(time.timestamp_millis()).unwrap())
    }

    fn cron(expression: &str, zone: &str) -> Result<Cadence, CadenceError> {
        let (expression, zone) = (expression.to_owned(), zone.to_owned());
        Cadence::read(&CadenceText::Cron { expression, zone })
    }

    /// The runs after a time are exactly these.
    fn check(expression: &str, zone: &str, after: &str, runs: &[&str]) {
        let cadence = cron(expression, zone).unwrap();
        let first = cadence.next(TimestampMs(0), at(after)).unwrap();
        let expected: Vec<TimestampMs> = runs.iter().copied().map(at).collect();
        assert_eq!(cadence.runs(first, runs.len()), expected, "{expression} in {zone}");
    }

    #[test]
    fn five_fields_or_six_with_seconds() {
        let noon = ["2027-01-01T12:00:00Z", "2027-01-02T12:00:00Z"];
        check("0 12 * * *", "UTC", "2027-01-01T00:00:00Z", &noon);
        check("0 0 12 * * *", "UTC", "2027-01-01T00:00:00Z", &noon);
        let seconds = ["2027-01-01T00:00:01Z", "2027-01-01T00:00:02Z", "2027-01-01T00:00:03Z"];
        check("* * * * * *", "UTC", "2027-01-01T00:00:00.999Z", &seconds);
        check("* * * * * *", "UTC", "2027-01-01T00:00:00Z", &seconds);
        let mondays = ["2027-01-04T08:00:00Z", "2027-01-11T08:00:00Z"];
        check("0 9 * * MON", "Europe/Berlin", "2027-01-01T00:00:00Z", &mondays);
        check("@daily", "Asia/Tokyo", "2027-01-01T00:00:00Z", &["2027-01-01T15:00:00Z"]);
        check("0 0 L * *", "UTC", "2028-02-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn a_time_in_a_skipped_hour_runs_when_the_gap_ends() {
        // In Berlin 02:00 becomes 03:00 (01:00 UTC) on 28 March 2027.
        let around = ["2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"];
        check("30 2 * * *", "Europe/Berlin", "2027-03-27T00:00:00Z", &around);
        // Steps go on as if nothing was there.
        let steps = ["2027-03-28T00:40:00Z", "2027-03-28T01:00:00Z", "2027-03-28T01:20:00Z"];
        check("*/20 * * * *", "Europe/Berlin", "2027-03-28T00:30:00Z", &steps);
        // Half an hour is skipped on Lord Howe Island.
        let half = ["2027-10-02T15:30:00Z", "2027-10-03T15:15:00Z"];
        check("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T00:00:00Z", &half);
    }

    #[test]
    fn a_time_in_a_doubled_hour_runs_once_and_steps_go_on() {
        // In Berlin 03:00 becomes 02:00 (01:00 UTC) on 31 October 2027.
        let once = ["2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"];
        check("0 30 2 * * *", "Europe/Berlin", "2027-10-30T00:00:00Z", &once);
        let new_york = ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"];
        check("30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z", &new_york);
        let steps = [
            "2027-10-31T00:00:00Z",
            "2027-10-31T00:30:00Z",
            "2027-10-31T01:00:00Z",
            "2027-10-31T01:30:00Z",
            "2027-10-31T02:00:00Z",
        ];
        check("*/30 * * * *", "Europe/Berlin", "2027-10-30T23:50:00Z", &steps);
    }

    #[test]
    fn the_29th_of_february_comes_in_leap_years_only() {
        let leap = ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"];
        check("0 0 29 2 *", "UTC", "2027-01-01T00:00:00Z", &leap);
        // 2100 is none.
        check("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00Z"]);
        let never = cron("0 0 30 2 *", "UTC").unwrap_err();
        assert_eq!(never, CadenceError::NoSuchDay("0 0 30 2 *".into()));
        assert!(matches!(cron("0 0 31 4,6 *", "UTC"), Err(CadenceError::NoSuchDay(_))));
        assert!(cron("0 0 31 2,3 *", "UTC").is_ok());
        assert!(cron("0 0 30 2 MON", "UTC").is_ok(), "each Monday of February");
    }

    #[test]
    fn days_that_never_come_are_refused_however_they_are_named() {
        for never in ["0 0 1 * +MON#2", "0 0 29 2 +MON#1", "0 0 31W 2 *", "0 0 8-14 * +FRI#1"] {
            let refused = cron(never, "UTC").unwrap_err();
            assert_eq!(refused, CadenceError::NoSuchDay(never.into()));
        }
        // The rarest days: leap days that are a Monday.
        let leap = ["2044-02-29T00:00:00Z", "2072-02-29T00:00:00Z", "2112-02-29T00:00:00Z"];
        check("0 0 29 2 +MON", "UTC", "2027-01-01T00:00:00Z", &leap);
        for rare in ["0 0 LW 2 *", "0 0 29W 2 *", "0 0 * 2 MON#5", "0 0 31 12 +SUN#L"] {
            assert!(cron(rare, "UTC").is_ok(), "{rare}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let long = "*".repeat(CRON_BYTES_MAX + 1);
        for wrong in ["", "x", "* * * *", "0 25 * * *", "0 0 0 1 1 * 2030", "60 0 * * * *"] {
            assert!(matches!(cron(wrong, "UTC"), Err(CadenceError::Cron { .. })), "{wrong}");
        }
        assert_eq!(cron(&long, "UTC").unwrap_err(), CadenceError::TooLong);
        let zone = cron("* * * * *", "Europe/Atlantis").unwrap_err();
        assert_eq!(zone, CadenceError::Zone("Europe/Atlantis".into()));
        for every_ms in [0, EVERY_MS_MIN - 1, EVERY_MS_MAX + 1, u64::MAX] {
            let refused = Cadence::read(&CadenceText::Every(every_ms)).unwrap_err();
            assert_eq!(refused, CadenceError::Every(every_ms));
        }
    }

    #[test]
    fn every_so_often_is_counted_from_the_run_before() {
        let cadence = Cadence::read(&CadenceText::Every(1_500)).unwrap();
        let next = |before, time| cadence.next(TimestampMs(before), TimestampMs(time));
        assert_eq!(next(1_000, 1_000), Some(TimestampMs(2_500)));
        assert_eq!(next(1_000, 2_499), Some(TimestampMs(2_500)));
        assert_eq!(next(1_000, 2_500), Some(TimestampMs(4_000)));
        assert_eq!(next(1_000, 900), Some(TimestampMs(2_500)), "the clock went back");
        assert_eq!(next(u64::MAX - 5, u64::MAX), None);
        let runs = cadence.runs(TimestampMs(4_000), 3);
        assert_eq!(runs, [4_000, 5_500, 7_000].map(TimestampMs));
    }
}
