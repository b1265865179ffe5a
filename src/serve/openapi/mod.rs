//! The relations that can be read, told as an OpenAPI document: <https://spec.openapis.org/oas/v3.1.1.html>.

mod shared;
mod types;

use serde_json::{Map, Value as Json, json};

use crate::store::read::links::{Link, meant};
use crate::store::read::{Column, Relation, Schema};
use types::quoted;

/// What `%`-encoding leaves as it is.
const OF_PATHS: &[u8] = b"-_.~";
/// What names of components leave as it is. There is no `-` within, which stands between them therefore.
const OF_COMPONENTS: &[u8] = b"_";
/// Words that are no names, unless in quotes.
const TAKEN: [&str; 12] =
    ["select", "columns", "on_conflict", "order", "limit", "offset", "and", "or", "not", "count", "inner", "left"];

/// The OpenAPI 3.1 document of one schema. `aggregates` says whether there are any, `needs_token` whether nobody is
/// answered without a token or an API key. `address` is the endpoint's, if it is known.
pub(super) fn document(schema: &Schema, aggregates: bool, needs_token: bool, address: Option<&str>) -> Json {
    let relations = || schema.relations.values();
    let mut paths = Map::from_iter([("/".to_string(), shared::index())]);
    paths.extend(relations().map(|relation| (path(relation), of_relation(relation))));
    let mut parameters = shared::parameters(&schema.name, aggregates);
    parameters.extend(relations().flat_map(filters));
    let mut responses = shared::responses();
    responses.extend(relations().map(|relation| (format!("rows-{}", component(&relation.name)), rows(relation))));
    let mut schemas = Map::from_iter([(shared::PROBLEM.to_string(), shared::problem())]);
    schemas.extend(relations().map(|relation| (component(&relation.name), row(schema, relation))));
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": schema.name,
            "version": env!("CARGO_PKG_VERSION"),
            "description": shared::ABOUT,
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters,
            "headers": shared::headers(),
            "responses": responses,
        },
    });
    if let Some(address) = address {
        document["servers"] = json!([{ "url": address.trim_end_matches('/') }]);
    }
    if needs_token {
        document["components"]["securitySchemes"] = shared::security_schemes();
        document["security"] = json!([{ "bearer": [] }, { "apikey": [] }]);
    }
    document
}

fn path(relation: &Relation) -> String {
    format!("/{}", escaped(&relation.name, OF_PATHS, '%'))
}

/// A name as part of a component's. Different names stay different.
fn component(name: &str) -> String {
    escaped(name, OF_COMPONENTS, '.')
}

/// Every byte as `sign` and two hexadecimal digits but letters, digits and what is kept.
fn escaped(name: &str, kept: &[u8], sign: char) -> String {
    let is_kept = |byte: &u8| byte.is_ascii_alphanumeric() || kept.contains(byte);
    name.bytes()
        .map(|byte| if is_kept(&byte) { char::from(byte).into() } else { format!("{sign}{byte:02X}") })
        .collect()
}

fn reference(kind: &str, name: &str) -> Json {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn of_relation(relation: &Relation) -> Json {
    let name = component(&relation.name);
    let own = relation.columns.iter().map(|column| filter_name(relation, column));
    let after = (!relation.reflects.is_empty()).then(|| ["after", "max-staleness"].map(String::from));
    let shared = shared::QUERY.iter().map(ToString::to_string).chain(after.into_iter().flatten());
    let parameters: Vec<Json> = shared.chain(own).map(|name| reference("parameters", &name)).collect();
    let problems = shared::PROBLEMS.iter().map(|(status, _)| status.to_string());
    let problems = problems.map(|status| (status.clone(), reference("responses", &format!("problem-{status}"))));
    let answers = |full: Json| {
        let mut answers = Map::from_iter([("200".to_string(), full.clone()), ("206".to_string(), full)]);
        answers["206"]["description"] =
            "Some of the rows: there are more than the answer has. Only if they are counted.".into();
        answers.extend(problems.clone());
        answers
    };
    let mut described = json!({ "summary": title(relation) });
    if let Some(comment) = &relation.comment {
        described["description"] = comment.clone().into();
    }
    let operation = |id: &str, extra: Json| {
        let mut operation = described.as_object().cloned().unwrap_or_default();
        operation.insert("operationId".into(), format!("{id}-{name}").into());
        operation.extend(extra.as_object().cloned().unwrap_or_default());
        Json::Object(operation)
    };
    let read = json!({
        "parameters": [reference("parameters", "range")],
        "responses": answers(reference("responses", &format!("rows-{name}"))),
    });
    let look = json!({ "responses": answers(reference("responses", "head")) });
    let options = json!({
        "responses": {
            "200": reference("responses", "methods"),
            "default": reference("responses", "problem-default"),
        },
    });
    json!({
        "parameters": parameters,
        "get": operation("read", read),
        "head": operation("head", look),
        "options": operation("options", options),
    })
}

/// The first line of the comment, or else the name.
fn title(relation: &Relation) -> &str {
    let first = relation.comment.as_deref().and_then(|comment| comment.lines().find(|line| !line.trim().is_empty()));
    first.map_or(&relation.name, str::trim)
}

/// The answer with rows of a relation.
fn rows(relation: &Relation) -> Json {
    let row = reference("schemas", &component(&relation.name));
    let fresh: &[&str] = if relation.reflects.is_empty() { &[] } else { &shared::FRESHNESS };
    json!({
        "description": "The rows.",
        "headers": shared::named_headers(shared::OF_ROWS.iter().chain(fresh)),
        "content": {
            "application/json": { "schema": { "type": "array", "items": row } },
            "application/vnd.pgrst.object+json": { "schema": row },
            "text/csv": { "schema": { "type": "string" } },
        },
    })
}

/// A row of a relation. No property has to be there: `select` says which are.
fn row(schema: &Schema, relation: &Relation) -> Json {
    let properties: Map<String, Json> = relation
        .columns
        .iter()
        .map(|column| (column.name.clone(), types::property(column, is_nullable(relation, column)).into()))
        .collect();
    let embeds = embeds(schema, relation);
    let told = |(spelled, link): &(String, &Link)| {
        let cardinality = link.cardinality.name().replace('-', " ");
        let is_named = spelled.starts_with(&column(&link.to));
        if is_named { format!("{spelled} ({cardinality})") } else { format!("{spelled} ({cardinality} {})", link.to) }
    };
    let list = |intro: &str, told: Vec<String>| (!told.is_empty()).then(|| format!("{intro}: {}.", told.join(", ")));
    let description: Vec<String> = [
        relation.comment.clone(),
        list("The key", relation.key.clone()),
        list("Can be embedded", embeds.iter().map(told).collect()),
        list("Computed, if selected", relation.computed.keys().cloned().collect()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut row = json!({ "type": "object", "title": title(relation), "properties": properties });
    if !description.is_empty() {
        row["description"] = description.join("\n\n").into();
    }
    if !relation.key.is_empty() {
        row["x-key"] = relation.key.clone().into();
    }
    if !embeds.is_empty() {
        row["x-embeds"] = embeds.into_iter().map(|(spelled, _)| spelled).collect();
    }
    row
}

/// Postgres knows of no column of a view that it is never null; the key of a projection's rows is not.
fn is_nullable(relation: &Relation, column: &Column) -> bool {
    column.nullable && !(relation.projected.is_some() && relation.key.contains(&column.name))
}

/// What can be embedded, as `select` has to say it so that only the one link is meant.
fn embeds<'s>(schema: &'s Schema, relation: &Relation) -> Vec<(String, &'s Link)> {
    let links = schema.links.get(&relation.name).into_iter().flatten();
    links.filter_map(|link| spelled(schema, link).map(|spelled| (spelled, link))).collect()
}

fn spelled(schema: &Schema, link: &Link) -> Option<String> {
    let columns = link.pairs.first().filter(|_| link.pairs.len() == 1);
    let hints = [Some(link.name.as_str()), columns.map(|(from, _)| from.as_str()), columns.map(|(_, to)| to.as_str())];
    let by_hint = hints.into_iter().flatten().map(|hint| (link.to.as_str(), Some(hint)));
    let by_column = columns.map(|(from, _)| (from.as_str(), None));
    let ways = std::iter::once((link.to.as_str(), None)).chain(by_hint).chain(by_column);
    let is_only = |target: &str, hint: Option<&str>| meant(schema, &link.from, target, hint) == [link];
    let (target, hint) = ways.into_iter().find(|(target, hint)| is_only(target, *hint))?;
    Some(hint.map_or(column(target), |hint| format!("{}!{}", column(target), column(hint))))
}

/// A column's or a relation's name as queries have it: in quotes, if it could be read as something else.
fn column(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_alphabetic() || c.is_ascii_digit() || c == '_');
    if is_plain && !TAKEN.contains(&name) { name.into() } else { quoted(name) }
}

fn filter_name(relation: &Relation, column: &Column) -> String {
    format!("filter-{}-{}", component(&relation.name), component(&column.name))
}

/// One parameter for each column.
fn filters(relation: &Relation) -> impl Iterator<Item = (String, Json)> {
    relation.columns.iter().map(move |of| {
        let conditions = types::conditions(of, is_nullable(relation, of));
        let operator = |condition: &str| condition.split('.').next().unwrap_or_default().to_string();
        let examples: Map<String, Json> =
            conditions.into_iter().map(|condition| (operator(&condition), json!({ "value": condition }))).collect();
        let mut parameter =
            json!({ "name": column(&of.name), "in": "query", "schema": { "type": "string" }, "examples": examples });
        if let Some(comment) = &of.comment {
            parameter["description"] = comment.clone().into();
        }
        (filter_name(relation, of), parameter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::read::Projected;
    use crate::store::read::links::Cardinality;

    fn relation(name: &str, columns: &[&str]) -> Relation {
        let of =
            |name: &&str| Column { name: name.to_string(), type_: "text".into(), nullable: true, ..Column::default() };
        Relation { name: name.into(), columns: columns.iter().map(of).collect(), ..Relation::default() }
    }

    fn link(name: &str, from: (&str, &str), to: (&str, &str), cardinality: Cardinality) -> Link {
        Link {
            name: name.into(),
            from: from.0.into(),
            to: to.0.into(),
            cardinality,
            pairs: vec![(from.1.into(), to.1.into())],
            between: None,
            to_is_view: false,
        }
    }

    fn schema(relations: Vec<Relation>, links: Vec<Link>) -> Schema {
        let mut schema = Schema { name: "shop".into(), ..Schema::default() };
        schema.relations.extend(relations.into_iter().map(|relation| (relation.name.clone(), relation)));
        for link in links {
            schema.links.entry(link.from.clone()).or_default().push(link);
        }
        schema
    }

    /// Every reference in a document.
    fn references(json: &Json) -> Vec<&str> {
        match json {
            Json::Object(map) => {
                let own = map.get("$ref").and_then(Json::as_str);
                own.into_iter().chain(map.values().flat_map(references)).collect()
            }
            Json::Array(list) => list.iter().flat_map(references).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn nothing_refers_to_what_is_not_there_whatever_the_names() {
        let names = ["a/b", "a.2Fb", "{id}", "Bücher", "\"", "a-b", "a.b", "a", "problem-of-request", "head", " "];
        let all = names.iter().map(|name| relation(name, &names)).collect();
        let document = document(&schema(all, Vec::new()), true, true, Some("https://read.example/"));
        for reference in references(&document) {
            let path = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(path).is_some(), "{reference}");
        }
        let of = |kind: &str| document["components"][kind].as_object().unwrap();
        assert_eq!(of("schemas").len(), names.len() + 1);
        let own = of("parameters").keys().filter(|name| name.starts_with("filter-"));
        assert_eq!(own.count(), names.len() * names.len());
        let is_legal = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        assert!(["schemas", "parameters", "responses", "headers"].iter().all(|kind| of(kind).keys().all(is_legal)));
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), names.len() + 1);
        assert!(paths.contains_key("/%7Bid%7D") && paths.contains_key("/a%2Fb") && paths.contains_key("/B%C3%BCcher"));
        assert_eq!(document["servers"][0]["url"], "https://read.example");
    }

    #[test]
    fn parameters_are_spelled_as_they_are_read() {
        assert_eq!(
            ["total", "größe", "a b", "order", "a.b", "q\"\\"].map(column),
            ["total", "größe", "\"a b\"", "\"order\"", "\"a.b\"", r#""q\"\\""#]
        );
    }

    #[test]
    fn rows_are_told_with_their_key_and_what_can_be_embedded() {
        let mut orders = relation("orders", &["id", "billed", "shipped", "parent"]);
        orders.comment = Some("Orders.\nAs they stand.".into());
        orders.key = vec!["id".into()];
        orders.reflects = vec!["orders".into()];
        orders.projected = Some(Projected {
            projection: "orders".into(),
            generation: 1,
            number: 1,
            follows: None,
            key: vec!["id".into()],
            parked: None,
        });
        let by =
            |name: &str, column: &str, to: &str| link(name, ("orders", column), (to, "id"), Cardinality::ManyToOne);
        let links = vec![
            by("b", "billed", "people"),
            by("s", "shipped", "people"),
            by("l", "id", "lines"),
            by("o", "parent", "orders"),
        ];
        let all = vec![orders, relation("people", &["id"]), relation("lines", &["id"])];
        let document = document(&schema(all, links), false, false, None);
        let row = &document["components"]["schemas"]["orders"];
        assert_eq!(row["title"], "Orders.");
        assert_eq!(row["x-key"], json!(["id"]));
        assert_eq!(row["x-embeds"], json!(["people!b", "people!s", "lines", "parent"]));
        let told = "Orders.\nAs they stand.\n\nThe key: id.\n\nCan be embedded: people!b (many to one), \
            people!s (many to one), lines (many to one), parent (many to one orders).";
        assert_eq!(row["description"], told);
        assert_eq!(row["properties"]["id"]["type"], "string");
        assert_eq!(row["properties"]["billed"]["type"], json!(["string", "null"]));
        let headers = |relation: &str| &document["components"]["responses"][format!("rows-{relation}")]["headers"];
        assert!(
            headers("orders").get("Projector-Token").is_some() && headers("people").get("Projector-Token").is_none()
        );
        assert!(document.get("security").is_none() && document.get("servers").is_none());
    }
}
