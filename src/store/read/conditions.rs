//! Fields and conditions in SQL. Every value is a parameter, cast to the type of what it is compared with.

use super::schema::Relation;
use super::statement::{Argument, Refusal};
use crate::query::{Condition, Field, Is, Key, Operator, Quantifier, Search, SearchKind, Step, Test};
use crate::spec::diagnostic::suggest;
use crate::store::sql::{ident, literal};

/// A relation in a statement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'s> {
    pub relation: &'s Relation,
    pub alias: &'s str,
}

/// An expression and its type.
pub(super) struct Typed {
    pub sql: String,
    pub type_: String,
}

impl Named<'_> {
    /// A column of it, or something within.
    pub fn field(&self, field: &Field) -> Result<Typed, Refusal> {
        let Some(column) = self.relation.column(&field.column) else {
            if let (Some(type_), true) = (self.relation.computed.get(&field.column), field.path.is_empty()) {
                let sql = format!("{}.{}", ident(self.alias), ident(&field.column));
                return Ok(Typed { sql, type_: type_.clone() });
            }
            let names = self.relation.columns.iter().map(|column| column.name.as_str());
            return Err(Refusal {
                code: "42703",
                message: format!("column {}.{} does not exist", self.relation.name, field.column),
                details: None,
                hint: suggest(&field.column, names),
            });
        };
        let sql = format!("{}.{}", ident(self.alias), ident(&column.name));
        let Some(last) = field.path.last() else {
            return Ok(Typed { sql, type_: column.type_.clone() });
        };
        let (inside, type_) = match column.is_json() {
            true => (sql, column.type_.as_str()),
            false => (format!("to_jsonb({sql})"), "jsonb"),
        };
        let steps: String = field.path.iter().map(step).collect();
        let type_ = if last.as_text { "text" } else { type_ };
        Ok(Typed { sql: format!("({inside}{steps})"), type_: type_.into() })
    }
}

fn step(step: &Step) -> String {
    let arrow = if step.as_text { "->>" } else { "->" };
    match &step.key {
        Key::Name(name) => format!("{arrow}{}", literal(name)),
        Key::Index(index) => format!("{arrow}({index})"),
    }
}

/// Writes conditions on the rows of a relation.
pub(super) struct Conditions<'c> {
    pub named: Named<'c>,
    /// For an embedded relation's name, an expression that holds when there is no row of it.
    pub absent: &'c dyn Fn(&str) -> Option<String>,
    pub arguments: &'c mut Vec<Argument>,
}

impl Conditions<'_> {
    pub fn condition(&mut self, condition: &Condition) -> Result<String, Refusal> {
        let mut joined = |conditions: &[Condition], by: &str| {
            let parts = conditions.iter().map(|condition| self.condition(condition)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("({})", parts.join(by)))
        };
        match condition {
            Condition::All(conditions) => joined(conditions, " AND "),
            Condition::Any(conditions) => joined(conditions, " OR "),
            Condition::Not(condition) => Ok(format!("NOT {}", self.condition(condition)?)),
            Condition::Test(field, test) => self.test(field, test),
        }
    }

    fn test(&mut self, field: &Field, test: &Test) -> Result<String, Refusal> {
        if let (Test::Is(Is::Null), true) = (test, field.path.is_empty())
            && let Some(absent) = (self.absent)(&field.column)
        {
            return Ok(format!("({absent})"));
        }
        let Typed { sql, type_ } = self.named.field(field)?;
        let cast = |sql: String, array: &str| format!("{sql}::{type_}{array}");
        Ok(match test {
            Test::Compare(operator, value) => {
                let value = self.argument(Argument::Text(value.clone()));
                let value = if is_pattern(*operator, &type_) { value } else { cast(value, "") };
                format!("({sql} {} {value})", symbol(*operator))
            }
            Test::Quantified(operator, quantifier, values) => {
                let values = self.argument(Argument::Texts(values.clone()));
                let values = if is_pattern(*operator, &type_) { values } else { cast(values, "[]") };
                let quantifier = match quantifier {
                    Quantifier::Any => "ANY",
                    Quantifier::All => "ALL",
                };
                format!("({sql} {} {quantifier} ({values}))", symbol(*operator))
            }
            Test::In(values) if values.is_empty() => "false".into(),
            Test::In(values) if type_.ends_with("[]") => {
                let equal = values.iter().map(|value| {
                    let value = self.argument(Argument::Text(value.clone()));
                    format!("{sql} = {}", cast(value, ""))
                });
                format!("({})", equal.collect::<Vec<_>>().join(" OR "))
            }
            Test::In(values) => {
                let values = self.argument(Argument::Texts(values.iter().cloned().map(Some).collect()));
                format!("({sql} = ANY ({}))", cast(values, "[]"))
            }
            Test::Is(is) => {
                let what = match is {
                    Is::Null => "NULL",
                    Is::NotNull => "NOT NULL",
                    Is::True => "TRUE",
                    Is::False => "FALSE",
                    Is::Unknown => "UNKNOWN",
                };
                format!("({sql} IS {what})")
            }
            Test::Search(search) => self.search(&sql, type_ == "tsvector", search),
        })
    }

    fn search(&mut self, sql: &str, is_vector: bool, search: &Search) -> String {
        let language = search.language.as_ref();
        let language = language.map(|name| self.argument(Argument::Text(name.clone())) + "::regconfig, ");
        let language = language.unwrap_or_default();
        let words = self.argument(Argument::Text(search.words.clone()));
        let query = match search.kind {
            SearchKind::Query => "to_tsquery",
            SearchKind::Plain => "plainto_tsquery",
            SearchKind::Phrase => "phraseto_tsquery",
            SearchKind::Web => "websearch_to_tsquery",
        };
        let vector = if is_vector { sql.to_string() } else { format!("to_tsvector({language}{sql})") };
        format!("({vector} @@ {query}({language}{words}))")
    }

    fn argument(&mut self, argument: Argument) -> String {
        let type_ = match argument {
            Argument::Text(_) => "text",
            Argument::Texts(_) => "text[]",
        };
        self.arguments.push(argument);
        format!("${}::{type_}", self.arguments.len())
    }
}

/// Whether the operand is a text, whatever it is compared with. Of bytes, patterns are bytes too.
fn is_pattern(operator: Operator, type_: &str) -> bool {
    type_ != "bytea" && matches!(operator, Operator::Like | Operator::ILike | Operator::Match | Operator::IMatch)
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Equal => "=",
        Operator::NotEqual => "<>",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Like => "LIKE",
        Operator::ILike => "ILIKE",
        Operator::Match => "~",
        Operator::IMatch => "~*",
        Operator::IsDistinct => "IS DISTINCT FROM",
        Operator::Contains => "@>",
        Operator::ContainedIn => "<@",
        Operator::Overlaps => "&&",
        Operator::StrictlyLeft => "<<",
        Operator::StrictlyRight => ">>",
        Operator::NotRightOf => "&<",
        Operator::NotLeftOf => "&>",
        Operator::Adjacent => "-|-",
    }
}
