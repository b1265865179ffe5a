//! Upcaster files, checked and compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::source::{compiler, topics};
use super::{Build, LONGEST_NAME};
use crate::json_paths::Paths;
use crate::plan::expr::{Expr as Compiled, FIRST_ELEMENT};
use crate::plan::types::Kind;
use crate::plan::upcaster::{Path, Step, TypePattern, Upcaster};
use crate::spec::diagnostic::{Diagnostic, Sink, SourceFile};
use crate::spec::{self, Expr, Name};

/// Compiles upcaster files. Those with mistakes are left out; the findings say which.
pub fn compile_upcasters(files: &[Arc<SourceFile>]) -> (Vec<Arc<Upcaster>>, Vec<Diagnostic>) {
    let mut upcasters: Vec<Arc<Upcaster>> = Vec::new();
    let mut found = Vec::new();
    for file in files {
        let sink = Sink::new(file.clone());
        let written = spec::read::<spec::upcaster::Upcaster>(&sink);
        let compiled = written.map(|written| {
            let compiled = Build { sink: &sink }.upcaster(&written);
            let taken = upcasters.iter().find(|other| other.name == compiled.name);
            if let Some(other) = taken {
                let message = format!("the upcaster `{}` is defined in {} too", compiled.name, other.path);
                sink.error("name-taken", &written.upcaster.span, message, Some("give one of them another name".into()));
            }
            compiled
        });
        if !sink.has_errors() {
            upcasters.extend(compiled.map(Arc::new));
        }
        found.extend(sink.into_diagnostics());
    }
    (upcasters, found)
}

fn digest(written: &impl serde::Serialize) -> String {
    hex::encode(Sha256::digest(serde_json::to_string(written).unwrap_or_default().as_bytes()))
}

impl Build<'_> {
    fn upcaster(&self, written: &spec::upcaster::Upcaster) -> Upcaster {
        self.identifier(&written.upcaster, "upcaster", LONGEST_NAME);
        let mut scopes = vec![Paths::default(); FIRST_ELEMENT];
        let version = written.version.as_ref().and_then(|expr| {
            self.expression(&mut compiler(&mut scopes, &[], false, Default::default()), expr, Kind::Any, "")
        });
        if written.version.is_none() {
            let help = "version: opt(data.version)";
            self.error(
                "bad-steps",
                &written.upcaster.span,
                "the upcaster does not say where the version is",
                Some(help),
            );
        }
        let mut steps = BTreeMap::new();
        for (from, step) in &written.steps {
            match from.parse::<i64>() {
                Ok(version) => drop(steps.insert(version, self.step(from, step))),
                Err(_) => {
                    let message =
                        format!("`{}` is no version: steps stand under the version that they start from", from.value);
                    self.error("bad-steps", &from.span, message, Some("steps: { 1: { … }, 2: { … } }"));
                }
            }
        }
        self.chain(written, &steps);
        Upcaster {
            name: written.upcaster.value.clone(),
            path: self.sink.file.path.clone(),
            file: self.sink.file.clone(),
            topics: topics(self, &written.upcaster, "upcaster", &written.topic, &written.topics),
            types: self.types(&written.type_),
            as_: written.as_.as_ref().map(|name| name.value.clone()),
            version,
            scopes,
            digest: digest(&spec::upcaster::Upcaster {
                description: None,
                steps: Default::default(),
                ..written.clone()
            }),
            steps,
        }
    }

    /// Whether the steps lead from each version to the next.
    fn chain(&self, written: &spec::upcaster::Upcaster, steps: &BTreeMap<i64, Step>) {
        let span = &written.upcaster.span;
        let (Some(first), Some(last)) = (steps.keys().next(), steps.keys().next_back()) else {
            if written.steps.is_empty() {
                let help = "steps: { 1: { move: { name: full_name } } }";
                self.error("bad-steps", span, "the upcaster has no steps", Some(help));
            }
            return;
        };
        if let Some(missing) = (*first..*last).find(|version| !steps.contains_key(version)) {
            let message = format!("there is a step from {first} and one from {last}, and none from {missing}");
            self.error("bad-steps", span, message, Some("every version leads to the next"));
        }
    }

    fn types(&self, written: &Name) -> Vec<TypePattern> {
        if written.is_empty() {
            self.error(
                "bad-pattern",
                &written.span,
                "the upcaster does not say of which events",
                Some("type: OrderPlaced"),
            );
        }
        let alternatives = written.split('|').map(str::trim);
        let pattern = |alternative: &str| match alternative.strip_suffix('*') {
            Some(prefix) => TypePattern::Prefix(prefix.into()),
            None => TypePattern::Whole(alternative.into()),
        };
        alternatives.map(pattern).collect()
    }

    fn step(&self, from: &Name, written: &spec::upcaster::Step) -> Step {
        let mut scopes = vec![Paths::default(); FIRST_ELEMENT];
        let set = |(field, expr): (&Name, &Expr)| -> Option<(Path, Compiled)> {
            let mut compiler = compiler(&mut scopes, &[], false, Default::default());
            Some((self.path(field)?, self.expression(&mut compiler, expr, Kind::Any, "")?))
        };
        let sets = written.set.iter().filter_map(set).collect();
        Step {
            line: self.line(&from.span),
            digest: digest(written),
            moves: written.moves.iter().filter_map(|(old, new)| Some((self.path(old)?, self.path(new)?))).collect(),
            sets,
            defaults: written
                .default
                .iter()
                .filter_map(|(field, literal)| Some((self.path(field)?, literal.value.0.clone())))
                .collect(),
            removes: written.remove.iter().filter_map(|field| self.path(field)).collect(),
            scopes,
        }
    }

    /// `customer.name` as members; `data.` in front is not wanted.
    fn path(&self, field: &Name) -> Option<Path> {
        let path: Path = field.split('.').map(|part| part.trim().to_string()).collect();
        if path.iter().any(String::is_empty) {
            self.error("bad-steps", &field.span, format!("`{}` is no field", field.value), Some("customer.name"));
            return None;
        }
        if path[0] == "data" {
            let help = format!("`{}`: fields are looked for in the data", path[1..].join("."));
            self.error("bad-steps", &field.span, "a field stands without `data.`", Some(&help));
            return None;
        }
        Some(path)
    }
}
