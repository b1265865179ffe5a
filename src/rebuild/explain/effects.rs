//! Which events made rows of two generations different: those that did something else to a row in the one than in the
//! other.

use std::collections::{HashMap, HashSet};

use indexmap::IndexSet;
use rust_decimal::Decimal;
use serde::Serialize;

use super::changes::{differences, visible_columns};
use super::reading::{Most, Reader, Search, length, read};
use super::steps::{parked, tell};
use super::{Changed, Question, RowName, Step, Trouble, order_note};
use crate::config::Settings;
use crate::plan::Plan;
use crate::store::Generation;
use crate::store::explain::Moment;
use crate::store::generations::Listed;
use crate::store::shown::{ShownRow, differing};
use crate::value::json::same;
use crate::value::parse_number;

/// Events of a row that are shown.
const SHOWN: usize = 5;
/// With more messages nothing is told of a row: all of them are kept in memory, and each is applied by itself.
const MOST: Most = Most { plain: 10_000, derived: 2_000 };

/// A generation as it was when it was compared.
#[derive(Debug, Clone, Copy)]
pub struct Side<'s> {
    pub generation: &'s Generation,
    pub plan: &'s Plan,
    pub moment: &'s Moment,
    /// Seconds since it was made.
    pub age_s: f64,
}

impl<'s> Side<'s> {
    pub fn of(listed: &'s Listed, plan: &'s Plan, moment: &'s Moment) -> Side<'s> {
        Side { generation: &listed.generation, plan, moment, age_s: listed.age_s }
    }
}

/// A row that differs, as either generation has it.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'s> {
    pub view: &'s str,
    pub old: Option<&'s ShownRow>,
    pub new: Option<&'s ShownRow>,
}

/// What came of looking for events.
#[derive(Debug)]
pub struct Found {
    /// Of each sample, in order.
    pub rows: Vec<Made>,
    /// What is not known of the log.
    pub notes: Vec<String>,
}

/// The events that made a row different.
#[derive(Debug, Default, Serialize)]
pub struct Made {
    /// The first of those that did something else to it.
    pub differ: Vec<Effects>,
    /// How many more there are of these.
    pub more: usize,
    /// How many touch the row and did the same to what differs.
    pub same: usize,
    pub notes: Vec<String>,
}

/// An event, and what it did to the row in either generation.
#[derive(Debug, Serialize)]
pub struct Effects {
    /// TOPIC/PARTITION@OFFSET
    pub place: String,
    /// The record's, RFC 3339.
    pub time: Option<String>,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// The rows that it touches, of those that the row follows from; none, if it touches the row itself.
    pub others: Vec<RowName>,
    /// `None`: it has nothing to do with the row there.
    pub old: Option<Effect>,
    pub new: Option<Effect>,
}

/// What an event did to the row in one generation.
#[derive(Debug, Default, Serialize)]
pub struct Effect {
    pub appears: bool,
    pub vanishes: bool,
    /// Of the columns that differ, those that it changed otherwise than in the other generation.
    pub changes: Vec<Changed>,
    /// The code of the error for which it is parked.
    pub parked: Option<String>,
    /// Why it did nothing.
    pub passed_over: Option<String>,
}

/// Looks for the events of all samples in one go. Blocks for as long as reading takes. With more than `most` events to
/// read it does not begin.
///
/// # Errors
/// When Kafka does not answer, or the log is not what the generations have read, or too long.
pub fn effects(
    settings: &Settings,
    (old, new): (Side<'_>, Side<'_>),
    samples: &[Sample<'_>],
    most: Option<i64>,
) -> Result<Found, Trouble> {
    let questions = |side: Side<'_>| -> Result<Vec<Question>, Trouble> {
        samples.iter().map(|sample| question(side.plan, sample)).collect()
    };
    let mut readers = [
        Reader::new(settings, (old.plan, old.moment, old.age_s), questions(old)?, MOST)?,
        Reader::new(settings, (new.plan, new.moment, new.age_s), questions(new)?, MOST)?,
    ];
    let events = length(&readers);
    if most.is_some_and(|most| events > most) {
        return Err(Trouble::TooLong(events));
    }
    read(settings, &mut readers)?;
    let [of_old, of_new] = &readers;
    let searches = of_old.searches.iter().zip(&of_new.searches).zip(samples);
    let rows = searches.map(|((one, other), sample)| made(sample, (old, one), (new, other)));
    let rows = rows.collect::<Result<_, _>>().map_err(Trouble::Rows)?;
    let notes: IndexSet<String> = readers.iter().flat_map(Reader::notes).cloned().collect();
    Ok(Found { rows, notes: notes.into_iter().collect() })
}

fn question(plan: &Plan, sample: &Sample<'_>) -> Result<Question, Trouble> {
    let row = sample.old.or(sample.new);
    let question = row.and_then(|row| Question::of_row(plan, sample.view, row));
    question.ok_or_else(|| Trouble::Log(format!("a key of {} cannot be read", sample.view)))
}

/// What the log gives for a row in one generation.
struct Told {
    steps: Vec<Step>,
    /// Parked events that would touch it, with their errors' codes.
    parked: HashMap<String, String>,
    notes: Vec<String>,
}

impl Told {
    fn of(side: Side<'_>, search: &Search, served: Option<&ShownRow>) -> Result<Option<Told>, String> {
        let Some(kept) = &search.kept else { return Ok(None) };
        let (Side { plan, moment, generation, .. }, rows) = (side, search.rows(side.plan));
        let told = tell(plan, &search.question, &rows, kept)?;
        let parked = parked(plan, &rows, moment).into_iter().map(|parked| (parked.place, parked.code)).collect();
        let Question { table, key } = &search.question;
        let now = told.model.visible_row(plan, *table, key, moment.now)?;
        let mut notes = search.notes.clone();
        notes.extend(order_note(plan, &search.ways, kept));
        let differ = !differences(&plan.tables[*table], now.as_ref(), served).is_empty();
        if now.is_some() != served.is_some() || differ {
            notes.push(format!("the row that generation {} has is not what the log gives", generation.number));
        }
        Ok(Some(Told { steps: told.steps, parked, notes }))
    }

    fn step(&self) -> HashMap<&str, &Step> {
        self.steps.iter().map(|step| (step.place.as_str(), step)).collect()
    }
}

fn made(
    sample: &Sample<'_>,
    (old, in_old): (Side<'_>, &Search),
    (new, in_new): (Side<'_>, &Search),
) -> Result<Made, String> {
    let told = (Told::of(old, in_old, sample.old)?, Told::of(new, in_new, sample.new)?);
    let (Some(one), Some(other)) = told else {
        let row = RowName::of(&new.plan.tables[in_new.question.table], &in_new.question.key);
        let note = format!("too many events touch it to be told here; projector explain {row} tells all of them");
        return Ok(Made { notes: vec![note], ..Made::default() });
    };
    let columns = columns(sample, (old.plan, in_old), (new.plan, in_new));
    let notes: IndexSet<String> = one.notes.iter().chain(&other.notes).cloned().collect();
    let mut made = Made { notes: notes.into_iter().collect(), ..Made::default() };
    let (before, after) = (one.step(), other.step());
    for place in in_order(&one.steps, &other.steps) {
        let (was, is) = (before.get(place).copied(), after.get(place).copied());
        let Some(step) = is.or(was) else { continue };
        let old = effect(was, is, one.parked.get(place), &columns);
        let new = effect(is, was, other.parked.get(place), &columns);
        match differ(old.as_ref(), new.as_ref()) {
            false => made.same += 1,
            true if made.differ.len() == SHOWN => made.more += 1,
            true => made.differ.push(Effects {
                place: step.place.clone(),
                time: step.time.clone(),
                type_: step.type_.clone(),
                others: if step.direct { Vec::new() } else { step.others.clone() },
                old,
                new,
            }),
        }
    }
    Ok(made)
}

/// The columns that differ; of a row that only one generation has, all that both definitions have.
fn columns(sample: &Sample<'_>, (old, in_old): (&Plan, &Search), (new, in_new): (&Plan, &Search)) -> HashSet<String> {
    let known: HashSet<&str> = visible_columns(&new.tables[in_new.question.table]).collect();
    match (sample.old, sample.new) {
        (Some(old), Some(new)) => differing(old, new).map(|(column, ..)| column.to_string()).collect(),
        _ => {
            let columns = visible_columns(&old.tables[in_old.question.table]);
            columns.filter(|column| known.contains(column)).map(str::to_string).collect()
        }
    }
}

/// The places of the events that either has, in its order.
fn in_order<'s>(old: &'s [Step], new: &'s [Step]) -> IndexSet<&'s str> {
    let mut places = IndexSet::new();
    let mut rest = old;
    for step in new {
        if let Some(at) = rest.iter().position(|other| other.place == step.place) {
            // What the old one alone has comes before it.
            places.extend(rest[..at].iter().map(|other| other.place.as_str()));
            rest = &rest[at + 1..];
        }
        places.insert(step.place.as_str());
    }
    places.extend(rest.iter().map(|other| other.place.as_str()));
    places
}

/// What an event did in one generation, as far as it is something else than in the other.
fn effect(
    step: Option<&Step>,
    other: Option<&Step>,
    parked: Option<&String>,
    columns: &HashSet<String>,
) -> Option<Effect> {
    let Some(step) = step else { return parked.map(|code| Effect { parked: Some(code.clone()), ..Effect::default() }) };
    let of_other = |column: &str| other.and_then(|other| other.changes.iter().find(|change| change.column == column));
    let own = step.changes.iter().filter(|change| {
        columns.contains(&change.column) && of_other(&change.column).is_none_or(|other| !did_the_same(change, other))
    });
    Some(Effect {
        appears: step.appears,
        vanishes: step.vanishes,
        changes: own.cloned().collect(),
        parked: parked.cloned(),
        passed_over: step.passed_over.clone(),
    })
}

/// Whether two changes of a column come to the same: the same value, or the same difference.
fn did_the_same(one: &Changed, other: &Changed) -> bool {
    same(one.after.get(), other.after.get())
        || matches!((growth(one), growth(other)), (Some(one), Some(other)) if one == other)
}

/// By how much a number changes; NULL counts for nothing.
fn growth(change: &Changed) -> Option<Decimal> {
    let number = |text: &str| match text {
        "null" => Some(Decimal::ZERO),
        text => parse_number(text)?.as_decimal(),
    };
    number(change.after.get())?.checked_sub(number(change.before.get())?)
}

fn differ(old: Option<&Effect>, new: Option<&Effect>) -> bool {
    let nothing = Effect::default();
    let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
    let marks =
        |effect: &Effect| (effect.appears, effect.vanishes, effect.parked.is_some(), effect.passed_over.is_some());
    marks(old) != marks(new) || !old.changes.is_empty() || !new.changes.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn change(column: &str, before: &str, after: &str) -> Changed {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        Changed { column: column.into(), before: raw(before), after: raw(after) }
    }

    fn step(place: &str, changes: Vec<Changed>) -> Step {
        let place = place.into();
        Step {
            place,
            time: None,
            type_: None,
            direct: true,
            others: Vec::new(),
            appears: false,
            vanishes: false,
            changes,
            decision: None,
            passed_over: None,
        }
    }

    #[test]
    fn the_same_is_the_same_value_or_the_same_difference() {
        let same = |one: (&str, &str), other: (&str, &str)| {
            did_the_same(&change("c", one.0, one.1), &change("c", other.0, other.1))
        };
        assert!(same(("10", "15"), ("12.00", "17.00")));
        assert!(same(("null", "5"), ("0", "5.0")));
        assert!(same(("\"a\"", "\"c\""), ("\"b\"", "\"c\"")));
        assert!(!same(("10", "15"), ("12", "16")));
        assert!(!same(("null", "\"a\""), ("null", "\"b\"")));
        // More digits than a float has.
        assert!(!same(("0", "12345678901234567890.01"), ("0", "12345678901234567890.02")));
    }

    #[test]
    fn only_columns_that_differ_count() {
        let columns = HashSet::from(["n".to_string()]);
        let (old, new) = (
            step("t/0@1", vec![change("n", "1", "2"), change("m", "1", "2")]),
            step("t/0@1", vec![change("n", "1", "3"), change("m", "1", "9")]),
        );
        let shown = effect(Some(&old), Some(&new), None, &columns).unwrap();
        assert_eq!(shown.changes.iter().map(|change| change.column.as_str()).collect::<Vec<_>>(), ["n"]);
        let alone = effect(Some(&old), None, None, &columns).unwrap();
        assert!(differ(Some(&alone), None));
        let same = effect(Some(&old), Some(&old), None, &columns);
        assert!(!differ(same.as_ref(), same.as_ref()));
        let code = "missing-field".to_string();
        assert!(differ(effect(None, Some(&old), Some(&code), &columns).as_ref(), None), "it is parked in one alone");
    }

    #[test]
    fn events_of_one_generation_alone_stand_where_it_has_them() {
        let steps = |places: &[&str]| places.iter().map(|place| step(place, Vec::new())).collect::<Vec<_>>();
        let (old, new) = (steps(&["a", "b", "d", "f"]), steps(&["a", "c", "d", "e"]));
        assert_eq!(in_order(&old, &new).into_iter().collect::<Vec<_>>(), ["a", "c", "b", "d", "e", "f"]);
        assert_eq!(in_order(&steps(&["a", "b"]), &steps(&["b", "a"])).len(), 2, "each once");
    }
}
