//! The endpoint, held to PostgREST's published behaviour: requests and answers over a fixture, in `cases/`.

mod clients;
mod hostile;
mod random;
mod told;
mod waits;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::world::{Daemon, World, free_port};

/// A request, and what has to come of it.
struct Case {
    place: String,
    told: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    status: u16,
    expected: Vec<(String, String)>,
    body: String,
}

/// What came.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// One request on a connection of its own.
pub fn ask(port: u16, method: &str, target: &str, headers: &[(String, String)]) -> Answer {
    try_ask(port, method, target, headers).unwrap()
}

/// The same, of an endpoint that may not be there.
pub fn try_ask(port: u16, method: &str, target: &str, headers: &[(String, String)]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect();
    Ok(Answer { status, headers, body: body.to_string() })
}

fn cases(which: impl Fn(&str) -> bool) -> Vec<Case> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/querying/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| which(&name.to_string_lossy())));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut at = 0;
        for part in text.split("### ").skip(1) {
            at += 1;
            cases.push(case(format!("{name} #{at}"), part));
        }
    }
    cases
}

fn case(place: String, text: &str) -> Case {
    let pair = |line: &str| line.split_once(':').map(|(a, b)| (a.trim().to_string(), b.trim().to_string())).unwrap();
    let mut lines = text.lines();
    let told = lines.next().unwrap().to_string();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let headers = lines.by_ref().take_while(|line| *line != "---").map(pair).collect();
    let status = lines.next().unwrap().trim().parse().unwrap();
    let rest: Vec<&str> = lines.collect();
    let is_header = |line: &&&str| {
        let name = line.split(": ").next().unwrap_or_default();
        line.contains(": ") && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-')
    };
    let expected: Vec<(String, String)> = rest.iter().take_while(is_header).map(|line| pair(line)).collect();
    let body = rest[expected.len()..].join("\n");
    Case {
        place,
        told,
        method: method.trim().into(),
        target: target.trim().into(),
        headers,
        status,
        expected,
        body: body.trim_end_matches('\n').to_string(),
    }
}

/// What is wrong with an answer.
fn wrong(case: &Case, answer: &Answer) -> Option<String> {
    if answer.status != case.status {
        return Some(format!("status {} instead of {}: {}", answer.status, case.status, answer.body));
    }
    for (name, expected) in &case.expected {
        let found = answer.headers.get(&name.to_ascii_lowercase()).map_or("-", String::as_str);
        if found != expected {
            return Some(format!("{name}: {found} instead of {expected}"));
        }
    }
    let json = |text: &str| serde_json::from_str::<Json>(text).ok();
    let is_same = match case.body.as_str() {
        "*" => true,
        "" => answer.body.is_empty(),
        text if text.starts_with("text:") => {
            text.trim_start_matches("text:").trim_start_matches('\n') == answer.body.trim_end_matches('\n')
        }
        // Of an error the keys that are told.
        text if text.starts_with('{') && case.status >= 300 => match (json(text), json(&answer.body)) {
            (Some(Json::Object(told)), Some(found)) => told.iter().all(|(key, value)| found.get(key) == Some(value)),
            _ => false,
        },
        // The order of keys counts, and spaces do not.
        text => match (json(text), json(&answer.body)) {
            (Some(expected), Some(found)) => {
                let [expected, found] = [expected, found].map(|json| json.to_string());
                expected == found
            }
            _ => false,
        },
    };
    (!is_same).then(|| format!("{}\n      instead of {}", answer.body, case.body))
}

const NUMBERS: &str = "
projection: projected
sources: { events: { topic: TOPIC(events) } }
key: { id: data.id }
columns: { note: text }
handlers: { events: { Noted: { set: { note: data.note } } } }
";

/// The fixture, served.
pub fn served(name: &str, settings: &str) -> (World, Daemon, u16) {
    let world = World::new(name);
    world.create_topic("events", 1, &[]);
    world.projection("projected.yaml", NUMBERS);
    let fixture = include_str!("fixture.sql");
    let sql: String = fixture.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n");
    world.runtime.block_on(async {
        let mut connection = sqlx::PgConnection::connect_with(&world.options()).await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    });
    let port = free_port();
    let file = world.projections().parent().unwrap().join("settings.yaml");
    let keys = file.with_file_name("secret");
    std::fs::write(&keys, SECRET).unwrap();
    let serve = format!(
        "serve:\n  schema: served\n  more_schemas: [other]\n  cors_origins: ['*']\n  auth: {{ jwt_keys_file: {}, default_role: anon }}\n{settings}",
        keys.display()
    );
    std::fs::write(&file, serve).unwrap();
    let listen = format!("127.0.0.1:{port}");
    let environment =
        [("PROJECTOR__SERVE__LISTEN", listen.as_str()), ("PROJECTOR__SERVE__AUTH__ANONYMOUS_ROLE", "anon")];
    let daemon = world.start_verb(&["run", "--apply", "--config", file.to_str().unwrap()], &environment);
    world.wait("the endpoint", || match TcpStream::connect(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    });
    (world, daemon, port)
}

/// Of the tokens in the cases.
const SECRET: &str = "a secret for these cases only, of more than 32 bytes";

fn all_hold(name: &str, settings: &str, which: impl Fn(&str) -> bool) {
    let (_world, _daemon, port) = served(name, settings);
    let cases = cases(which);
    assert!(!cases.is_empty());
    let mut failed = Vec::new();
    for case in &cases {
        let answer = ask(port, &case.method, &case.target, &case.headers);
        if let Some(wrong) = wrong(case, &answer) {
            failed.push(format!("{}, {}: {} {}\n    {wrong}", case.place, case.told, case.method, case.target));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn answers_are_postgrests() {
    all_hold("postgrest", "", |file| !file.starts_with("settings-"));
}

#[test]
fn aggregates_can_be_switched_off() {
    all_hold("aggregates", "  aggregates: false\n", |file| file == "settings-aggregates-off.http");
}

#[test]
fn answers_have_no_more_rows_than_may_be() {
    all_hold("maxrows", "  max_rows: 2\n", |file| file == "settings-max-rows-2.http");
}

#[test]
fn counting_rows_has_its_price() {
    all_hold("maxcost", "  limits: { max_cost: 20 }\n", |file| file == "settings-max-cost-20.http");
}
