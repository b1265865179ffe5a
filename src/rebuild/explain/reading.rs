//! The log, read for the sake of some rows of one generation or of two: once more for every step from row to row, however
//! many rows there are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::follow::{Way, grow, ways};
use super::pass::{Found, Kept, Pass, merged, source_of};
use super::replay::{Rows, partners};
use super::{Question, Trouble};
use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::plan::{Plan, Start};
use crate::source::{Consumer, Ranges, SourceError, resume, scan};
use crate::store::explain::Moment;
use crate::value::format_time;

/// How many messages are kept of a row at most.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Of one that follows from no others.
    pub plain: usize,
    /// Of one that does: with each of them all of these rows are worked out anew.
    pub derived: usize,
}

impl Most {
    pub const ALL: Most = Most { plain: usize::MAX, derived: usize::MAX };

    fn of(self, ways: &[Way]) -> usize {
        if ways.len() > 1 { self.derived } else { self.plain }
    }
}

/// A row whose events are looked for.
pub struct Search {
    pub question: Question,
    pub ways: Vec<Way>,
    /// The messages that touch it, or rows that it follows from, in the order in which they are told. `None`: they are too
    /// many.
    pub kept: Option<Vec<Kept>>,
    /// What is not followed.
    pub notes: Vec<String>,
}

impl Search {
    fn of(plan: &Plan, question: Question) -> Search {
        let (ways, notes) = ways(plan, question.table, &question.key);
        Search { question, ways, kept: Some(Vec::new()), notes }
    }

    /// All rows that matter for it.
    pub fn rows(&self, plan: &Plan) -> Rows {
        Rows::of(plan, &self.ways)
    }

    /// Takes what a reading has found. True when more rows matter than were known to.
    fn take(&mut self, plan: &Plan, found: Found) -> Result<bool, Trouble> {
        self.kept = found.kept.map(merged);
        let Some(kept) = &self.kept else { return Ok(false) };
        let partners = partners(plan, &self.ways, kept).map_err(Trouble::Rows)?;
        Ok(grow(&mut self.ways, found.children.into_iter().chain(partners)))
    }
}

/// A generation, and the rows of it that are looked into.
pub struct Reader<'p> {
    pub plan: &'p Plan,
    pub moment: &'p Moment,
    pub searches: Vec<Search>,
    log: Log,
    most: Most,
    /// What the last reading could not tell.
    obscure: Vec<String>,
}

impl<'p> Reader<'p> {
    /// `age_s` are the seconds since the generation was made.
    ///
    /// # Errors
    /// When Kafka does not answer, or the log is not what the generation has read.
    pub fn new(
        settings: &Settings,
        (plan, moment, age_s): (&'p Plan, &'p Moment, f64),
        questions: impl IntoIterator<Item = Question>,
        most: Most,
    ) -> Result<Reader<'p>, Trouble> {
        let searches: Vec<Search> = questions.into_iter().map(|question| Search::of(plan, question)).collect();
        let begun_at = moment.now - (age_s * 1e6) as i64;
        let log = Log::of(settings, plan, &searches, moment, begun_at)?;
        Ok(Reader { plan, moment, searches, log, most, obscure: Vec::new() })
    }

    /// What is not known of the log.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.log.notes.iter().chain(&self.obscure)
    }

    fn pass(&self) -> Pass<'_> {
        let hunts = self.searches.iter().map(|search| (&search.ways[..], self.most.of(&search.ways)));
        Pass::new(self.plan, self.moment, &self.log.ranges, hunts)
    }

    fn take(&mut self, (found, obscure): (Vec<Found>, Vec<String>)) -> Result<bool, Trouble> {
        self.obscure = obscure;
        let mut grown = false;
        for (search, found) in self.searches.iter_mut().zip(found) {
            grown |= search.take(self.plan, found)?;
        }
        Ok(grown)
    }
}

/// The parts of the log that some generations have read, together.
fn ranges(readers: &[Reader<'_>]) -> Ranges {
    let mut all = Ranges::new();
    for (partition, range) in readers.iter().flat_map(|reader| &reader.log.ranges) {
        let known = all.entry(partition.clone()).or_insert_with(|| range.clone());
        *known = known.start.min(range.start)..known.end.max(range.end);
    }
    all
}

/// How many messages are read each time, by offsets.
pub fn length(readers: &[Reader<'_>]) -> i64 {
    ranges(readers).values().map(|range: &Range<i64>| (range.end - range.start).max(0)).sum()
}

/// Reads the log until no more rows are found that matter. Blocks for as long as reading takes.
///
/// # Errors
/// When Kafka does not answer, or what follows from the events cannot be worked out.
pub fn read(settings: &Settings, readers: &mut [Reader<'_>]) -> Result<(), Trouble> {
    let ranges = ranges(readers);
    loop {
        let mut passes: Vec<Pass<'_>> = readers.iter().map(Reader::pass).collect();
        scan(&settings.kafka, &settings.fold, &ranges, &mut |record| {
            passes.iter_mut().for_each(|pass| pass.take(record));
        })?;
        let found: Vec<(Vec<Found>, Vec<String>)> = passes.into_iter().map(Pass::end).collect();
        let mut grown = false;
        for (reader, found) in readers.iter_mut().zip(found) {
            grown |= reader.take(found)?;
        }
        if !grown {
            return Ok(());
        }
    }
}

/// The parts of the log that a generation has read, of topics that matter.
struct Log {
    ranges: Ranges,
    notes: Vec<String>,
}

impl Log {
    fn of(
        settings: &Settings,
        plan: &Plan,
        searches: &[Search],
        moment: &Moment,
        begun_at: i64,
    ) -> Result<Log, Trouble> {
        let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-explain")?;
        let mut log = Log { ranges: BTreeMap::new(), notes: Vec::new() };
        let feeds = |source: usize| {
            let mut ways = searches.iter().flat_map(|search| &search.ways);
            ways.any(|way| plan.tables[way.table].handlers.iter().any(|handler| handler.source == source))
        };
        for (partition, next) in &moment.checkpoints {
            let Some(source) = source_of(plan, &partition.topic).filter(|source| feeds(*source)) else { continue };
            let offsets = consumer.offsets(partition).map_err(SourceError::from)?;
            resume(partition, *next, offsets).map_err(|gap| Trouble::Log(gap.message))?;
            let since = match plan.sources[source].start {
                Start::Earliest => None,
                Start::At(time) => Some(time),
                Start::Latest => {
                    log.notes.push(from_its_end(partition, begun_at));
                    Some(begun_at)
                }
            };
            let begin = since.map_or(Ok(Some(offsets.low)), |time| consumer.offset_at(partition, time));
            let begin = begin.map_err(SourceError::from)?.unwrap_or(offsets.high);
            if begin == offsets.low && begin > 0 {
                let gone = format!("the log of {partition} begins at offset {begin}: what came before is not told");
                log.notes.push(gone);
            }
            log.ranges.insert(partition.clone(), begin..*next);
        }
        Ok(log)
    }
}

fn from_its_end(partition: &Partition, begun_at: i64) -> String {
    format!(
        "{partition} was read from the end that it had; told is what came after {}, when the view was made",
        format_time(begun_at)
    )
}
