//! Aggregates: what each of them makes of the other table's columns.

use std::ops::Range;

use super::{Made, Shape, Unfinished};
use crate::plan::Column;
use crate::plan::build::Build;
use crate::plan::build::row::RowCompiler;
use crate::plan::derived::{Addend, Item, Search, Sum, What};
use crate::plan::expr::{Expr as Compiled, Misread, Node, RowColumn, RowRef};
use crate::plan::types::{ColumnType, Digits, Kind, Scalar};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Aggregate, Expr, Name};
use crate::value::Value;

/// The table that is aggregated, as its expressions see it.
pub(super) struct Child<'c, 'b> {
    pub build: &'c Build<'b>,
    pub name: String,
    pub shape: &'c Shape,
    /// Columns whose type is not known yet.
    pub unknown: &'c dyn Fn(RowRef) -> bool,
}

impl Child<'_, '_> {
    fn row(&self) -> Vec<RowColumn> {
        let column = |of_key: bool, (at, column): (usize, &Column)| {
            let node = Node::Row(RowRef { of_key, at: at as u16 });
            RowColumn { name: column.name.clone(), node, kind: column.shape.type_.kind() }
        };
        let key = self.shape.key.iter().enumerate().map(|one| column(true, one));
        key.chain(self.shape.columns.iter().enumerate().map(|one| column(false, one))).collect()
    }

    fn compile(&self, expr: &Expr) -> Result<Compiled, Unfinished> {
        let row = self.row();
        match RowCompiler::bare(&row).compile(&expr.value.0) {
            Ok(compiled) => {
                let mut read = Vec::new();
                compiled.node.row_refs(&mut read);
                if read.into_iter().any(self.unknown) {
                    return Err(Unfinished::Waits);
                }
                if self.build.answerable(expr, &compiled).is_none() {
                    return Err(Unfinished::Wrong);
                }
                Ok(compiled)
            }
            Err(misread) => {
                let code = if misread.code == "unknown-name" { "unknown-column" } else { misread.code };
                let message = match code {
                    "unknown-column" => format!("{} (of `{}`)", misread.message, self.name),
                    _ => misread.message,
                };
                self.build.misread(expr, Misread { code, message, ..misread });
                Err(Unfinished::Wrong)
            }
        }
    }

    pub fn condition(&self, expr: &Expr) -> Result<Compiled, Unfinished> {
        let compiled = self.compile(expr)?;
        if matches!(compiled.kind, Kind::Bool | Kind::Any | Kind::Null) {
            return Ok(compiled);
        }
        let message = format!("a condition is needed, this is {}", compiled.kind.describe());
        self.build.error("wrong-kind", &expr.span, message, None);
        Err(Unfinished::Wrong)
    }

    fn column(&self, name: &Name) -> Result<RowRef, Unfinished> {
        match self.shape.find(name) {
            Some(at) if (self.unknown)(at) => Err(Unfinished::Waits),
            Some(at) => Ok(at),
            None => {
                let message = format!("the table `{}` has no column `{}`", self.name, name.value);
                let help = suggest(name, self.shape.names());
                self.build.error("unknown-column", &name.span, message, help.as_deref());
                Err(Unfinished::Wrong)
            }
        }
    }

    fn columns(&self, names: &[Name]) -> Result<Vec<RowRef>, Unfinished> {
        names.iter().map(|name| self.column(name)).collect()
    }

    fn wrong(&self, place: &Range<usize>, message: String, help: &str) -> Unfinished {
        self.build.error("wrong-aggregate", place, message, Some(help));
        Unfinished::Wrong
    }

    /// The type of an aggregate's column, its value over nothing, and what fills it.
    pub fn aggregate(
        &self,
        name: &Name,
        aggregate: &Aggregate,
        declared: Option<&spec::Column>,
    ) -> Result<(ColumnType, Value, Made), Unfinished> {
        let (word, expr) = self.word(name, aggregate)?;
        let condition = aggregate.condition.as_ref().map(|expr| self.condition(expr)).transpose()?;
        let sum = |addend: Addend| Sum { column: 0, condition: condition.clone(), addend };
        let search = |what: What| Made::Search(Search { column: 0, condition: condition.clone(), what });
        let scalar = ColumnType::scalar;
        let ordered = !aggregate.by.is_nothing() || !aggregate.of.is_nothing();
        if ordered && !matches!(word, "latest" | "list") {
            let message = format!("`by` and `of` say nothing to `{word}`");
            return Err(self.wrong(&name.span, message, "leave them out"));
        }
        Ok(match word {
            "count" => {
                if expr.value.0.trim() != "true" {
                    return Err(self.wrong(
                        &expr.span,
                        "`count` counts rows".into(),
                        "count: true; a condition is `where`",
                    ));
                }
                (scalar(Scalar::Int8), Value::Int(0), Made::Sum(sum(Addend::One)))
            }
            "any" => (scalar(Scalar::Bool), Value::Bool(false), Made::Any(sum(Addend::Holds(self.condition(expr)?)))),
            "sum" | "avg" => {
                let value = self.compile(expr)?;
                if !matches!(value.kind, Kind::Number) || self.is_float(&value) {
                    let message = format!("`{word}` needs numbers that are exact, this is {}", self.describe(&value));
                    return Err(self.wrong(&expr.span, message, "integers and numeric are"));
                }
                if word == "sum" {
                    (scalar(Scalar::Numeric(None)), Value::Int(0), Made::Sum(sum(Addend::Value(value))))
                } else {
                    let scale = self.average_scale(&value, declared);
                    let type_ = declared.and_then(|column| ColumnType::parse(&column.type_.value).ok());
                    let type_ = type_.filter(|type_| matches!(type_.scalar, Scalar::Numeric(_)) && !type_.array);
                    let made = Made::Average { value, condition: condition.clone(), scale };
                    (type_.unwrap_or(scalar(Scalar::Numeric(None))), Value::Null, made)
                }
            }
            "min" | "max" => {
                let value = self.compile(expr)?;
                let type_ = self.type_of(&value);
                let unfit = |type_: &ColumnType| matches!(type_.scalar, Scalar::Enum(_) | Scalar::Bool | Scalar::Uuid);
                let Some(type_) = type_.filter(|type_| type_.is_ordered() && !unfit(type_)) else {
                    let message = format!(
                        "`{word}` needs values with an order that everyone agrees on, this is {}",
                        self.describe(&value)
                    );
                    return Err(self.wrong(&expr.span, message, "text, numbers, dates and timestamps have one"));
                };
                let what = if word == "min" { What::Min(value) } else { What::Max(value) };
                (type_, Value::Null, search(what))
            }
            "count_distinct" => {
                let value = self.compile(expr)?;
                if self.type_of(&value).is_none_or(|type_| !type_.is_key()) {
                    let message = format!("equal values of {} cannot be told", self.describe(&value));
                    return Err(self.wrong(
                        &expr.span,
                        message,
                        "count text, numbers, dates, timestamps, uuid, bool or enum(…)",
                    ));
                }
                (scalar(Scalar::Int8), Value::Int(0), search(What::CountDistinct(value)))
            }
            "latest" if expr.value.0.trim().parse::<u32>().is_ok() => {
                let newest = expr.value.0.trim().parse().ok();
                if newest == Some(0) {
                    return Err(self.wrong(
                        &expr.span,
                        "a list of 0 rows is always empty".into(),
                        "for example latest: 5",
                    ));
                }
                let (by, of) = (self.columns(&self.order(name, aggregate, word)?)?, self.members(name, aggregate)?);
                (scalar(Scalar::Jsonb), Value::Json("[]".into()), search(What::List { item: of, by, newest }))
            }
            "latest" => {
                let value = self.compile(expr)?;
                let by = self.columns(&self.order(name, aggregate, word)?)?;
                let Some(type_) = self.type_of(&value) else {
                    let message = format!("`latest` of {} has no type of its own", self.describe(&value));
                    return Err(self.wrong(&expr.span, message, "name a column"));
                };
                (type_, Value::Null, search(What::Newest { value, by }))
            }
            "list" => {
                let by = self.columns(&aggregate.by)?;
                let item = match expr.value.0.trim() {
                    "true" => self.members(name, aggregate)?,
                    _ => Item::Value(self.compile(expr)?),
                };
                (scalar(Scalar::Jsonb), Value::Json("[]".into()), search(What::List { item, by, newest: None }))
            }
            _ => {
                let (Some(key), Some(value)) = (&aggregate.object, &aggregate.value) else {
                    return Err(self.wrong(
                        &name.span,
                        "an object needs names and values".into(),
                        "{ object: NAME, value: COLUMN }",
                    ));
                };
                let (at, value) = (self.column(key)?, self.column(value)?);
                if !matches!(self.shape.column(at).shape.type_.kind(), Kind::Text) {
                    let message = format!(
                        "`{}` is {}; the members of an object are named by texts",
                        key.value,
                        self.shape.column(at).shape.type_
                    );
                    return Err(self.wrong(&key.span, message, "name a text column"));
                }
                (scalar(Scalar::Jsonb), Value::Json("{}".into()), search(What::Object { name: at, value }))
            }
        })
    }

    /// The one word of an aggregate that says what it is.
    fn word<'a>(&self, name: &Name, aggregate: &'a Aggregate) -> Result<(&'static str, &'a Expr), Unfinished> {
        let words = [
            ("count", &aggregate.count),
            ("count_distinct", &aggregate.count_distinct),
            ("sum", &aggregate.sum),
            ("avg", &aggregate.avg),
            ("min", &aggregate.min),
            ("max", &aggregate.max),
            ("any", &aggregate.any),
            ("latest", &aggregate.latest),
            ("list", &aggregate.list),
        ];
        let mut given = words.into_iter().filter_map(|(word, expr)| Some((word, expr.as_ref()?)));
        static NONE: std::sync::LazyLock<Expr> = std::sync::LazyLock::new(Expr::default);
        let object = aggregate.object.as_ref().map(|_| ("object", &*NONE));
        match (given.next(), object, given.next()) {
            (Some(one), None, None) | (None, Some(one), None) => Ok(one),
            _ => {
                let help = "count, count_distinct, sum, avg, min, max, any, latest, list or object";
                Err(self.wrong(&name.span, format!("one thing fills `{}`", name.value), help))
            }
        }
    }

    fn order(&self, name: &Name, aggregate: &Aggregate, word: &str) -> Result<Vec<Name>, Unfinished> {
        if aggregate.by.is_nothing() {
            let message = format!("`{word}` needs `by`: the columns that say what is newer");
            return Err(self.wrong(&name.span, message, "by: [posted_at]"));
        }
        Ok(aggregate.by.0.clone())
    }

    fn members(&self, name: &Name, aggregate: &Aggregate) -> Result<Item, Unfinished> {
        if aggregate.of.is_nothing() {
            let message = "the list needs `of`: the columns that stand in it".to_string();
            return Err(self.wrong(&name.span, message, "of: [review_id, rating, title]"));
        }
        let members = aggregate.of.iter().map(|name| Ok((name.value.clone(), self.column(name)?)));
        members.collect::<Result<_, _>>().map(Item::Members)
    }

    /// The type of an expression that a column can have.
    fn type_of(&self, value: &Compiled) -> Option<ColumnType> {
        if let Node::Row(at) = value.node {
            return Some(self.shape.column(at).shape.type_.clone());
        }
        let scalar = match value.kind {
            Kind::Bool => Scalar::Bool,
            Kind::Number if !self.is_float(value) => Scalar::Numeric(None),
            Kind::Text => Scalar::Text,
            Kind::Time => Scalar::Timestamptz,
            Kind::Date => Scalar::Date,
            _ => return None,
        };
        Some(ColumnType::scalar(scalar))
    }

    fn columns_read<'s>(&'s self, value: &Compiled) -> impl Iterator<Item = &'s Column> + 's {
        let mut read = Vec::new();
        value.node.row_refs(&mut read);
        read.into_iter().map(|at| self.shape.column(at))
    }

    fn is_float(&self, value: &Compiled) -> bool {
        self.columns_read(value).any(|column| column.shape.type_.scalar == Scalar::Float8)
    }

    fn describe(&self, value: &Compiled) -> String {
        match value.node {
            Node::Row(at) => self.shape.column(at).shape.type_.to_string(),
            _ => value.kind.describe().to_string(),
        }
    }

    /// Two digits more than the values have, unless the column's type says how many.
    fn average_scale(&self, value: &Compiled, declared: Option<&spec::Column>) -> u16 {
        let scale = |type_: &ColumnType| match type_.scalar {
            Scalar::Numeric(Some(Digits { scale, .. })) => Some(scale),
            _ => None,
        };
        let own = declared.and_then(|column| ColumnType::parse(&column.type_.value).ok());
        let of_values = self.columns_read(value).filter_map(|column| scale(&column.shape.type_)).max().unwrap_or(0);
        own.as_ref().and_then(scale).unwrap_or(of_values + 2)
    }
}
