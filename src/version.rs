//! Versions for last-writer-wins, as bytes whose order is the order of what they stand for.
//!
//! A version is what a handler's `latest` says, and then where the event stands: topic, partition, offset and index, so
//! that no two events are equal. Postgres compares `bytea` byte by byte, as Rust does slices; that is the whole proof
//! that both sides agree which is newer.

use std::sync::Arc;

use crate::value::{Value, show};

/// How new what was said about a column is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<[u8]>);

// One tag a kind, so that a field that changes its kind still has one order. Tuples are their parts in a row.
const DATE: u8 = 1;
const NUMBER: u8 = 2;
const TEXT: u8 = 3;
const TIME: u8 = 4;

const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;

impl Version {
    /// The version of an event.
    ///
    /// # Errors
    /// When a part is NULL or of a kind that has no order.
    pub fn new(parts: &[Value], topic: &str, partition: i32, offset: i64, index: u32) -> Result<Version, String> {
        let mut bytes = Vec::with_capacity(64);
        for part in parts {
            encode(part, &mut bytes)?;
        }
        text(topic, &mut bytes);
        bytes.extend_from_slice(&partition.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&index.to_be_bytes());
        Ok(Version(bytes.into()))
    }

    pub fn from_bytes(bytes: &[u8]) -> Version {
        Version(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn encode(part: &Value, bytes: &mut Vec<u8>) -> Result<(), String> {
    match part {
        Value::Int(_) | Value::Decimal(_) | Value::Digits(_) => {
            bytes.push(NUMBER);
            number(&part.to_sql_text().unwrap_or_default(), bytes);
        }
        Value::Time(micros) => {
            bytes.push(TIME);
            bytes.extend_from_slice(&(micros ^ i64::MIN).to_be_bytes());
        }
        Value::Date(days) => {
            bytes.push(DATE);
            bytes.extend_from_slice(&(days ^ i32::MIN).to_be_bytes());
        }
        Value::Text(value) => {
            bytes.push(TEXT);
            text(value, bytes);
        }
        Value::Null => return Err("a version cannot be NULL".into()),
        other => {
            let shown = show(&other.to_json_text());
            return Err(format!("{shown} is {}: a version is a number, a timestamp, a date or a text", other.kind()));
        }
    }
    Ok(())
}

/// The bytes and an end that sorts before every byte; a zero byte inside is followed by 0xFF.
fn text(text: &str, bytes: &mut Vec<u8>) {
    for byte in text.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xFF);
        }
    }
    bytes.extend_from_slice(&[0, 0]);
}

/// Sign, exponent, digits; all but the sign turned round for negative numbers.
fn number(plain: &str, bytes: &mut Vec<u8>) {
    let (negative, unsigned) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits: String = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let significant = digits.trim_matches('0');
    if significant.is_empty() {
        return bytes.push(ZERO);
    }
    let exponent = (whole.len() as i32 - leading as i32 + 0x4000) as u16;
    let start = bytes.len() + 1;
    bytes.push(if negative { NEGATIVE } else { POSITIVE });
    bytes.extend_from_slice(&exponent.to_be_bytes());
    bytes.extend(significant.bytes().map(|digit| digit - b'0' + 1));
    bytes.push(0);
    if negative {
        bytes[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::parse_number;
    use proptest::prelude::*;

    fn version(parts: &[Value]) -> Version {
        Version::new(parts, "t", 0, 7, 0).unwrap()
    }

    #[test]
    fn order_is_kept() {
        let numbers = ["-1e20", "-12.5", "-12", "-0.001", "0", "0.0009", "0.001", "1", "9", "9.5", "10", "11", "1e9"];
        let versions: Vec<Version> = numbers.iter().map(|n| version(&[parse_number(n).unwrap()])).collect();
        assert!(versions.is_sorted() && versions.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(version(&[parse_number("1.50").unwrap()]), version(&[parse_number("1.5").unwrap()]));
        let texts = ["", "\0", "\0a", "a", "a\0", "a\u{1}", "ab", "b"];
        let versions: Vec<Version> = texts.iter().map(|t| version(&[Value::text(t)])).collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert!(version(&[Value::Time(-5)]) < version(&[Value::Time(3)]));
        assert!(version(&[Value::text("a"), Value::Int(9)]) < version(&[Value::text("a"), Value::Int(10)]));
        assert!(version(&[Value::text("a"), Value::Int(9)]) < version(&[Value::text("ab"), Value::Int(1)]));
        assert!(Version::new(&[Value::Null], "t", 0, 0, 0).is_err());
        let at = |offset| Version::new(&[Value::Int(1)], "t", 0, offset, 0).unwrap();
        assert!(at(9) < at(10));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_sort_as_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, s in 0u32..6, t in 0u32..6) {
            let (a, b) = (rust_decimal::Decimal::new(a, s), rust_decimal::Decimal::new(b, t));
            let versions = (version(&[Value::Decimal(a)]), version(&[Value::Decimal(b)]));
            prop_assert_eq!(a.cmp(&b), versions.0.cmp(&versions.1));
        }
    }
}
