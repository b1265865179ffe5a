//! From the file as written to the compiled plan. Every mistake is told, not only the first.

mod checks;
mod columns;
mod derived;
mod effects;
mod errors;
mod handler;
mod order;
mod row;
mod shared;
mod source;
mod table;
mod upcaster;
mod versions;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::expr::Misread;
use super::{Companion, Plan};
use crate::spec::diagnostic::{Diagnostic, Severity, Sink, SourceFile};
use crate::spec::{self, Expr, Name, Projection};

use shared::Merged;
pub use shared::{Units, units};
pub use upcaster::compile_upcasters;

/// Postgres cuts identifiers at 63 bytes; a projection's schema adds `@` and a generation number.
const LONGEST_PROJECTION: usize = 52;
const LONGEST_NAME: usize = 63;

/// Compiles one file, or several that are built as one. `None` when anything is wrong; the findings say what.
pub fn compile(file: &Arc<SourceFile>) -> (Option<Plan>, Vec<Diagnostic>) {
    let sink = Sink::new(file.clone());
    let parts = file.files().into_iter().map(|(_, part)| spec::read_part::<Projection>(&sink, part));
    let parts: Option<Vec<Projection>> = parts.collect();
    let plan = parts.map(|parts| Build { sink: &sink }.projection(&parts));
    let plan = plan.filter(|_| !sink.has_errors());
    (plan, sink.into_diagnostics())
}

/// Compiles files each by itself.
pub fn compile_each(files: &[Arc<SourceFile>]) -> (Vec<Plan>, Vec<Diagnostic>) {
    let (plans, found): (Vec<Option<Plan>>, Vec<Vec<Diagnostic>>) = files.iter().map(compile).unzip();
    (plans.into_iter().flatten().collect(), found.concat())
}

/// Compiles all files and looks for collisions between them.
pub fn compile_all(files: &[Arc<SourceFile>]) -> (Vec<Plan>, Vec<Diagnostic>) {
    let mut plans: Vec<Plan> = Vec::new();
    let mut found = Vec::new();
    let mut taken: HashMap<String, String> = HashMap::new();
    for file in files {
        let (plan, diagnostics) = compile(file);
        found.extend(diagnostics);
        let Some(plan) = plan else { continue };
        let parts = file.files();
        let of_parts =
            plan.parts.iter().zip(&parts).map(|(name, (part, _))| ("projection", name.clone(), part.clone()));
        let views = plan.tables.iter().filter(|table| table.served);
        let views = views.map(|table| ("view", table.name.clone(), parts[0].0.clone()));
        for (what, name, file) in of_parts.chain(views) {
            if let Some(other) = taken.insert(format!("{what} {name}"), file.path.clone()) {
                found.push(Diagnostic {
                    code: "name-taken",
                    severity: Severity::Error,
                    message: format!("the {what} `{name}` is defined in {other} too"),
                    help: Some("give one of them another name".into()),
                    span: 0..file.text.lines().next().map_or(0, str::len),
                    file,
                });
            }
        }
        plans.push(plan);
    }
    (plans, found)
}

/// The state of compiling one file.
#[derive(Clone, Copy)]
struct Build<'a> {
    sink: &'a Sink,
}

impl Build<'_> {
    fn error(&self, code: &'static str, span: &Range<usize>, message: impl Into<String>, help: Option<&str>) {
        self.sink.error(code, span, message, help.map(String::from));
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.sink.file.position(span.start).0
    }

    /// The first line of a place that spans several.
    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let text = &self.sink.file.text[span.clone()];
        span.start..span.start + text.find('\n').unwrap_or(text.len())
    }

    /// An expression's mistake, at its place in the file.
    fn misread(&self, expr: &Expr, misread: Misread) {
        let written = &self.sink.file.text[expr.span.clone()];
        let shift = written.find(expr.value.0.as_str());
        let span = match shift {
            Some(shift) => {
                let start = expr.span.start + shift;
                start + misread.span.start..start + misread.span.end
            }
            None => expr.span.clone(),
        };
        let help = match misread.help {
            Some(_) if misread.code == "unknown-name" && expr.quoted && !misread.message.contains("capture") => {
                let text = &expr.value.0;
                Some(format!(
                    "YAML took the quotes away; a text in an expression keeps its own: \"'{text}'\", or use `const`"
                ))
            }
            help => help,
        };
        self.sink.error(misread.code, &span, misread.message, help);
    }

    fn identifier(&self, name: &Name, what: &str, longest: usize) -> bool {
        let mut chars = name.chars();
        let first = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
        let legal = first && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if name.is_empty() {
            self.error("missing-name", &name.span, format!("the {what} needs a name"), None);
        } else if !legal {
            let message = format!("`{}` cannot be the name of a {what}", name.value);
            let help = "lower-case letters, digits and underscores, not beginning with a digit";
            self.error("bad-name", &name.span, message, Some(help));
        } else if name.len() > longest {
            let message = format!("`{}` is too long for a {what}: at most {longest} bytes", name.value);
            self.error("bad-name", &name.span, message, None);
        } else if name.starts_with("projector_") || name.starts_with("_projector") {
            let message = format!("`{}` is kept for the projector itself", name.value);
            self.error("bad-name", &name.span, message, None);
        } else {
            return true;
        }
        false
    }

    fn projection(&self, parts: &[Projection]) -> Plan {
        for part in parts {
            self.identifier(&part.projection, "projection", LONGEST_PROJECTION);
        }
        let Merged { projection, descriptions } = self.merged(parts);
        if projection.sources.is_empty() {
            self.error(
                "no-source",
                &projection.projection.span,
                "the projection has no sources",
                Some("sources: { orders: { topic: shop.orders } }"),
            );
        }
        let mut sources: Vec<super::Source> =
            projection.sources.iter().map(|(name, source)| self.source(name, source)).collect();
        let tables = self.tables(&projection, &mut sources);
        self.repeats(&projection, &tables, &mut sources);
        self.unused_sources(&projection, &sources);
        let files = self.sink.file.files();
        let definition = definition(parts, &files);
        let companions =
            files.iter().filter_map(|(file, _)| Some(Companion { path: file.path.clone(), sql: file.sql.clone()? }));
        Plan {
            name: projection.projection.value.clone(),
            parts: parts.iter().map(|part| part.projection.value.clone()).collect(),
            descriptions,
            path: self.sink.file.path.clone(),
            file: self.sink.file.clone(),
            sources,
            edges: super::derived::edges(&tables),
            write_order: super::derived::write_order(&tables),
            tables,
            errors: self.errors(projection.errors.as_ref()),
            companions: companions.collect(),
            digest: hex::encode(Sha256::digest(definition.as_bytes())),
            definition,
        }
    }

    /// What stands repeats by itself needs no dedupe.
    fn repeats(&self, projection: &Projection, tables: &[super::Table], sources: &mut [super::Source]) {
        for (at, (source, (name, written))) in sources.iter_mut().zip(&projection.sources).enumerate() {
            let by_itself = tables.iter().all(|table| order::stands_repeats(table, at));
            source.stands_repeats = by_itself || source.dedupe.is_some();
            if by_itself && !source.routes.is_empty() && written.dedupe.is_some() {
                let message = format!("`{}` needs no dedupe: every handler of it stands repeats", name.value);
                self.sink.warning("dedupe-not-needed", &name.span, message, Some("leave `dedupe` out".into()));
            }
        }
    }

    fn unused_sources(&self, projection: &Projection, sources: &[super::Source]) {
        for ((name, _), source) in projection.sources.iter().zip(sources) {
            if source.routes.is_empty() {
                let message = format!("no table has handlers for the source `{}`", name.value);
                self.sink.warning("unused-source", &name.span, message, None);
            }
        }
    }
}

/// The definition as JSON without what is absent or empty, so that new words of the language change no digest; of several
/// parts, a list.
fn definition(parts: &[Projection], files: &[(Arc<SourceFile>, Range<usize>)]) -> String {
    let sql = files.iter().map(|(file, _)| file.sql.as_deref());
    let mut parts: Vec<serde_json::Value> =
        parts.iter().zip(sql).map(|(part, sql)| part_definition(part, sql)).collect();
    match parts.len() {
        1 => parts.remove(0).to_string(),
        _ => serde_json::Value::Array(parts).to_string(),
    }
}

fn part_definition(projection: &Projection, sql: Option<&str>) -> serde_json::Value {
    fn is_nothing(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => true,
            serde_json::Value::Array(items) => items.is_empty(),
            serde_json::Value::Object(entries) => entries.is_empty(),
            _ => false,
        }
    }
    fn strip(value: &mut serde_json::Value) {
        if let serde_json::Value::Object(entries) = value {
            entries.retain(|_, value| !is_nothing(value));
        }
        match value {
            serde_json::Value::Object(entries) => entries.values_mut().for_each(strip),
            serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(projection).expect("a definition is always JSON");
    if let Some(errors) = value.get_mut("errors").and_then(serde_json::Value::as_object_mut) {
        // The rows depend on what is skipped alone.
        errors.retain(|_, word| word == "skip");
    }
    strip(&mut value);
    if let (Some(sql), Some(entries)) = (sql, value.as_object_mut()) {
        entries.insert("sql".into(), sql.into());
    }
    value
}

#[cfg(test)]
mod tests;
