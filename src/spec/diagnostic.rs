//! What is wrong with a file, where, and what to write instead.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde_json::json;

/// A file as read, kept for showing the line a diagnostic is about; or several that are compiled as one.
#[derive(Debug)]
pub struct SourceFile {
    /// Of several, the first one's.
    pub path: String,
    /// Of several, their texts in a row.
    pub text: String,
    /// Of a projection, the SQL file beside it.
    pub sql: Option<String>,
    /// Of several, each with where its text begins; empty of a single one.
    parts: Vec<(usize, Arc<SourceFile>)>,
}

impl SourceFile {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Arc<SourceFile> {
        SourceFile::with_sql(path, text, None)
    }

    pub fn with_sql(path: impl Into<String>, text: impl Into<String>, sql: Option<String>) -> Arc<SourceFile> {
        Arc::new(SourceFile { path: path.into(), text: text.into(), sql, parts: Vec::new() })
    }

    /// Several files as one. A place in it is a place in one of them.
    pub fn joined(files: &[Arc<SourceFile>]) -> Arc<SourceFile> {
        let path = files.first().map(|file| file.path.clone()).unwrap_or_default();
        let mut joined = SourceFile { path, text: String::new(), sql: None, parts: Vec::new() };
        for file in files {
            joined.parts.push((joined.text.len(), file.clone()));
            joined.text += &file.text;
            joined.text.push('\n');
        }
        Arc::new(joined)
    }

    /// The files that it is made of, each with the bytes of `text` that are its own.
    pub fn files(self: &Arc<Self>) -> Vec<(Arc<SourceFile>, Range<usize>)> {
        match self.parts.as_slice() {
            [] => vec![(self.clone(), 0..self.text.len())],
            parts => parts.iter().map(|(start, file)| (file.clone(), *start..start + file.text.len())).collect(),
        }
    }

    /// Which file a byte offset is in, and where in it.
    fn place(self: &Arc<Self>, offset: usize) -> (Arc<SourceFile>, usize) {
        let part = self.parts.iter().rfind(|(start, _)| *start <= offset);
        part.map_or((self.clone(), offset), |(start, file)| (file.clone(), offset - start))
    }

    /// The path of the file that a byte offset is in.
    pub fn path_at(self: &Arc<Self>, offset: usize) -> String {
        self.place(offset).0.path.clone()
    }

    /// Line and column of a byte offset, both counted from 1, the column in characters.
    pub fn position(self: &Arc<Self>, offset: usize) -> (usize, usize) {
        let (file, offset) = self.place(offset);
        let before = &file.text[..file.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One finding about a file. `code` is stable: scripts and the error pages rely on it.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub help: Option<String>,
    pub file: Arc<SourceFile>,
    /// Bytes of `file.text` that the finding is about.
    pub span: Range<usize>,
}

impl Diagnostic {
    pub fn to_json(&self) -> serde_json::Value {
        let (line, column) = self.file.position(self.span.start);
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        json!({
            "code": self.code, "severity": severity, "message": self.message, "help": self.help,
            "file": self.file.path, "line": line, "column": column,
        })
    }

    /// Renders the finding for a terminal, with the line and a caret. `color` is for terminals only.
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let mut out = String::new();
        let shown = Shown {
            diagnostic: self,
            source: NamedSource::new(&self.file.path, self.file.text.clone()).with_language("yaml"),
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_context_lines(1);
        if handler.render_report(&mut out, &shown).is_err() {
            out = format!("{self}\n");
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.file.position(self.span.start);
        write!(f, "{}:{line}:{column}: {} [{}]", self.file.path, self.message, self.code)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    source: NamedSource<String>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.diagnostic)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Range { start, end } = self.diagnostic.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::new(None, start, (end - start).max(1)))))
    }
}

/// Collects the findings about one file, or several that are compiled as one.
#[derive(Debug)]
pub struct Sink {
    pub file: Arc<SourceFile>,
    found: RefCell<Vec<Diagnostic>>,
}

impl Sink {
    pub fn new(file: Arc<SourceFile>) -> Sink {
        Sink { file, found: RefCell::default() }
    }

    pub fn error(&self, code: &'static str, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.push(code, Severity::Error, span, message.into(), help);
    }

    pub fn warning(&self, code: &'static str, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.push(code, Severity::Warning, span, message.into(), help);
    }

    fn push(&self, code: &'static str, severity: Severity, span: &Range<usize>, message: String, help: Option<String>) {
        let end = span.end.min(self.file.text.len());
        let span = span.start.min(end)..end;
        let mut found = self.found.borrow_mut();
        // A test case is looked at once for every way it is run.
        if found.iter().any(|d| d.code == code && d.span == span && d.message == message) {
            return;
        }
        found.push(Diagnostic { code, severity, message, help, file: self.file.clone(), span });
    }

    /// Whether anything was found under this code.
    pub fn has(&self, code: &str) -> bool {
        self.found.borrow().iter().any(|d| d.code == code)
    }

    pub fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|d| d.severity == Severity::Error)
    }

    /// The findings in the order of the file.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|d| d.span.start);
        for diagnostic in &mut found {
            let (file, start) = diagnostic.file.place(diagnostic.span.start);
            let end = (start + diagnostic.span.len()).min(file.text.len());
            (diagnostic.file, diagnostic.span) = (file, start.min(end)..end);
        }
        found
    }
}

/// The nearest of the known names, when one is near enough to be what was meant.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The same, as it is.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| match candidate.eq_ignore_ascii_case(name) {
            true => (0, candidate),
            false => (strsim::damerau_levenshtein(name, candidate), candidate),
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
