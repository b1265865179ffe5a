//! The views that readers see, moved from one generation's tables to another's with everything people attached to them.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, Row};

use super::catalog::collision;
use super::commit::Generation;
use super::companion;
use super::error::StoreError;
use super::generations::record_served;
use super::sql::{ident, literal, vouched};
use super::tables::{view_comments, view_query};
use crate::plan::{Plan, Table};

/// Why something cannot be done, for people.
type Refusal = String;

/// Lets the views of a plan show another generation.
///
/// # Errors
/// What Postgres says. Inside, why the views cannot be swapped: what stands on them does not allow it.
pub(super) async fn swap(
    connection: &mut PgConnection,
    plan: &Plan,
    old: &Generation,
    new: &Generation,
    served_schema: &str,
) -> Result<Result<(), Refusal>, StoreError> {
    let served: Vec<String> =
        sqlx::query_scalar("SELECT view FROM projector.served WHERE generation_id = $1 ORDER BY view")
            .bind(old.id)
            .fetch_all(&mut *connection)
            .await?;
    let companions: Vec<String> = sqlx::query_scalar("SELECT view FROM projector.companions WHERE generation_id = $1")
        .bind(old.id)
        .fetch_all(&mut *connection)
        .await?;
    let mut others = plan.clone();
    others.tables.retain(|table| !served.contains(&table.name));
    if let Some(reason) = collision(connection, &others, served_schema).await? {
        return Ok(Err(reason));
    }
    let mut attached = Vec::new();
    for view in served.iter().chain(&companions) {
        attached.extend(Attached::of(connection, served_schema, view).await?);
    }
    if let Err(error) = companion::drop_made(connection, old.id, served_schema).await {
        return refusal(error);
    }
    for table in plan.tables.iter().filter(|table| table.served) {
        if let Err(reason) = show(connection, plan, table, new, served_schema).await? {
            return Ok(Err(reason));
        }
    }
    for view in served.iter().filter(|view| !plan.tables.iter().any(|table| table.served && table.name == **view)) {
        let drop = format!("DROP VIEW IF EXISTS {}.{}", ident(served_schema), ident(view));
        if let Err(error) = connection.execute(vouched(drop)).await {
            return refusal(error.into());
        }
    }
    sqlx::query("DELETE FROM projector.served WHERE generation_id = $1").bind(old.id).execute(&mut *connection).await?;
    record_served(connection, plan, new).await?;
    companion::make(connection, plan, new.id, served_schema).await?;
    for attached in attached {
        attached.restore(connection).await?;
    }
    if old.id != new.id {
        copy_policies(connection, plan, old, new).await?;
    }
    Ok(Ok(()))
}

/// Takes the views of a generation away.
///
/// # Errors
/// What Postgres says, for example that something a person made stands on one of them.
pub(super) async fn hide(
    connection: &mut PgConnection,
    generation: &Generation,
    served_schema: &str,
) -> Result<(), StoreError> {
    companion::drop_made(connection, generation.id, served_schema).await?;
    let views: Vec<String> = sqlx::query_scalar("SELECT view FROM projector.served WHERE generation_id = $1")
        .bind(generation.id)
        .fetch_all(&mut *connection)
        .await?;
    for view in views {
        let drop = format!("DROP VIEW IF EXISTS {}.{}", ident(served_schema), ident(&view));
        connection.execute(vouched(drop)).await?;
    }
    Ok(())
}

/// What Postgres says of dependants is for people; everything else is an error.
fn refusal(error: StoreError) -> Result<Result<(), Refusal>, StoreError> {
    let cause = match &error {
        StoreError::Refused { cause, .. } => cause.as_database_error(),
        _ => None,
    };
    let Some(cause) = cause.filter(|cause| cause.code().as_deref() == Some("2BP01")) else { return Err(error) };
    let detail = cause.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|error| error.detail());
    Ok(Err(format!("{}: {}", cause.message(), detail.unwrap_or_default())))
}

/// Lets one view show another generation, with what stands on it.
async fn show(
    connection: &mut PgConnection,
    plan: &Plan,
    table: &Table,
    new: &Generation,
    served_schema: &str,
) -> Result<Result<(), Refusal>, StoreError> {
    let name = format!("{}.{}", ident(served_schema), ident(&table.name));
    let query = view_query(table, &new.schema);
    let mut attempt = connection.begin().await?;
    let replaced = attempt.execute(vouched(format!("CREATE OR REPLACE VIEW {name} AS {query}"))).await;
    match replaced {
        Ok(_) => attempt.commit().await?,
        // Columns are gone, or of another type or in another order.
        Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P16") => {
            attempt.rollback().await?;
            if let Err(reason) = make_anew(connection, served_schema, &table.name, &query).await? {
                return Ok(Err(reason));
            }
        }
        Err(error) => return Err(error.into()),
    }
    for statement in view_comments(plan, table, served_schema) {
        connection.execute(vouched(statement)).await?;
    }
    Ok(Ok(()))
}

/// A relation whose query reads a view, by itself or by way of others.
pub(super) struct Standing {
    pub schema: String,
    pub name: String,
    query: String,
    /// A plain view, which can be made again from its query.
    is_view: bool,
}

/// What stands on a view, the nearest first.
///
/// # Errors
/// What Postgres says.
pub(super) async fn standing_on(
    connection: &mut PgConnection,
    schema: &str,
    view: &str,
) -> Result<Vec<Standing>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE standing (oid, depth) AS (
             SELECT to_regclass($1)::oid, 0
             UNION
             SELECT r.ev_class, s.depth + 1 FROM standing s
             JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
                 AND d.classid = 'pg_rewrite'::regclass
             JOIN pg_rewrite r ON r.oid = d.objid WHERE r.ev_class <> s.oid AND s.depth < 100
         )
         SELECT n.nspname::text, c.relname::text, pg_get_viewdef(c.oid), c.relkind = 'v'
         FROM standing s JOIN pg_class c ON c.oid = s.oid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE s.depth > 0 GROUP BY 1, 2, 3, 4 ORDER BY max(s.depth)",
    )
    .bind(format!("{}.{}", ident(schema), ident(view)))
    .fetch_all(connection)
    .await?;
    let standing = |row: &PgRow| {
        let (schema, name) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Standing { schema, name, query: row.try_get(2)?, is_view: row.try_get(3)? })
    };
    rows.iter().map(standing).collect()
}

/// A view that stands on the one that is made anew.
struct Dependant {
    schema: String,
    name: String,
    query: String,
    attached: Option<Attached>,
}

async fn make_anew(
    connection: &mut PgConnection,
    served_schema: &str,
    view: &str,
    query: &str,
) -> Result<Result<(), Refusal>, StoreError> {
    let name = format!("{}.{}", ident(served_schema), ident(view));
    let mut dependants = Vec::new();
    for Standing { schema, name: other, query, is_view } in standing_on(connection, served_schema, view).await? {
        if !is_view {
            return Ok(Err(format!(
                "{schema}.{other} stands on {served_schema}.{view}, whose columns change, and is no plain view: drop it, promote, \
                 and make it again"
            )));
        }
        let attached = Attached::of(connection, &schema, &other).await?;
        dependants.push(Dependant { schema, name: other, query, attached });
    }
    for dependant in dependants.iter().rev() {
        let drop = format!("DROP VIEW {}.{}", ident(&dependant.schema), ident(&dependant.name));
        if let Err(error) = connection.execute(vouched(drop)).await {
            return refusal(error.into());
        }
    }
    if let Err(error) = connection.execute(vouched(format!("DROP VIEW {name}"))).await {
        return refusal(error.into());
    }
    connection.execute(vouched(format!("CREATE VIEW {name} AS {query}"))).await?;
    for Dependant { schema, name: other, query, attached } in dependants {
        let create = format!("CREATE VIEW {}.{} AS {query}", ident(&schema), ident(&other));
        if let Err(error) = connection.execute(vouched(create)).await {
            let why = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_string());
            return Ok(Err(format!(
                "{schema}.{other} stands on {served_schema}.{view} and does not fit its new columns: {why}. Change or drop it first"
            )));
        }
        if let Some(attached) = attached {
            attached.restore(connection).await?;
        }
    }
    Ok(Ok(()))
}

/// What people attached to a view: an owner, options, grants, comments.
struct Attached {
    schema: String,
    view: String,
    owner: Option<String>,
    options: Vec<String>,
    /// What is granted to whom: before and after `ON …`; of a column, its name.
    grants: Vec<(String, String, Option<String>)>,
    /// Of the view, or of a column.
    comments: Vec<(Option<String>, String)>,
}

impl Attached {
    async fn of(connection: &mut PgConnection, schema: &str, view: &str) -> Result<Option<Attached>, StoreError> {
        let name = format!("{}.{}", ident(schema), ident(view));
        let row = sqlx::query(
            "SELECT CASE WHEN relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user) THEN NULL
                 ELSE pg_get_userbyid(relowner)::text END, COALESCE(reloptions, '{}')
             FROM pg_class WHERE oid = to_regclass($1)",
        )
        .bind(&name)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let grants = sqlx::query(
            "SELECT a.privilege_type || CASE WHEN g.attname IS NULL THEN '' ELSE ' (' || quote_ident(g.attname) || ')' END,
                 CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
                     || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, g.attname::text
             FROM (
                 SELECT NULL::name AS attname, relacl AS acl FROM pg_class WHERE oid = to_regclass($1)
                 UNION ALL
                 SELECT attname, attacl FROM pg_attribute WHERE attrelid = to_regclass($1) AND attacl IS NOT NULL
             ) g, aclexplode(g.acl) a JOIN pg_class c ON c.oid = to_regclass($1) WHERE a.grantee <> c.relowner",
        )
        .bind(&name)
        .fetch_all(&mut *connection)
        .await?;
        let comments = sqlx::query(
            "SELECT a.attname::text, d.description FROM pg_description d
             LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
             WHERE d.objoid = to_regclass($1) AND d.classoid = 'pg_class'::regclass",
        )
        .bind(&name)
        .fetch_all(connection)
        .await?;
        let grant = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let comment = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
        Ok(Some(Attached {
            schema: schema.into(),
            view: view.into(),
            owner: row.try_get(0)?,
            options: row.try_get(1)?,
            grants: grants.iter().map(grant).collect::<Result<_, sqlx::Error>>()?,
            comments: comments.iter().map(comment).collect::<Result<_, sqlx::Error>>()?,
        }))
    }

    /// Attaches it again, as far as the view and its columns are still there. A comment of the definition stands.
    async fn restore(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let name = format!("{}.{}", ident(&self.schema), ident(&self.view));
        let rows = sqlx::query(
            "SELECT attname::text, col_description(attrelid, attnum) IS NOT NULL, obj_description(attrelid, 'pg_class') IS NOT NULL
             FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        )
        .bind(&name)
        .fetch_all(&mut *connection)
        .await?;
        let mut columns: Vec<(String, bool)> = Vec::new();
        let mut commented = false;
        for row in &rows {
            columns.push((row.try_get(0)?, row.try_get(1)?));
            commented = row.try_get(2)?;
        }
        if columns.is_empty() {
            return Ok(());
        }
        let has = |column: &str| columns.iter().any(|(known, _)| known == column);
        // Default privileges may have granted what somebody had taken back.
        let mut statements: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT format('REVOKE ALL ON %s FROM %s CASCADE', $1::text,
                 CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
             FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = to_regclass($1) AND a.grantee <> c.relowner",
        )
        .bind(&name)
        .fetch_all(&mut *connection)
        .await?;
        for (column, comment) in &self.comments {
            match column {
                None if !commented => statements.push(format!("COMMENT ON VIEW {name} IS {}", literal(comment))),
                Some(column) if columns.contains(&(column.clone(), false)) => {
                    statements.push(format!("COMMENT ON COLUMN {name}.{} IS {}", ident(column), literal(comment)));
                }
                _ => {}
            }
        }
        for (privilege, grantee, column) in &self.grants {
            if column.as_deref().is_none_or(has) {
                statements.push(format!("GRANT {privilege} ON {name} TO {grantee}"));
            }
        }
        if !self.options.is_empty() {
            statements.push(format!("ALTER VIEW {name} SET ({})", self.options.join(", ")));
        }
        if let Some(owner) = &self.owner {
            statements.push(format!("ALTER VIEW {name} OWNER TO {}", ident(owner)));
        }
        for statement in statements {
            connection.execute(vouched(statement)).await?;
        }
        Ok(())
    }
}

/// Row policies that people made on the tables of a generation, and the rights that their roles have there.
async fn copy_policies(
    connection: &mut PgConnection,
    plan: &Plan,
    old: &Generation,
    new: &Generation,
) -> Result<(), StoreError> {
    for table in &plan.tables {
        let from = format!("{}.{}", ident(&old.schema), ident(&table.name));
        let to = format!("{}.{}", ident(&new.schema), ident(&table.name));
        let statements: Vec<String> = sqlx::query_scalar(
            "SELECT format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', $2::text) FROM pg_class
                 WHERE oid = to_regclass($1) AND relrowsecurity AND to_regclass($2) IS NOT NULL
             UNION ALL
             SELECT format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', $2::text) FROM pg_class
                 WHERE oid = to_regclass($1) AND relforcerowsecurity
             UNION ALL
             SELECT format('DROP POLICY IF EXISTS %I ON %s', p.polname, $2::text) FROM pg_policy p
                 WHERE p.polrelid = to_regclass($1)
             UNION ALL
             SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.policyname, $2::text, p.permissive, p.cmd,
                     (SELECT string_agg(CASE role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(role) END, ', ')
                      FROM unnest(p.roles) AS role),
                     ' USING (' || p.qual || ')', ' WITH CHECK (' || p.with_check || ')')
                 FROM pg_policies p WHERE p.schemaname = $3 AND p.tablename = $4
             UNION ALL
             SELECT format('GRANT %s ON %s TO %s', a.privilege_type, $2::text,
                     CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
                 FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = to_regclass($1) AND a.grantee <> c.relowner
             UNION ALL
             SELECT DISTINCT format('GRANT %s ON SCHEMA %I TO %s', a.privilege_type, $5::text,
                     CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
                 FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = $3 AND a.grantee <> n.nspowner",
        )
        .bind(&from)
        .bind(&to)
        .bind(&old.schema)
        .bind(&table.name)
        .bind(&new.schema)
        .fetch_all(&mut *connection)
        .await?;
        for statement in statements {
            connection.execute(vouched(statement)).await?;
        }
    }
    Ok(())
}
