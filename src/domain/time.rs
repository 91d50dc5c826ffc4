//! Points in time and days, as plain numbers. No clock is read here.

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
const DAY: i64 = 86_400 * SECOND;

/// A point in time to the microsecond, between 1970-01-01 and 9999-12-31, as PostgreSQL keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const MIN: Self = Self(0);
    /// The last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_800 * SECOND - 1);

    /// The time that many microseconds after 1970 began, if it lies within the bounds.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    /// The time that many seconds and nanoseconds after 1970 began; anything below a microsecond is cut off.
    pub fn from_seconds(seconds: i64, nanos: i32) -> Option<Self> {
        (0..1_000_000_000).contains(&nanos).then_some(())?;
        Self::from_micros(seconds.checked_mul(SECOND)?.checked_add(i64::from(nanos / 1000))?)
    }

    /// Microseconds since 1970 began.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970 began, and the nanoseconds beyond them.
    pub fn seconds_and_nanos(self) -> (i64, i32) {
        let below = i32::try_from(self.0 % SECOND).unwrap_or_default();
        (self.0 / SECOND, below * 1000)
    }

    /// The time that much later, or the latest of all.
    #[must_use]
    pub fn saturating_add_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros).clamp(Self::MIN.0, Self::MAX.0))
    }

    /// The day it lies in, by UTC.
    pub fn day(self) -> Day {
        Day(i32::try_from(self.0 / DAY).unwrap_or(i32::MAX))
    }
}

/// A day by UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// The day that many days after 1970-01-01.
    pub fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Days since 1970-01-01.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its first moment and the first moment after it.
    pub fn bounds(self) -> (Timestamp, Timestamp) {
        let start = i64::from(self.0) * DAY;
        (Timestamp(start), Timestamp(start + DAY))
    }

    /// Days from `earlier` to this one; 0 when that is not earlier.
    pub fn days_since(self, earlier: Self) -> f64 {
        f64::from(self.0.saturating_sub(earlier.0).max(0))
    }

    /// Whole days from this day to that of `time`; 0 when this one is later. What happens on a day fades at the end of each
    /// day, so that between two midnights (UTC) nothing changes but by what is recorded.
    pub fn age_at(self, time: Timestamp) -> f64 {
        time.day().days_since(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_off_below_the_microsecond_and_stays_in_bounds() {
        let time = Timestamp::from_seconds(86_400, 1_999).unwrap();
        assert_eq!((time.micros(), time.seconds_and_nanos()), (86_400_000_001, (86_400, 1_000)));
        assert_eq!(Timestamp::from_seconds(-1, 0), None);
        assert_eq!(Timestamp::from_seconds(0, 1_000_000_000), None);
        assert_eq!(Timestamp::from_seconds(253_402_300_800, 0), None);
        assert_eq!(Timestamp::MAX.saturating_add_micros(1), Timestamp::MAX);
    }

    #[test]
    fn a_day_ages_at_midnight() {
        let day = Timestamp::from_seconds(86_400 * 10 + 5, 0).unwrap().day();
        assert_eq!(day.number(), 10);
        let ages = [(9, 0), (10, 86_399), (11, 0), (12, 86_399)]
            .map(|(days, seconds)| day.age_at(Timestamp::from_seconds(86_400 * days + seconds, 0).unwrap()));
        assert_eq!(ages.map(|age| format!("{age}")), ["0", "0", "1", "2"]);
    }
}
