//! Joins and rollups as written: columns that follow from other tables' rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Expr, Many, Name, Named};

/// Columns of another table copied in: each row has the values of the one row that it refers to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Join {
    /// The table that is referred to.
    pub table: Name,
    /// The columns of this table that hold the other's key, in its order.
    pub by: Many<Name>,
    /// This table's columns, each with the column of the other that fills it.
    pub fill: Named<Name>,
    /// What becomes of the columns when the other row ends: `clear`, or `keep` what they were.
    #[serde(skip_serializing_if = "is_default")]
    pub on_delete: OnDelete,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// The columns are empty again.
    #[default]
    Clear,
    /// The columns keep what the other row last said; an end for good (`delete: final`) clears them all the same.
    Keep,
}

fn is_default(on_delete: &OnDelete) -> bool {
    *on_delete == OnDelete::default()
}

/// Columns aggregated from the rows of another table that refer to this one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollup {
    /// The table whose rows are aggregated.
    pub table: Name,
    /// The columns of that table that hold this table's key, in its order.
    pub by: Many<Name>,
    /// Only rows for which this holds; names are that table's columns.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Expr>,
    /// This table's columns, each with what fills it.
    pub fill: Named<Aggregate>,
}

/// One way to aggregate; exactly one of the first ten words. In expressions, names are the aggregated table's columns.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Aggregate {
    /// `count: true` counts rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Expr>,
    /// How many different values there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_distinct: Option<Expr>,
    /// The exact sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<Expr>,
    /// The exact sum divided by how many values there are, rounded half to even to the column's digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg: Option<Expr>,
    /// The least value; text by bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Expr>,
    /// The greatest value; text by bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Expr>,
    /// Whether a condition holds for one row at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any: Option<Expr>,
    /// A number: a list of that many rows, the greatest `by` first. An expression: its value in the row with the greatest `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<Expr>,
    /// `true`: a list of all rows, the least `by` first, of each the columns in `of`. An expression: a list of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Expr>,
    /// The column whose values are the names of an object's members; `value` says what stands under each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Name>,
    /// With `object`: the column whose values the members have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Name>,
    /// With `latest` and `list`: the columns that order the rows; rows that are alike there go by their key.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub by: Many<Name>,
    /// With `latest` and `list`: the columns that stand in the list.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub of: Many<Name>,
    /// Only rows for which this holds too.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Expr>,
}
