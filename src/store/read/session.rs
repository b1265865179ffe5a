//! One message to Postgres for an answer: who reads, and a statement that the connection knows already.
//!
//! The statements of one simple-query message are one transaction
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT>): the role and all that is
//! set for it end with the message, whatever becomes of it, so that there is nothing to begin, to commit or to take back.
//! What is read is prepared under a name that follows from its text. A connection that does not know the name says so,
//! and is told the text.

use std::fmt::Write as _;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnection, PgRow};
use xxhash_rust::xxh3::xxh3_128;

use super::Unanswered;
use super::run::Reader;
use super::statement::{Argument, Refusal};
use crate::store::sql::{literal, vouched};

/// Statements that a connection keeps prepared at most.
const MOST: usize = 200;

/// Those who read a schema: what comes before each statement of theirs.
pub(super) struct Session {
    who: String,
    /// Names are of a role and a schema: what a text means depends on both.
    scope: String,
}

impl Session {
    pub fn new(reader: &Reader<'_>, schema: &str) -> Session {
        let mut who =
            format!("SET LOCAL transaction_read_only = on; SET LOCAL search_path = {}, public", literal(schema));
        let mut set = |name: &str, value: &str| _ = write!(who, "; SET LOCAL {name} = {}", literal(value));
        if let Some(timeout_ms) = reader.statement_timeout_ms {
            set("statement_timeout", &timeout_ms.to_string());
        }
        if let Some(time_zone) = reader.time_zone {
            set("timezone", time_zone);
        }
        set("request.jwt.claims", reader.claims);
        set("request.method", reader.method);
        set("request.path", reader.path);
        // The last: it may not be allowed to set the others.
        set("role", reader.role);
        Session { who, scope: format!("{}\0{schema}\0", reader.role) }
    }

    /// The one row of a statement, its values in the form of text.
    ///
    /// # Errors
    /// What Postgres says, or that no text can have one of the values.
    pub async fn row(
        &self,
        connection: &mut PgConnection,
        sql: &str,
        arguments: &[Argument],
    ) -> Result<PgRow, Unanswered> {
        self.last_row(connection, "", sql, arguments).await
    }

    /// What the planner thinks of a statement, as JSON.
    ///
    /// # Errors
    /// The same.
    pub async fn plan(
        &self,
        connection: &mut PgConnection,
        sql: &str,
        arguments: &[Argument],
    ) -> Result<PgRow, Unanswered> {
        self.last_row(connection, "EXPLAIN (FORMAT JSON) ", sql, arguments).await
    }

    async fn last_row(
        &self,
        connection: &mut PgConnection,
        how: &str,
        sql: &str,
        arguments: &[Argument],
    ) -> Result<PgRow, Unanswered> {
        let who = &self.who;
        let name = format!("read_{:032x}", xxh3_128(format!("{}{sql}", self.scope).as_bytes()));
        let execute = format!("{how}EXECUTE {name}{}", values(arguments));
        match send(connection, format!("{who}; {execute}")).await {
            Err(Unanswered::Postgres(error)) if is_not_known(&error) => {
                let types = types(arguments);
                send(connection, format!("{}; {who}; PREPARE {name}{types} AS {sql}; {execute}", make_room())).await
            }
            answered => answered,
        }
    }
}

async fn send(connection: &mut PgConnection, message: String) -> Result<PgRow, Unanswered> {
    // The message would end there, and its rest would be another.
    if message.contains('\0') {
        return Err(Unanswered::Refused(Refusal {
            code: "22021",
            message: "invalid byte sequence for encoding \"UTF8\": 0x00".into(),
            details: None,
            hint: None,
        }));
    }
    let mut rows = sqlx::raw_sql(vouched(message)).fetch_all(connection).await?;
    rows.pop().ok_or(Unanswered::Postgres(sqlx::Error::RowNotFound))
}

/// Whether a connection does not know the name of a statement.
fn is_not_known(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("26000")
}

/// Lets a connection forget what it knows, when that is much.
fn make_room() -> String {
    format!(
        "DO $do$ DECLARE known text; BEGIN
             IF (SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE name LIKE 'read\\_%') >= {MOST} THEN
                 FOR known IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE name LIKE 'read\\_%' LOOP
                     EXECUTE 'DEALLOCATE ' || known;
                 END LOOP;
             END IF;
         END $do$"
    )
}

fn types(arguments: &[Argument]) -> String {
    let type_ = |argument: &Argument| match argument {
        Argument::Text(_) => "text",
        Argument::Texts(_) => "text[]",
    };
    in_parentheses(arguments.iter().map(|argument| type_(argument).to_string()))
}

fn values(arguments: &[Argument]) -> String {
    let value = |argument: &Argument| match argument {
        Argument::Text(text) => literal(text),
        Argument::Texts(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| text.as_deref().map_or("NULL".into(), literal)).collect();
            format!("ARRAY[{}]::text[]", texts.join(", "))
        }
    };
    in_parentheses(arguments.iter().map(value))
}

fn in_parentheses(parts: impl Iterator<Item = String>) -> String {
    let mut list = String::new();
    for part in parts {
        let _ = write!(list, "{}{part}", if list.is_empty() { "" } else { ", " });
    }
    if list.is_empty() { list } else { format!(" ({list})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        let texts = Argument::Texts(vec![Some("it's".into()), None, Some("\\".into())]);
        let arguments = [Argument::Text("'; DROP".into()), texts];
        assert_eq!(values(&arguments), " ('''; DROP', ARRAY['it''s', NULL, E'\\\\']::text[])");
        assert_eq!(types(&arguments), " (text, text[])");
        assert_eq!(values(&[]), "");
    }
}
