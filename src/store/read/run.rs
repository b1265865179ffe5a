//! Answers: a page of rows, as text, and what is to be said of them, all from one snapshot.

use std::fmt::Write as _;

use serde_json::Value as Json;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Executor as _, PgPool, Postgres, Row as _};

use super::statement::{Argument, Limits, Refusal, Statement, statement};
use super::{Relation, Schema};
use crate::query::Query;
use crate::store::sql::{ident, literal, vouched};

/// Who reads, and what Postgres is told of it.
#[derive(Debug, Clone, Default)]
pub struct Reader<'r> {
    pub role: &'r str,
    /// The token's claims, as JSON.
    pub claims: &'r str,
    pub method: &'r str,
    pub path: &'r str,
    pub time_zone: Option<&'r str>,
    pub statement_timeout_ms: u64,
    /// The planner's costs that a query may have at most.
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
    connection.execute(vouched(begin(reader, &asked.schema.name))).await?;
    if let Some(limit) = reader.max_cost {
        let cost = planned(&mut connection, &statement.page, &statement.arguments).await?.cost;
        if cost > limit {
            return Err(Unanswered::TooCostly { cost, limit });
        }
    }
    let row = sqlx::query_with(vouched(whole(&statement, &asked)), bound(&statement.arguments)?)
        .fetch_one(&mut *connection)
        .await?;
    let mut answer = Answer {
        body: row.try_get::<Option<String>, _>(0)?.unwrap_or_default(),
        rows: row.try_get(1)?,
        total: row.try_get(2)?,
        parked: row.try_get::<Option<i64>, _>(3)?.unwrap_or_default(),
        token: row.try_get::<Option<&str>, _>(4)?.and_then(token),
    };
    let is_more = |total: i64| asked.count == Some(Count::Estimated) && total > asked.limits.rows as i64;
    if asked.count == Some(Count::Planned) || answer.total.is_some_and(is_more) {
        let planned = planned(&mut connection, &statement.all, &statement.arguments).await?.rows;
        answer.total = Some(planned.max(answer.total.unwrap_or(0)));
    }
    connection.execute("COMMIT").await?;
    Ok(answer)
}

/// Begins a transaction as the reader. All that is set ends with it.
fn begin(reader: &Reader<'_>, schema: &str) -> String {
    let mut sql = String::from("BEGIN READ ONLY; SELECT ");
    let timeout = reader.statement_timeout_ms.to_string();
    let settings = [
        // The role is the last: it may not be allowed to set the others.
        ("statement_timeout", timeout.as_str()),
        ("search_path", &format!("{}, public", ident(schema))),
        ("request.jwt.claims", reader.claims),
        ("request.method", reader.method),
        ("request.path", reader.path),
        ("timezone", reader.time_zone.unwrap_or("UTC")),
        ("role", reader.role),
    ];
    for (at, (name, value)) in settings.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let _ = write!(sql, "{comma}set_config('{name}', {}, true)", literal(value));
    }
    sql
}

fn whole(statement: &Statement, asked: &Asked<'_>) -> String {
    let strip = |stripped: bool, json: &str| match stripped {
        true => format!("json_strip_nulls({json})::text"),
        false => format!("{json}::text"),
    };
    let body = match asked.form {
        Form::Rows { stripped } => strip(stripped, "coalesce(json_agg(q), '[]')"),
        Form::Row { stripped } => strip(stripped, "(json_agg(q)->0)"),
        Form::Csv => format!(
            "{} || coalesce(string_agg(E'\\n' || substring(q::text, 2, length(q::text) - 2), ''), '')",
            literal(&statement.columns.join(","))
        ),
    };
    let total = match asked.count {
        Some(Count::Exact) => format!("(SELECT count(*) FROM ({}) AS a)", statement.all),
        Some(Count::Estimated) => {
            format!("(SELECT count(*) FROM ({} LIMIT {}) AS a)", statement.all, asked.limits.rows.saturating_add(1))
        }
        Some(Count::Planned) | None => "NULL::bigint".into(),
    };
    let views: Vec<String> = statement.views.iter().map(|view| literal(view)).collect();
    let (parked, token) = match views.first() {
        None => ("0::bigint".into(), "NULL::text".into()),
        Some(first) => {
            let views = views.join(", ");
            let token = format!(
                "(SELECT json_build_array(string_agg(t.at, ';' ORDER BY t.topic), min(t.number),
                    extract(epoch FROM clock_timestamp() - min(t.since)), bool_and(t.known))::text FROM (
                    SELECT r.topic, r.topic || '/' || string_agg(r.partition || ':' || r.next_offset, '+' ORDER BY r.partition) AS at,
                        min(r.caught_up_at) AS since, bool_and(r.caught_up_at IS NOT NULL) AS known,
                        min(r.number) FILTER (WHERE r.view = {first}) AS number
                    FROM projector.reflected r WHERE r.view IN ({views}) GROUP BY r.topic) AS t)"
            );
            (format!("projector.parked_sequences({first})"), token)
        }
    };
    format!("SELECT {body}, count(*), {total}, {parked}, {token} FROM ({}) AS q", statement.page)
}

fn token(json: &str) -> Option<Token> {
    let json: Json = serde_json::from_str(json).ok()?;
    let known = json[3].as_bool().unwrap_or(false);
    Some(Token {
        text: json[0].as_str()?.to_string(),
        generation: json[1].as_i64().unwrap_or_default() as i32,
        stale_s: json[2].as_f64().filter(|_| known).map(|seconds| seconds.max(0.0)),
    })
}

fn bound(arguments: &[Argument]) -> Result<PgArguments, sqlx::Error> {
    let mut bound = PgArguments::default();
    for argument in arguments {
        match argument {
            Argument::Text(text) => bound.add(text),
            Argument::Texts(texts) => bound.add(texts),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

/// What the planner thinks of a query.
struct Planned {
    rows: i64,
    cost: f64,
}

async fn planned(
    connection: &mut PoolConnection<Postgres>,
    sql: &str,
    arguments: &[Argument],
) -> Result<Planned, sqlx::Error> {
    let explain = format!("EXPLAIN (FORMAT JSON) {sql}");
    let row = sqlx::query_with(vouched(explain), bound(arguments)?).fetch_one(&mut **connection).await?;
    // The type is `json`, whose form on the wire is its text.
    let plan: Json = serde_json::from_str(row.try_get_unchecked(0)?).unwrap_or_default();
    let top = &plan[0]["Plan"];
    Ok(Planned {
        rows: top["Plan Rows"].as_f64().unwrap_or_default() as i64,
        cost: top["Total Cost"].as_f64().unwrap_or_default(),
    })
}
