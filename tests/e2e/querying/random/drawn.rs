//! Requests drawn at random, over the whole grammar.

use std::collections::HashSet;

use super::super::super::world::Dice;
use super::asked::{Embed, Field, Item, Level, Order, Step, Test, Tree};
use super::kinds::{INTEGER, KINDS, TEXT};
use super::relations::{Relations, Table};
use super::some;

const ALIASES: [&str; 10] = ["x", "new name", "q", "row", "al\"ias", "größe", "c1", "e1", "da-sh", "count"];
/// Operators, and the types that they are for; all of them are tried on all types now and then.
const ANYWHERE: [&str; 7] = ["eq", "neq", "gt", "gte", "lt", "lte", "isdistinct"];
const OF_TEXT: [&str; 4] = ["like", "ilike", "match", "imatch"];
const OF_RANGES: [&str; 8] = ["cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"];
const SEARCHES: [&str; 4] = ["fts", "plfts", "phfts", "wfts"];
const FUNCTIONS: [&str; 5] = ["count", "sum", "avg", "min", "max"];

/// How a level is shown.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// Its rows are rows of the answer, or of an array, or one object.
    Rows,
    /// Its columns are those of the row around it.
    Spread,
    /// Its columns are arrays.
    Arrays,
}

pub struct Drawing<'d, 'r> {
    pub dice: &'d mut Dice,
    pub relations: &'r Relations,
}

/// Where a level stands.
struct Place {
    /// Levels above it.
    depth: u64,
    shown: Shown,
    is_to_one: bool,
    /// Its rows are part of what is grouped by: they need an order, and have no groups of their own.
    is_key: bool,
    /// The row around it may be that of a group.
    around_groups: bool,
}

impl Drawing<'_, '_> {
    pub fn request(&mut self) -> Level {
        let table = self.dice.roll(self.relations.tables.len() as u64) as usize;
        let place = Place { depth: 0, shown: Shown::Rows, is_to_one: false, is_key: false, around_groups: false };
        self.level(table, &place, &mut HashSet::new())
    }

    fn often(&mut self, one_in: u64) -> bool {
        self.dice.roll(one_in) == 0
    }

    /// `taken` are the names that the row has already.
    fn level(&mut self, at: usize, place: &Place, taken: &mut HashSet<String>) -> Level {
        let relations = self.relations;
        let table = &relations.tables[at];
        let mut level =
            Level { table: at, items: Vec::new(), filters: Vec::new(), order: Vec::new(), limit: None, offset: 0 };
        // Within arrays there can be none, which has to be said.
        let may_group = match place.shown {
            Shown::Rows => !place.is_key,
            // Its aggregates are those of the row around it.
            Shown::Spread => place.around_groups,
            Shown::Arrays => !place.is_key && self.often(12),
        };
        let groups = may_group && self.often(4);
        if !groups && self.often(4) && table.columns.iter().all(|column| !taken.contains(&column.name)) {
            taken.extend(table.columns.iter().map(|column| column.name.clone()));
            level.items.push(Item::All);
        }
        for _ in 0..self.dice.roll(4) {
            let field = self.field(table);
            let cast = self.cast(table, &field);
            if let Some(alias) = self.alias(field.name(table), taken) {
                level.items.push(Item::Field { field, alias, cast, aggregate: None });
            }
        }
        for _ in 0..if groups { self.dice.roll(3) } else { 0 } {
            self.aggregate(table, &mut level.items, taken);
        }
        for _ in 0..if place.depth < 3 && !self.often(2 + place.depth) {
            1 + self.dice.roll(2) / (1 + place.depth)
        } else {
            0
        } {
            self.embed(&mut level, place, groups, taken);
        }
        if level.items.is_empty() && (place.depth == 0 || !self.often(6)) {
            let field = Field { column: self.dice.roll(table.columns.len() as u64) as usize, path: Vec::new() };
            match self.alias(field.name(table), taken) {
                Some(alias) => level.items.push(Item::Field { field, alias, cast: None, aggregate: None }),
                None => level.items.push(Item::Count { alias: None, cast: None }),
            }
        }
        let most = if place.depth == 0 { 4 } else { 2 };
        for _ in 0..self.dice.roll(most) {
            let filter = self.tree(&level, 0);
            level.filters.extend(filter);
        }
        let is_total =
            if level.is_grouped() { self.order_of_groups(&mut level) } else { self.order(&mut level, place) };
        if is_total && place.depth == 0 && self.often(2)
            || is_total && self.often(4)
            || place.is_to_one && self.often(30)
        {
            level.limit = (!self.often(5)).then(|| self.dice.roll(6));
            level.offset = if self.often(2) { self.dice.roll(5) } else { 0 };
        }
        level
    }

    /// No alias, if it needs none; `None`, if it cannot be had.
    fn alias(&mut self, own: String, taken: &mut HashSet<String>) -> Option<Option<String>> {
        if !self.often(4) && taken.insert(own.clone()) {
            return Some(None);
        }
        let name = format!("{}{}", some(self.dice, &ALIASES), if self.often(3) { " 2" } else { "" });
        taken.insert(name.clone()).then_some(Some(name))
    }

    fn field(&mut self, table: &Table) -> Field {
        let column = self.dice.roll(table.columns.len() as u64) as usize;
        let kind = &KINDS[table.columns[column].kind];
        let name = |key: &str| Step { key: key.into(), is_index: false, as_text: false };
        let index = |key: &str| Step { key: key.into(), is_index: true, as_text: false };
        let mut path = Vec::new();
        if kind.has_paths && !self.often(3) {
            path = match (kind.type_.ends_with("[]"), kind.type_ == "spot", self.dice.roll(7)) {
                (true, ..) => vec![index(some(self.dice, &["0", "1", "-1"]))],
                (_, true, _) => vec![name(some(self.dice, &["lat", "mark"]))],
                (_, _, 0) => vec![name("b"), name("c"), index("0")],
                (_, _, 1) => vec![name("b"), name("c")],
                (_, _, 2) => vec![index("2"), name("a")],
                (_, _, 3) => vec![index("-1")],
                (_, _, 4) => vec![name(some(self.dice, &["k y", "a,b"]))],
                _ => vec![name(some(self.dice, &["a", "s"]))],
            };
            if let Some(last) = path.last_mut() {
                last.as_text = self.dice.roll(2) == 0;
            }
        }
        Field { column, path }
    }

    fn cast(&mut self, table: &Table, field: &Field) -> Option<&'static str> {
        if !self.often(5) {
            return None;
        }
        let casts: &[&str] = match field.type_(table) {
            "integer" => &["text", "bigint", "numeric", "double precision"],
            "boolean" => &["text", "integer"],
            "timestamptz" => &["text", "date", "timestamp"],
            "date" => &["text", "timestamp"],
            "text" => &["varchar", "bytea"],
            _ => &["text"],
        };
        // Texts that are no bytes are found out only when they are met.
        let cast = some(self.dice, casts);
        Some(match self.dice.roll(40) {
            0 => "no_type",
            1 if field.type_(table) == "daterange" => "integer",
            _ if cast == "bytea" => "text",
            _ => cast,
        })
    }

    fn aggregate(&mut self, table: &Table, items: &mut Vec<Item>, taken: &mut HashSet<String>) {
        let cast = |drawing: &mut Self| drawing.often(5).then_some("text");
        if self.often(3) {
            let Some(alias) = self.alias("count".into(), taken) else { return };
            let cast = cast(self);
            items.push(Item::Count { alias, cast });
            return;
        }
        let mut field = self.field(table);
        let mut function = some(self.dice, &FUNCTIONS);
        // Mostly, what can be added.
        let numbers: Vec<usize> = (0..table.columns.len()).filter(|at| table.columns[*at].kind < TEXT).collect();
        if !numbers.is_empty() && !self.often(4) {
            field = Field { column: some(self.dice, &numbers), path: Vec::new() };
        } else if !self.often(6) {
            function = "count";
        }
        let Some(alias) = self.alias(function.into(), taken) else { return };
        let own = if field.kind(table) == Some(INTEGER) && self.often(5) { Some("numeric") } else { None };
        let aggregate = Some((function, cast(self)));
        items.push(Item::Field { field, alias, cast: own, aggregate });
    }

    fn embed(&mut self, level: &mut Level, place: &Place, groups: bool, taken: &mut HashSet<String>) {
        let links = self.relations.links(level.table);
        if links.is_empty() {
            return;
        }
        let link = some(self.dice, &links);
        let is_key = place.is_key || groups;
        if is_key && self.relations.tables[link.to].key.is_empty() {
            return;
        }
        let spelled = some(self.dice, &link.spelled);
        // Parameters call what is embedded by its target too.
        if level.embeds().any(|other| other.spelled.0 == spelled.0 || other.name() == spelled.0) {
            return;
        }
        let is_spread = self.often(4);
        let mut alias = None;
        if !is_spread {
            let Some(found) = self.alias(spelled.0.clone(), taken) else { return };
            alias = found;
        }
        if level.embeds().any(|other| Some(&other.spelled.0) == alias.as_ref()) {
            return;
        }
        let shown = match (is_spread, link.is_to_one) {
            (false, _) => Shown::Rows,
            (true, true) if place.shown == Shown::Arrays => Shown::Arrays,
            (true, true) => Shown::Spread,
            (true, false) => Shown::Arrays,
        };
        let inner = Place { depth: place.depth + 1, shown, is_to_one: link.is_to_one, is_key, around_groups: groups };
        let embedded = match is_spread {
            true => self.level(link.to, &inner, taken),
            false => self.level(link.to, &inner, &mut HashSet::new()),
        };
        let is_inner = self.often(3);
        level.items.push(Item::Embed(Embed { link, spelled, alias, is_inner, is_spread, level: embedded }));
    }

    fn direction(&mut self, field: Field, of: Option<usize>) -> Order {
        let is_descending = some(self.dice, &[None, Some(false), Some(true)]);
        let nulls_first = some(self.dice, &[None, Some(false), Some(true)]);
        Order { of, field, is_descending, nulls_first }
    }

    /// Whether the order tells all rows apart.
    fn order(&mut self, level: &mut Level, place: &Place) -> bool {
        let table = &self.relations.tables[level.table];
        let is_root = place.depth == 0;
        if !is_root && table.key.is_empty() || !place.is_key && self.often(3) {
            return false;
        }
        for _ in 0..self.dice.roll(3) {
            let of = self.dice.roll(level.items.len().max(1) as u64) as usize;
            let embed = (of < level.items.len() && self.often(2)).then(|| level.embed(of)).flatten();
            let embed = embed.filter(|embed| !embed.level.is_grouped() && (embed.link.is_to_one || self.often(12)));
            let order = match embed {
                Some(embed) => {
                    let other = &self.relations.tables[embed.level.table];
                    let field = self.field(other);
                    // Within what is spread, names are those of the row around it.
                    let name = field.name(other);
                    let is_other = embed.is_spread && shows(&embed.level, self.relations, &name);
                    (!is_other).then(|| self.direction(field, Some(of)))
                }
                None => {
                    let field = self.field(table);
                    Some(self.direction(field, None))
                }
            };
            let is_json = |order: &Order| order.of.is_none() && order.field.type_(table) == "json";
            level.order.extend(order.filter(|order| !is_json(order) || self.dice.roll(20) == 0));
        }
        let is_total = !table.key.is_empty() && (!is_root || !self.often(3));
        if is_total {
            for key in table.key.clone() {
                let order = self.direction(Field { column: key, path: Vec::new() }, None);
                level.order.push(order);
            }
        }
        is_total
    }

    /// Groups are ordered by all that they are grouped by, or not at all.
    fn order_of_groups(&mut self, level: &mut Level) -> bool {
        let mut order = Vec::new();
        for item in &level.items {
            match item {
                Item::Field { field, cast: None, aggregate: None, .. } => order.push(field.clone()),
                Item::Count { .. } | Item::Field { aggregate: Some(_), .. } => {}
                _ => return false,
            }
        }
        if order.is_empty() || self.often(3) {
            return false;
        }
        level.order = order.into_iter().map(|field| self.direction(field, None)).collect();
        true
    }

    fn tree(&mut self, level: &Level, depth: u64) -> Option<Tree> {
        let negated = self.often(5);
        if depth < 3 && self.often(4) {
            let parts: Vec<Tree> = (0..1 + self.dice.roll(3)).filter_map(|_| self.tree(level, depth + 1)).collect();
            let is_any = self.often(2);
            return (!parts.is_empty()).then_some(Tree::Joint { is_any, negated, parts });
        }
        let item = self.dice.roll(level.items.len().max(1) as u64) as usize;
        if item < level.items.len() && self.often(3) && level.embed(item).is_some() {
            return Some(Tree::Absent { item, negated });
        }
        let table = &self.relations.tables[level.table];
        let field = self.field(table);
        let is_taken = |embed: &Embed| embed.name() == table.columns[field.column].name;
        if field.path.is_empty() && level.embeds().any(is_taken) {
            return None;
        }
        let test = self.test(table, &field);
        Some(Tree::Test { field, negated, test })
    }

    fn test(&mut self, table: &Table, field: &Field) -> Test {
        let type_ = field.type_(table);
        let is_text = matches!(type_, "text" | "varchar(12)" | "char(4)");
        if self.often(6) {
            let what: &[&str] = if type_ == "boolean" { &["true", "false", "unknown"] } else { &["null", "not_null"] };
            return Test::Is(some(self.dice, what));
        }
        if (type_ == "tsvector" || self.often(6)) && matches!(type_, "text" | "jsonb" | "tsvector") {
            let operator = some(self.dice, &SEARCHES);
            let words: &[&str] = match operator {
                "fts" => &["fat", "fat & cat", "cat | rat", "!cat", "ra:*", "'the'"],
                _ => &["fat cat", "the rat", "cats or rats", "\"fat cat\" -rat", "", "a,b)"],
            };
            let language = some(self.dice, &[None, Some("english"), Some("simple"), Some("german")]);
            return Test::Search(operator, language, some(self.dice, words).into());
        }
        let is_range = type_.ends_with("range");
        let mut operator = match self.dice.roll(3) {
            0 if is_text => some(self.dice, &OF_TEXT),
            0 | 1 if is_range => some(self.dice, &OF_RANGES),
            0 | 1 if type_.ends_with("[]") => some(self.dice, &["cs", "cd", "ov"]),
            0 if type_ == "jsonb" => some(self.dice, &["cs", "cd"]),
            _ => some(self.dice, &ANYWHERE),
        };
        if self.often(60) {
            operator = some(self.dice, &[OF_TEXT[0], OF_TEXT[2], "cs", "ov", "sl", "adj"]);
        }
        let may_quantify = matches!(operator, "eq" | "gt" | "gte" | "lt" | "lte") || OF_TEXT.contains(&operator);
        match self.dice.roll(5) {
            0 if ANYWHERE.contains(&operator) => {
                Test::In((0..self.dice.roll(4)).map(|_| self.value(table, field, "eq")).collect())
            }
            // An array of arrays is no array of this type.
            1 if may_quantify && !type_.ends_with("[]") => {
                let values = (0..self.dice.roll(4))
                    .map(|_| (!self.often(8)).then(|| self.value(table, field, operator)))
                    .collect();
                Test::Quantified(operator, self.often(2), values)
            }
            _ => Test::Compare(operator, self.value(table, field, operator)),
        }
    }

    fn value(&mut self, table: &Table, field: &Field, operator: &str) -> String {
        let type_ = field.type_(table);
        match operator {
            "match" | "imatch" => some(self.dice, &["^a", "b$", "[ab]+", "^.{2,3}$", "c|t", "", "\\s", "(x)"]).into(),
            "like" | "ilike" => some(self.dice, &["a*", "*b*", "A%", "_", "*", "%,%", "*\"*", "a_b", "", "*)"]).into(),
            _ if !field.path.is_empty() && type_ == "text" => {
                some(self.dice, &["1", "x", "y z", "the fat cat", "10", "a", "true", "60.45", ""]).into()
            }
            _ if !field.path.is_empty() => {
                some(self.dice, &["1", "\"x\"", "\"y z\"", "null", "[10, 20, 30]", "{\"a\":3}", "10", "true"]).into()
            }
            _ => table.value(self.dice, field.column),
        }
    }
}

/// Whether a level, or what is spread in it, shows something by that name.
fn shows(level: &Level, relations: &Relations, name: &str) -> bool {
    let table = &relations.tables[level.table];
    level.items.iter().any(|item| match item {
        // By its own name, it is the same.
        Item::All => false,
        Item::Count { alias, .. } => alias.as_deref().unwrap_or("count") == name,
        Item::Field { alias, field, cast, .. } => {
            let own = field.name(table);
            let is_same = alias.is_none() && cast.is_none() && field.path.is_empty();
            !is_same && alias.as_deref().unwrap_or(&own) == name
        }
        Item::Embed(embed) if embed.is_spread => {
            embed.level.items.iter().any(|item| matches!(item, Item::All)) || shows(&embed.level, relations, name)
        }
        Item::Embed(embed) => embed.name() == name,
    })
}
