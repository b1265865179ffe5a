//! Which columns of a view are columns of a table, unchanged: Postgres keeps that with the view's rule, in the text form
//! of its parse tree (`pg_rewrite.ev_action`, written by src/backend/nodes/outfuncs.c).

/// A column of a view that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its place in the view, from 1 on.
    pub number: i16,
    pub name: String,
    /// The relation that it is copied from, and the column's number there.
    pub from: (u32, i16),
}

/// The columns of a rule's outermost target list.
pub fn origins(rule: &str) -> Vec<Origin> {
    let mut origins = Vec::new();
    let mut tokens = Tokens { rest: rule };
    // `({QUERY … :targetList ({TARGETENTRY …} …) …})`: fields of the query itself stand within `(` and `{`.
    let (mut depth, mut in_list) = (0usize, false);
    let mut entry = Entry::default();
    while let Some(token) = tokens.next() {
        match token {
            "(" | "{" => depth += 1,
            ")" | "}" => {
                depth = depth.saturating_sub(1);
                match depth {
                    3 if in_list => entry.end(&mut origins),
                    2 => in_list = false,
                    _ => {}
                }
            }
            ":targetList" if depth == 2 => in_list = true,
            ":resno" if in_list && depth == 4 => entry.number = tokens.next().and_then(|t| t.parse().ok()),
            ":resname" if in_list && depth == 4 => entry.name = tokens.next().map(unescaped),
            ":resorigtbl" if in_list && depth == 4 => entry.table = tokens.next().and_then(|t| t.parse().ok()),
            ":resorigcol" if in_list && depth == 4 => entry.column = tokens.next().and_then(|t| t.parse().ok()),
            _ => {}
        }
    }
    origins
}

#[derive(Default)]
struct Entry {
    number: Option<i16>,
    name: Option<String>,
    table: Option<u32>,
    column: Option<i16>,
}

impl Entry {
    fn end(&mut self, origins: &mut Vec<Origin>) {
        let entry = std::mem::take(self);
        let from = entry.table.filter(|table| *table > 0).zip(entry.column.filter(|column| *column > 0));
        if let (Some(number), Some(name), Some(from)) = (entry.number, entry.name, from) {
            origins.push(Origin { number, name, from });
        }
    }
}

struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Tokens<'t> {
    fn next(&mut self) -> Option<&'t str> {
        let text = self.rest.trim_start();
        let is_bracket = |c: char| matches!(c, '(' | ')' | '{' | '}');
        let first = text.chars().next()?;
        let mut end = first.len_utf8();
        if !is_bracket(first) {
            let mut escaped = false;
            let stop = text.char_indices().find(|(_, c)| {
                let stops = !escaped && (is_bracket(*c) || c.is_ascii_whitespace());
                escaped = !escaped && *c == '\\';
                stops
            });
            end = stop.map_or(text.len(), |(at, _)| at);
        }
        let (token, rest) = text.split_at(end);
        self.rest = rest;
        Some(token)
    }
}

fn unescaped(token: &str) -> String {
    let mut plain = String::new();
    let mut characters = token.chars();
    while let Some(c) = characters.next() {
        plain.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_outermost_columns() {
        let entry = |expr: &str, name: &str, table: u32, column: i16| {
            format!(
                "{{TARGETENTRY :expr {expr} :resno 1 :resname {name} :ressortgroupref 0 :resorigtbl {table} :resorigcol {column} :resjunk false}}"
            )
        };
        let inner = format!("{{QUERY :targetList ({})}}", entry("{VAR :varno 1}", "inner", 9, 9));
        let list = [
            entry("{VAR :varno 1 :location -1}", "id", 16390, 1),
            entry("{OPEXPR :args ({VAR} {CONST :constvalue 4 [ 1 0 ]})}", "computed", 0, 0),
            entry("{VAR}", "a\\ \\(name\\)", 16390, 3),
        ];
        let rule =
            format!("({{QUERY :rtable ({{RTE :subquery {inner}}}) :targetList ({}) :hasAggs false}})", list.join(" "));
        let found: Vec<(String, (u32, i16))> = origins(&rule).into_iter().map(|o| (o.name, o.from)).collect();
        assert_eq!(found, [("id".to_string(), (16390, 1)), ("a (name)".to_string(), (16390, 3))]);
    }
}
