//! Projections that use the same shared file are built as one, so that its tables are there once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::Build;
use crate::spec::diagnostic::{Diagnostic, Severity, Sink, SourceFile, suggest};
use crate::spec::{self, Many, Name, Projection};

/// Projection files as they are compiled: each alone, or with the shared file that it uses.
pub struct Units {
    /// All that use one shared file together, the shared file first.
    pub built: Vec<Arc<SourceFile>>,
    /// Each by itself, before the shared file that it uses: as it is tested.
    pub single: Vec<Arc<SourceFile>>,
    pub found: Vec<Diagnostic>,
}

/// Puts files together with the shared files that they name.
pub fn units(files: &[Arc<SourceFile>], shared: &[Arc<SourceFile>]) -> Units {
    // What is wrong with a file is told when it is compiled.
    let read = |file: &Arc<SourceFile>| spec::read::<Projection>(&Sink::new(file.clone()));
    let names: Vec<Option<Name>> = shared.iter().map(|file| Some(read(file)?.projection)).collect();
    let mut groups: Vec<Vec<Arc<SourceFile>>> = shared.iter().map(|file| vec![file.clone()]).collect();
    let mut units = Units { built: Vec::new(), single: Vec::new(), found: Vec::new() };
    for file in files {
        let used = read(file).and_then(|projection| projection.shared);
        let at = used.as_ref().and_then(|used| names.iter().position(|name| name.as_ref() == Some(used)));
        if let (Some(used), None) = (used, at) {
            let sink = Sink::new(file.clone());
            let message = format!("no file in `shared` has the projection `{}`", used.value);
            let help = suggest(&used, names.iter().flatten().map(|name| name.as_str()));
            sink.error("unknown-shared", &used.span, message, help);
            units.found.extend(sink.into_diagnostics());
        }
        match at {
            None => {
                units.built.push(file.clone());
                units.single.push(file.clone());
            }
            Some(at) => {
                units.single.push(SourceFile::joined(&[file.clone(), shared[at].clone()]));
                groups[at].push(file.clone());
            }
        }
    }
    for (group, name) in groups.into_iter().zip(names) {
        match group.as_slice() {
            [file] => units.found.push(Diagnostic {
                code: "unused-shared",
                severity: Severity::Warning,
                message: "no projection uses this file".into(),
                help: name.map(|name| format!("a projection that does says `shared: {}`", name.value)),
                file: file.clone(),
                span: 0..file.text.lines().next().map_or(0, str::len),
            }),
            _ => units.built.push(SourceFile::joined(&group)),
        }
    }
    units
}

/// Several projections as one.
pub(super) struct Merged {
    pub projection: Projection,
    /// Of served tables, what readers find in them.
    pub descriptions: HashMap<String, String>,
}

impl Build<'_> {
    /// Tables, sources and what is served of all parts. The first gives the name.
    pub(super) fn merged(&self, parts: &[Projection]) -> Merged {
        let used: HashSet<&Name> = parts.iter().filter_map(|part| part.shared.as_ref()).collect();
        let mut descriptions = HashMap::new();
        let mut all = Projection { projection: parts[0].projection.clone(), ..Projection::default() };
        let mut serve = Vec::new();
        for part in parts {
            let tables = self.expanded(part);
            let is_shared = used.contains(&part.projection);
            if !(is_shared && part.serve.is_empty()) {
                let served = self.served(part, &tables);
                let described = part.description.iter().flat_map(|text| served.iter().map(move |name| (name, text)));
                descriptions.extend(described.map(|(name, text)| (name.value.clone(), text.clone())));
                serve.extend(served);
            }
            self.merge_sources(&mut all.sources, part);
            for (name, table) in tables {
                if let Some((other, _)) = all.tables.get_key_value(&name) {
                    let path = self.sink.file.path_at(other.span.start);
                    let message = format!("the table `{}` is defined in {path} too", name.value);
                    let help = "they share a file and are built as one: give one of the tables another name";
                    self.error("name-taken", &name.span, message, Some(help));
                } else {
                    all.tables.insert(name, table);
                }
            }
            if let Some(errors) = &part.errors {
                if used.is_empty() || is_shared {
                    all.errors = Some(errors.clone());
                } else {
                    let message = "projections that share a file have their `errors` in that file";
                    self.error("shared-errors", &part.projection.span, message, None);
                }
            }
        }
        all.serve = Many(serve);
        Merged { projection: all, descriptions }
    }

    fn merge_sources(&self, sources: &mut IndexMap<Name, spec::Source>, part: &Projection) {
        for (name, source) in &part.sources {
            match sources.get_key_value(name) {
                None => drop(sources.insert(name.clone(), source.clone())),
                Some((_, same)) if serde_json::to_value(same).ok() == serde_json::to_value(source).ok() => {}
                Some((other, _)) => {
                    let path = self.sink.file.path_at(other.span.start);
                    let message = format!("the source `{}` is another one in {path}", name.value);
                    let help = "they share a file and are built as one: write both alike, or name them differently";
                    self.error("name-taken", &name.span, message, Some(help));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{compile, compile_all};
    use super::*;

    const PEOPLE: &str = "
projection: people
sources: { crm: { topic: crm } }
tables:
  people:
    key: { id: data.id }
    columns: { name: text }
    handlers: { crm: { Named: { set: { name: data.name } } } }
";

    fn letters(name: &str, table: &str) -> String {
        format!(
            "projection: {name}
shared: people
sources: {{ post: {{ topic: post }} }}
serve: {table}
tables:
  {table}:
    key: {{ id: data.id }}
    columns: {{ to_id: text }}
    join: {{ table: people, by: to_id, fill: {{ to_name: name }} }}
    handlers: {{ post: {{ Sent: {{ set: {{ to_id: data.to }} }} }} }}
"
        )
    }

    #[test]
    fn what_uses_a_shared_file_is_built_as_one() {
        let shared = [SourceFile::new("shared/people.yaml", PEOPLE)];
        let files = ["letters", "parcels"].map(|name| SourceFile::new(format!("{name}.yaml"), letters(name, name)));
        let Units { built, single, found } = units(&files, &shared);
        assert!(found.is_empty(), "{found:?}");
        let (plans, found) = compile_all(&built);
        assert!(found.iter().all(|d| d.severity == Severity::Warning), "{found:?}");
        let [plan] = plans.as_slice() else { panic!("{} plans", plans.len()) };
        assert_eq!((plan.name.as_str(), plan.path.as_str()), ("people", "shared/people.yaml"));
        let tables: Vec<(&str, bool)> = plan.tables.iter().map(|table| (table.name.as_str(), table.served)).collect();
        assert_eq!(tables, [("people", false), ("letters", true), ("parcels", true)]);
        assert_eq!(plan.sources.len(), 2, "each topic is read once");
        let alone: Vec<String> = single.iter().map(|file| compile(file).0.unwrap().name).collect();
        assert_eq!(alone, ["letters", "parcels"]);
    }

    #[test]
    fn mistakes_in_what_is_built_as_one_are_told_where_they_are() {
        let shared = [SourceFile::new("shared/people.yaml", PEOPLE)];
        let wrong = letters("parcels", "letters").replace("topic: post", "topic: depot").replace("fill", "fyll");
        let files =
            [SourceFile::new("letters.yaml", letters("letters", "letters")), SourceFile::new("parcels.yaml", wrong)];
        let (_, found) = compile_all(&units(&files, &shared).built);
        let told: Vec<(&str, &str, usize)> = found
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .map(|d| (d.code, d.file.path.as_str(), d.file.position(d.span.start).0))
            .collect();
        assert!(told.contains(&("name-taken", "parcels.yaml", 3)), "the source: {told:?}");
        assert!(told.contains(&("name-taken", "parcels.yaml", 6)), "the table: {told:?}");
        assert!(told.contains(&("unknown-key", "parcels.yaml", 9)), "{told:?}");
    }
}
