//! Joins and rollups: what the store makes of them against the naive model.

mod explorer;
pub mod network;
mod random;
mod scenarios;
mod shared;
mod soak;
mod told;

use std::collections::BTreeMap;

use projector::batch::Batch;
use projector::event::Record;
use projector::golden::Model;
use projector::intake::intake;
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use projector::store::commit::commit;
use projector::store::propagate::propagate;
use projector::store::write::Way;
use projector::store::{Generation, catalog, connect};
use projector::value::Value;
use projector::value::json::{canonical, json_value};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};

use super::world::{World, made};

/// An event as a service sends it: the source's index, the type, the data.
#[derive(Debug, Clone)]
pub struct Sent {
    pub source: usize,
    pub type_: &'static str,
    pub data: serde_json::Value,
}

impl Sent {
    pub fn payload(&self) -> String {
        let payload = json!({
            "specversion": "1.0", "id": "1", "source": "/test", "type": self.type_, "data": self.data,
            "time": "2026-11-21T00:00:00Z",
        });
        payload.to_string()
    }
}

/// A projection in a database of its own, and the model of it.
pub struct Stage {
    /// Takes its database along when it goes.
    _world: World,
    pub pool: PgPool,
    pub plan: Plan,
    pub generation: Generation,
    pub model: Model,
}

type Rows = BTreeMap<String, BTreeMap<String, String>>;

impl Stage {
    pub fn new(name: &str, yaml: &str) -> Stage {
        let (plan, found) = compile(&SourceFile::new("made.yaml", yaml));
        let plan = plan.unwrap_or_else(|| panic!("{found:#?}"));
        let world = World::new(name);
        let (pool, generation) = world.runtime.block_on(async {
            let pool = connect::pool(world.options(), 8, 60_000);
            catalog::migrate(&pool).await.unwrap();
            let generation = made(&pool, &plan).await;
            (pool, generation)
        });
        let model = Model::new(&plan);
        Stage { _world: world, pool, plan, generation, model }
    }

    /// What daemons have made of a projection.
    pub fn over(world: World, plan: Plan, model: Model) -> Stage {
        let options = world.options();
        let generation =
            Generation { id: 1, projection: plan.name.clone(), number: 1, schema: format!("{}@1", plan.name) };
        let pool = world.runtime.block_on(async { connect::pool(options, 2, 60_000) });
        Stage { _world: world, pool, plan, generation, model }
    }

    /// Empties all tables, of the model too.
    pub async fn reset(&mut self) {
        let all = self.table_names().into_iter();
        let all: Vec<String> = all.map(|table| format!("\"{}\".{table}", self.generation.schema)).collect();
        self.pool.execute(AssertSqlSafe(format!("TRUNCATE {}", all.join(", ")))).await.unwrap();
        self.model = Model::new(&self.plan);
    }

    fn table_names(&self) -> Vec<String> {
        let tables = self.plan.tables.iter().map(|table| format!("{:?}", table.name));
        tables.chain(["\"projector_marks\"".to_string()]).collect()
    }

    /// Folds an event into a batch, and applies it to the model.
    pub fn fold(&mut self, batch: &mut Batch, sent: &Sent) {
        fold(&self.plan, Some(&mut self.model), batch, sent);
    }

    pub fn batch(&self) -> Batch {
        Batch::new(&self.plan)
    }

    pub async fn commit(&self, batch: Batch, way: Way) {
        let batch = batch.seal();
        loop {
            match commit(&self.pool, &self.plan, &self.generation, &batch, 0.0, way).await {
                Ok(_) => return,
                Err(error) if error.is_collision() => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn propagate_all(&self) {
        while propagate(&self.pool, &self.plan, &self.generation).await.unwrap().is_some() {}
    }

    /// What differs between the model's rows and those that readers see.
    pub async fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        for (at, table) in self.plan.tables.iter().enumerate().filter(|(_, table)| table.served) {
            let columns = table.key.iter().chain(table.columns.iter().filter(|column| !column.hidden));
            let types: BTreeMap<&str, _> = columns.map(|c| (c.name.as_str(), &c.shape.type_)).collect();
            let key = |row: &BTreeMap<String, String>| -> String {
                table.key.iter().map(|column| row[&column.name].as_str()).collect::<Vec<_>>().join(",")
            };
            let canonical = |value: &Value| canonical(&value.to_json_text()).unwrap();
            let model = self.model.visible_rows(&self.plan, at, 0).unwrap();
            let model: Rows = model
                .into_iter()
                .map(|row| row.iter().map(|(name, value)| (name.clone(), canonical(value))).collect())
                .map(|row| (key(&row), row))
                .collect();
            let selected: Vec<String> = types.keys().map(|name| format!("to_jsonb({name})::text AS {name}")).collect();
            let sql = format!("SELECT {} FROM views.{}", selected.join(", "), table.name);
            let mut found = Rows::new();
            for row in self.pool.fetch_all(AssertSqlSafe(sql)).await.unwrap() {
                let mut plain = BTreeMap::new();
                for (at, (name, type_)) in types.iter().enumerate() {
                    let text: Option<&str> = row.get(at);
                    let value = text.map_or(Value::Null, |text| json_value(text).unwrap());
                    plain.insert(name.to_string(), canonical(&type_.coerce(value).unwrap()));
                }
                found.insert(key(&plain), plain);
            }
            for (key, row) in &model {
                match found.get(key) {
                    None => differences.push(format!("{} {key} is not there", table.name)),
                    Some(other) => {
                        differences.extend(row.iter().filter(|(name, value)| other[*name] != **value).map(
                            |(name, value)| format!("{} {key}: {name} is {}, not {value}", table.name, other[name]),
                        ))
                    }
                }
            }
            let more = found.keys().filter(|key| !model.contains_key(*key));
            differences.extend(more.map(|key| format!("{} {key} should not be there", table.name)));
        }
        differences
    }
}

pub fn fold(plan: &Plan, model: Option<&mut Model>, batch: &mut Batch, sent: &Sent) {
    let payload = sent.payload();
    let record = Record {
        topic: "t",
        partition: 0,
        offset: 0,
        time: Some(0),
        key: None,
        payload: Some(payload.as_bytes()),
        headers: vec![],
    };
    let taken = intake(plan, sent.source, &record, None, &|_, _| false).unwrap_or_else(|e| panic!("{e:?} {payload}"));
    if let Some(model) = model {
        for row in &taken.patches {
            model.apply(plan, row.table, &row.key, &row.patch).unwrap();
        }
    }
    batch.absorb(plan, taken.patches).unwrap();
}
