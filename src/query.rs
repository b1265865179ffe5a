//! PostgREST's grammar for reading, as a tree: <https://docs.postgrest.org/en/v13/references/api/tables_views.html>.
//!
//! The parser knows no SQL and no columns; what it cannot read it refuses with PostgREST's own code.

use percent_encoding::percent_decode_str;

/// A read of one relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Columns, `*` standing for all; all if empty.
    pub select: Vec<String>,
    /// All have to hold.
    pub filters: Vec<Filter>,
    pub order: Vec<Order>,
    pub limit: Option<u64>,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub column: String,
    pub negated: bool,
    pub test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    Compare(Comparison, String),
    In(Vec<String>),
    Is(Is),
    /// `*` stands for any text.
    Like {
        pattern: String,
        ignore_case: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub column: String,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

/// A query string that cannot be read: what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    pub message: String,
    pub hint: &'static str,
}

const OPERATORS: &str = "the operators are eq, neq, gt, gte, lt, lte, in, is, like and ilike, each also after `not.`";

impl Query {
    /// Reads a raw query string.
    ///
    /// # Errors
    /// The first parameter that cannot be read.
    pub fn parse(raw: &str) -> Result<Query, Unreadable> {
        let mut query = Query::default();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            match name.as_str() {
                "select" => query.select = select(&value)?,
                "order" => query.order = value.split(',').map(order).collect::<Result<_, _>>()?,
                "limit" => query.limit = Some(number("limit", &value)?),
                "offset" => query.offset = number("offset", &value)?,
                _ => query.filters.push(filter(name, &value)?),
            }
        }
        Ok(query)
    }
}

fn unreadable(message: String, hint: &'static str) -> Unreadable {
    Unreadable { message, hint }
}

fn decoded(raw: &str) -> Result<String, Unreadable> {
    let raw = raw.replace('+', " ");
    let text = percent_decode_str(&raw).decode_utf8();
    let text = text.map_err(|_| unreadable("the query string is not UTF-8".into(), "percent-encode it as UTF-8"))?;
    if text.contains('\0') {
        return Err(unreadable("the query string has a NUL character".into(), "Postgres stores none"));
    }
    Ok(text.into_owned())
}

fn number(name: &str, text: &str) -> Result<u64, Unreadable> {
    text.parse().map_err(|_| unreadable(format!("{name}={text} is not a whole number"), "for example limit=10"))
}

fn select(text: &str) -> Result<Vec<String>, Unreadable> {
    let hint = "a list of columns such as select=id,name, or select=*";
    let columns: Vec<String> = split(text)?.into_iter().map(|column| column.trim().to_string()).collect();
    if columns.iter().all(|column| column == "*") {
        return Ok(Vec::new());
    }
    let later = |column: &&String| column.contains(['(', ':', '>']);
    match columns.iter().find(|column| column.is_empty()).or(columns.iter().find(later)) {
        Some(column) => Err(unreadable(format!("select={text}: `{column}` is not a column"), hint)),
        None => Ok(columns),
    }
}

fn order(text: &str) -> Result<Order, Unreadable> {
    let mut parts = text.split('.');
    let column = parts.next().unwrap_or_default().to_string();
    let mut order = Order { column, descending: false, nulls_first: None };
    for part in parts {
        match part {
            "asc" => order.descending = false,
            "desc" => order.descending = true,
            "nullsfirst" => order.nulls_first = Some(true),
            "nullslast" => order.nulls_first = Some(false),
            _ => {
                let hint = "for example order=placed_at.desc.nullslast,id";
                return Err(unreadable(format!("order={text}: `{part}` is not a direction"), hint));
            }
        }
    }
    if order.column.is_empty() {
        return Err(unreadable("order names no column".into(), "for example order=placed_at.desc"));
    }
    Ok(order)
}

fn filter(column: String, value: &str) -> Result<Filter, Unreadable> {
    let (negated, rest) = match value.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let Some((operator, operand)) = rest.split_once('.') else {
        return Err(unreadable(format!("{column}={value} has no operator"), OPERATORS));
    };
    let compare = |comparison| Test::Compare(comparison, operand.to_string());
    let test = match operator {
        "eq" => compare(Comparison::Equal),
        "neq" => compare(Comparison::NotEqual),
        "gt" => compare(Comparison::Greater),
        "gte" => compare(Comparison::GreaterOrEqual),
        "lt" => compare(Comparison::Less),
        "lte" => compare(Comparison::LessOrEqual),
        "like" => Test::Like { pattern: operand.into(), ignore_case: false },
        "ilike" => Test::Like { pattern: operand.into(), ignore_case: true },
        "is" => Test::Is(match operand.to_ascii_lowercase().as_str() {
            "null" => Is::Null,
            "not_null" => Is::NotNull,
            "true" => Is::True,
            "false" => Is::False,
            "unknown" => Is::Unknown,
            _ => {
                let hint = "is takes null, not_null, true, false or unknown";
                return Err(unreadable(format!("{column}=is.{operand} cannot be read"), hint));
            }
        }),
        "in" => {
            let list = operand.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
            let Some(list) = list else {
                let hint = "for example status=in.(open,paid), with \"quotes\" around values that have commas";
                return Err(unreadable(format!("{column}=in.{operand} is not a list"), hint));
            };
            Test::In(if list.is_empty() { Vec::new() } else { split(list)? })
        }
        _ => return Err(unreadable(format!("{column}={value}: `{operator}` is not an operator"), OPERATORS)),
    };
    Ok(Filter { column, negated, test })
}

/// Splits at commas outside of double quotes; inside them `\` takes the next character as it is.
fn split(list: &str) -> Result<Vec<String>, Unreadable> {
    let mut items = vec![String::new()];
    let mut quoted = false;
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let item = items.last_mut().expect("there is always one");
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => item.extend(chars.next()),
            ',' if !quoted => items.push(String::new()),
            c => item.push(c),
        }
    }
    if quoted {
        return Err(unreadable(format!("a quote in ({list}) is not closed"), "double it up: \"a,b\""));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_grammar() {
        let query = Query::parse("select=id,total&total=gte.10.5&status=not.in.(open,\"a,b\")&gone=is.null&name=ilike.*ann%25&order=total.desc.nullslast,id&limit=5&offset=10").unwrap();
        assert_eq!(query.select, ["id", "total"]);
        assert_eq!(query.filters[0].test, Test::Compare(Comparison::GreaterOrEqual, "10.5".into()));
        let list = Filter { column: "status".into(), negated: true, test: Test::In(vec!["open".into(), "a,b".into()]) };
        assert_eq!(query.filters[1], list);
        assert_eq!(query.filters[3].test, Test::Like { pattern: "*ann%".into(), ignore_case: true });
        assert_eq!(query.order[0], Order { column: "total".into(), descending: true, nulls_first: Some(false) });
        assert_eq!((query.limit, query.offset), (Some(5), 10));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for bad in [
            "a=b",
            "a=eqq.1",
            "limit=x",
            "order=",
            "order=a.down",
            "a=in.1",
            "a=in.(\"x)",
            "a=is.maybe",
            "select=a,,b",
            "a=eq.%ff",
        ] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
