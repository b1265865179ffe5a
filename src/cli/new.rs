//! `projector new`

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, Failure, Outcome, print_diagnostics};
use crate::golden;
use crate::plan::{Plan, compile};
use crate::sample::{self, Message, Sample};
use crate::source;
use crate::spec::diagnostic::{Severity, SourceFile};

#[derive(Debug, Args)]
pub struct Options {
    /// Name of the projection, and of its view.
    name: String,
    /// The Kafka topic to look at.
    #[arg(long)]
    topic: Option<String>,
    /// A file of messages to look at instead, one JSON a line: a payload, or {"topic", "key", "value"}.
    #[arg(long, value_name = "FILE.jsonl")]
    events: Option<PathBuf>,
    /// How many messages to look at.
    #[arg(long, default_value_t = 1000)]
    sample: usize,
    /// Folder for the projection and its test.
    #[arg(long, default_value = "projections")]
    into: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub fn new(options: &Options) -> Outcome {
    let (topic, messages) = messages(options)?;
    if messages.is_empty() {
        return Err(Failure::failed(format!("{topic} is not there, or has no messages to look at")));
    }
    let sample = Sample::of(&messages);
    println!("{} messages of {topic}\n{}", sample.messages, sample::table(&sample));
    if sample.unreadable > 0 {
        println!("{} of them are no JSON object and were left out", sample.unreadable);
    }
    if sample.types.is_empty() {
        return Err(Failure::failed("no message is a JSON object; other formats are not looked into"));
    }
    let (projection, test) = sample::projection(&options.name, &topic, &sample);
    let path = options.into.join(format!("{}.yaml", options.name));
    let test_path = path.with_extension("test.yaml");
    let plan = check(&path, &projection)?;
    let test_file = SourceFile::new(test_path.display().to_string(), test.as_str());
    let test = match plan.map(|plan| golden::bless(&plan, &test_file)) {
        Some(Ok(blessed)) => blessed.text,
        // The rows are left for the person to fill in.
        Some(Err(_)) | None => test,
    };
    for (path, text) in [(&path, &projection), (&test_path, &test)] {
        write(path, text)?;
    }
    // For editors, which complete and check by it. One that is there already stays.
    let schema = options.into.join("projection.schema.json");
    if !schema.exists() {
        write(&schema, &crate::spec::json_schema())?;
    }
    println!("\nwrote {} and {}", path.display(), test_path.display());
    println!("next:  projector dev {}", path.display());
    Ok(())
}

/// What was written is looked at as anything else; its warnings are worth reading, an error is a bug of ours.
fn check(path: &Path, text: &str) -> Result<Option<Plan>, Failure> {
    let file = SourceFile::new(path.display().to_string(), text);
    let (plan, diagnostics) = compile(&file);
    print_diagnostics(&diagnostics);
    if diagnostics.iter().any(|d| d.severity == Severity::Error && d.code == "bad-name") {
        return Err(Failure::refused("choose another name"));
    }
    Ok(plan)
}

fn write(path: &Path, text: &str) -> Outcome {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::failed(format!("cannot make {}: {error}", folder.display())))?;
    }
    let file = options.write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

fn messages(options: &Options) -> Result<(String, Vec<Message>), Failure> {
    match (&options.topic, &options.events) {
        (topic, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::refused(format!("cannot read {}: {error}", path.display())))?;
            let messages =
                sample::messages(&text).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
            let found = messages.iter().find_map(|message| message.topic.clone());
            let topic = topic.clone().or(found).unwrap_or_else(|| options.name.replace('_', "."));
            let of_topic = |m: &Message| m.topic.as_ref().is_none_or(|t| *t == topic);
            Ok((topic.clone(), messages.into_iter().filter(of_topic).take(options.sample).collect()))
        }
        (Some(topic), None) => {
            let settings = options.common.settings()?;
            let where_is = |error: source::SourceError| {
                let brokers = &settings.kafka.brokers;
                Failure::failed(format!(
                    "{topic} on {brokers}: {error}. Say where Kafka is with --config FILE or PROJECTOR__KAFKA__BROKERS"
                ))
            };
            let sampled = source::sample(&settings.kafka, topic, options.sample).map_err(where_is)?;
            let message = |sampled: source::Sampled| Message {
                topic: Some(topic.clone()),
                key: sampled.key,
                payload: sampled.payload,
                headers: sampled.headers,
                line: sampled.offset as usize,
            };
            Ok((topic.clone(), sampled.into_iter().map(message).collect()))
        }
        (None, None) => Err(Failure::refused("say what to look at: --topic TOPIC or --events FILE.jsonl")),
    }
}
