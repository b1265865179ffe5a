//! The function table.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit};
use rust_decimal::RoundingStrategy;

use crate::plan::types::Kind;
use crate::value::json::json_items;
use crate::value::show;
use crate::value::{Value, canonical_number, date_to_days, parse_time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Coalesce,
    Size,
    StartsWith,
    EndsWith,
    Contains,
    String,
    LowerAscii,
    UpperAscii,
    Trim,
    Replace,
    Decimal,
    Round,
    Abs,
    Bucket,
    Date,
    /// A text as a calendar day; no function of the language, but what a date column makes of a text.
    ParseDate,
    Timestamp,
    TimestampMillis,
    TimestampMicros,
    Duration,
    DateFromDays,
    Substring,
    Split,
    PadStart,
    PadEnd,
    Digits,
    UrlDecode,
    DecimalFromBytes,
}

/// A row of the function reference.
pub struct Entry {
    pub name: &'static str,
    pub function: Function,
    pub signature: &'static str,
    pub arguments: std::ops::RangeInclusive<usize>,
    pub result: Kind,
    /// An expression and the JSON of its value; the tests evaluate every one.
    pub example: (&'static str, &'static str),
}

const ANY_NUMBER: usize = 16;

#[rustfmt::skip]
pub const FUNCTIONS: &[Entry] = &[
    Entry { name: "coalesce", function: Function::Coalesce, signature: "coalesce(a, b, …): the first that is not NULL", arguments: 1..=ANY_NUMBER, result: Kind::Any, example: ("coalesce(null, 2)", "2") },
    Entry { name: "size", function: Function::Size, signature: "size(text or list): characters or elements", arguments: 1..=1, result: Kind::Number, example: ("size('größe')", "5") },
    Entry { name: "startsWith", function: Function::StartsWith, signature: "text.startsWith(prefix)", arguments: 2..=2, result: Kind::Bool, example: ("'order-1'.startsWith('order')", "true") },
    Entry { name: "endsWith", function: Function::EndsWith, signature: "text.endsWith(suffix)", arguments: 2..=2, result: Kind::Bool, example: ("'a.pdf'.endsWith('.pdf')", "true") },
    Entry { name: "contains", function: Function::Contains, signature: "text.contains(part)", arguments: 2..=2, result: Kind::Bool, example: ("'abc'.contains('b')", "true") },
    Entry { name: "string", function: Function::String, signature: "string(value): as text", arguments: 1..=1, result: Kind::Text, example: ("string(12)", "\"12\"") },
    Entry { name: "lowerAscii", function: Function::LowerAscii, signature: "text.lowerAscii()", arguments: 1..=1, result: Kind::Text, example: ("'EUR'.lowerAscii()", "\"eur\"") },
    Entry { name: "upperAscii", function: Function::UpperAscii, signature: "text.upperAscii()", arguments: 1..=1, result: Kind::Text, example: ("'eur'.upperAscii()", "\"EUR\"") },
    Entry { name: "trim", function: Function::Trim, signature: "text.trim(): without white space at both ends", arguments: 1..=1, result: Kind::Text, example: ("' a '.trim()", "\"a\"") },
    Entry { name: "replace", function: Function::Replace, signature: "text.replace(old, new): every occurrence", arguments: 3..=3, result: Kind::Text, example: ("'a-b-c'.replace('-', '')", "\"abc\"") },
    Entry { name: "decimal", function: Function::Decimal, signature: "decimal(text or number): the exact number", arguments: 1..=1, result: Kind::Number, example: ("decimal('19.90')", "19.90") },
    Entry { name: "round", function: Function::Round, signature: "round(x, digits): half to even", arguments: 2..=2, result: Kind::Number, example: ("round(2.5, 0)", "2") },
    Entry { name: "abs", function: Function::Abs, signature: "abs(x)", arguments: 1..=1, result: Kind::Number, example: ("abs(-3)", "3") },
    Entry { name: "bucket", function: Function::Bucket, signature: "bucket(time, 'minute' | 'hour' | 'day' | 'week' | 'month' | 'year', zone?): its beginning; weeks begin on Monday", arguments: 2..=3, result: Kind::Time, example: ("bucket(timestamp('2026-11-21T10:59:03Z'), 'hour')", "\"2026-11-21T10:00:00Z\"") },
    Entry { name: "date", function: Function::Date, signature: "date(time, zone?): the calendar day, in UTC if no zone is given", arguments: 1..=2, result: Kind::Date, example: ("date(timestamp('2026-11-21T23:30:00Z'), 'Europe/Berlin')", "\"2026-11-22\"") },
    Entry { name: "timestamp", function: Function::Timestamp, signature: "timestamp(text): an RFC 3339 instant", arguments: 1..=1, result: Kind::Time, example: ("timestamp('2026-11-21T10:00:00+01:00')", "\"2026-11-21T09:00:00Z\"") },
    Entry { name: "timestampMillis", function: Function::TimestampMillis, signature: "timestampMillis(n): milliseconds since 1970 as an instant", arguments: 1..=1, result: Kind::Time, example: ("timestampMillis(1500)", "\"1970-01-01T00:00:01.5Z\"") },
    Entry { name: "timestampMicros", function: Function::TimestampMicros, signature: "timestampMicros(n): microseconds since 1970 as an instant", arguments: 1..=1, result: Kind::Time, example: ("timestampMicros(1500000)", "\"1970-01-01T00:00:01.5Z\"") },
    Entry { name: "dateFromDays", function: Function::DateFromDays, signature: "dateFromDays(n): days since 1970-01-01 as a date", arguments: 1..=1, result: Kind::Date, example: ("dateFromDays(20778)", "\"2026-11-21\"") },
    Entry { name: "duration", function: Function::Duration, signature: "duration(text): an ISO 8601 duration of days at most, or CEL's form; to be added to and taken from instants", arguments: 1..=1, result: Kind::Duration, example: ("timestamp('2026-11-21T10:00:00Z') + duration('PT30M')", "\"2026-11-21T10:30:00Z\"") },
    Entry { name: "substring", function: Function::Substring, signature: "text.substring(start, end?): characters from start (counted from 0) up to, not including, end", arguments: 2..=3, result: Kind::Text, example: ("'größer'.substring(2, 4)", "\"öß\"") },
    Entry { name: "split", function: Function::Split, signature: "text.split(separator): a list of texts", arguments: 2..=2, result: Kind::List, example: ("'a,b'.split(',')", "[\"a\",\"b\"]") },
    Entry { name: "padStart", function: Function::PadStart, signature: "text.padStart(length, character): filled up at its beginning", arguments: 3..=3, result: Kind::Text, example: ("'7'.padStart(3, '0')", "\"007\"") },
    Entry { name: "padEnd", function: Function::PadEnd, signature: "text.padEnd(length, character): filled up at its end", arguments: 3..=3, result: Kind::Text, example: ("'0055'.padEnd(6, '0')", "\"005500\"") },
    Entry { name: "digits", function: Function::Digits, signature: "digits(text): a whole number in decimal digits, of any length, as a version that sorts as the number does", arguments: 1..=1, result: Kind::Text, example: ("digits('0012') > digits('9')", "true") },
    Entry { name: "urlDecode", function: Function::UrlDecode, signature: "urlDecode(text): of application/x-www-form-urlencoded, where + is a blank", arguments: 1..=1, result: Kind::Text, example: ("urlDecode('red+flower%2Ejpg')", "\"red flower.jpg\"") },
    Entry { name: "decimalFromBytes", function: Function::DecimalFromBytes, signature: "decimalFromBytes(base64, scale): a big-endian two's complement number, as Kafka Connect writes decimals", arguments: 2..=2, result: Kind::Number, example: ("decimalFromBytes('AfQ=', 2)", "5") },
];

impl Function {
    pub fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|entry| entry.function == self).map_or("?", |entry| entry.name)
    }

    /// Whether Postgres can work it out with the same meaning, and without an error, when a row is read.
    pub fn is_in_sql(self) -> bool {
        use Function::*;
        matches!(
            self,
            Coalesce
                | Size
                | StartsWith
                | EndsWith
                | Contains
                | LowerAscii
                | UpperAscii
                | Replace
                | Round
                | Abs
                | Date
                | Duration
                | Bucket
        )
    }

    /// Applies the function. Except for `coalesce`, NULL in is NULL out.
    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, String> {
        if self == Function::Coalesce {
            return Ok(arguments.iter().find(|value| !value.is_null()).cloned().unwrap_or(Value::Null));
        }
        if arguments.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        let text = |at: usize| match &arguments[at] {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(format!("a text is needed, {} is {}", show(&other.to_json_text()), other.kind())),
        };
        Ok(match self {
            Function::Coalesce => unreachable!("answered above"),
            Function::Size => match &arguments[0] {
                Value::Text(text) => Value::Int(text.chars().count() as i64),
                Value::List(items) => Value::Int(items.len() as i64),
                Value::Json(raw) if raw.starts_with('[') => Value::Int(json_items(raw)?.len() as i64),
                other => return Err(format!("{} has no size", other.kind())),
            },
            Function::StartsWith => Value::Bool(text(0)?.starts_with(text(1)?)),
            Function::EndsWith => Value::Bool(text(0)?.ends_with(text(1)?)),
            Function::Contains => Value::Bool(text(0)?.contains(text(1)?)),
            Function::String => match &arguments[0] {
                Value::Text(text) => Value::Text(text.clone()),
                other => Value::text(&other.to_sql_text().unwrap_or_default()),
            },
            Function::LowerAscii => Value::text(&text(0)?.to_ascii_lowercase()),
            Function::UpperAscii => Value::text(&text(0)?.to_ascii_uppercase()),
            Function::Trim => Value::text(text(0)?.trim()),
            Function::Replace => Value::text(&text(0)?.replace(text(1)?, text(2)?)),
            Function::Decimal => match &arguments[0] {
                number @ (Value::Int(_) | Value::Decimal(_) | Value::Digits(_)) => number.clone(),
                _ => {
                    let text = text(0)?;
                    crate::value::parse_number(text).ok_or_else(|| format!("{} is not a number", show(text)))?
                }
            },
            Function::Round => {
                let digits = match arguments[1] {
                    Value::Int(digits) if (0..=28).contains(&digits) => digits as u32,
                    _ => return Err("round takes 0 to 28 digits".into()),
                };
                Value::Decimal(
                    number(&arguments[0])?.round_dp_with_strategy(digits, RoundingStrategy::MidpointNearestEven),
                )
            }
            Function::Abs => Value::Decimal(number(&arguments[0])?.abs()),
            Function::Bucket => Value::Time(bucket(time(&arguments[0])?, text(1)?, zone(arguments.get(2))?)?),
            Function::Date => Value::Date(date_to_days(time(&arguments[0])?.to_zoned(zone(arguments.get(1))?).date())),
            Function::ParseDate => {
                let day = crate::value::parse_date(text(0)?);
                Value::Date(
                    day.ok_or_else(|| format!("{} is not a date (YYYY-MM-DD)", show(text(0).unwrap_or_default())))?,
                )
            }
            Function::Timestamp => Value::Time(time(&arguments[0])?.as_microsecond()),
            Function::TimestampMillis => instant(whole(&arguments[0])?.checked_mul(1_000))?,
            Function::TimestampMicros => instant(Some(whole(&arguments[0])?))?,
            Function::DateFromDays => match i32::try_from(whole(&arguments[0])?) {
                Ok(days) if days.abs() < 4_000_000 => Value::Date(days),
                _ => return Err("such a day is beyond any calendar".into()),
            },
            Function::Duration => Value::Duration(duration(text(0)?)?),
            Function::Substring => substring(text(0)?, &arguments[1..])?,
            Function::Split => Value::List(text(0)?.split(text(1)?).map(Value::text).collect()),
            Function::PadStart => Value::text(&(padding(text(0)?, &arguments[1], text(2)?)? + text(0)?)),
            Function::PadEnd => Value::text(&format!("{}{}", text(0)?, padding(text(0)?, &arguments[1], text(2)?)?)),
            Function::Digits => {
                let all = text(0)?;
                if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(format!("{} is not a whole number in decimal digits", show(all)));
                }
                let significant = all.trim_start_matches('0');
                Value::text(&format!("{:05}{significant}", significant.len()))
            }
            Function::UrlDecode => {
                let plus = text(0)?.replace('+', " ");
                let decoded = percent_encoding::percent_decode_str(&plus).decode_utf8();
                Value::text(&decoded.map_err(|_| format!("{} decodes to bytes that are not UTF-8", show(&plus)))?)
            }
            Function::DecimalFromBytes => decimal_from_bytes(text(0)?, whole(&arguments[1])?)?,
        })
    }
}

fn whole(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(n) => Ok(*n),
        Value::Decimal(d) if d.fract().is_zero() => i64::try_from(*d).map_err(|_| "the number is too large".into()),
        other => Err(format!("a whole number is needed, this is {}", show(&other.to_json_text()))),
    }
}

fn instant(micros: Option<i64>) -> Result<Value, String> {
    let in_range = micros.filter(|micros| Timestamp::from_microsecond(*micros).is_ok());
    in_range.map(Value::Time).ok_or_else(|| "such an instant is beyond any calendar".into())
}

/// Microseconds of an ISO 8601 duration; a day is 24 hours.
///
/// # Errors
/// When the text is no duration, or one of months or years.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("{} is not a duration such as PT30M, P7D or 90s", show(text));
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let exact = span.to_duration(days).map_err(|_| format!("{}: months and years have no fixed length", wrong()))?;
    i64::try_from(exact.as_micros()).map_err(|_| wrong())
}

fn substring(text: &str, range: &[Value]) -> Result<Value, String> {
    let length = text.chars().count() as i64;
    let start = whole(&range[0])?;
    let end = range.get(1).map_or(Ok(length), whole)?;
    if start < 0 || end < start || end > length {
        return Err(format!("{} has no characters from {start} to {end}", show(text)));
    }
    let taken: String = text.chars().skip(start as usize).take((end - start) as usize).collect();
    Ok(Value::text(&taken))
}

fn padding(text: &str, length: &Value, fill: &str) -> Result<String, String> {
    const LONGEST: i64 = 10_000;
    let length = whole(length)?;
    if fill.chars().count() != 1 || !(0..=LONGEST).contains(&length) {
        return Err(format!("padding takes a length up to {LONGEST} and one character"));
    }
    Ok(fill.repeat((length as usize).saturating_sub(text.chars().count())))
}

/// <https://kafka.apache.org/40/javadoc/org/apache/kafka/connect/data/Decimal.html>: unscaled, big-endian.
fn decimal_from_bytes(encoded: &str, scale: i64) -> Result<Value, String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| format!("{} is not base64", show(encoded)))?;
    if bytes.is_empty() || bytes.len() > 16 || !(0..=28).contains(&scale) {
        return Err(format!("{} is not a decimal of 1 to 16 bytes and a scale of 0 to 28", show(encoded)));
    }
    let start = if bytes[0] & 0x80 != 0 { -1i128 } else { 0 };
    let unscaled = bytes.iter().fold(start, |number, byte| (number << 8) | i128::from(*byte));
    let decimal = rust_decimal::Decimal::try_from_i128_with_scale(unscaled, scale as u32);
    decimal
        .map(|decimal| canonical_number(Value::Decimal(decimal)))
        .map_err(|_| format!("{} has more digits than can be computed with", show(encoded)))
}

fn number(value: &Value) -> Result<rust_decimal::Decimal, String> {
    value
        .as_decimal()
        .ok_or_else(|| format!("a number of at most 28 digits is needed, this is {}", show(&value.to_json_text())))
}

fn time(value: &Value) -> Result<Timestamp, String> {
    let micros = match value {
        Value::Time(micros) => Some(*micros),
        Value::Text(text) => parse_time(text),
        _ => None,
    };
    micros
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| format!("{} is not an RFC 3339 timestamp", show(&value.to_json_text())))
}

fn zone(value: Option<&Value>) -> Result<TimeZone, String> {
    match value {
        None => Ok(TimeZone::UTC),
        Some(Value::Text(name)) => {
            TimeZone::get(name).map_err(|_| format!("{} is not a time zone such as Europe/Berlin", show(name)))
        }
        Some(other) => Err(format!("a time zone is a text, this is {}", other.kind())),
    }
}

pub(super) const BUCKETS: &[&str] = &["minute", "hour", "day", "week", "month", "year"];

fn bucket(time: Timestamp, unit: &str, zone: TimeZone) -> Result<i64, String> {
    let micros = time.as_microsecond();
    let seconds = match unit {
        "minute" => Some(60),
        "hour" => Some(3600),
        "day" => Some(86_400),
        _ => None,
    };
    if let (Some(seconds), true) = (seconds, zone == TimeZone::UTC) {
        return Ok(micros - micros.rem_euclid(seconds * 1_000_000));
    }
    let local = time.to_zoned(zone);
    let out_of_range = |e: jiff::Error| format!("no such bucket: {e}");
    let start = match unit {
        "minute" => local.round(jiff::ZonedRound::new().smallest(Unit::Minute).mode(jiff::RoundMode::Trunc)),
        "hour" => local.round(jiff::ZonedRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Trunc)),
        "day" => local.start_of_day(),
        "week" => {
            let back = i64::from(local.weekday().to_monday_zero_offset());
            local.checked_sub(back.days()).and_then(|day| day.start_of_day())
        }
        "month" => local.first_of_month().and_then(|day| day.start_of_day()),
        "year" => local.first_of_year().and_then(|day| day.start_of_day()),
        _ => return Err(format!("{} is none of {}", show(unit), BUCKETS.join(", "))),
    };
    Ok(start.map_err(out_of_range)?.timestamp().as_microsecond())
}
