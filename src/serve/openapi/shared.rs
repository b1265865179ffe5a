//! What all relations have in common: parameters, headers and answers.

use serde_json::{Map, Value as Json, json};

use super::reference;

pub(super) const ABOUT: &str = "Views of events, read in PostgREST's grammar. Rows are filtered by \
    `column=operator.value`, where `not.` may stand before the operator; columns of JSON go deeper by `data->>key`. \
    `select` embeds other relations, `select=id,customers(name)`, and `customers.name=eq.Ann` filters these. \
    Names with other signs than letters, digits and `_` are in double quotes. An answer says which events it reflects: \
    its `Projector-Token` as `Projector-After` of the next request makes sure that nothing older is read.";

/// The schema of problems. No relation's component has a `-`.
pub(super) const PROBLEM: &str = "problem-of-request";

/// Parameters of every relation, but for columns and freshness.
pub(super) const QUERY: [&str; 8] = ["select", "order", "limit", "offset", "or", "and", "accept-profile", "prefer"];

/// Headers of every answer with rows.
pub(super) const OF_ROWS: [&str; 5] =
    ["Content-Range", "Content-Location", "Content-Profile", "Preference-Applied", "Link"];

/// Headers of answers that reflect events.
pub(super) const FRESHNESS: [&str; 4] =
    ["Projector-Token", "Projector-Generation", "Projector-Staleness", "Projector-Parked"];

/// Why there may be no answer, by status.
pub(super) const PROBLEMS: [(&str, &str); 13] = [
    ("300", "More than one relation may be meant by what is embedded; `details` lists them."),
    ("400", "The query cannot be read, names what there is not, or compares what cannot be compared."),
    ("401", "The token or API key is missing, or is not valid."),
    ("403", "The role may not read this."),
    ("404", "There is no such relation."),
    ("406", "No such media type or schema, or not exactly one row for a single object."),
    ("409", "An event that `Projector-After` names is parked, and will not be applied as it is."),
    ("416", "The range begins behind the last row, or ends before it begins."),
    ("422", "The planner reckons that the query costs more than is allowed."),
    ("429", "Too many requests; `Retry-After` says when to ask again."),
    ("503", "The database cannot answer right now, or the rows are staler than `Projector-Max-Staleness` allows."),
    ("504", "The query took too long, or what `Projector-After` names was not applied in time."),
    ("default", "Any other problem."),
];

/// `GET /`.
pub(super) fn index() -> Json {
    json!({
        "get": {
            "summary": "This document",
            "operationId": "describe",
            "parameters": [reference("parameters", "accept-profile")],
            "responses": {
                "200": {
                    "description": "What can be read.",
                    "content": {
                        "application/openapi+json": { "schema": { "type": "object" } },
                        "application/json": { "schema": { "type": "object" } },
                        "text/html": { "schema": { "type": "string" } },
                    },
                },
                "default": reference("responses", "problem-default"),
            },
        },
    })
}

/// The parameters by their components' names. `schema` is the one that the document describes.
pub(super) fn parameters(schema: &str, aggregates: bool) -> Map<String, Json> {
    let of = |place: &str, name: &str, description: &str, examples: &[&str]| {
        let mut parameter =
            json!({ "name": name, "in": place, "description": description, "schema": { "type": "string" } });
        let examples = examples.iter().map(|example| (example.to_string(), json!({ "value": example })));
        let examples: Map<String, Json> = examples.collect();
        if !examples.is_empty() {
            parameter["examples"] = examples.into();
        }
        parameter
    };
    let query =
        |name: &str, description: &str, examples: &[&str]| (name.to_string(), of("query", name, description, examples));
    let number = |name: &str, description: &str| {
        let schema = json!({ "type": "integer", "minimum": 0, "format": "int64" });
        (name.to_string(), json!({ "name": name, "in": "query", "description": description, "schema": schema }))
    };
    let header = |component: &str, name: &str, description: &str, examples: &[&str]| {
        (component.to_string(), of("header", name, description, examples))
    };
    let select = "What rows consist of: columns, `alias:column`, `column::type`, `data->>key`, and embedded relations \
        `relation(columns)`, with `relation!hint(columns)` where several may be meant, `!inner` to drop rows without \
        any, and `...relation(columns)` to put its columns among the row's own.";
    let sums = " There are aggregates: `count()`, and `column.sum()`, `avg()`, `min()`, `max()` and `count()`.";
    let select = if aggregates { format!("{select}{sums}") } else { select.into() };
    let examples: &[&str] = if aggregates { &["*", "count()"] } else { &["*"] };
    let profile =
        format!("The schema that is read; without it, the first that is served. This document is of {schema}.");
    let places = "Events that the answer has to reflect: `topic/partition@offset`, or the `Projector-Token` of an \
        answer; more of them with commas between. How long to wait for them: `Prefer: wait=SECONDS`.";
    let preferences = "`count=exact`, `count=planned` or `count=estimated` counts the rows. `wait=SECONDS` waits for \
        what `Projector-After` names, for a minute at most. `timezone=NAME` is for times. `handling=strict` refuses \
        what is not known of these.";
    let staleness = "Seconds for which the answer may be incomplete; 503 if it may be for longer.";
    let mut parameters = Map::from_iter([
        query("select", &select, examples),
        query("order", "Columns, each with `.asc` or `.desc` and `.nullsfirst` or `.nullslast`.", &[]),
        number("limit", "Rows at most. With it, `Link` leads to the next page, if the relation has a key."),
        number(
            "offset",
            "Rows that are left out at the beginning. `Link` is better for pages: it is stable under writes.",
        ),
        query("or", "Conditions of which one has to hold: `(a.eq.1,and(b.gt.2,c.is.null))`. `not.or` negates.", &[]),
        query("and", "Conditions that all have to hold: `(a.gte.1,a.lt.5)`. `not.and` negates.", &[]),
        header("accept-profile", "Accept-Profile", &profile, &[schema]),
        header("prefer", "Prefer", preferences, &["count=exact", "wait=5"]),
        header("range", "Range", "Rows from and to, beginning with 0.", &["0-24", "25-"]),
        header("after", "Projector-After", places, &["shop.orders/0@17", "shop.orders/0:18+1:5"]),
    ]);
    let mut staleness = of("header", "Projector-Max-Staleness", staleness, &[]);
    staleness["schema"] = json!({ "type": "number", "minimum": 0 });
    parameters.insert("max-staleness".into(), staleness);
    parameters
}

/// The headers of answers by their names.
pub(super) fn headers() -> Json {
    let header = |description: &str, type_: &str, example: Json| {
        let schema = json!({ "type": type_ });
        json!({ "description": description, "schema": schema, "example": example })
    };
    let text = |description: &str, example: &str| header(description, "string", example.into());
    let retry = "Seconds until asking again may help.";
    json!({
        "Allow": text("The methods that there are.", "OPTIONS,GET,HEAD"),
        "Content-Location": text("The request in its canonical form.", "/orders?id=eq.1"),
        "Content-Profile": text("The schema that was read.", "public"),
        "Content-Range": text("Which rows these are, and of how many if they were counted.", "0-24/*"),
        "Link": text("Where the next page is.", "</orders?limit=2&projector.after=WzJd>; rel=\"next\""),
        "Preference-Applied": text("What of `Prefer` was heeded.", "count=exact"),
        "Projector-Generation": header("The generation of the view that was read.", "integer", 3.into()),
        "Projector-Parked": header("How many sequences of events are parked, if there are any.", "integer", 1.into()),
        "Projector-Staleness": header("Seconds since the answer was complete for certain.", "number", 0.25.into()),
        "Projector-Token": text("The first event of each partition that is not reflected.", "shop.orders/0:18"),
        "Retry-After": header(retry, "integer", 1.into()),
        "WWW-Authenticate": text("What is wrong with the token.", "Bearer"),
    })
}

/// References to headers.
pub(super) fn named_headers<'n>(names: impl IntoIterator<Item = &'n &'static str>) -> Json {
    names.into_iter().map(|name| (name.to_string(), reference("headers", name))).collect::<Map<_, _>>().into()
}

/// The answers that are the same for every relation, by their components' names.
pub(super) fn responses() -> Map<String, Json> {
    let problem = |(status, description): &(&str, &str)| {
        let headers: &[&str] = match *status {
            "401" => &["WWW-Authenticate"],
            "416" => &["Content-Range"],
            "429" | "503" | "504" => &["Retry-After"],
            _ => &[],
        };
        let content = json!({ "application/json": { "schema": reference("schemas", PROBLEM) } });
        let mut response = json!({ "description": description, "content": content });
        if !headers.is_empty() {
            response["headers"] = named_headers(headers);
        }
        (format!("problem-{status}"), response)
    };
    let head = named_headers(OF_ROWS.iter().chain(&FRESHNESS));
    let mut responses: Map<String, Json> = PROBLEMS.iter().map(problem).collect();
    responses.insert("head".into(), json!({ "description": "What is said of the rows.", "headers": head }));
    let methods = json!({ "description": "What can be done.", "headers": named_headers(&["Allow"]) });
    responses.insert("methods".into(), methods);
    responses
}

/// The shape of a problem.
pub(super) fn problem() -> Json {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "title": "Problem",
        "required": ["code", "message", "details", "hint"],
        "properties": {
            "code": text("Of PostgREST, of Postgres, or one that begins with PROJ."),
            "message": text("What happened."),
            "details": { "description": "More of it: a text, or a list of what may be meant." },
            "hint": { "type": ["string", "null"], "description": "What can be done about it." },
        },
    })
}

/// How a reader shows who it is. Both take either.
pub(super) fn security_schemes() -> Json {
    json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "A token (JWT) or an API key." },
        "apikey": { "type": "apiKey", "in": "header", "name": "apikey", "description": "A token (JWT) or an API key." },
    })
}
