//! Column types: which values fit them, checked before Postgres sees any.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;

use crate::value::json::{check_json, json_items};
use crate::value::{Value, canonical_number, parse_date, parse_time, show};

/// A Postgres type that a column may have.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnType {
    pub scalar: Scalar,
    pub array: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Text,
    Citext,
    Bool,
    Int2,
    Int4,
    Int8,
    /// `None`: any number of digits.
    Numeric(Option<Digits>),
    Float8,
    Date,
    Timestamptz,
    Interval,
    Uuid,
    Jsonb,
    /// An enum made by us; its labels in order.
    Enum(Arc<[String]>),
    /// An enum that exists in the database; Postgres knows its labels.
    ExistingEnum(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digits {
    pub precision: u16,
    pub scale: u16,
}

/// What an expression yields, as far as that is known before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Any,
    Null,
    Bool,
    Number,
    Text,
    Time,
    Date,
    Duration,
    List,
}

impl Kind {
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Any => "any value",
            Kind::Null => "null",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::Text => "a text",
            Kind::Time => "a timestamp",
            Kind::Date => "a date",
            Kind::Duration => "a duration",
            Kind::List => "a list",
        }
    }
}

const NAMES: &[(&str, Scalar)] = &[
    ("text", Scalar::Text),
    ("citext", Scalar::Citext),
    ("bool", Scalar::Bool),
    ("boolean", Scalar::Bool),
    ("smallint", Scalar::Int2),
    ("int2", Scalar::Int2),
    ("integer", Scalar::Int4),
    ("int", Scalar::Int4),
    ("int4", Scalar::Int4),
    ("bigint", Scalar::Int8),
    ("int8", Scalar::Int8),
    ("numeric", Scalar::Numeric(None)),
    ("decimal", Scalar::Numeric(None)),
    ("double precision", Scalar::Float8),
    ("float8", Scalar::Float8),
    ("date", Scalar::Date),
    ("timestamptz", Scalar::Timestamptz),
    ("timestamp with time zone", Scalar::Timestamptz),
    ("interval", Scalar::Interval),
    ("uuid", Scalar::Uuid),
    ("jsonb", Scalar::Jsonb),
];

impl ColumnType {
    pub fn scalar(scalar: Scalar) -> ColumnType {
        ColumnType { scalar, array: false }
    }

    /// Reads a type as written.
    ///
    /// # Errors
    /// What is wrong with it, and a help line where there is one.
    pub fn parse(text: &str) -> Result<ColumnType, (String, Option<String>)> {
        let text = text.trim();
        if let Some(element) = text.strip_suffix("[]") {
            let element = ColumnType::parse(element)?;
            if element.array {
                return Err(("arrays of arrays are not supported".into(), Some("use jsonb".into())));
            }
            return Ok(ColumnType { array: true, ..element });
        }
        let lower = text.to_ascii_lowercase();
        if let Some((_, scalar)) = NAMES.iter().find(|(name, _)| *name == lower) {
            return Ok(ColumnType::scalar(scalar.clone()));
        }
        if let Some((name, rest)) = text.split_once('(') {
            let Some(arguments) = rest.strip_suffix(')') else {
                return Err((format!("`{text}` has no closing bracket"), None));
            };
            let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
            return match name.trim().to_ascii_lowercase().as_str() {
                "numeric" | "decimal" => parse_numeric(text, &arguments),
                "enum" => parse_enum(&arguments),
                "varchar" | "char" | "character varying" => {
                    Err((format!("`{text}` is not supported"), Some("use text".into())))
                }
                _ => Err((format!("`{text}` is not a type"), None)),
            };
        }
        let instead = match lower.as_str() {
            "json" => Some("use jsonb"),
            "varchar" | "char" | "string" => Some("use text"),
            "timestamp" | "datetime" | "timestamp without time zone" => Some("use timestamptz: events carry instants"),
            "float" | "real" | "float4" | "double" => Some("use double precision, or numeric for money"),
            "money" => Some("use numeric(p, s)"),
            "serial" | "bigserial" => Some("rows are made by events alone; use bigint"),
            _ => None,
        };
        if let Some(instead) = instead {
            return Err((format!("`{text}` is not supported"), Some(instead.into())));
        }
        if let Some(near) = crate::spec::diagnostic::suggest(&lower, NAMES.iter().map(|(name, _)| *name)) {
            return Err((format!("`{text}` is not a type"), Some(near)));
        }
        let named = !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if named {
            Ok(ColumnType::scalar(Scalar::ExistingEnum(text.to_string())))
        } else {
            Err((
                format!("`{text}` is not a type"),
                Some("for example text, bigint, numeric(12,2), timestamptz".into()),
            ))
        }
    }

    /// Whether a value of this kind can ever fit.
    pub fn accepts(&self, kind: Kind) -> bool {
        if matches!(kind, Kind::Any | Kind::Null) {
            return true;
        }
        if self.array {
            return kind == Kind::List;
        }
        match self.scalar {
            Scalar::Interval => matches!(kind, Kind::Text | Kind::Duration),
            Scalar::Text | Scalar::Citext | Scalar::Uuid => kind == Kind::Text,
            Scalar::Enum(_) | Scalar::ExistingEnum(_) => kind == Kind::Text,
            Scalar::Bool => kind == Kind::Bool,
            Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_) | Scalar::Float8 => kind == Kind::Number,
            Scalar::Date => matches!(kind, Kind::Date | Kind::Text),
            Scalar::Timestamptz => matches!(kind, Kind::Time | Kind::Text),
            Scalar::Jsonb => true,
        }
    }

    /// The kind of value that the column holds.
    pub fn kind(&self) -> Kind {
        match self.scalar {
            _ if self.array => Kind::List,
            Scalar::Bool => Kind::Bool,
            Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_) | Scalar::Float8 => Kind::Number,
            Scalar::Date => Kind::Date,
            Scalar::Timestamptz => Kind::Time,
            Scalar::Jsonb => Kind::Any,
            Scalar::Text | Scalar::Citext | Scalar::Interval | Scalar::Uuid => Kind::Text,
            Scalar::Enum(_) | Scalar::ExistingEnum(_) => Kind::Text,
        }
    }

    pub fn is_number(&self) -> bool {
        !self.array && matches!(self.scalar, Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_))
    }

    /// Whether two values of the type have an order that Rust and Postgres agree on.
    pub fn is_ordered(&self) -> bool {
        !self.array
            && !matches!(self.scalar, Scalar::Citext | Scalar::Interval | Scalar::Jsonb | Scalar::ExistingEnum(_))
    }

    /// Whether equal values of the type are equal in Rust, so that the type can be a key.
    pub fn is_key(&self) -> bool {
        self.is_ordered() && !matches!(self.scalar, Scalar::Float8)
    }

    /// Compares two coerced, non-NULL values as Postgres does: enums by declaration, text by bytes.
    pub fn compare(&self, a: &Value, b: &Value) -> Ordering {
        if let (Scalar::Enum(labels), Value::Text(x), Value::Text(y)) = (&self.scalar, a, b) {
            let rank = |text: &str| labels.iter().position(|label| label == text);
            return rank(x).cmp(&rank(y));
        }
        a.compare(b).unwrap_or(Ordering::Equal)
    }

    /// Brings a value into the one form that the column stores.
    ///
    /// # Errors
    /// Why the value does not fit, naming the value.
    pub fn coerce(&self, value: Value) -> Result<Value, String> {
        if value.is_null() {
            return Ok(Value::Null);
        }
        if !self.array {
            return self.coerce_scalar(value);
        }
        let items = match value {
            Value::List(items) => items.into_vec(),
            Value::Json(ref raw) if raw.starts_with('[') => json_items(raw)?,
            other => return Err(self.misfit(&other)),
        };
        let items: Result<Vec<Value>, String> =
            items.into_iter().map(|v| if v.is_null() { Ok(v) } else { self.coerce_scalar(v) }).collect();
        Ok(Value::List(items?.into()))
    }

    fn coerce_scalar(&self, value: Value) -> Result<Value, String> {
        match (&self.scalar, value) {
            (Scalar::Text | Scalar::Citext, Value::Text(text)) => {
                if text.contains('\0') {
                    return Err(format!("the text {} has a NUL character, which Postgres cannot store", show(&text)));
                }
                Ok(Value::Text(text))
            }
            (Scalar::Bool, value @ Value::Bool(_)) => Ok(value),
            (Scalar::Int2, value) => self.coerce_int(value, i16::MIN.into(), i16::MAX.into()),
            (Scalar::Int4, value) => self.coerce_int(value, i32::MIN.into(), i32::MAX.into()),
            (Scalar::Int8, value) => self.coerce_int(value, i64::MIN, i64::MAX),
            (Scalar::Numeric(digits), value) => self.coerce_numeric(value, *digits),
            (Scalar::Float8, value) => {
                let float = match &value {
                    Value::Float(f) => Some(*f),
                    Value::Int(_) | Value::Decimal(_) | Value::Digits(_) => {
                        value.to_sql_text().and_then(|text| text.parse().ok())
                    }
                    _ => None,
                };
                float.filter(|f| f.is_finite()).map(Value::Float).ok_or_else(|| self.misfit(&value))
            }
            (Scalar::Date, value @ Value::Date(_)) => Ok(value),
            (Scalar::Date, Value::Text(text)) => parse_date(&text)
                .map(Value::Date)
                .ok_or_else(|| format!("{} is not a date (YYYY-MM-DD, years up to 9999)", show(&text))),
            (Scalar::Timestamptz, value @ Value::Time(_)) => Ok(value),
            (Scalar::Timestamptz, Value::Text(text)) => parse_time(&text).map(Value::Time).ok_or_else(|| {
                format!("{} is not an RFC 3339 timestamp (with an offset, years up to 9999)", show(&text))
            }),
            (Scalar::Interval, value @ Value::Duration(_)) => Ok(Value::text(&value.to_sql_text().unwrap_or_default())),
            (Scalar::Interval, Value::Text(text)) => match text.parse::<jiff::Span>() {
                Ok(span) => Ok(Value::text(&span.to_string())),
                Err(_) => Err(format!("{} is not an ISO 8601 duration such as PT15M", show(&text))),
            },
            (Scalar::Uuid, Value::Text(text)) => match uuid::Uuid::try_parse(&text) {
                Ok(uuid) => Ok(Value::text(&uuid.to_string())),
                Err(_) => Err(format!("{} is not a UUID", show(&text))),
            },
            (Scalar::Enum(labels), Value::Text(text)) => {
                if labels.iter().any(|label| *label == text) {
                    Ok(Value::Text(text))
                } else {
                    Err(format!("{} is none of the column's labels: {}", show(&text), labels.join(", ")))
                }
            }
            (Scalar::ExistingEnum(_), value @ Value::Text(_)) => Ok(value),
            (Scalar::Jsonb, value) => {
                let text = value.to_json_text();
                check_json(&text)?;
                Ok(Value::Json(text.into()))
            }
            (_, other) => Err(self.misfit(&other)),
        }
    }

    fn coerce_int(&self, value: Value, least: i64, greatest: i64) -> Result<Value, String> {
        let whole = match &value {
            Value::Int(n) => Some(*n),
            Value::Decimal(d) if d.fract().is_zero() => i64::try_from(*d).ok(),
            _ => None,
        };
        match whole {
            Some(n) if (least..=greatest).contains(&n) => Ok(Value::Int(n)),
            _ => Err(self.misfit(&value)),
        }
    }

    fn coerce_numeric(&self, value: Value, digits: Option<Digits>) -> Result<Value, String> {
        let text = match &value {
            Value::Int(_) | Value::Decimal(_) | Value::Digits(_) => value.to_sql_text().unwrap_or_default(),
            _ => return Err(self.misfit(&value)),
        };
        let Some(Digits { precision, scale }) = digits else { return Ok(canonical_number(value)) };
        let unsigned = text.trim_start_matches('-');
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let whole = whole.trim_start_matches('0').len();
        let fraction = fraction.trim_end_matches('0').len();
        if whole > usize::from(precision - scale) {
            return Err(format!("{} does not fit {self}: too many digits before the point", show(&text)));
        }
        if fraction > usize::from(scale) {
            return Err(format!(
                "{} does not fit {self}: digits would be lost (round it in the projection if that is meant)",
                show(&text)
            ));
        }
        Ok(canonical_number(value))
    }

    fn misfit(&self, value: &Value) -> String {
        let cure = match value {
            Value::Text(_) if self.is_number() => "; decimal(…) makes it a number",
            _ => "",
        };
        format!("{} ({}) does not fit {self}{cure}", show(&value.to_json_text()), value.kind())
    }
}

fn parse_numeric(text: &str, arguments: &[&str]) -> Result<ColumnType, (String, Option<String>)> {
    let wrong = || (format!("`{text}` is not a numeric type"), Some("for example numeric(12,2)".to_string()));
    let precision: u16 = arguments[0].parse().map_err(|_| wrong())?;
    let scale: u16 = arguments.get(1).map_or(Ok(0), |s| s.parse()).map_err(|_| wrong())?;
    if arguments.len() > 2 || precision == 0 || precision > 1000 || scale > precision {
        return Err(wrong());
    }
    Ok(ColumnType::scalar(Scalar::Numeric(Some(Digits { precision, scale }))))
}

fn parse_enum(labels: &[&str]) -> Result<ColumnType, (String, Option<String>)> {
    let labels: Vec<String> = labels.iter().map(|l| l.trim_matches(['\'', '"']).to_string()).collect();
    if let Some(bad) = labels.iter().find(|label| label.is_empty() || label.len() > 63) {
        return Err((format!("`{bad}` cannot be an enum's label: 1 to 63 bytes"), None));
    }
    if let Some(twice) = labels.iter().enumerate().find(|(at, label)| labels[..*at].contains(label)) {
        return Err((format!("the label `{}` stands twice", twice.1), None));
    }
    Ok(ColumnType::scalar(Scalar::Enum(labels.into())))
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scalar {
            Scalar::Numeric(Some(Digits { precision, scale })) => write!(f, "numeric({precision},{scale})")?,
            Scalar::Enum(labels) => write!(f, "enum({})", labels.join(", "))?,
            Scalar::ExistingEnum(name) => f.write_str(name)?,
            scalar => {
                let name = NAMES.iter().find(|(_, known)| known == scalar).map_or("?", |(name, _)| name);
                f.write_str(name)?;
            }
        }
        f.write_str(if self.array { "[]" } else { "" })
    }
}

/// Adds two numbers exactly; NULL counts as nothing.
///
/// # Errors
/// When the sum is beyond 28 digits, or one of the two is too long to compute with.
pub fn add(a: &Value, b: &Value) -> Result<Value, String> {
    match (a, b) {
        (Value::Null, b) => Ok(b.clone()),
        (a, Value::Null) => Ok(a.clone()),
        (Value::Int(x), Value::Int(y)) if x.checked_add(*y).is_some() => Ok(Value::Int(x + y)),
        _ => {
            let sum = a.as_decimal().zip(b.as_decimal()).and_then(|(x, y)| Decimal::checked_add(x, y));
            sum.map(|d| canonical_number(Value::Decimal(d))).ok_or_else(|| {
                format!("{} and {} cannot be added exactly", show(&a.to_json_text()), show(&b.to_json_text()))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::json::json_value;
    use crate::value::parse_number;

    fn fits(type_: &str, json: &str) -> Result<Value, String> {
        ColumnType::parse(type_).unwrap().coerce(json_value(json).unwrap())
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        assert_eq!(fits("numeric(12,2)", "19.90"), Ok(parse_number("19.9").unwrap()));
        assert!(fits("numeric(12,2)", "19.999").unwrap_err().contains("digits would be lost"));
        assert!(fits("numeric(4,2)", "123").unwrap_err().contains("too many digits"));
        assert!(fits("numeric(70,0)", &"9".repeat(60)).is_ok());
        assert!(fits("smallint", "40000").unwrap_err().contains("40000"));
        assert!(fits("text", "12").unwrap_err().contains("a number"));
        assert!(fits("text", r#""a\u0000b""#).unwrap_err().contains("NUL"));
        assert!(fits("timestamptz", r#""12000-01-01T00:00:00Z""#).unwrap_err().contains("12000"));
        assert!(fits("uuid", r#""zz""#).is_err());
        assert!(fits("enum(a, b)", r#""c""#).unwrap_err().contains("a, b"));
        assert!(fits("jsonb", r#"{"a":1,"a":2}"#).unwrap_err().contains("twice"));
        assert!(fits("text[]", r#"["a",null]"#).is_ok());
        assert!(fits("jsonb", &("[".repeat(10_000) + &"]".repeat(10_000))).is_err());
    }

    #[test]
    fn wrong_types_are_explained() {
        assert!(ColumnType::parse("varchar(20)").unwrap_err().1.unwrap().contains("text"));
        assert!(ColumnType::parse("numerc").unwrap_err().1.unwrap().contains("numeric"));
        assert_eq!(ColumnType::parse("numeric(12, 2)").unwrap().to_string(), "numeric(12,2)");
    }
}
