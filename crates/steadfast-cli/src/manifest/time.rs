//! Points in time: a number of seconds, or RFC 3339.

use super::error::Fault;
use super::fields::{Refused, wrong};
use super::node::{Node, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use toml::value::{Datetime, Offset};

const WANT: &str = "a time such as 2026-01-31T12:00:00Z, or whole seconds since 1970,";
const DAY: i64 = 86_400;

/// A time: seconds since 1970 as a number, or RFC 3339 as text or as TOML's own type.
pub(super) fn time(node: Node<'_>) -> Result<SystemTime, Refused> {
    let (seconds, nanos) = match &node.value {
        Value::Integer(seconds) => (*seconds, 0),
        Value::Time(time) => exact(time)?,
        Value::Text(text) => {
            let time = text.parse::<Datetime>();
            exact(&time.map_err(|_| Fault::Value("not a time such as 2026-01-31T12:00:00Z"))?)?
        }
        _ => return Err(wrong(WANT, &node)),
    };
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = match seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    base.and_then(|t| t.checked_add(Duration::from_nanos(nanos)))
        .ok_or_else(|| Fault::Value("beyond what a clock can show").into())
}

/// Seconds since 1970 and nanoseconds.
fn exact(time: &Datetime) -> Result<(i64, u64), Refused> {
    let (Some(date), Some(clock), Some(offset)) = (time.date, time.time, time.offset) else {
        let words = "a time has a date and an offset from UTC: 2026-01-31T12:00:00Z";
        return Err(Fault::Value(words).into());
    };
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let (hour, minute) = (i64::from(clock.hour), i64::from(clock.minute));
    let second = i64::from(clock.second.unwrap_or(0));
    let days = days(date.year.into(), date.month.into(), date.day.into());
    let seconds = days * DAY + (hour * 60 + minute - minutes) * 60 + second;
    Ok((seconds, clock.nanosecond.unwrap_or(0).into()))
}

/// Days from 1970 to a date of the Gregorian calendar. The year is counted from March, so that the leap day
/// is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let to_1970 = 719_468;
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - to_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn of(text: &str) -> (i64, u64) {
        exact(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn dates_are_counted_as_date_counts_them() {
        // By `date -u -d ... +%s`.
        assert_eq!(of("1970-01-01T00:00:00Z"), (0, 0));
        assert_eq!(of("1969-12-31T23:59:59.5Z"), (-1, 500_000_000));
        assert_eq!(of("2000-02-29T12:00:00Z"), (951_825_600, 0));
        assert_eq!(of("2026-11-20T14:35:37+01:00"), (1_795_181_737, 0));
        assert_eq!(of("1900-03-01T00:00:00-00:30"), (-2_203_889_400, 0));
        assert_eq!(
            of("9999-12-31T23:59:59.999999999Z"),
            (253_402_300_799, 999_999_999)
        );
    }
}
