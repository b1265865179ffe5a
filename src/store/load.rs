//! Loading: rows that nobody has written before, by `COPY`, which costs Postgres a fraction of what an upsert does.
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>
//!
//! Into a generation that is being built most rows are new. Whether they are is found out by trying, behind a savepoint:
//! a row that is there already makes `COPY` fail, and the chunk is written as all others are. Rows that other rows follow
//! from, or that are filled from others, are not loaded.

use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use super::error::StoreError;
use super::sql::ident;
use super::tables::{PRESENCE, table_name, version_column};
use super::write::Target;
use crate::batch::Key;
use crate::patch::{Patch, Row};
use crate::plan::Column;
use crate::value::Value;

/// What came of loading a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loaded {
    Yes,
    /// A row is there already, and nothing was written.
    NotNew,
    /// A patch does not apply to a new row. Whether there is one, the other ways find out; nothing was written.
    Unapplied,
}

impl Target<'_> {
    /// Loads rows as patches make them of nothing.
    ///
    /// # Errors
    /// What Postgres says.
    pub(super) async fn load_new(
        &self,
        connection: &mut PgConnection,
        chunk: &[(Key, Patch)],
    ) -> Result<Loaded, StoreError> {
        let columns: Vec<(usize, &Column)> =
            self.table.columns.iter().enumerate().filter(|(_, column)| !column.derived).collect();
        let slots = 0..self.table.version_slots;
        let mut text = String::new();
        for (key, patch) in chunk {
            let mut row = Row::blank(&self.table.shapes);
            if patch.apply(key, &mut row, &self.table.shapes).is_err() {
                return Ok(Loaded::Unapplied);
            }
            let values = key.iter().chain(columns.iter().map(|(at, _)| &row.values[*at]));
            values.for_each(|value| push_field(&mut text, value));
            for slot in slots.clone() {
                let bytes = row.versions[usize::from(slot)]
                    .as_ref()
                    .map(|version| format!("\\\\x{}\t", hex::encode(version.as_bytes())));
                text.push_str(bytes.as_deref().unwrap_or("\\N\t"));
            }
            if self.table.presence {
                text += &format!("{}\t", row.present as i32);
            }
            text.pop();
            text.push('\n');
        }
        let mut names = self.key_names("");
        names.extend(columns.iter().map(|(_, column)| ident(&column.name)));
        names.extend(slots.map(|slot| ident(&version_column(slot))));
        names.extend(self.table.presence.then(|| PRESENCE.to_string()));
        let statement = format!("COPY {} ({}) FROM STDIN", table_name(self.schema, self.table), names.join(", "));
        connection.execute("SAVEPOINT load").await?;
        match copy(connection, &statement, &text).await {
            Ok(()) => {
                connection.execute("RELEASE SAVEPOINT load").await?;
                Ok(Loaded::Yes)
            }
            Err(error) if error.as_database_error().is_some_and(|error| error.is_unique_violation()) => {
                connection.execute("ROLLBACK TO SAVEPOINT load").await?;
                Ok(Loaded::NotNew)
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn copy(connection: &mut PgConnection, statement: &str, text: &str) -> Result<(), sqlx::Error> {
    let mut copy = connection.copy_in_raw(statement).await?;
    copy.send(text.as_bytes()).await?;
    copy.finish().await.map(drop)
}

/// A value and a tab, as the text format has them.
fn push_field(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("\\N"),
        Value::Text(plain) | Value::Digits(plain) => push_escaped(text, plain),
        Value::Json(raw) => push_escaped(text, raw),
        other => push_escaped(text, &other.to_sql_text().unwrap_or_default()),
    }
    text.push('\t');
}

fn push_escaped(text: &mut String, plain: &str) {
    let mut rest = plain;
    while let Some(at) = rest.find(['\\', '\t', '\n', '\r']) {
        text.push_str(&rest[..at]);
        text.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            _ => "\\r",
        });
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_reads_otherwise_is_escaped() {
        let mut text = String::new();
        for value in [Value::text("a\tb\\N\nc\r"), Value::Null, Value::Int(-3), Value::text("")] {
            push_field(&mut text, &value);
        }
        assert_eq!(text, "a\\tb\\\\N\\nc\\r\t\\N\t-3\t\t");
    }
}
