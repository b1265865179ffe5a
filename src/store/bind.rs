//! Columns of values as Postgres arrays, in the form that costs the server least.

use std::borrow::Cow;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgTypeInfo};
use sqlx::{Arguments, Postgres, Type};

use crate::plan::types::{ColumnType, Scalar};
use crate::value::Value;

/// Microseconds since the Unix epoch, as `timestamptz`.
#[derive(Debug, Clone, Copy)]
pub struct Instant(pub i64);

const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// Postgres counts from 2000-01-01.
const EPOCH_SHIFT: i64 = 946_684_800_000_000;

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Instant {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Postgres>>::encode_by_ref(&(self.0 - EPOCH_SHIFT), buffer)
    }
}

/// The array type in which a column's values travel.
pub fn array_type(type_: &ColumnType) -> &'static str {
    match (type_.array, &type_.scalar) {
        (true, _) => "text[]",
        (false, Scalar::Int2 | Scalar::Int4 | Scalar::Int8) => "bigint[]",
        (false, Scalar::Bool) => "boolean[]",
        (false, Scalar::Float8) => "double precision[]",
        (false, Scalar::Timestamptz) => "timestamptz[]",
        (false, _) => "text[]",
    }
}

/// Adds one array argument. `None` is NULL.
///
/// # Errors
/// When the values cannot be encoded.
pub fn add<'v>(
    arguments: &mut PgArguments,
    type_: &ColumnType,
    values: impl Iterator<Item = Option<&'v Value>>,
) -> Result<(), sqlx::Error> {
    let encoded = match array_type(type_) {
        "bigint[]" => arguments.add(
            values
                .map(|v| match v {
                    Some(Value::Int(n)) => Some(*n),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        "boolean[]" => arguments.add(
            values
                .map(|v| match v {
                    Some(Value::Bool(b)) => Some(*b),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        "double precision[]" => arguments.add(
            values
                .map(|v| match v {
                    Some(Value::Float(f)) => Some(*f),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        "timestamptz[]" => arguments.add(
            values
                .map(|v| match v {
                    Some(Value::Time(t)) => Some(Instant(*t)),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        ),
        _ => arguments.add(
            values
                .map(|v| match v {
                    Some(Value::Text(text) | Value::Digits(text)) => Some(Cow::Borrowed(text.as_str())),
                    Some(Value::Json(raw)) => Some(Cow::Borrowed(&**raw)),
                    Some(other) => other.to_sql_text().map(Cow::Owned),
                    None => None,
                })
                .collect::<Vec<Option<Cow<'v, str>>>>(),
        ),
    };
    encoded.map_err(sqlx::Error::Encode)
}
