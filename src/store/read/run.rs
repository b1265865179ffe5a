//! Answers: a page of rows, as text, and what is to be said of them, all from one snapshot.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value as Json;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{PgPool, Row as _};

use super::session::Session;
use super::statement::{Argument, Limits, Refusal, Statement, statement};
use super::{Relation, Schema};
use crate::query::Query;
use crate::store::sql::literal;

/// Who reads, and what Postgres is told of it.
#[derive(Debug, Clone, Default)]
pub struct Reader<'r> {
    pub role: &'r str,
    /// The token's claims, as JSON.
    pub claims: &'r str,
    pub method: &'r str,
    pub path: &'r str,
    pub time_zone: Option<&'r str>,
    /// If it is another than the connection has.
    pub statement_timeout_ms: Option<u64>,
    /// The planner's costs that a query may have at most, with those of counting its rows.
    pub max_cost: Option<f64>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Rows {
        stripped: bool,
    },
    /// The one row.
    Row {
        stripped: bool,
    },
    Csv,
}

/// How many rows there are without limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Exact,
    /// As the planner thinks.
    Planned,
    /// Exact up to the limit of rows, and then as the planner thinks.
    Estimated,
}

/// What is read.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub schema: &'a Schema,
    pub relation: &'a Relation,
    pub query: &'a Query,
    pub limits: Limits,
    pub form: Form,
    pub count: Option<Count>,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Answer {
    pub body: String,
    /// Rows of the page.
    pub rows: i64,
    /// All rows that the filters let through, if that was asked.
    pub total: Option<i64>,
    /// Sequences parked of the relation's projection.
    pub parked: i64,
    pub token: Option<Token>,
}

/// Which events an answer reflects.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// `topic/partition:offset+partition:offset;topic/…`: the next offset of each partition.
    pub text: String,
    /// The generation's number.
    pub generation: i32,
    /// Seconds since the answer was complete for certain; `None` if that is not known.
    pub stale_s: Option<f64>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    Refused(Refusal),
    /// What the planner thinks the query costs, and what is allowed.
    TooCostly {
        cost: f64,
        limit: f64,
    },
    Postgres(sqlx::Error),
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Unanswered {
        Unanswered::Refused(refusal)
    }
}

impl From<sqlx::Error> for Unanswered {
    fn from(error: sqlx::Error) -> Unanswered {
        Unanswered::Postgres(error)
    }
}

/// Answers a query, as its reader may see the rows.
///
/// # Errors
/// What of the query cannot be answered, or what Postgres says.
pub async fn answer(pool: &PgPool, reader: &Reader<'_>, asked: Asked<'_>) -> Result<Answer, Unanswered> {
    let statement = statement(asked.schema, asked.relation, asked.query, asked.limits)?;
    let mut connection = pool.acquire().await?;
    let session = Session::new(reader, &asked.schema.name);
    if let Some(limit) = reader.max_cost {
        let cost = planned(&session, &mut connection, &costs(&statement, &asked), &statement.arguments).await?.cost;
        if cost > limit {
            return Err(Unanswered::TooCostly { cost, limit });
        }
    }
    let row = session.row(&mut connection, &whole(&statement, &asked), &statement.arguments).await?;
    let mut answer = Answer {
        body: row.try_get::<Option<String>, _>(0)?.unwrap_or_default(),
        rows: row.try_get(1)?,
        total: row.try_get(2)?,
        ..Answer::default()
    };
    let states: Vec<ViewState> =
        (3..row.len()).filter_map(|at| state(&row, at).transpose()).collect::<Result<_, _>>()?;
    answer.parked = states.first().map_or(0, |state| state.parked);
    answer.token = token(&states);
    let is_more = |total: i64| asked.count == Some(Count::Estimated) && total > asked.limits.rows as i64;
    if asked.count == Some(Count::Planned) || answer.total.is_some_and(is_more) {
        let planned = planned(&session, &mut connection, &statement.all, &statement.arguments).await?.rows;
        answer.total = Some(planned.max(answer.total.unwrap_or(0)));
    }
    Ok(answer)
}

/// What has a price: the page, and counting its rows without limits.
fn costs(statement: &Statement, asked: &Asked<'_>) -> String {
    match total(statement, asked) {
        Some(total) => format!("SELECT q.*, {total} FROM ({}) AS q", statement.page),
        None => statement.page.clone(),
    }
}

/// Counts all rows that the filters let through, if they are to be counted one by one.
fn total(statement: &Statement, asked: &Asked<'_>) -> Option<String> {
    match asked.count? {
        Count::Exact => Some(format!("(SELECT count(*) FROM ({}) AS a)", statement.all)),
        Count::Estimated => {
            let most = asked.limits.rows.saturating_add(1);
            Some(format!("(SELECT count(*) FROM ({} LIMIT {most}) AS a)", statement.all))
        }
        Count::Planned => None,
    }
}

fn whole(statement: &Statement, asked: &Asked<'_>) -> String {
    let strip = |stripped: bool, json: &str| match stripped {
        true => format!("json_strip_nulls({json})::text"),
        false => format!("{json}::text"),
    };
    let body = match asked.form {
        Form::Rows { stripped } => strip(stripped, "coalesce(json_agg(q.*), '[]')"),
        Form::Row { stripped } => strip(stripped, "(json_agg(q.*)->0)"),
        Form::Csv => format!(
            "{} || coalesce(string_agg(E'\\n' || substring((q.*)::text, 2, length((q.*)::text) - 2), ''), '')",
            literal(&statement.columns.join(","))
        ),
    };
    let total = total(statement, asked).unwrap_or_else(|| "NULL::bigint".into());
    let state = |view: &String| {
        format!(", (SELECT v.state::text FROM projector.view_states v WHERE v.view = {})", literal(view))
    };
    let states: String = statement.views.iter().map(state).collect();
    format!("SELECT {body}, count(*), {total}{states} FROM ({}) AS q", statement.page)
}

/// What `projector.view_states` says of a view, in its order.
#[derive(Debug, Deserialize)]
struct ViewState {
    generation: i32,
    parked: i64,
    topics: Option<Vec<String>>,
    partitions: Option<Vec<i32>>,
    offsets: Option<Vec<i64>>,
    /// Unknown where nothing was read yet, too.
    stale_s: Option<f64>,
}

/// The state of a view, if it is one of a projection still.
fn state(row: &PgRow, at: usize) -> Result<Option<ViewState>, sqlx::Error> {
    let json: Option<&str> = row.try_get(at)?;
    json.map(|json| serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))).transpose()
}

/// What is reflected of several views; the generation is that of the first.
fn token(states: &[ViewState]) -> Option<Token> {
    let generation = states.first()?.generation;
    let mut places: Vec<(&str, i32, i64)> = Vec::new();
    let mut stale_s = Some(0.0);
    for state in states {
        let (topics, numbers) = (state.topics.iter().flatten(), state.partitions.iter().flatten());
        let of_view = topics.zip(numbers).zip(state.offsets.iter().flatten());
        places.extend(of_view.map(|((topic, number), next)| (topic.as_str(), *number, *next)));
        stale_s = stale_s.zip(state.stale_s).map(|(one, other): (f64, f64)| one.max(other));
    }
    if places.is_empty() {
        return None;
    }
    places.sort_unstable();
    // Views of one projection have read the same.
    places.dedup();
    let mut text = String::new();
    for (at, (topic, number, next)) in places.iter().enumerate() {
        let _ = match at.checked_sub(1).map(|before| &places[before].0) {
            Some(before) if before == topic => write!(text, "+{number}:{next}"),
            Some(_) => write!(text, ";{topic}/{number}:{next}"),
            None => write!(text, "{topic}/{number}:{next}"),
        };
    }
    Some(Token { text, generation, stale_s })
}

/// What the planner thinks of a query.
struct Planned {
    rows: i64,
    cost: f64,
}

async fn planned(
    session: &Session,
    connection: &mut PgConnection,
    sql: &str,
    arguments: &[Argument],
) -> Result<Planned, Unanswered> {
    let row = session.plan(connection, sql, arguments).await?;
    // The type is `json`, whose form on the wire is its text.
    let plan: Json = serde_json::from_str(row.try_get_unchecked(0)?).unwrap_or_default();
    let top = &plan[0]["Plan"];
    Ok(Planned {
        rows: top["Plan Rows"].as_f64().unwrap_or_default() as i64,
        cost: top["Total Cost"].as_f64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(states: &[&str]) -> Option<(String, i32, Option<f64>)> {
        let states: Vec<ViewState> = states.iter().map(|json| serde_json::from_str(json).unwrap()).collect();
        token(&states).map(|token| (token.text, token.generation, token.stale_s))
    }

    #[test]
    fn a_token_names_each_partition_once() {
        let orders = r#"[2, 0, ["shop", "crm", "shop"], [1, 0, 0], [7, 4, 9], 0.5]"#;
        let customers = r#"[3, 1, ["crm"], [0], [4], 1.25]"#;
        assert_eq!(told(&[orders]), Some(("crm/0:4;shop/0:9+1:7".into(), 2, Some(0.5))));
        assert_eq!(told(&[orders, customers]), Some(("crm/0:4;shop/0:9+1:7".into(), 2, Some(1.25))));
    }

    #[test]
    fn what_has_not_begun_is_not_known_to_be_fresh() {
        let unbegun = "[1, 0, null, null, null, null]";
        assert_eq!(told(&[unbegun]), None);
        assert_eq!(told(&[]), None);
        let begun = r#"[1, 0, ["shop"], [0], [5], 0.1]"#;
        assert_eq!(told(&[begun, unbegun]), Some(("shop/0:5".into(), 1, None)));
    }
}
