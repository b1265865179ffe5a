//! The dashboards, against the views of `projector demo`: every query is answered, has rows, and has what is shown of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use super::querying::{Answer, ask};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running demo with a Postgres of its own.
struct Demo {
    child: Child,
    /// Open as long as it runs: it says that it stops.
    _said: BufReader<ChildStdout>,
    port: u16,
    /// The folder of Postgres' socket.
    socket: String,
}

impl Demo {
    /// Starts it with events that cannot be applied, and waits until all others are.
    fn start() -> Demo {
        let mut errors = tempfile::tempfile().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
        command.args(["demo", "--with-trouble", "--listen", "127.0.0.1:0"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env_remove("DATABASE_URL").stdout(Stdio::piped()).stderr(errors.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let (mut told, mut line) = (String::new(), String::new());
        // It gives up by itself when something is not applied in time.
        while !line.starts_with("Ctrl-C") {
            line.clear();
            if said.read_line(&mut line).unwrap() == 0 {
                let _ = child.wait();
                std::io::Seek::rewind(&mut errors).unwrap();
                errors.read_to_string(&mut told).unwrap();
                panic!("the demo did not come up: {told}");
            }
            told += &line;
        }
        let behind = |mark: &str| {
            let at = told.find(mark).unwrap_or_else(|| panic!("the demo did not say `{mark}`: {told}")) + mark.len();
            told[at..].lines().next().unwrap_or_default().to_string()
        };
        let port = behind("Endpoint   http://127.0.0.1:").parse().unwrap();
        let socket = behind("PROJECTOR__POSTGRES__HOST=");
        Demo { child, _said: said, port, socket }
    }

    fn execute(&self, sql: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = PgConnectOptions::new_without_pgpass().socket(&self.socket).username("projector");
            let mut connection = options.database("postgres").connect().await.unwrap();
            connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_string()))).await.unwrap();
        });
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        // Killed outright, it would leave its Postgres behind.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// What a panel asks, and what it shows of the answer.
struct Panel {
    title: String,
    target: String,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    is_number: bool,
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_else(|| panic!("{json} is no text")).to_string()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().unwrap_or_else(|| panic!("{json} is no list")).iter()
}

/// What stands between two marks.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let rest = text.split_once(from).unwrap_or_else(|| panic!("there is no {from}")).1;
    rest.split_once(to).unwrap_or_else(|| panic!("there is no {to}")).0
}

fn of_page(page: &str) -> Vec<Panel> {
    let block = between(page, r#"<script type="application/json" id="panels">"#, "</script>");
    let panels: Json = serde_json::from_str(block).unwrap();
    let column = |column: &Json| Column {
        name: text(&column["name"]),
        is_number: ["count", "money"].contains(&text(&column["format"]).as_str()),
    };
    let panel = |panel: &Json| Panel {
        title: text(&panel["title"]),
        target: format!("/{}", text(&panel["query"])),
        columns: list(&panel["columns"]).map(column).collect(),
    };
    list(&panels).map(panel).collect()
}

fn of_grafana(definition: &Json) -> Vec<Panel> {
    let column = |column: &Json| Column { name: text(&column["selector"]), is_number: column["type"] == "number" };
    let mut panels = Vec::new();
    for panel in list(&definition["panels"]) {
        for asked in list(&panel["targets"]) {
            let columns = list(&asked["columns"]).map(column).collect();
            panels.push(Panel { title: text(&panel["title"]), target: text(&asked["url"]), columns });
        }
    }
    panels
}

/// Fields that a panel of Grafana speaks of, beside those that it asks for.
fn spoken_of(panel: &Json) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    names.extend(panel["options"]["xField"].as_str().map(String::from));
    names.extend(list(&panel["fieldConfig"]["overrides"]).map(|known| text(&known["matcher"]["options"])));
    for change in panel["transformations"].as_array().into_iter().flatten() {
        let order = change["options"]["indexByName"].as_object().expect("an order of the fields");
        names.extend(order.keys().cloned());
    }
    names
}

/// What is wrong with an answer.
fn wrong(panel: &Panel, answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("{}: {}", answer.status, answer.body));
    }
    let Ok(Json::Array(rows)) = serde_json::from_str(&answer.body) else {
        return Some(format!("no rows: {}", answer.body));
    };
    if rows.is_empty() {
        return Some("no row".into());
    }
    panel.columns.iter().find_map(|Column { name, is_number }| {
        if rows.iter().any(|row| row.get(name).is_none()) {
            return Some(format!("`{name}` is not in it: {}", rows[0]));
        }
        (*is_number && !rows.iter().any(|row| row[name].is_number()))
            .then(|| format!("`{name}` is no number: {}", rows[0]))
    })
}

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Asks until it is known how fresh the rows are, which takes about a second.
fn fresh(port: u16, target: &str, asked: &[(String, String)]) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(port, "GET", target, asked);
        let is_known = answer.headers.contains_key("projector-staleness");
        if is_known || answer.status != 200 || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn show_what_the_demo_serves() {
    let demo = Demo::start();
    let mut failed = Vec::new();
    let mut fail = |panel: &Panel, what: String| failed.push(format!("{} ({}): {what}", panel.title, panel.target));

    // Opened from a file, a page's origin is `null`.
    let page = read("index.html");
    let mut parked = BTreeSet::new();
    for panel in of_page(&page) {
        let answer = fresh(demo.port, &panel.target, &headers(&[("Origin", "null")]));
        if let Some(what) = wrong(&panel, &answer) {
            fail(&panel, what);
            continue;
        }
        let said = |name: &str| answer.headers.get(name).map_or("", String::as_str);
        if said("access-control-allow-origin") != "*" {
            fail(&panel, "a page that was opened from a file may not read it".into());
            continue;
        }
        let exposed: Vec<&str> = said("access-control-expose-headers").split(", ").collect();
        for read in page.split("headers.get('").skip(1).filter_map(|rest| rest.split('\'').next()) {
            if !exposed.contains(&read) {
                fail(&panel, format!("the page may not see {read}"));
            }
        }
        if said("projector-staleness").is_empty() {
            fail(&panel, "nobody knows how fresh it is".into());
        }
        if !said("projector-parked").is_empty() {
            parked.insert(panel.title.clone());
        }
    }
    assert!(parked.contains("Sales") && !parked.contains("Logged in"), "parked: {parked:?}");

    demo.execute(&read("freshness.sql"));
    let definition: Json = serde_json::from_str(&read("grafana.json")).unwrap();
    for panel in of_grafana(&definition) {
        // As the data source asks.
        let answer = ask(demo.port, "GET", &panel.target, &headers(&[("Accept", "application/json;q=0.9,text/plain")]));
        if let Some(what) = wrong(&panel, &answer) {
            fail(&panel, what);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));

    let trouble = ask(demo.port, "GET", "/freshness?select=projection&parked=gt.0&order=projection", &[]);
    let trouble: Vec<Json> = serde_json::from_str(&trouble.body).unwrap();
    let trouble: Vec<String> = trouble.iter().map(|row| text(&row["projection"])).collect();
    assert_eq!(trouble, ["account_balance", "order_saga", "product_page", "sales_by_hour"]);
}

#[test]
fn grafana_is_asked_for_its_data_source_and_finds_its_fields() {
    let definition: Json = serde_json::from_str(&read("grafana.json")).unwrap();
    let input = format!("${{{}}}", text(&definition["__inputs"][0]["name"]));
    let kind = text(&definition["__inputs"][0]["pluginId"]);
    for panel in list(&definition["panels"]) {
        let title = text(&panel["title"]);
        let mut fields = BTreeSet::new();
        for asked in list(&panel["targets"]) {
            for source in [&panel["datasource"], &asked["datasource"]] {
                assert_eq!([text(&source["type"]), text(&source["uid"])], [kind.clone(), input.clone()], "{title}");
            }
            fields.extend(list(&asked["columns"]).map(|column| text(&column["text"])));
        }
        let lacking: Vec<String> = spoken_of(panel).difference(&fields).cloned().collect();
        assert!(lacking.is_empty(), "{title} speaks of {lacking:?} and has {fields:?}");
        assert!(!text(&panel["description"]).is_empty(), "{title}");
    }
}
