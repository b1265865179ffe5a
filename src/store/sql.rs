//! The one place where identifiers are quoted and SQL text is vouched for.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// An identifier, quoted as Postgres does it.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal, for statements that take no parameters.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Vouches that a statement was built from [`ident`], [`literal`], compiled types and fixed text alone; every value is
/// a parameter.
pub fn vouched(sql: String) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
