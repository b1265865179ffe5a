//! The golden tests beside an upcaster.

use std::sync::Arc;

use bumpalo::Bump;

use super::Report;
use crate::decode::decode;
use crate::event::Record;
use crate::plan::{Plan, Topics, Upcaster, attach, compile};
use crate::spec;
use crate::spec::diagnostic::{Diagnostic, Sink, SourceFile};
use crate::spec::upcaster::{Case, TestFile};
use crate::value::json::canonical;

/// Runs the cases of a test file against its upcaster.
///
/// # Errors
/// What is wrong with the test file itself.
pub fn run_upcaster(upcaster: &Arc<Upcaster>, file: &Arc<SourceFile>) -> Result<Vec<Report>, Vec<Diagnostic>> {
    let sink = Sink::new(file.clone());
    let tests: Option<TestFile> = spec::read(&sink);
    let run = |case: &Case| {
        let differences = differences(upcaster, case);
        let passed = if differences.is_empty() { vec!["upcast"] } else { Vec::new() };
        Report { name: case.name.value.clone(), passed, left_out: Vec::new(), differences }
    };
    let reports = tests.map(|tests| tests.cases.iter().map(run).collect());
    if sink.has_errors() { Err(sink.into_diagnostics()) } else { Ok(reports.unwrap_or_default()) }
}

fn differences(upcaster: &Arc<Upcaster>, case: &Case) -> Vec<String> {
    let wanted = case.becomes.as_ref().map(|becomes| canonical(&becomes.value.0).unwrap_or_default());
    match (upcast(upcaster, case), wanted, &case.error) {
        (Ok(found), Some(wanted), _) if found == wanted => Vec::new(),
        (Ok(found), wanted, _) => {
            vec![format!("becomes  {found}"), format!("expected {}", wanted.unwrap_or_else(|| "an error".into()))]
        }
        (Err(message), _, Some(error)) if message.contains(error.as_str()) => Vec::new(),
        (Err(message), _, Some(error)) => vec![format!("the error is {message}"), format!("expected {}", error.value)],
        (Err(message), _, None) => vec![message],
    }
}

/// What becomes of a case's data, in canonical JSON.
fn upcast(upcaster: &Arc<Upcaster>, case: &Case) -> Result<String, String> {
    // Any topic that the upcaster is for will do, and its steps read nothing else of the message.
    let topic = match &upcaster.topics {
        Topics::Named(topic) => topic.clone(),
        Topics::Matching(_) => String::new(),
    };
    let mut plans = [reader(&topic)?];
    let mut anywhere = (**upcaster).clone();
    anywhere.topics = Topics::Named(topic.clone());
    attach(&mut plans, &[Arc::new(anywhere)]);
    let type_ = case.type_.as_ref().map_or_else(|| first_type(upcaster), |type_| type_.value.clone());
    let record = Record {
        topic: &topic,
        partition: 0,
        offset: 0,
        time: Some(0),
        key: None,
        payload: Some(case.data.value.0.as_bytes()),
        headers: vec![("type", Some(type_.as_bytes()))],
    };
    let arena = Bump::new();
    let events = decode(&plans[0].sources[0], &record, None, &arena);
    let events = events.map_err(|failure| format!("{} [{}]", failure.message, failure.code))?;
    canonical(events[0].body.unwrap_or_default())
}

fn first_type(upcaster: &Upcaster) -> String {
    use crate::plan::upcaster::TypePattern;
    upcaster.types.first().map_or_else(String::new, |pattern| match pattern {
        TypePattern::Whole(name) | TypePattern::Prefix(name) => name.clone(),
    })
}

/// A projection that takes any event of a topic: the message is its data, a header its type.
fn reader(topic: &str) -> Result<Plan, String> {
    let topic = if topic.is_empty() { "any" } else { topic };
    let text = format!(
        "projection: reader\nsources: {{ s: {{ topic: {topic}, format: json, type: headers.type }} }}\n\
         key: {{ k: id }}\ncolumns: {{ k: text, v: text }}\nhandlers: {{ s: {{ \"*\": {{ set: {{ v: data }} }} }} }}\n"
    );
    let (plan, found) = compile(&SourceFile::new("reader", text));
    plan.ok_or_else(|| found.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>().join("; "))
}
