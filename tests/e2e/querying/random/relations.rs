//! Random relations: names that want quoting, columns of many types, keys of all kinds, and rows with many NULLs and
//! many equal values.

use super::super::super::world::Dice;
use super::kinds::{INTEGER, JSONB, KINDS, STEMS, TEXT};
use super::some;

#[derive(Clone)]
pub struct Column {
    pub name: String,
    /// Of [`KINDS`].
    pub kind: usize,
}

impl Column {
    pub fn is_json(&self) -> bool {
        matches!(KINDS[self.kind].type_, "json" | "jsonb")
    }
}

/// A foreign key.
pub struct Reference {
    pub name: String,
    pub from: usize,
    pub to: usize,
    /// Columns of the one, and of the other.
    pub pairs: Vec<(String, String)>,
    pub is_unique: bool,
}

pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// Columns of the primary key, by place; there may be none.
    pub key: Vec<usize>,
    rows: Vec<Vec<Option<String>>>,
}

/// A schema full of tables.
pub struct Relations {
    pub schema: String,
    pub tables: Vec<Table>,
    references: Vec<Reference>,
    /// Tables between two others: the table, and its references.
    junctions: Vec<(usize, usize, usize)>,
}

/// A way from rows of a table to those of another, and how it can be spelled so that no other is meant.
#[derive(Clone)]
pub struct Link {
    pub to: usize,
    /// The target and its hint.
    pub spelled: Vec<(String, Option<String>)>,
    pub is_to_one: bool,
    pub way: Way,
}

/// Pairs of columns that are equal, this side's first.
#[derive(Clone)]
pub enum Way {
    Direct(Vec<(String, String)>),
    Through { between: usize, near: Vec<(String, String)>, far: Vec<(String, String)> },
}

pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Names that are drawn once.
struct Names(Vec<String>);

impl Names {
    fn draw(&mut self, dice: &mut Dice) -> String {
        loop {
            let stem = some(dice, &STEMS);
            let name = if dice.roll(3) > 0 { format!("{stem} {}", dice.roll(90)) } else { stem.to_string() };
            if !self.0.contains(&name) {
                self.0.push(name.clone());
                return name;
            }
        }
    }
}

impl Relations {
    pub fn random(dice: &mut Dice, schema: &str) -> Relations {
        let mut made =
            Relations { schema: schema.into(), tables: Vec::new(), references: Vec::new(), junctions: Vec::new() };
        let mut names = Names(Vec::new());
        for at in 0..6 {
            made.add(dice, &mut names, at);
        }
        for _ in 0..2 {
            made.add_junction(dice, &mut names);
        }
        made
    }

    /// A table with references to some that there are.
    fn add(&mut self, dice: &mut Dice, names: &mut Names, at: usize) {
        let mut columns = Vec::new();
        let mut key = Vec::new();
        // The last has no key.
        for _ in 0..if at == 5 { 0 } else { 1 + usize::from(dice.roll(3) == 0) } {
            let kind = [INTEGER, INTEGER, TEXT][dice.roll(3) as usize];
            key.push(columns.len());
            columns.push(Column { name: names.draw(dice), kind });
        }
        let name = names.draw(dice);
        let keyed: Vec<usize> = (0..self.tables.len()).collect();
        for _ in 0..if at == 0 { 0 } else { 1 + dice.roll(2) } {
            let to = keyed[dice.roll(keyed.len() as u64) as usize];
            let is_unique = dice.roll(4) == 0;
            self.refer(dice, names, (at, to), &mut columns, is_unique);
        }
        for _ in 0..3 + dice.roll(5) {
            let kind = if dice.roll(3) == 0 { some(dice, &[INTEGER, TEXT, JSONB]) } else { dice.roll(26) as usize };
            columns.push(Column { name: names.draw(dice), kind });
        }
        self.tables.push(Table { name, columns, key, rows: Vec::new() });
        // One that refers to itself, by one column: by several nothing can name it.
        if self.tables[at].key.len() == 1 && dice.roll(2) == 0 {
            let mut columns = std::mem::take(&mut self.tables[at].columns);
            let key = self.tables[at].key[0];
            let pairs = vec![(names.draw(dice), columns[key].name.clone())];
            columns.push(Column { name: pairs[0].0.clone(), kind: columns[key].kind });
            self.references.push(Reference { name: names.draw(dice), from: at, to: at, pairs, is_unique: false });
            self.tables[at].columns = columns;
        }
        self.fill(dice, at, 14);
    }

    fn refer(
        &mut self,
        dice: &mut Dice,
        names: &mut Names,
        (from, to): (usize, usize),
        columns: &mut Vec<Column>,
        is_unique: bool,
    ) -> usize {
        let target = &self.tables[to];
        let pairs = target.key.iter().map(|key| {
            let other = &target.columns[*key];
            columns.push(Column { name: names.draw(dice), kind: other.kind });
            (columns[columns.len() - 1].name.clone(), other.name.clone())
        });
        let pairs = pairs.collect();
        self.references.push(Reference { name: names.draw(dice), from, to, pairs, is_unique });
        self.references.len() - 1
    }

    fn add_junction(&mut self, dice: &mut Dice, names: &mut Names) {
        let at = self.tables.len();
        let one = dice.roll(5) as usize;
        let other = (one + 1 + dice.roll(4) as usize) % 5;
        let mut columns = Vec::new();
        let near = self.refer(dice, names, (at, one), &mut columns, false);
        let far = self.refer(dice, names, (at, other), &mut columns, false);
        let key = (0..columns.len()).collect();
        columns.push(Column { name: names.draw(dice), kind: dice.roll(26) as usize });
        self.tables.push(Table { name: names.draw(dice), columns, key, rows: Vec::new() });
        self.junctions.push((at, near, far));
        self.fill(dice, at, 24);
    }

    fn fill(&mut self, dice: &mut Dice, at: usize, most: u64) {
        let rows = if dice.roll(9) == 0 { 0 } else { 2 + dice.roll(most) };
        for number in 0..rows {
            let table = &self.tables[at];
            let mut row: Vec<Option<String>> = table
                .columns
                .iter()
                .map(|column| {
                    let values = KINDS[column.kind].values;
                    (dice.roll(4) > 0).then(|| some(dice, values).to_string())
                })
                .collect();
            for key in &table.key {
                row[*key] = Some(match table.columns[*key].kind {
                    TEXT => format!("{}{number}", some(dice, KINDS[TEXT].values)),
                    _ => format!("{}", number as i64 * 3 - 4),
                });
            }
            for reference in self.references.iter().filter(|reference| reference.from == at) {
                let target = &self.tables[reference.to];
                let chosen = (!target.rows.is_empty()).then(|| some(dice, &target.rows.iter().collect::<Vec<_>>()));
                let chosen = chosen.filter(|_| dice.roll(4) > 0);
                for (own, other) in &reference.pairs {
                    let other = target.place(other);
                    row[self.tables[at].place(own)] = chosen.and_then(|row| row[other].clone());
                }
            }
            let table = &self.tables[at];
            let is_taken = |columns: &[usize]| {
                table.rows.iter().any(|known| {
                    columns.iter().all(|column| known[*column] == row[*column])
                        && columns.iter().all(|c| row[*c].is_some())
                })
            };
            let unique = self.references.iter().filter(|reference| reference.from == at && reference.is_unique);
            let mut unique = unique.map(|one| one.pairs.iter().map(|(own, _)| table.place(own)).collect::<Vec<_>>());
            let is_whole = table.key.iter().all(|key| row[*key].is_some());
            if is_whole && (table.key.is_empty() || !is_taken(&table.key)) && !unique.any(|columns| is_taken(&columns))
            {
                self.tables[at].rows.push(row);
            }
        }
    }

    /// What makes them.
    pub fn sql(&self) -> String {
        let schema = &self.schema;
        let mut sql = format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema};
             CREATE TYPE mood AS ENUM ('grim', 'calm', 'merry', 'so, so');
             CREATE DOMAIN above_zero AS integer CHECK (VALUE > 0);
             CREATE TYPE spot AS (lat numeric(8, 2), mark text);\n"
        );
        for (at, table) in self.tables.iter().enumerate() {
            let name = ident(&table.name);
            let mut parts: Vec<String> =
                table.columns.iter().map(|c| format!("{} {}", ident(&c.name), KINDS[c.kind].type_)).collect();
            if !table.key.is_empty() {
                let key: Vec<String> = table.key.iter().map(|key| ident(&table.columns[*key].name)).collect();
                parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
            }
            for reference in self.references.iter().filter(|reference| reference.from == at) {
                let [own, other]: [Vec<String>; 2] =
                    [|p: &(String, String)| ident(&p.0), |p: &(String, String)| ident(&p.1)]
                        .map(|side| reference.pairs.iter().map(side).collect());
                let (own, other) = (own.join(", "), other.join(", "));
                if reference.is_unique {
                    parts.push(format!("UNIQUE ({own})"));
                }
                let to = ident(&self.tables[reference.to].name);
                let constraint = ident(&reference.name);
                parts.push(format!("CONSTRAINT {constraint} FOREIGN KEY ({own}) REFERENCES {to} ({other})"));
            }
            sql += &format!("CREATE TABLE {name} ({});\n", parts.join(", "));
            let rows = table.rows.iter().map(|row| {
                let values = row.iter().map(|value| value.as_deref().map_or("NULL".to_string(), literal));
                format!("({})", values.collect::<Vec<_>>().join(", "))
            });
            let rows: Vec<String> = rows.collect();
            if !rows.is_empty() {
                sql += &format!("INSERT INTO {name} VALUES {};\n", rows.join(", "));
            }
        }
        sql + "ANALYZE;\n"
    }

    /// All ways that begin at a table.
    pub fn links(&self, from: usize) -> Vec<Link> {
        let mut links = Vec::new();
        for reference in &self.references {
            let is_own = reference.from == reference.to;
            let column = || (reference.pairs.len() == 1).then(|| reference.pairs[0].0.clone());
            if reference.from == from {
                let to = &self.tables[reference.to].name;
                let mut spelled: Vec<(String, Option<String>)> =
                    column().map(|column| (column, None)).into_iter().collect();
                if !is_own {
                    spelled.push((to.clone(), Some(reference.name.clone())));
                    spelled.push((reference.name.clone(), None));
                    spelled.extend(column().map(|column| (to.clone(), Some(column))));
                }
                let way = Way::Direct(reference.pairs.clone());
                links.push(Link { to: reference.to, spelled, is_to_one: true, way });
            }
            if reference.to == from {
                let name = self.tables[reference.from].name.clone();
                let hint = if is_own { column() } else { Some(reference.name.clone()) };
                let mut spelled = vec![(name.clone(), hint)];
                spelled.extend(column().map(|column| (name, Some(column))));
                let pairs = reference.pairs.iter().map(|(own, other)| (other.clone(), own.clone())).collect();
                let (is_to_one, way) = (reference.is_unique, Way::Direct(pairs));
                links.push(Link { to: reference.from, spelled, is_to_one, way });
            }
        }
        for (between, near, far) in self.junctions.iter().flat_map(|(at, a, b)| [(*at, *a, *b), (*at, *b, *a)]) {
            let [near, far] = [near, far].map(|at| &self.references[at]);
            if near.to == from {
                let spelled = vec![(self.tables[far.to].name.clone(), Some(self.tables[between].name.clone()))];
                let way = Way::Through {
                    between,
                    near: near.pairs.iter().map(|(own, other)| (other.clone(), own.clone())).collect(),
                    far: far.pairs.clone(),
                };
                links.push(Link { to: far.to, spelled, is_to_one: false, way });
            }
        }
        // Where there is but one way, the table's name says it.
        let towards: Vec<usize> = links.iter().map(|link| link.to).collect();
        for link in links.iter_mut().filter(|link| link.to != from) {
            if towards.iter().filter(|to| **to == link.to).count() == 1 {
                link.spelled.push((self.tables[link.to].name.clone(), None));
            }
        }
        links
    }
}

impl Table {
    pub fn place(&self, name: &str) -> usize {
        self.columns.iter().position(|column| column.name == name).unwrap()
    }

    /// A value that a column has, or could have.
    pub fn value(&self, dice: &mut Dice, column: usize) -> String {
        let seen: Vec<&String> = self.rows.iter().filter_map(|row| row[column].as_ref()).collect();
        match seen.is_empty() || dice.roll(4) == 0 {
            true => some(dice, KINDS[self.columns[column].kind].values).to_string(),
            false => some(dice, &seen).clone(),
        }
    }
}
