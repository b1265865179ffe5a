//! What is worked out when a row is read: generated columns, flags, `show`.

use super::Build;
use crate::plan::expr::{Compiler, Expr as Compiled, Node, RowColumn, RowRef};
use crate::plan::types::{ColumnType, Kind, Scalar};
use crate::plan::{Column, Generated, GeneratedValue};
use crate::spec::{self, Expr, KeyFormat, Name};

impl Build<'_> {
    /// The columns that `row.` reads, generated ones inlined, and the generated ones themselves.
    pub(super) fn row(
        &self,
        table: &spec::Table,
        key: &[Column],
        columns: &[Column],
    ) -> (Vec<RowColumn>, Vec<Generated>) {
        let stored = |of_key: bool, columns: &[Column]| -> Vec<RowColumn> {
            let column = |(at, column): (usize, &Column)| RowColumn {
                name: column.name.clone(),
                node: Node::Row(RowRef { of_key, at: at as u16 }),
                kind: column.shape.type_.kind(),
            };
            columns.iter().enumerate().map(column).collect()
        };
        let mut row = stored(true, key);
        row.extend(stored(false, columns));
        let mut generated = self.generated(table, &mut row);
        if !table.flags.is_empty() {
            let flags = table
                .flags
                .iter()
                .filter_map(|(name, expr)| Some((name.value.clone(), self.row_condition(expr, &row)?)));
            generated.push(Generated {
                name: "flags".into(),
                type_: ColumnType { scalar: Scalar::Text, array: true },
                value: GeneratedValue::Flags(flags.collect()),
                hidden: false,
                description: None,
            });
            if let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == "flags") {
                let message = "`flags` is the column that lists the flags that hold";
                self.error("duplicate-column", &name.span, message, Some("give this column another name"));
            }
        }
        (row, generated)
    }

    /// Generated columns may read one another; each is compiled once all that it reads are there.
    fn generated(&self, table: &spec::Table, row: &mut Vec<RowColumn>) -> Vec<Generated> {
        let mut waiting: Vec<(&Name, &spec::Column, &Expr)> = table
            .columns
            .iter()
            .filter_map(|(name, column)| Some((name, &column.0, column.0.generated.as_ref()?)))
            .collect();
        let mut done = Vec::new();
        loop {
            let names: Vec<String> = waiting.iter().map(|(name, ..)| name.value.clone()).collect();
            let mut still = Vec::new();
            for (name, column, expr) in std::mem::take(&mut waiting) {
                match compiler(row).compile(&expr.value.0) {
                    Err(misread) if misread.code == "unknown-column" && waits(&misread.message, &names) => {
                        still.push((name, column, expr));
                    }
                    Err(misread) => self.misread(expr, misread),
                    Ok(compiled) => {
                        if let Some(made) = self.generated_column(name, column, expr, compiled, row) {
                            done.push(made);
                        }
                    }
                }
            }
            if still.len() == names.len() {
                for (name, ..) in &still {
                    let message = format!("`{}` is generated from itself", name.value);
                    self.error("generated-cycle", &name.span, message, Some("break the circle"));
                }
                break;
            }
            waiting = still;
        }
        done.sort_by_key(|made: &Generated| table.columns.keys().position(|name| name.value == made.name));
        done
    }

    fn generated_column(
        &self,
        name: &Name,
        written: &spec::Column,
        expr: &Expr,
        compiled: Compiled,
        row: &mut Vec<RowColumn>,
    ) -> Option<Generated> {
        let column = self.column(name, written);
        let type_ = column.shape.type_;
        for (word, given) in [("default", written.default.is_some()), ("not_null", written.not_null)] {
            if given {
                let message = format!("a generated column has no `{word}`");
                self.error("wrong-generated", &name.span, message, Some("coalesce(…) gives it a value for NULL"));
            }
        }
        let plain = [Scalar::Text, Scalar::Bool, Scalar::Numeric(None), Scalar::Timestamptz, Scalar::Date];
        if type_.array || !plain.contains(&type_.scalar) {
            let message = format!("a generated column cannot be {type_}");
            let help = "text, bool, numeric (with round(…) for its digits), timestamptz or date";
            self.error("wrong-generated", &written.type_.span, message, Some(help));
        } else if !type_.accepts(compiled.kind) || (compiled.kind == Kind::Text && type_.kind() != Kind::Text) {
            let message = format!("`{}` is {type_}, this is {}", name.value, compiled.kind.describe());
            self.error("wrong-kind", &expr.span, message, None);
        }
        self.answerable(expr, &compiled)?;
        row.push(RowColumn { name: name.value.clone(), node: compiled.node.clone(), kind: type_.kind() });
        Some(Generated {
            name: name.value.clone(),
            type_,
            value: GeneratedValue::Expr(compiled),
            hidden: written.hidden,
            description: written.description.clone(),
        })
    }

    /// A condition on the row, for `show` and flags.
    pub(super) fn row_condition(&self, expr: &Expr, row: &[RowColumn]) -> Option<Compiled> {
        match compiler(row).compile(&expr.value.0) {
            Ok(compiled) if matches!(compiled.kind, Kind::Bool | Kind::Any | Kind::Null) => {
                self.answerable(expr, &compiled)?;
                Some(compiled)
            }
            Ok(compiled) => {
                let message = format!("a condition is needed, this is {}", compiled.kind.describe());
                self.error("wrong-kind", &expr.span, message, None);
                None
            }
            Err(misread) => {
                self.misread(expr, misread);
                None
            }
        }
    }

    /// What is worked out when a row is read is worked out by Postgres: not every function means the same there.
    pub(super) fn answerable(&self, expr: &Expr, compiled: &Compiled) -> Option<()> {
        let Some(word) = compiled.not_in_sql() else { return Some(()) };
        let message = format!("`{word}` cannot be worked out by Postgres when a row is read");
        let help = "work it out in a handler and keep it in a column";
        self.error("not-in-sql", &expr.span, message, Some(help));
        None
    }
}

/// Whether the column that is missing is one of these.
fn waits(message: &str, names: &[String]) -> bool {
    let missing = message.split('`').nth(1).unwrap_or_default();
    names.iter().any(|name| name == missing)
}

fn compiler(row: &[RowColumn]) -> RowCompiler<'_> {
    RowCompiler { row, bare: false, scopes: Vec::new() }
}

/// A compiler for expressions that have a row and no event.
pub(super) struct RowCompiler<'r> {
    row: &'r [RowColumn],
    bare: bool,
    scopes: Vec<crate::json_paths::Paths>,
}

impl<'r> RowCompiler<'r> {
    /// One for which a bare name is a column of the row.
    pub fn bare(row: &'r [RowColumn]) -> RowCompiler<'r> {
        RowCompiler { bare: true, ..compiler(row) }
    }

    pub fn compile(&mut self, text: &str) -> Result<Compiled, crate::plan::expr::Misread> {
        let mut compiler = Compiler {
            scopes: &mut self.scopes,
            elements: Vec::new(),
            captures: Vec::new(),
            key_format: KeyFormat::None,
            splits: false,
            row: self.row,
            event: false,
            bare: self.bare,
        };
        compiler.compile(text)
    }
}
