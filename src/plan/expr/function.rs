//! The function table.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit};
use rust_decimal::RoundingStrategy;

use crate::plan::types::{Kind, json_items, show};
use crate::value::{Value, date_to_days, parse_time};

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
    Timestamp,
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
];

/// Functions of the language that this release does not have; they are refused by name.
pub const LATER: &[&str] = &[
    "substring",
    "split",
    "exists",
    "duration",
    "urlDecode",
    "padStart",
    "padEnd",
    "digits",
    "extract",
    "decimalFromBytes",
    "dateFromDays",
    "timestampMillis",
    "timestampMicros",
];

impl Function {
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
            Function::Timestamp => Value::Time(time(&arguments[0])?.as_microsecond()),
        })
    }
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
