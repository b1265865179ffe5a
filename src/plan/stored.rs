//! A definition as it is kept in the catalog: the files that it was compiled from, to be compiled again later.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Plan, attach, compile, compile_upcasters};
use crate::spec::diagnostic::{Diagnostic, Severity, SourceFile};

#[derive(Serialize, Deserialize)]
struct Stored {
    projections: Vec<File>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    upcasters: Vec<File>,
}

#[derive(Serialize, Deserialize)]
struct File {
    path: String,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
}

impl File {
    fn of(file: &SourceFile) -> File {
        File { path: file.path.clone(), text: file.text.clone(), sql: file.sql.clone() }
    }

    fn read(self) -> Arc<SourceFile> {
        SourceFile::with_sql(self.path, self.text, self.sql)
    }
}

impl Plan {
    /// The files of the definition and of the upcasters that it uses, as JSON.
    pub fn stored(&self) -> String {
        let mut upcasters: Vec<&Arc<SourceFile>> = Vec::new();
        for upcaster in self.sources.iter().flat_map(|source| &source.upcasters) {
            if !upcasters.iter().any(|known| known.path == upcaster.file.path) {
                upcasters.push(&upcaster.file);
            }
        }
        let stored = Stored {
            projections: self.file.files().iter().map(|(file, _)| File::of(file)).collect(),
            upcasters: upcasters.into_iter().map(|file| File::of(file)).collect(),
        };
        serde_json::to_string(&stored).expect("texts are always JSON")
    }

    /// Compiles what [`Plan::stored`] gave.
    ///
    /// # Errors
    /// What this program does not understand of it.
    pub fn from_stored(stored: &str) -> Result<Plan, String> {
        let stored: Stored = serde_json::from_str(stored).map_err(|error| error.to_string())?;
        let files: Vec<Arc<SourceFile>> = stored.projections.into_iter().map(File::read).collect();
        let file = match files.as_slice() {
            [one] => one.clone(),
            _ => SourceFile::joined(&files),
        };
        let upcasters: Vec<Arc<SourceFile>> = stored.upcasters.into_iter().map(File::read).collect();
        let (upcasters, mut found) = compile_upcasters(&upcasters);
        let (plan, of_plan) = compile(&file);
        found.extend(of_plan);
        let errors: Vec<String> = found.iter().filter(is_error).map(Diagnostic::to_string).collect();
        match plan {
            Some(plan) if errors.is_empty() => {
                let mut plans = [plan];
                attach(&mut plans, &upcasters);
                let [plan] = plans;
                Ok(plan)
            }
            _ => Err(errors.join("; ")),
        }
    }
}

fn is_error(found: &&Diagnostic) -> bool {
    found.severity == Severity::Error
}
