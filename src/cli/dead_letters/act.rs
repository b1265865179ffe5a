//! `retry`, `discard` and `correct`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::time::{Duration, Instant};

use super::super::{FAILED, Failure, Outcome, count, plans};
use super::{Action, Desk, Which};
use crate::checkpoint::Partition;
use crate::event::Place;
use crate::parking::Decision;
use crate::pipeline::retry::{Report, Retry};
use crate::store::generations;
use crate::store::parked::desk::{self, Decided, Summary};
use crate::store::parked::retry::{Earnest, RowChange};

impl Desk {
    pub(super) async fn retry(&self, which: &Which, action: &Action) -> Outcome {
        let letters = self.chosen(which).await?;
        let who = action.who();
        for letter in &letters {
            desk::request(&self.pool, letter, &who).await.map_err(Failure::failed)?;
        }
        self.await_settled(&letters, action).await
    }

    pub(super) async fn discard(&self, which: &Which, reason: &str, action: &Action) -> Outcome {
        require_reason(reason)?;
        if let Some(place) = which.place()?
            && let Some(projections) = self.standing_before(which, &place).await?
        {
            for projection in projections {
                self.decide(&projection, &place, &Decision::Discard, None, reason, action).await?;
                println!("{place}: discarded; {projection} goes on");
            }
            return Ok(());
        }
        let mut letters = self.chosen(which).await?;
        if which.place.is_none() {
            // Those that only wait have nothing wrong with them; who means one says so.
            letters.retain(|letter| !letter.waits);
        }
        for letter in &letters {
            let original = desk::message(&self.pool, letter).await.map_err(Failure::failed)?;
            let original = original.and_then(|message| message.payload);
            self.decide(&letter.projection, &letter.place(), &Decision::Discard, original.as_deref(), reason, action)
                .await?;
        }
        self.await_settled(&letters, action).await
    }

    pub(super) async fn correct(
        &self,
        which: &Which,
        payload: &str,
        reason: &str,
        force: bool,
        action: &Action,
    ) -> Outcome {
        require_reason(reason)?;
        let Some(place) = which.place()? else {
            return Err(Failure::refused(
                "one event is corrected at a time: TOPIC/PARTITION@OFFSET. Many at once: export, edit, import",
            ));
        };
        let decision = Decision::Correct { payload: Some(read(payload)?) };
        if let Some(projections) = self.standing_before(which, &place).await? {
            for projection in projections {
                self.decide(&projection, &place, &decision, None, reason, action).await?;
                println!("{place}: corrected; {projection} tries it again");
            }
            return Ok(());
        }
        let letters = self.chosen(which).await?;
        if !force {
            for letter in &letters {
                let report = self.rehearse(letter, &BTreeMap::from([(letter.offset, decision.clone())])).await?;
                let refused = report.settled.failed.iter().find(|again| again.place == place);
                if let Some(again) = refused {
                    return Err(Failure::refused(format!(
                        "{place} cannot be applied to {} with this payload either: {}. Nothing is recorded; --force records \
                         it all the same",
                        letter.projection, again.reason
                    )));
                }
            }
        }
        for letter in &letters {
            let original = desk::message(&self.pool, letter).await.map_err(Failure::failed)?;
            let original = original.and_then(|message| message.payload);
            self.decide(&letter.projection, &place, &decision, original.as_deref(), reason, action).await?;
        }
        self.await_settled(&letters, action).await
    }

    pub(super) async fn decide(
        &self,
        projection: &str,
        place: &Place,
        decision: &Decision,
        original: Option<&[u8]>,
        reason: &str,
        action: &Action,
    ) -> Outcome {
        let who = action.who();
        let decided = Decided { projection, place, decision, original, reason, who: &who };
        desk::decide(&self.pool, &decided).await.map_err(Failure::failed)
    }

    /// The projections that stand still before an event, if that is where it is met.
    async fn standing_before(&self, which: &Which, place: &Place) -> Result<Option<Vec<String>>, Failure> {
        let all = crate::store::status::projections(&self.pool).await.map_err(Failure::failed)?;
        let standing: Vec<String> = all
            .into_iter()
            .filter(|known| known.halt.as_ref().is_some_and(|halt| halt.place.as_ref() == Some(place)))
            .map(|known| known.projection)
            .filter(|name| which.projection.as_ref().is_none_or(|wanted| wanted == name))
            .collect();
        Ok(Some(standing).filter(|standing| !standing.is_empty()))
    }

    /// Waits until the owners of the partitions have done what was asked of them, and says what came of it.
    pub(super) async fn await_settled(&self, letters: &[Summary], action: &Action) -> Outcome {
        if action.wait == 0 {
            println!("{} asked for; whoever owns the partition carries it out", count(letters.len(), "retry"));
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(action.wait);
        let mut pause = Duration::from_millis(50);
        loop {
            let mut open = 0;
            let mut stay = Vec::new();
            for letter in letters {
                let filter = desk::Filter {
                    projection: Some(letter.projection.clone()),
                    topic: Some(letter.topic.clone()),
                    partition: Some(letter.partition),
                    offset: Some(letter.offset),
                    limit: 1,
                    ..desk::Filter::default()
                };
                match desk::list(&self.pool, &filter).await.map_err(Failure::failed)?.pop() {
                    Some(now) if now.retry_requested_by.is_some() => open += 1,
                    Some(now) => stay.push(now),
                    None => {}
                }
            }
            if open == 0 {
                for letter in &stay {
                    println!(
                        "{} stays parked in {}: {} [{}]",
                        letter.place(),
                        letter.projection,
                        letter.message,
                        letter.code
                    );
                }
                println!("{} settled, {} still parked", letters.len() - stay.len(), stay.len());
                return if stay.is_empty() { Ok(()) } else { Err(Failure::told(FAILED)) };
            }
            if Instant::now() > deadline {
                return Err(Failure::failed(format!(
                    "{open} of {} not carried out within {} s; it is recorded, and the daemon that owns the partition does it. \
                     Is one running?",
                    letters.len(),
                    action.wait
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    pub(super) async fn try_retry(&self, which: &Which) -> Outcome {
        let letters = self.chosen(which).await?;
        let mut partitions: BTreeMap<(String, String, i32), Vec<Summary>> = BTreeMap::new();
        for letter in letters {
            let partition = (letter.projection.clone(), letter.topic.clone(), letter.partition);
            partitions.entry(partition).or_default().push(letter);
        }
        for ((projection, ..), letters) in partitions {
            let wanted = letters.iter().map(|letter| letter.offset).collect();
            let report = self.walk(&letters[0], &wanted, &BTreeMap::new()).await?;
            for (place, word) in &report.settled.released {
                println!("{place} would be {word} in {projection}");
            }
            for again in &report.settled.failed {
                println!("{} would stay parked in {projection}: {}", again.place, again.reason);
            }
            for place in &report.settled.waiting {
                println!("{place} would still wait in {projection}");
            }
            report.changes.iter().for_each(print_change);
            if report.more {
                println!("and more of {}/{}", letters[0].topic, letters[0].partition);
            }
        }
        println!("Nothing was written.");
        Ok(())
    }

    async fn rehearse(&self, letter: &Summary, instead: &BTreeMap<i64, Decision>) -> Result<Report, Failure> {
        self.walk(letter, &BTreeSet::from([letter.offset]), instead).await
    }

    /// Goes through the letters of a partition without writing anything.
    async fn walk(
        &self,
        letter: &Summary,
        wanted: &BTreeSet<i64>,
        instead: &BTreeMap<i64, Decision>,
    ) -> Result<Report, Failure> {
        let plans = plans(&self.settings.projections)?;
        let listed = generations::list(&self.pool).await.map_err(Failure::refused)?;
        let of_letter = listed.iter().find(|listed| listed.generation.id == letter.generation);
        let Some(listed) = of_letter else {
            return Err(Failure::refused(format!(
                "the generation of `{}` that it is parked in is gone",
                letter.projection
            )));
        };
        let (plan, generation) = (&listed.plan(&plans).map_err(Failure::refused)?, &listed.generation);
        let partition = Partition::new(letter.topic.clone(), letter.partition);
        let source = plan.sources.iter().position(|source| source.topics.matches(&letter.topic));
        let Some(source) = source else {
            return Err(Failure::refused(format!("no source of `{}` reads {}", plan.name, letter.topic)));
        };
        let retry = Retry {
            pool: &self.pool,
            plan,
            generation,
            source,
            partition: &partition,
            served_schema: &self.settings.serve.schema,
            poison_attempts: self.settings.fold.poison_attempts,
        };
        retry.run(wanted, instead, Earnest::DryRun).await.map_err(Failure::failed)
    }
}

fn require_reason(reason: &str) -> Outcome {
    match reason.trim() {
        "" => Err(Failure::refused("a decision needs a reason in words: --reason \"…\"")),
        _ => Ok(()),
    }
}

/// The bytes of a file, or of standard input.
pub(super) fn read(file: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().read_to_end(&mut bytes).map(drop),
        file => std::fs::read(file).map(|read| bytes = read),
    };
    read.map_err(|error| Failure::refused(format!("{file}: {error}")))?;
    Ok(bytes)
}

/// The columns of a row that a retry changes.
fn print_change(change: &RowChange) {
    let (before, after) = (change.before.clone().unwrap_or_default(), change.after.clone().unwrap_or_default());
    let what = match (&change.before, &change.after) {
        (None, _) => "appears in",
        (_, None) => "vanishes from",
        _ => "changes in",
    };
    println!("a row {what} {}:", change.table);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let nothing = "null".to_string();
    for name in names {
        let (old, new) = (before.get(name).unwrap_or(&nothing), after.get(name).unwrap_or(&nothing));
        match old == new {
            true => println!("    {name}: {new}"),
            false => println!("  * {name}: {old} -> {new}"),
        }
    }
}
