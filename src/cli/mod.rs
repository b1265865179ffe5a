//! The command line: one file a verb.

mod api_key;
mod apply;
mod chosen;
mod dead_letters;
mod demo;
mod dev;
mod diff;
mod differences;
mod explain;
mod graph;
mod new;
mod plan;
mod promote;
mod replay;
mod resume;
mod run;
mod status;
mod test;
mod validate;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Settings;
use crate::plan::{Plan, Units, Upcaster, attach, compile_all, compile_each, compile_upcasters, units};
use crate::spec::diagnostic::{Diagnostic, Severity};
use crate::spec::{files_in, projection_files};

/// Exit code for arguments, settings and definitions that cannot be used (`EX_USAGE` of sysexits).
pub const REFUSED: u8 = 64;
pub const FAILED: u8 = 1;

/// Folds domain events from Kafka into denormalised Postgres views, exactly once in effect, and serves them.
#[derive(Debug, Parser)]
#[command(name = "projector", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fold events into views and serve them, until stopped.
    Run {
        #[command(flatten)]
        common: Common,
        /// Apply the projection files first, as `projector apply` does.
        #[arg(long)]
        apply: bool,
    },
    /// See it work: a Postgres, an in-process Kafka, the shipped projections and a day of events.
    Demo {
        /// Play the story, wait until it is applied, print a table and stop.
        #[arg(long)]
        once: bool,
        /// Send some events that cannot be applied, too.
        #[arg(long)]
        with_trouble: bool,
        /// Folder of projection files with their demo events.
        #[arg(long, default_value = "projections")]
        projections: PathBuf,
        /// Address of the query endpoint.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
    },
    /// Check projection files and report every mistake.
    Validate {
        /// A projection file or a folder of them.
        #[arg(default_value = "projections")]
        path: PathBuf,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Print the JSON Schema of projection files instead, for editors.
        #[arg(long)]
        schema: bool,
        /// Draw what flows into what, as a Mermaid flowchart.
        #[arg(long)]
        graph: bool,
    },
    /// Look at a sample of a topic and write a projection and its first golden test to start from.
    New(new::Options),
    /// Watch projection files; validate and test them on every save.
    Dev(dev::Options),
    /// Run the golden tests beside projection files, without any service.
    Test(test::Options),
    /// Say what `projector apply` would change, and what it costs. The exit code is 2 when it would change something.
    Plan {
        #[command(flatten)]
        common: Common,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Record the projection files in the catalog: new views are made, changed ones are built beside those that readers see.
    Apply(apply::Options),
    /// Fold a view's history again, beside the view that readers see, and let the new one take its place.
    Replay(replay::Options),
    /// Compare what readers would see of another generation with what they see, at the same place of the log.
    Diff(diff::Diff),
    /// Fold all of a view's history again, out of sight, and compare it with what is served.
    Verify(diff::Verify),
    /// Show the events that made a row, and what each of them changed.
    Explain(explain::Options),
    /// Let readers see the generation that was built.
    Promote {
        #[command(flatten)]
        common: Common,
        projection: String,
    },
    /// Let readers see a generation again that was replaced.
    Rollback {
        #[command(flatten)]
        common: Common,
        projection: String,
        /// Its number; the newest that is kept, if nothing is said.
        generation: Option<i32>,
    },
    /// Drop a generation that readers do not see, or all of a projection.
    Drop {
        #[command(flatten)]
        common: Common,
        projection: String,
        /// The number of the generation.
        #[arg(required_unless_present = "all")]
        generation: Option<i32>,
        /// Take the projection away: its views, and all that is kept of it.
        #[arg(long, conflicts_with = "generation")]
        all: bool,
    },
    /// Find events that could not be applied, and settle them.
    #[command(subcommand)]
    DeadLetters(dead_letters::Verb),
    /// Let a projection that stands still go on.
    Resume {
        #[command(flatten)]
        common: Common,
        projection: String,
    },
    /// Show how far each projection is.
    Status {
        #[command(flatten)]
        common: Common,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Make an API key for the query endpoint. Standard output has the line for `serve.auth.api_keys_file`, standard error
    /// the key itself.
    ApiKey {
        /// Who asks with it.
        name: String,
        /// The Postgres role that they read as.
        role: String,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The settings file; without one, the defaults and the environment.
    #[arg(long, short)]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Why a verb did not succeed: the exit code and the sentence.
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn refused(message: impl ToString) -> Failure {
        Failure { code: REFUSED, message: message.to_string() }
    }

    fn failed(message: impl ToString) -> Failure {
        Failure { code: FAILED, message: message.to_string() }
    }

    /// What is wrong has been printed already.
    fn told(code: u8) -> Failure {
        Failure { code, message: String::new() }
    }
}

type Outcome = Result<(), Failure>;

/// A reader such as `head` that has seen enough is no reason to complain.
fn leave_quietly_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let message = info.payload().downcast_ref::<String>();
        if message.is_some_and(|text| text.starts_with("failed printing to stdout") && text.contains("Broken pipe")) {
            std::process::exit(0);
        }
        usual(info);
    }));
}

/// Reads the arguments and does what they say.
pub fn main() -> ExitCode {
    leave_quietly_when_nobody_reads();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { REFUSED } else { 0 };
            // Nobody to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let outcome = match arguments.verb {
        Verb::Run { common, apply } => run::run(&common, apply),
        Verb::Demo { once, with_trouble, projections, listen } => {
            demo::demo(demo::Play { once, with_trouble }, &projections, &listen)
        }
        Verb::Validate { path, format, schema, graph } => validate::validate(&path, format, schema, graph),
        Verb::New(options) => new::new(&options),
        Verb::Dev(options) => dev::dev(&options),
        Verb::Test(options) => test::test(&options),
        Verb::Plan { common, format } => match plan::plan(&common, format) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Verb::Apply(options) => apply::apply(&options),
        Verb::Diff(options) => diff::diff(&options),
        Verb::Verify(options) => diff::verify(&options),
        Verb::Explain(options) => explain::explain(&options),
        Verb::Replay(options) => replay::replay(&options),
        Verb::Promote { common, projection } => promote::promote(&common, &projection, promote::Which::Built),
        Verb::Rollback { common, projection, generation } => {
            promote::promote(&common, &projection, promote::Which::Kept(generation))
        }
        Verb::Drop { common, projection, generation, all: _ } => promote::drop(&common, &projection, generation),
        Verb::DeadLetters(verb) => dead_letters::dead_letters(&verb),
        Verb::Resume { common, projection } => resume::resume(&common, &projection),
        Verb::Status { common, format } => status::status(&common, format),
        Verb::ApiKey { name, role } => api_key::api_key(&name, &role),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("projector: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

impl Common {
    fn settings(&self) -> Result<Settings, Failure> {
        Settings::load(self.config.as_deref()).map_err(Failure::refused)
    }
}

/// Compiles all projection files of a folder, as they are built; mistakes are printed.
fn plans(path: &Path) -> Result<Vec<Plan>, Failure> {
    let files = files(path)?;
    let (plans, diagnostics) = compiled(path, compile_all(&files.built))?;
    accepted(path, plans, [files.found, diagnostics].concat())
}

/// The same, each projection by itself, as it is tested.
fn single_plans(path: &Path) -> Result<Vec<Plan>, Failure> {
    let files = files(path)?;
    let (plans, diagnostics) = compiled(path, compile_each(&files.single))?;
    accepted(path, plans, [files.found, diagnostics].concat())
}

fn accepted(path: &Path, plans: Vec<Plan>, diagnostics: Vec<Diagnostic>) -> Result<Vec<Plan>, Failure> {
    print_diagnostics(&diagnostics);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(Failure::told(REFUSED));
    }
    if plans.is_empty() {
        return Err(Failure::refused(format!("there is no projection file in {}", path.display())));
    }
    Ok(plans)
}

/// The projection files of a folder, or a single one, with the shared files that they use.
fn files(path: &Path) -> Result<Units, Failure> {
    if path.to_string_lossy().ends_with(".test.yaml") {
        return Err(Failure::refused(format!("{} is a test file; name the projection beside it", path.display())));
    }
    let shared = files_in(path, "shared").map_err(Failure::refused)?;
    Ok(units(&projection_files(path).map_err(Failure::refused)?, &shared))
}

/// Puts what was compiled together with the upcasters that belong to it.
fn compiled(
    path: &Path,
    (mut plans, found): (Vec<Plan>, Vec<Diagnostic>),
) -> Result<(Vec<Plan>, Vec<Diagnostic>), Failure> {
    let (upcasters, mut diagnostics) = compile_upcasters(&files_in(path, "upcasters").map_err(Failure::refused)?);
    attach(&mut plans, &upcasters);
    diagnostics.extend(found);
    Ok((plans, diagnostics))
}

/// The upcasters that belong to a folder; what is wrong with them is told with the projections.
fn upcasters(path: &Path) -> Result<Vec<Arc<Upcaster>>, Failure> {
    Ok(compile_upcasters(&files_in(path, "upcasters").map_err(Failure::refused)?).0)
}

/// What was found in projection files, counted.
pub fn summary(projections: usize, errors: usize, warnings: usize) -> String {
    format!("{}, {}, {}", count(projections, "projection"), count(errors, "error"), count(warnings, "warning"))
}

/// A number and what is counted.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn print_diagnostics(diagnostics: &[Diagnostic]) {
    let color = std::io::stderr().is_terminal();
    for diagnostic in diagnostics {
        eprintln!("{}", diagnostic.render(color));
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))
}

/// Starts the log, on standard error.
fn start_log(format: &str, level: &str) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_new(level)
        .map_err(|error| Failure::refused(format!("log.level is not a filter: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if format == "json" { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|error| Failure::failed(format!("the log does not start: {error}")))
}

/// SIGINT or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

/// The command line's reference, as Markdown.
pub fn reference() -> String {
    use clap::CommandFactory;
    let mut command = Arguments::command().term_width(100);
    command.build();
    let mut text = String::from("# Command line\n\nGenerated from the code.\n");
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        let (name, help) = (verb.get_name().to_string(), verb.render_long_help());
        text += &format!("\n## projector {name}\n\n```text\n{help}```\n");
        for inner in verb.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let help = inner.render_long_help();
            text += &format!("\n### projector {name} {}\n\n```text\n{help}```\n", inner.get_name());
        }
    }
    text
}
