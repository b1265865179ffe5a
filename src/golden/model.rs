//! Tables in memory, as simple as they can be: what the store is measured against.

use std::collections::HashMap;

use super::ExpectedRow;
use super::case::Encoded;
use crate::batch::{Batch, Key};
use crate::decode::decode;
use crate::event::Record;
use crate::fold::{RowPatches, fold};
use crate::patch::{Patch, Row};
use crate::plan::Plan;

/// The rows of a projection, by table and key.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub tables: Vec<HashMap<Key, Row>>,
}

impl Model {
    pub fn new(plan: &Plan) -> Model {
        Model { tables: plan.tables.iter().map(|_| HashMap::new()).collect() }
    }

    /// Applies one patch to one row.
    ///
    /// # Errors
    /// When a sum leaves its column's type.
    pub fn apply(&mut self, plan: &Plan, table: usize, key: &Key, patch: &Patch) -> Result<(), String> {
        let shapes = &plan.tables[table].shapes;
        let row = self.tables[table].entry(key.clone()).or_insert_with(|| Row::blank(shapes));
        patch.apply(row, shapes).map_err(|overflow| overflow.message)
    }

    pub(super) fn one_by_one(plan: &Plan, events: &[Encoded]) -> Result<Model, String> {
        let mut model = Model::new(plan);
        for event in events {
            for row in patches(plan, event)? {
                model.apply(plan, row.table, &row.key, &row.patch).map_err(|e| at(event, e))?;
            }
        }
        Ok(model)
    }

    pub(super) fn in_one_batch(plan: &Plan, events: &[Encoded]) -> Result<Model, String> {
        let mut batch = Batch::new(plan);
        for event in events {
            batch.absorb(plan, patches(plan, event)?).map_err(|(_, overflow)| at(event, overflow.message))?;
        }
        let mut model = Model::new(plan);
        for (table, rows) in batch.seal().tables.iter().enumerate() {
            for (key, patch) in rows {
                model.apply(plan, table, key, patch)?;
            }
        }
        Ok(model)
    }

    /// What readers see of a table, by column.
    pub(super) fn visible_rows(&self, plan: &Plan, table: usize) -> Vec<ExpectedRow> {
        let shape = &plan.tables[table];
        let visible = |row: &Row| !shape.presence || row.present != 0;
        let columns = |(key, row): (&Key, &Row)| {
            let key = shape.key.iter().zip(key).map(|(column, value)| (column.name.clone(), value.clone()));
            let rest = shape.columns.iter().zip(&row.values).filter(|(column, _)| !column.hidden);
            key.chain(rest.map(|(column, value)| (column.name.clone(), value.clone()))).collect()
        };
        self.tables[table].iter().filter(|(_, row)| visible(row)).map(columns).collect()
    }
}

fn at(event: &Encoded, message: String) -> String {
    format!("the event on line {} cannot be applied: {message}", event.line)
}

fn patches(plan: &Plan, event: &Encoded) -> Result<RowPatches, String> {
    let record = Record {
        topic: &event.topic,
        partition: 0,
        offset: event.offset,
        time: None,
        key: event.key.as_deref(),
        payload: event.payload.as_deref(),
        headers: event.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect(),
    };
    let decoded = decode(&plan.sources[event.source], &record).map_err(|failure| at(event, failure.message))?;
    fold(plan, event.source, &decoded).map_err(|unapplied| at(event, unapplied.to_string()))
}
