//! Requests as trees, and how they are written in an address.

use super::kinds::KINDS;
use super::relations::{Link, Relations, Table};

/// A read of one table, or of one that is embedded.
pub struct Level {
    pub table: usize,
    pub items: Vec<Item>,
    pub filters: Vec<Tree>,
    pub order: Vec<Order>,
    pub limit: Option<u64>,
    pub offset: u64,
}

pub enum Item {
    All,
    Field { field: Field, alias: Option<String>, cast: Option<&'static str>, aggregate: Option<Aggregate> },
    Count { alias: Option<String>, cast: Option<&'static str> },
    Embed(Embed),
}

/// A function, and the type that its value is cast to.
pub type Aggregate = (&'static str, Option<&'static str>);

pub struct Embed {
    pub link: Link,
    /// The target and the hint, of the ways to spell it.
    pub spelled: (String, Option<String>),
    pub alias: Option<String>,
    pub is_inner: bool,
    pub is_spread: bool,
    pub level: Level,
}

impl Embed {
    pub fn name(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.spelled.0)
    }
}

#[derive(Clone)]
pub struct Field {
    /// By its place in the table.
    pub column: usize,
    pub path: Vec<Step>,
}

#[derive(Clone)]
pub struct Step {
    pub key: String,
    pub is_index: bool,
    pub as_text: bool,
}

pub enum Tree {
    Joint {
        is_any: bool,
        negated: bool,
        parts: Vec<Tree>,
    },
    Test {
        field: Field,
        negated: bool,
        test: Test,
    },
    /// That there is no row of what is embedded there.
    Absent {
        item: usize,
        negated: bool,
    },
}

pub enum Test {
    Compare(&'static str, String),
    /// The operator, whether one is enough, and the values.
    Quantified(&'static str, bool, Vec<Option<String>>),
    In(Vec<String>),
    Is(&'static str),
    /// The operator, a language and words.
    Search(&'static str, Option<&'static str>, String),
}

pub struct Order {
    /// A column of what is embedded there, by its place among the items.
    pub of: Option<usize>,
    pub field: Field,
    pub is_descending: Option<bool>,
    pub nulls_first: Option<bool>,
}

impl Level {
    pub fn embed(&self, item: usize) -> Option<&Embed> {
        match &self.items[item] {
            Item::Embed(embed) => Some(embed),
            _ => None,
        }
    }

    pub fn embeds(&self) -> impl Iterator<Item = &Embed> {
        self.items.iter().filter_map(|item| match item {
            Item::Embed(embed) => Some(embed),
            _ => None,
        })
    }

    /// Whether its rows have no columns.
    pub fn shows_nothing(&self) -> bool {
        self.items.iter().all(|item| matches!(item, Item::Embed(embed) if embed.level.shows_nothing()))
    }

    /// Whether its rows are those of groups.
    pub fn is_grouped(&self) -> bool {
        self.items.iter().any(|item| match item {
            Item::Count { .. } => true,
            Item::Field { aggregate, .. } => aggregate.is_some(),
            Item::Embed(embed) => embed.is_spread && embed.link.is_to_one && embed.level.is_grouped(),
            Item::All => false,
        })
    }

    /// The address, from the table's name on.
    pub fn target(&self, relations: &Relations) -> String {
        let mut pairs = Vec::new();
        let select = self.select(relations);
        if select != "*" {
            pairs.push(("select".to_string(), select));
        }
        self.parameters(relations, "", &mut pairs);
        let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", escaped(k), escaped(v))).collect();
        let path = escaped(&relations.tables[self.table].name);
        if pairs.is_empty() { format!("/{path}") } else { format!("/{path}?{}", pairs.join("&")) }
    }

    fn select(&self, relations: &Relations) -> String {
        let table = &relations.tables[self.table];
        let alias = |alias: &Option<String>| alias.as_ref().map(|name| format!("{}:", word(name))).unwrap_or_default();
        let cast = |cast: &Option<&str>| cast.map(|type_| format!("::{type_}")).unwrap_or_default();
        let items = self.items.iter().map(|item| match item {
            Item::All => "*".to_string(),
            Item::Count { alias: name, cast: type_ } => format!("{}count(){}", alias(name), cast(type_)),
            Item::Field { field, alias: name, cast: type_, aggregate } => {
                let aggregate = aggregate.map(|(function, type_)| format!(".{function}(){}", cast(&type_)));
                format!("{}{}{}{}", alias(name), field.written(table), cast(type_), aggregate.unwrap_or_default())
            }
            Item::Embed(embed) => {
                let before = if embed.is_spread { "...".to_string() } else { alias(&embed.alias) };
                let hint = embed.spelled.1.as_ref().map(|hint| format!("!{}", word(hint))).unwrap_or_default();
                let inner = if embed.is_inner { "!inner" } else { "" };
                let inside = embed.level.select(relations);
                format!("{before}{}{hint}{inner}({inside})", word(&embed.spelled.0))
            }
        });
        items.collect::<Vec<_>>().join(",")
    }

    fn parameters(&self, relations: &Relations, path: &str, pairs: &mut Vec<(String, String)>) {
        let table = &relations.tables[self.table];
        for filter in &self.filters {
            pairs.push(match filter {
                Tree::Joint { is_any, negated, parts } => {
                    let not = if *negated { "not." } else { "" };
                    let joint = if *is_any { "or" } else { "and" };
                    (format!("{path}{not}{joint}"), self.group(table, parts))
                }
                Tree::Test { field, negated, test } => {
                    (format!("{path}{}", field.written(table)), test.written(*negated, &str::to_string))
                }
                Tree::Absent { item, negated } => {
                    let name = self.embed(*item).map(Embed::name).unwrap_or_default();
                    (format!("{path}{}", word(name)), format!("{}is.null", if *negated { "not." } else { "" }))
                }
            });
        }
        let terms: Vec<String> = self.order.iter().map(|order| self.term(relations, order)).collect();
        if !terms.is_empty() {
            pairs.push((format!("{path}order"), terms.join(",")));
        }
        pairs.extend(self.limit.map(|limit| (format!("{path}limit"), limit.to_string())));
        if self.offset > 0 {
            pairs.push((format!("{path}offset"), self.offset.to_string()));
        }
        for embed in self.embeds() {
            embed.level.parameters(relations, &format!("{path}{}.", word(embed.name())), pairs);
        }
    }

    fn group(&self, table: &Table, parts: &[Tree]) -> String {
        let parts = parts.iter().map(|part| match part {
            Tree::Joint { is_any, negated, parts } => {
                let not = if *negated { "not." } else { "" };
                format!("{not}{}{}", if *is_any { "or" } else { "and" }, self.group(table, parts))
            }
            Tree::Test { field, negated, test } => {
                format!("{}.{}", field.written(table), test.written(*negated, &element))
            }
            Tree::Absent { item, negated } => {
                let name = self.embed(*item).map(Embed::name).unwrap_or_default();
                format!("{}.{}is.null", word(name), if *negated { "not." } else { "" })
            }
        });
        format!("({})", parts.collect::<Vec<_>>().join(","))
    }

    fn term(&self, relations: &Relations, order: &Order) -> String {
        let field = match order.of.and_then(|item| self.embed(item)) {
            Some(embed) => {
                let inside = order.field.written(&relations.tables[embed.level.table]);
                format!("{}({inside})", word(embed.name()))
            }
            None => order.field.written(&relations.tables[self.table]),
        };
        let direction = order.is_descending.map_or("", |is| if is { ".desc" } else { ".asc" });
        let nulls = order.nulls_first.map_or("", |first| if first { ".nullsfirst" } else { ".nullslast" });
        format!("{field}{direction}{nulls}")
    }
}

impl Field {
    fn written(&self, table: &Table) -> String {
        let steps = self.path.iter().map(|step| {
            let arrow = if step.as_text { "->>" } else { "->" };
            format!("{arrow}{}", if step.is_index { step.key.clone() } else { word(&step.key) })
        });
        word(&table.columns[self.column].name) + &steps.collect::<String>()
    }

    /// What it is called in an answer.
    pub fn name(&self, table: &Table) -> String {
        let named = self.path.iter().rev().find(|step| !step.is_index);
        named.map_or_else(|| table.columns[self.column].name.clone(), |step| step.key.clone())
    }

    /// `None`: JSON, or text out of it.
    pub fn kind(&self, table: &Table) -> Option<usize> {
        self.path.is_empty().then(|| table.columns[self.column].kind)
    }

    pub fn type_(&self, table: &Table) -> &'static str {
        match self.path.last() {
            Some(last) if last.as_text => "text",
            Some(_) if KINDS[table.columns[self.column].kind].type_ != "json" => "jsonb",
            _ => KINDS[table.columns[self.column].kind].type_,
        }
    }
}

impl Test {
    /// `value` writes an operand where it stands.
    fn written(&self, negated: bool, value: &dyn Fn(&str) -> String) -> String {
        let not = if negated { "not." } else { "" };
        let rest = match self {
            Test::Compare(operator, operand) => format!("{operator}.{}", value(operand)),
            Test::Quantified(operator, is_any, values) => {
                let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
                let values: Vec<String> =
                    values.iter().map(|one| one.as_ref().map_or("NULL".to_string(), quoted)).collect();
                let array = format!("{{{}}}", values.join(","));
                format!("{operator}({}).{}", if *is_any { "any" } else { "all" }, value(&array))
            }
            Test::In(values) => {
                let values: Vec<String> = values.iter().map(|value| element(value)).collect();
                format!("in.({})", values.join(","))
            }
            Test::Is(what) => format!("is.{what}"),
            Test::Search(operator, language, words) => {
                let language = language.map(|name| format!("({name})")).unwrap_or_default();
                format!("{operator}{language}.{}", value(words))
            }
        };
        format!("{not}{rest}")
    }
}

/// An element of a list, in quotes but where it is certain that it needs none.
fn element(text: &str) -> String {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:+ ".contains(&b));
    if is_plain && text.trim() == text { text.into() } else { quoted(text) }
}

/// A name, in quotes but where it is certain that it needs none.
fn word(name: &str) -> String {
    const TAKEN: [&str; 9] = ["select", "order", "limit", "offset", "and", "or", "not", "count", "inner"];
    let starts = |c: char| c.is_alphabetic() || c == '_';
    let is_plain =
        name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit() || " $".contains(c));
    if is_plain && !TAKEN.contains(&name) { name.into() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn escaped(text: &str) -> String {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~".contains(b);
    text.bytes().map(|b| if is_plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
