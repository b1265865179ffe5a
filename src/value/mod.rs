//! Values as the projector computes with them: exact numbers, UTC instants, and NULL with SQL's meaning.

pub mod json;

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use compact_str::CompactString;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, Unit};
use rust_decimal::Decimal;

/// A value of an expression or of a column.
///
/// Values that went through [`ColumnType::coerce`](crate::plan::types::ColumnType::coerce) have the one
/// representation their column's type prescribes, so equality and hashing agree with Postgres.
#[derive(Debug, Clone, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// An exact decimal of at most 28 digits.
    Decimal(Decimal),
    /// A number with more digits than arithmetic here can hold: it may be stored, not computed with.
    Digits(CompactString),
    Float(f64),
    Text(CompactString),
    /// Microseconds since the Unix epoch, UTC.
    Time(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds.
    Duration(i64),
    /// A JSON object or array, as the text it arrived in.
    Json(Box<str>),
    List(Box<[Value]>),
}

impl Value {
    pub fn text(text: &str) -> Value {
        Value::Text(CompactString::new(text))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The name of the value's kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Decimal(_) | Value::Digits(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::Time(_) => "a timestamp",
            Value::Date(_) => "a date",
            Value::Duration(_) => "a duration",
            Value::Json(raw) if raw.starts_with('[') => "a list",
            Value::Json(_) => "an object",
            Value::List(_) => "a list",
        }
    }

    /// The value as a decimal, if it is a number that fits one.
    pub fn as_decimal(&self) -> Option<Decimal> {
        match self {
            Value::Int(n) => Some(Decimal::from(*n)),
            Value::Decimal(d) => Some(*d),
            _ => None,
        }
    }

    /// Bytes that the value holds outside of its own size, for memory accounts.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Text(text) | Value::Digits(text) if text.is_heap_allocated() => text.len() + 16,
            Value::Json(raw) => raw.len() + 16,
            Value::List(items) => items.len() * size_of::<Value>() + items.iter().map(Value::heap_bytes).sum::<usize>(),
            _ => 0,
        }
    }

    /// Compares two values of the same kind; `None` when they are of kinds that do not compare, or one is NULL.
    /// Text compares by bytes, as `COLLATE "C"` does.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        use Value::*;
        Some(match (self, other) {
            (Bool(a), Bool(b)) => a.cmp(b),
            (Int(a), Int(b)) => a.cmp(b),
            (Text(a), Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Time(a), Time(b)) => a.cmp(b),
            (Date(a), Date(b)) => a.cmp(b),
            (Duration(a), Duration(b)) => a.cmp(b),
            (Float(a), b) => a.partial_cmp(&b.as_f64()?)?,
            (a, Float(b)) => a.as_f64()?.partial_cmp(b)?,
            (List(a), List(b)) => {
                for (x, y) in a.iter().zip(b.iter()) {
                    match x.compare(y)? {
                        Ordering::Equal => {}
                        unequal => return Some(unequal),
                    }
                }
                a.len().cmp(&b.len())
            }
            (a, b) => a.as_decimal()?.cmp(&b.as_decimal()?),
        })
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(f) => Some(*f),
            Value::Int(n) => Some(*n as f64),
            Value::Decimal(d) => d.to_string().parse().ok(),
            _ => None,
        }
    }

    /// The value as Postgres reads it from text; `None` is NULL.
    pub fn to_sql_text(&self) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(b) => if *b { "true" } else { "false" }.into(),
            Value::Int(n) => n.to_string(),
            Value::Decimal(d) => d.to_string(),
            Value::Digits(text) | Value::Text(text) => text.to_string(),
            Value::Float(f) => f.to_string(),
            Value::Time(micros) => format_time(*micros),
            Value::Date(days) => format_date(*days),
            Value::Duration(micros) => SignedDuration::from_micros(*micros).to_string(),
            Value::Json(raw) => raw.to_string(),
            Value::List(items) => {
                let quoted: Vec<String> = items
                    .iter()
                    .map(|item| match item.to_sql_text() {
                        None => "NULL".to_string(),
                        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
                    })
                    .collect();
                format!("{{{}}}", quoted.join(","))
            }
        })
    }

    /// The value as a JSON text.
    pub fn to_json_text(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(_) | Value::Int(_) | Value::Decimal(_) | Value::Digits(_) | Value::Float(_) => {
                self.to_sql_text().unwrap_or_default()
            }
            Value::Json(raw) => raw.to_string(),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(Value::to_json_text).collect();
                format!("[{}]", items.join(","))
            }
            Value::Text(_) | Value::Time(_) | Value::Date(_) | Value::Duration(_) => {
                serde_json::to_string(&self.to_sql_text()).expect("a string is always JSON")
            }
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Json(a), Value::Json(b)) => a == b || json::same(a, b),
            (Value::Digits(a), Value::Digits(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => state.write_u8(0),
            Value::Bool(b) => b.hash(state),
            Value::Int(n) => Decimal::from(*n).hash(state),
            Value::Decimal(d) => d.hash(state),
            Value::Digits(text) | Value::Text(text) => state.write(text.as_bytes()),
            Value::Float(f) => f.to_bits().hash(state),
            Value::Time(micros) => micros.hash(state),
            Value::Date(days) => days.hash(state),
            Value::Duration(micros) => micros.hash(state),
            Value::Json(raw) => raw.hash(state),
            Value::List(items) => items.hash(state),
        }
    }
}

/// A value in a message: quoted, and cut when long.
pub fn show(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().count() > LONGEST {
        let cut: String = text.chars().take(LONGEST).collect();
        format!("`{}…`", cut.escape_debug())
    } else {
        format!("`{}`", text.escape_debug())
    }
}

/// Integers as integers, decimals without trailing zeros: one representation a value.
pub fn canonical_number(value: Value) -> Value {
    match value {
        Value::Decimal(d) => {
            let d = d.normalize();
            match i64::try_from(d) {
                Ok(n) if d.scale() == 0 => Value::Int(n),
                _ => Value::Decimal(d),
            }
        }
        other => other,
    }
}

/// Reads an RFC 3339 instant. Years outside of -9999..=9999 are refused, fractions below a microsecond cut off.
pub fn parse_time(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|t| t.as_microsecond())
}

/// Reads an ISO 8601 calendar date.
pub fn parse_date(text: &str) -> Option<i32> {
    if text.len() != 10 {
        return None;
    }
    text.parse::<Date>().ok().map(date_to_days)
}

const EPOCH: Date = Date::constant(1970, 1, 1);

pub fn date_to_days(date: Date) -> i32 {
    date.since((Unit::Day, EPOCH)).map(|span| span.get_days()).unwrap_or(0)
}

pub fn format_time(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map(|t| t.to_string()).unwrap_or_else(|_| micros.to_string())
}

pub fn format_date(days: i32) -> String {
    EPOCH.checked_add(jiff::Span::new().days(days)).map(|d| d.to_string()).unwrap_or_else(|_| days.to_string())
}

/// Reads a JSON number exactly. `None` when the text is no number or its exponent is beyond any column.
pub fn parse_number(text: &str) -> Option<Value> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(Value::Int(n));
    }
    if let Ok(d) = Decimal::from_str_exact(text) {
        return Some(Value::Decimal(d));
    }
    plain_digits(text).map(|digits| match Decimal::from_str_exact(&digits) {
        Ok(d) => Value::Decimal(d),
        Err(_) => Value::Digits(digits),
    })
}

/// Writes a decimal number without an exponent, keeping every digit.
fn plain_digits(text: &str) -> Option<CompactString> {
    const WIDEST: i64 = 1_000; // Postgres' numeric(p, s) takes p up to 1,000

    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i64 + exponent;
    if point.abs() > WIDEST || digits.len() as i64 > 2 * WIDEST {
        return None;
    }
    let (whole, fraction) = if point <= 0 {
        ("0".to_string(), format!("{}{}", "0".repeat(-point as usize), digits))
    } else if point as usize >= digits.len() {
        (format!("{}{}", digits, "0".repeat(point as usize - digits.len())), String::new())
    } else {
        (digits[..point as usize].to_string(), digits[point as usize..].to_string())
    };
    let whole = whole.trim_start_matches('0');
    let mut plain = CompactString::new(if negative { "-" } else { "" });
    plain.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        plain.push('.');
        plain.push_str(&fraction);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(parse_number("12"), Some(Value::Int(12)));
        assert_eq!(parse_number("19.90").and_then(|v| v.to_sql_text()).as_deref(), Some("19.90"));
        assert_eq!(parse_number("1.5e3"), Some(Value::Int(1500)));
        assert_eq!(parse_number("1e-2").and_then(|v| v.to_sql_text()).as_deref(), Some("0.01"));
        let sixty = "1".repeat(60);
        assert_eq!(parse_number(&sixty).and_then(|v| v.to_sql_text()), Some(sixty));
        assert_eq!(parse_number("1e999999999"), None);
        assert_eq!(parse_number("abc"), None);
    }

    #[test]
    fn times_are_instants() {
        assert_eq!(parse_time("2026-11-21T10:00:00+02:00"), parse_time("2026-11-21T08:00:00Z"));
        assert_eq!(parse_time("12000-01-01T00:00:00Z"), None);
        assert_eq!(parse_date("1970-01-02"), Some(1));
        assert_eq!(format_date(-1), "1969-12-31");
    }

    #[test]
    fn arrays_are_quoted_for_postgres() {
        let list = Value::List(Box::new([Value::text("a\"b"), Value::Null, Value::text("c\\d")]));
        assert_eq!(list.to_sql_text().as_deref(), Some(r#"{"a\"b",NULL,"c\\d"}"#));
    }
}
