//! Points in time as people write them on the command line and in files.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::domain::Timestamp;

/// The forms that are read; all else is an error that names them.
const FORMS: &str = "2018-09-02 (the start of that day), 2018-09-02T10:00, 2018-09-02T10:00:00+02:00, or in seconds since 1970; \
                     without a zone it is UTC, and its year is 1970 to 9999";

/// A point in time: a date for its first moment, a date with a time of day, or seconds since 1970. What names no zone is UTC.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    let time = match seconds_and_micros(text) {
        Some((seconds, micros)) => Timestamp::from_seconds(seconds, micros * 1000),
        None => of_calendar(text),
    };
    time.ok_or_else(|| format!("a time is written as {FORMS}"))
}

fn seconds_and_micros(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (all_digits(seconds) && all_digits(fraction)).then_some(())?;
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn of_calendar(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked("2018-09-02".len())?;
    let clock = if rest.is_empty() { "00:00" } else { rest.strip_prefix(['T', 't', ' '])? };
    let zone = clock.find(['Z', 'z', '+', '-', ' ']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone);
    let seconds = if clock.len() == "10:00".len() { ":00" } else { "" };
    let time =
        OffsetDateTime::parse(&format!("{date}T{clock}{seconds}{}", offset(zone.trim_start())), &Rfc3339).ok()?;
    Timestamp::from_micros(i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).ok()?)
}

/// A zone as RFC 3339 has it. PostgreSQL and `date` write `+02` and `+0200`.
fn offset(zone: &str) -> String {
    match (zone, zone.split_at_checked(3)) {
        ("" | "UTC", _) => "Z".to_owned(),
        (_, Some((hours, ""))) => format!("{hours}:00"),
        (_, Some((hours, minutes))) if minutes.len() == 2 => format!("{hours}:{minutes}"),
        _ => zone.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_in_every_form() {
        let time = |text| parse(text).map(Timestamp::micros);
        for (seconds, texts) in [
            (
                1_520_874_886,
                &["1520874886", "2018-03-12T17:14:46Z", "2018-03-12T18:14:46+01:00", "2018-03-12 17:14:46"][..],
            ),
            (1_520_874_840, &["2018-03-12T17:14", "2018-03-12 17:14", "2018-03-12t17:14z", "2018-03-12T18:14+01:00"]),
            (1_520_874_840, &["2018-03-12 18:14:00+01", "2018-03-12 18:14 +0100", "2018-03-12 17:14:00 UTC"]),
            (1_520_812_800, &["2018-03-12", "2018-03-12T00:00:00Z"]),
        ] {
            for text in texts {
                assert_eq!(time(text), Ok(seconds * 1_000_000), "{text}");
            }
        }
        assert_eq!(time("1520874886.5"), Ok(1_520_874_886_500_000));
        assert_eq!(time("2018-03-12 17:14:46.5"), Ok(1_520_874_886_500_000));
    }

    #[test]
    fn all_else_is_refused_with_the_forms_there_are() {
        for text in [
            "",
            "yesterday",
            "-5",
            "-0.5",
            "1.",
            "2018-9-2",
            "2018-09-31",
            "2018-09-02T",
            "2018-09-02T10",
            "02/09/2018",
            "2018-09-02X10:00",
            "2018-09-02 10:00 CET",
            "1969-12-31",
            "2018-09-02é",
            "1520874886000",
        ] {
            let refused = parse(text).unwrap_err();
            assert!(
                refused.starts_with("a time is written as 2018-09-02 (the start of that day)"),
                "{text}: {refused}"
            );
        }
    }
}
