//! The golden cases of the ten systems, each as a projection of its own, so that one daemon folds many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use projector::golden::{ReadRow, Scenario, scenarios};
use projector::plan::types::ColumnType;
use projector::plan::{Plan, Table, Topics, attach, compile, compile_upcasters};
use projector::spec::diagnostic::SourceFile;
use projector::value::Value;
use projector::value::json::{canonical, json_value};
use regex::Regex;
use serde_json::value::RawValue;

use crate::world::World;

/// A case as a projection: that of its system, with a number behind its name and those of its tables.
pub struct Case {
    pub system: String,
    pub projection: String,
    pub scenario: Scenario,
    number: usize,
    plan: Arc<Plan>,
    /// The views of the SQL file beside it, with the number.
    companions: Vec<String>,
    /// Files of the projection folder, by name.
    files: Vec<(String, String)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projections")
}

fn read(path: &Path) -> Option<Arc<SourceFile>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(SourceFile::new(path.display().to_string(), text))
}

/// The files of a folder that end in `.yaml` and hold no tests.
fn definitions(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.to_string_lossy().ends_with(".yaml") && !path.to_string_lossy().ends_with(".test.yaml"))
        .collect();
    paths.sort();
    paths
}

fn upcasters() -> Vec<Arc<SourceFile>> {
    definitions(&folder().join("upcasters")).iter().filter_map(|path| read(path)).collect()
}

/// All cases, by system and in the order of their files.
pub fn all() -> Vec<Case> {
    let (upcasters, found) = compile_upcasters(&upcasters());
    assert!(found.is_empty(), "{found:?}");
    let mut cases = Vec::new();
    for path in definitions(&folder()) {
        let file = read(&path).unwrap();
        let (plan, found) = compile(&file);
        let mut plan = plan.unwrap_or_else(|| panic!("{found:?}"));
        attach(std::slice::from_mut(&mut plan), &upcasters);
        let tests = read(&path.with_extension("test.yaml")).unwrap_or_else(|| panic!("{path:?} has no tests"));
        let sql = read(&path.with_extension("sql")).map(|file| file.text.clone());
        let plan = Arc::new(plan);
        let scenarios = scenarios(&plan, &tests).unwrap_or_else(|trouble| panic!("{trouble:?}"));
        for (number, scenario) in scenarios.into_iter().enumerate() {
            cases.push(Case::new(&plan, (&file.text, sql.as_deref()), number, scenario));
        }
    }
    cases
}

impl Case {
    fn new(plan: &Arc<Plan>, (text, sql): (&str, Option<&str>), number: usize, mut scenario: Scenario) -> Case {
        let system = plan.name.clone();
        let projection = format!("{system}_{number}");
        if let Some(last) = scenario.events.last_mut().filter(|event| scenario.fails && event.key.is_none()) {
            // An event without a key is parked nowhere: nobody knows what would have to wait behind it.
            last.key = Some(b"case".to_vec());
        }
        let mut files =
            vec![(format!("{projection}.yaml"), with_topics(&renamed(text, plan, number), &format!("{projection}.")))];
        let made = Regex::new(r"CREATE VIEW (\w+)").unwrap();
        let companions: BTreeSet<&str> =
            sql.iter().flat_map(|sql| made.captures_iter(sql)).map(|found| found.get(1).unwrap().as_str()).collect();
        if let Some(sql) = sql {
            let names = companions.iter().copied().chain(plan.tables.iter().map(|table| table.name.as_str()));
            files.push((format!("{projection}.sql"), with_number(sql, names, number)));
        }
        let companions = companions.into_iter().map(|view| format!("{view}_{number}")).collect();
        Case { system, projection, scenario, number, plan: plan.clone(), companions, files }
    }

    /// What is told of it.
    pub fn name(&self) -> String {
        format!("{}: {}", self.projection, self.scenario.name)
    }

    pub fn has_joins(&self) -> bool {
        !self.plan.edges.is_empty()
    }

    /// The topics that it reads, by short name, and how many partitions its events are in.
    pub fn topics(&self) -> Vec<(String, i32)> {
        let named = self.plan.sources.iter().filter_map(|source| match &source.topics {
            Topics::Named(topic) => Some(topic),
            Topics::Matching(_) => None,
        });
        let partitions = |topic: &String| {
            let events = self.scenario.events.iter().filter(|event| event.topic == *topic);
            events.map(|event| event.partition + 1).max().unwrap_or(1)
        };
        named.map(|topic| (self.topic(topic), partitions(topic))).collect()
    }

    fn topic(&self, topic: &str) -> String {
        format!("{}.{topic}", self.projection)
    }

    pub fn send(&self, world: &World, events: std::ops::Range<usize>) {
        self.scenario.events[events].iter().for_each(|event| world.send_golden(&self.topic(&event.topic), event));
    }

    fn view(&self, table: &Table) -> String {
        format!("{}_{}", table.name, self.number)
    }

    /// The rows of a view as JSON, read when the case says.
    fn query(&self, table: &Table, definitions: &BTreeMap<String, String>) -> String {
        let view = self.view(table);
        let from = match table.expire {
            None => format!("views.{view}"),
            // What the view says, at another time than now.
            Some(_) => {
                let definition = definitions[&view].trim_end_matches(';');
                assert!(definition.contains("now()"), "{definition}");
                let now = Value::Time(self.scenario.now).to_sql_text().unwrap();
                format!("({}) AS v", definition.replace("now()", &format!("'{now}'::timestamptz")))
            }
        };
        let names: Vec<&str> = types(table).into_keys().collect();
        format!("SELECT '{view}' AS view, row_to_json(r) AS row FROM (SELECT {} FROM {from}) AS r", names.join(", "))
    }

    /// What readers see that is not as the model has it, a line each.
    fn differences(&self, found: &BTreeMap<String, Vec<String>>) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, rows) in self.tables() {
            let name = &table.name;
            let expected = keyed(table, rows.iter().map(plain));
            let served = found.get(&self.view(table)).into_iter().flatten();
            let served = keyed(table, served.map(|json| read_plain(table, json)));
            for (key, row) in &expected {
                let Some(other) = served.get(key) else {
                    differences.push(format!("{name} {key} is not there"));
                    continue;
                };
                let wrong = row.iter().filter(|(column, value)| other[*column] != **value);
                differences.extend(
                    wrong.map(|(column, value)| format!("{name} {key}: {column} is {}, not {value}", other[column])),
                );
            }
            let more = served.keys().filter(|key| !expected.contains_key(*key));
            differences.extend(more.map(|key| format!("{name} {key} should not be there")));
        }
        differences
    }

    /// The served tables, and the rows that they are to have.
    fn tables(&self) -> impl Iterator<Item = (&Table, &Vec<ReadRow>)> {
        let table = |name: &String| self.plan.tables.iter().find(|table| table.name == *name).unwrap();
        self.scenario.rows.iter().map(move |(name, rows)| (table(name), rows))
    }
}

/// The rows of the views of SQL files.
pub fn companions(world: &World, cases: &[&Case]) -> Vec<String> {
    let rows = |view: &String| {
        let mut rows = world.query(&format!("SELECT '{view}' AS of, v.* FROM views.{view} AS v"));
        rows.sort();
        rows
    };
    cases.iter().flat_map(|case| &case.companions).flat_map(rows).collect()
}

/// The queries of all views, by name.
fn definitions_of_views(world: &World) -> Result<BTreeMap<String, String>, String> {
    let sql = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'views'";
    let rows = world.try_query(sql).map_err(|error| error.to_string())?;
    let text = |row: &serde_json::Value, column: &str| row[column].as_str().unwrap().to_string();
    let rows = rows.iter().map(|json| serde_json::from_str(json).unwrap());
    Ok(rows.map(|row| (text(&row, "viewname"), text(&row, "definition"))).collect())
}

/// The generations that the views of each projection show.
///
/// # Errors
/// What Postgres says.
pub fn shown(world: &World) -> Result<BTreeMap<String, BTreeSet<i32>>, String> {
    let generation = Regex::new("\"(\\w+)@(\\d+)\"").unwrap();
    let mut shown: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for definition in definitions_of_views(world)?.values() {
        for found in generation.captures_iter(definition) {
            shown.entry(found[1].to_string()).or_default().insert(found[2].parse().unwrap());
        }
    }
    Ok(shown)
}

/// What readers see of cases that is not as the model has it, a line each.
///
/// # Errors
/// What Postgres says, for example that a view is not there.
pub fn differences(world: &World, cases: &[&Case]) -> Result<Vec<String>, String> {
    let definitions = definitions_of_views(world)?;
    let queries = |case: &&Case| case.tables().map(|(table, _)| case.query(table, &definitions)).collect::<Vec<_>>();
    let all: Vec<String> = cases.iter().flat_map(queries).collect();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for json in world.try_query(&all.join(" UNION ALL ")).map_err(|error| error.to_string())? {
        let row: Served<'_> = serde_json::from_str(&json).unwrap();
        found.entry(row.view.to_string()).or_default().push(row.row.get().to_string());
    }
    let told = |case: &&Case| {
        let name = case.name();
        case.differences(&found).into_iter().map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    };
    Ok(cases.iter().flat_map(told).collect())
}

#[derive(serde::Deserialize)]
struct Served<'j> {
    view: &'j str,
    #[serde(borrow)]
    row: &'j RawValue,
}

/// A row by column, each value as canonical JSON: NULL is `null`, and text is in quotes.
type Plain = BTreeMap<String, String>;

fn plain(row: &ReadRow) -> Plain {
    row.iter().map(|(name, value)| (name.clone(), canonical(&value.to_json_text()).unwrap())).collect()
}

/// The columns that readers see.
fn types(table: &Table) -> BTreeMap<&str, &ColumnType> {
    let stored = table.key.iter().chain(table.columns.iter().filter(|column| !column.hidden));
    let generated = table.generated.iter().filter(|column| !column.hidden);
    let stored = stored.map(|column| (column.name.as_str(), &column.shape.type_));
    stored.chain(generated.map(|column| (column.name.as_str(), &column.type_))).collect()
}

fn read_plain(table: &Table, json: &str) -> Plain {
    let types = types(table);
    let row: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).unwrap();
    let value = |(name, raw): (String, Box<RawValue>)| {
        let value = types[name.as_str()].coerce(json_value(raw.get()).unwrap()).unwrap();
        (name, canonical(&value.to_json_text()).unwrap())
    };
    row.into_iter().map(value).collect()
}

fn keyed(table: &Table, rows: impl Iterator<Item = Plain>) -> BTreeMap<String, Plain> {
    let key = |row: &Plain| table.key.iter().map(|column| row[&column.name].as_str()).collect::<Vec<_>>().join(", ");
    rows.map(|row| (key(&row), row)).collect()
}

/// Puts a number behind names.
fn with_number<'n>(text: &str, names: impl Iterator<Item = &'n str>, number: usize) -> String {
    let names: Vec<&str> = names.collect();
    let names = Regex::new(&format!(r"\b({})\b", names.join("|"))).unwrap();
    names.replace_all(text, format!("${{1}}_{number}")).into_owned()
}

/// A definition with a number behind its name and those of its tables. A name that is passed over here makes the definition
/// refer to a table that is not there, or two of them claim one view.
pub fn renamed(text: &str, plan: &Plan, number: usize) -> String {
    let names = || plan.tables.iter().map(|table| table.name.as_str()).chain([plan.name.as_str()]);
    let table = Regex::new(r"^  \w+:$").unwrap();
    let referred = Regex::new(r"\btable: \w+").unwrap();
    let mut part = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with(|first: char| first.is_alphabetic()) {
            part = line.split(':').next().unwrap();
        }
        lines.push(match part {
            "projection" | "serve" => with_number(line, names(), number),
            "tables" if table.is_match(line) => with_number(line, names(), number),
            "tables" => referred
                .replace_all(line, |found: &regex::Captures<'_>| with_number(&found[0], names(), number))
                .into_owned(),
            _ => line.to_string(),
        });
    }
    lines.join("\n") + "\n"
}

/// A definition that reads topics of a test, each with something before its name.
pub fn with_topics(text: &str, before: &str) -> String {
    Regex::new(r"\btopic: ([\w.]+)").unwrap().replace_all(text, format!("topic: TOPIC({before}$1)")).into_owned()
}

/// Writes the files of cases, and the upcasters, for the topics of every case; makes the topics.
pub fn write(world: &World, cases: &[&Case]) {
    let folder = world.projections().join("upcasters");
    std::fs::create_dir_all(folder).unwrap();
    let topic = Regex::new(r"(?m)^topic: (.*)$").unwrap();
    for file in upcasters() {
        let name = Path::new(&file.path).file_name().unwrap().to_string_lossy();
        let text = topic.replace(&file.text, |found: &regex::Captures<'_>| {
            format!("topics: '.*[.]{}'", found[1].replace('.', "[.]"))
        });
        world.projection(&format!("upcasters/{name}"), &text);
    }
    for (name, text) in cases.iter().flat_map(|case| &case.files) {
        world.projection(name, text);
    }
    world.create_topics(&cases.iter().flat_map(|case| case.topics()).collect::<Vec<_>>());
}
