//! What can be read: the relations of a schema, from Postgres' own catalog.

use std::collections::{BTreeMap, HashMap};

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::super::relations::parked_function;
use super::super::tables::schema_name;
use super::links::{self, Link};
use super::origins::origins;

/// The relations of one schema, and how they refer to one another.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    pub name: String,
    pub relations: BTreeMap<String, Relation>,
    /// By the name of the relation that they begin at.
    pub links: HashMap<String, Vec<Link>>,
}

#[derive(Debug, Clone, Default)]
pub struct Relation {
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns of its primary key, or of the table's that it is a view of; empty if there is none.
    pub key: Vec<String>,
    pub comment: Option<String>,
    pub is_view: bool,
    /// Functions of a row that can be asked for like columns, and the types of what they give.
    pub computed: BTreeMap<String, String>,
    /// The views of projections that its rows come from, itself first if it is one.
    pub reflects: Vec<String>,
    /// For a table of a projection; other relations are people's own.
    pub projected: Option<Projected>,
}

#[derive(Debug, Clone, Default)]
pub struct Column {
    pub name: String,
    /// As values of it are written in SQL: without length or precision, and a domain as what it is made of.
    pub type_: String,
    /// As people say it: `numeric(12,2)`.
    pub told_type: String,
    pub nullable: bool,
    pub comment: Option<String>,
    /// Of an enum.
    pub labels: Vec<String>,
}

impl Column {
    pub fn is_json(&self) -> bool {
        matches!(self.type_.as_str(), "json" | "jsonb")
    }

    pub fn is_array(&self) -> bool {
        self.type_.ends_with("[]")
    }
}

impl Relation {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Where the rows of a view come from.
#[derive(Debug, Clone)]
pub struct Projected {
    pub projection: String,
    pub generation: i64,
    pub number: i32,
    /// The schema of the generation, if its rows follow from other rows.
    pub follows: Option<String>,
    pub key: Vec<String>,
    /// The function that says of a row whether something is parked that it follows from.
    pub parked: Option<String>,
}

/// A key of a table: by which its rows are found, or by which they refer to another's.
#[derive(Debug, Clone)]
pub(super) struct Constraint {
    pub name: String,
    pub table: u32,
    pub columns: Vec<i16>,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Primary,
    Unique,
    Foreign { to: u32, columns: Vec<i16> },
}

/// A number that changes when what [`read`] reads has changed.
///
/// # Errors
/// What Postgres says.
pub async fn version(pool: &PgPool, schemas: &[String]) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT md5(concat_ws(' ',
            (SELECT string_agg(c.oid || ':' || c.xmin, ',' ORDER BY c.oid) FROM pg_class c
             WHERE c.relnamespace = ANY (SELECT oid FROM pg_namespace WHERE nspname = ANY ($1))),
            (SELECT count(*) || ':' || max(xmin::text::bigint) FROM pg_attribute a WHERE a.attrelid IN (SELECT oid FROM pg_class
             WHERE relnamespace = ANY (SELECT oid FROM pg_namespace WHERE nspname = ANY ($1)))),
            (SELECT count(*) || ':' || max(xmin::text::bigint) FROM pg_constraint WHERE contype IN ('f', 'p', 'u')),
            (SELECT count(*) || ':' || max(xmin::text::bigint) FROM pg_description),
            (SELECT count(*) || ':' || max(xmin::text::bigint) FROM pg_proc
             WHERE pronamespace = ANY (SELECT oid FROM pg_namespace WHERE nspname = ANY ($1))),
            (SELECT count(*) || ':' || max(xmin::text::bigint) FROM pg_enum),
            (SELECT string_agg(s.view || ':' || s.generation_id, ',' ORDER BY s.view) FROM projector.served s)))",
    )
    .bind(schemas)
    .fetch_one(pool)
    .await
}

/// Reads what is in schemas.
///
/// # Errors
/// What Postgres says.
pub async fn read(pool: &PgPool, schemas: &[String]) -> Result<Vec<Schema>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let rows = sqlx::query(RELATIONS).bind(schemas).fetch_all(&mut *connection).await?;
    let mut read: Vec<Schema> = schemas.iter().map(|name| Schema { name: name.clone(), ..Schema::default() }).collect();
    // By the relation's number: where it is, and its columns' names by their numbers.
    let mut places: HashMap<u32, links::Place> = HashMap::new();
    for row in &rows {
        let (number, schema, name): (i64, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let Some(schema) = read.iter_mut().find(|known| known.name == schema) else { continue };
        let relation = schema.relations.entry(name.to_string()).or_insert_with(|| Relation {
            name: name.to_string(),
            is_view: matches!(row.try_get::<&str, _>(3), Ok("v" | "m")),
            comment: row.try_get(4).unwrap_or_default(),
            ..Relation::default()
        });
        relation.columns.push(column(row)?);
        let at = (schema.name.as_str(), name);
        let place = places.entry(number as u32).or_insert_with(|| links::Place::new(at, relation.is_view));
        place.columns.insert(row.try_get(5)?, relation.columns.last().map(|c| c.name.clone()).unwrap_or_default());
    }
    let computed: Vec<(String, String, String, String)> =
        sqlx::query_as(COMPUTED).bind(schemas).fetch_all(&mut *connection).await?;
    for (schema, relation, function, type_) in computed {
        let schema = read.iter_mut().find(|known| known.name == schema);
        if let Some(relation) = schema.and_then(|schema| schema.relations.get_mut(&relation)) {
            relation.computed.insert(function, type_);
        }
    }
    let constraints = sqlx::query(CONSTRAINTS).fetch_all(&mut *connection).await?;
    let constraints = constraints.iter().map(constraint).collect::<Result<Vec<_>, _>>()?;
    let rules: Vec<(i64, String)> = sqlx::query_as(RULES).fetch_all(&mut *connection).await?;
    let origins = rules.iter().map(|(view, rule)| (*view as u32, origins(rule))).collect();
    links::find(&mut read, &places, &constraints, &origins);
    for row in sqlx::query(PROJECTED).bind(None::<&str>).fetch_all(&mut *connection).await? {
        let view: &str = row.try_get(0)?;
        // Projections have theirs in the first schema.
        if let Some(relation) = read.first_mut().and_then(|schema| schema.relations.get_mut(view)) {
            let projected = projected(&row)?;
            relation.key.clone_from(&projected.key);
            relation.projected = Some(projected);
            relation.reflects.push(view.to_string());
        }
    }
    for (schema, relation, view) in
        sqlx::query_as::<_, (String, String, String)>(STAND_ON).bind(schemas).fetch_all(&mut *connection).await?
    {
        let schema = read.iter_mut().find(|known| known.name == schema);
        if let Some(relation) = schema.and_then(|schema| schema.relations.get_mut(&relation)) {
            relation.reflects.push(view);
        }
    }
    let declared: Vec<(i64, String, String, Vec<String>)> =
        sqlx::query_as(DECLARED).fetch_all(&mut *connection).await?;
    read.iter_mut().take(1).for_each(|schema| links::declare(schema, &declared));
    Ok(read)
}

fn column(row: &PgRow) -> Result<Column, sqlx::Error> {
    Ok(Column {
        name: row.try_get(6)?,
        type_: row.try_get(7)?,
        told_type: row.try_get(8)?,
        nullable: row.try_get(9)?,
        comment: row.try_get(10)?,
        labels: row.try_get(11)?,
    })
}

fn constraint(row: &PgRow) -> Result<Constraint, sqlx::Error> {
    let kind = match row.try_get::<&str, _>(3)? {
        "p" => Kind::Primary,
        "u" => Kind::Unique,
        _ => Kind::Foreign { to: row.try_get::<i64, _>(4)? as u32, columns: row.try_get(5)? },
    };
    let table: i64 = row.try_get(1)?;
    Ok(Constraint { name: row.try_get(0)?, table: table as u32, columns: row.try_get(2)?, kind })
}

/// A domain's columns are told as of the type under it. Partitions are seen through the table that they are of: with both,
/// every relationship would be there several times.
const RELATIONS: &str = "SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text,
        obj_description(c.oid, 'pg_class'), a.attnum, a.attname::text, format_type(u.base, -1),
        format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, col_description(c.oid, a.attnum),
        ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = u.base ORDER BY e.enumsortorder)
    FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN LATERAL (
            WITH RECURSIVE under(type) AS (
                SELECT a.atttypid
                UNION ALL
                SELECT t.typbasetype FROM under JOIN pg_type t ON t.oid = under.type WHERE t.typtype = 'd'
            )
            SELECT under.type AS base FROM under JOIN pg_type t ON t.oid = under.type WHERE t.typtype <> 'd'
        ) AS u
    WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    ORDER BY n.nspname, c.relname, a.attnum";

const COMPUTED: &str = "SELECT n.nspname::text, c.relname::text, p.proname::text, format_type(p.prorettype, -1)
    FROM pg_namespace n JOIN pg_proc p ON p.pronamespace = n.oid AND p.pronargs = 1 AND NOT p.proretset
        JOIN pg_class c ON c.relnamespace = n.oid AND c.reltype = p.proargtypes[0]
    WHERE n.nspname = ANY ($1) AND c.reltype <> 0";

const CONSTRAINTS: &str = "SELECT conname::text, conrelid::bigint, conkey, contype::text, confrelid::bigint, confkey
    FROM pg_constraint WHERE contype IN ('p', 'u', 'f') AND conparentid = 0 AND conrelid <> 0";

const RULES: &str = "SELECT c.oid::bigint, r.ev_action::text FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.rulename = '_RETURN' AND c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

const PROJECTED: &str = "SELECT s.view, g.projection, g.id, s.key, g.number,
        EXISTS (SELECT 1 FROM projector.relations r WHERE r.generation_id = g.id),
        EXISTS (SELECT 1 FROM projector.relations r WHERE r.generation_id = g.id AND r.to_table = s.\"table\")
    FROM projector.served s JOIN projector.generations g ON g.id = s.generation_id WHERE $1::text IS NULL OR s.view = $1";

/// Views that stand on views of projections, at whatever depth. A materialized view is as old as its last refresh.
const STAND_ON: &str = "WITH RECURSIVE stands(view, on_) AS (
        SELECT r.ev_class, d.refobjid FROM pg_rewrite r
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
            JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'v'
        WHERE d.refobjid <> r.ev_class
        UNION
        SELECT s.view, d.refobjid FROM stands s JOIN pg_rewrite r ON r.ev_class = s.on_
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
        WHERE d.refobjid <> r.ev_class
    )
    SELECT DISTINCT n.nspname::text, c.relname::text, t.relname::text FROM stands
        JOIN pg_class c ON c.oid = stands.view JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class t ON t.oid = stands.on_
        JOIN projector.served s ON s.view = t.relname AND t.relnamespace = to_regnamespace(quote_ident($1[1]))
    WHERE NOT (n.oid = t.relnamespace AND EXISTS (SELECT 1 FROM projector.served o WHERE o.view = c.relname)) AND n.nspname = ANY ($1) AND t.relkind = 'v' ORDER BY 1, 2, 3";

/// Views whose rows refer to those of another: the generation, both, and by which columns of the first.
const DECLARED: &str = "SELECT r.generation_id, f.view, t.view, r.by FROM (
        SELECT generation_id, by, CASE kind WHEN 'join' THEN to_table ELSE from_table END AS referring,
            CASE kind WHEN 'join' THEN from_table ELSE to_table END AS referred FROM projector.relations) r
    JOIN projector.served f ON f.generation_id = r.generation_id AND f.\"table\" = r.referring
    JOIN projector.served t ON t.generation_id = r.generation_id AND t.\"table\" = r.referred
    ORDER BY 1, 2, 3, 4";

fn projected(row: &PgRow) -> Result<Projected, sqlx::Error> {
    let (view, projection): (&str, String) = (row.try_get(0)?, row.try_get(1)?);
    let number = row.try_get(4)?;
    let schema = schema_name(&projection, number);
    Ok(Projected {
        projection,
        generation: row.try_get(2)?,
        number,
        key: row.try_get(3)?,
        parked: row.try_get::<bool, _>(6)?.then(|| parked_function(&schema, view)),
        follows: row.try_get::<bool, _>(5)?.then_some(schema),
    })
}

/// Where the rows of a view come from right now; `None` if it is not the view of a projection.
///
/// # Errors
/// What Postgres says.
pub async fn source_of(pool: &PgPool, view: &str) -> Result<Option<Projected>, sqlx::Error> {
    sqlx::query(PROJECTED).bind(view).fetch_optional(pool).await?.as_ref().map(projected).transpose()
}
