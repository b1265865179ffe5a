//! How relations refer to one another: by foreign keys, of their own or of the tables that they are views of, and by what
//! projections declare. The rules are PostgREST's:
//! <https://docs.postgrest.org/en/v13/references/api/resource_embedding.html>.

use std::collections::{HashMap, HashSet};

use super::origins::Origin;
use super::schema::{Constraint, Kind, Schema};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cardinality {
    OneToMany,
    ManyToOne,
    OneToOne,
    ManyToMany,
}

impl Cardinality {
    pub fn name(self) -> &'static str {
        match self {
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToMany => "many-to-many",
        }
    }

    pub fn is_to_one(self) -> bool {
        matches!(self, Cardinality::ManyToOne | Cardinality::OneToOne)
    }
}

/// A way from the rows of one relation to those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The constraint's name; of many to many, the name of the relation between.
    pub name: String,
    pub from: String,
    pub to: String,
    pub cardinality: Cardinality,
    /// Columns that are equal: of the one, of the other. Without a relation between.
    pub pairs: Vec<(String, String)>,
    pub between: Option<Between>,
    pub to_is_view: bool,
}

/// The relation between two that are many to many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Between {
    pub relation: String,
    /// The constraints by which it refers to the one and to the other.
    pub names: (String, String),
    /// Columns of the one, and those between.
    pub from: Vec<(String, String)>,
    /// Columns between, and of the other.
    pub to: Vec<(String, String)>,
}

impl Link {
    fn backwards(&self, cardinality: Cardinality, to_is_view: bool) -> Link {
        Link {
            name: self.name.clone(),
            from: self.to.clone(),
            to: self.from.clone(),
            cardinality,
            pairs: self.pairs.iter().map(|(from, to)| (to.clone(), from.clone())).collect(),
            between: None,
            to_is_view,
        }
    }

    /// How PostgREST tells of it.
    pub fn told(&self) -> String {
        let columns = |pairs: &[(String, String)], first: bool| {
            let names: Vec<&str> = pairs.iter().map(|(a, b)| if first { a.as_str() } else { b.as_str() }).collect();
            names.join(", ")
        };
        match &self.between {
            Some(between) => format!(
                "{} using {}({}) and {}({})",
                between.relation,
                between.names.0,
                columns(&between.from, false),
                between.names.1,
                columns(&between.to, true)
            ),
            None => format!(
                "{} using {}({}) and {}({})",
                self.name,
                self.from,
                columns(&self.pairs, true),
                self.to,
                columns(&self.pairs, false)
            ),
        }
    }

    /// Whether `target!hint` means it.
    fn is_meant(&self, target: &str, hint: Option<&str>) -> bool {
        let single = match self.pairs.as_slice() {
            [(from, to)] => Some((from.as_str(), to.as_str())),
            _ => None,
        };
        let is_own = self.from == self.to;
        match hint {
            None if is_own => match self.cardinality {
                Cardinality::OneToMany => self.to == target,
                Cardinality::ManyToOne => single.is_some_and(|(from, _)| from == target),
                _ => false,
            },
            None => {
                let by_key = self.between.is_none()
                    && !self.to_is_view
                    && (self.name == target || single.is_some_and(|(from, _)| from == target));
                self.to == target || by_key
            }
            Some(hint) if is_own => {
                self.cardinality == Cardinality::OneToMany
                    && self.to == target
                    && single.is_some_and(|(_, to)| to == hint)
            }
            Some(hint) => {
                let by_column = single.is_some_and(|(from, to)| from == hint || to == hint);
                self.to == target && (self.name == hint || by_column)
            }
        }
    }
}

/// The links that `target!hint` may mean, beginning at a relation.
pub fn meant<'s>(schema: &'s Schema, from: &str, target: &str, hint: Option<&str>) -> Vec<&'s Link> {
    let links = schema.links.get(from).map(Vec::as_slice).unwrap_or_default();
    links.iter().filter(|link| link.is_meant(target, hint)).collect()
}

/// A relation that is served.
pub(super) struct Place {
    schema: String,
    relation: String,
    is_view: bool,
    /// The names of its columns, by their numbers.
    pub columns: HashMap<i16, String>,
}

impl Place {
    pub fn new((schema, relation): (&str, &str), is_view: bool) -> Place {
        Place { schema: schema.into(), relation: relation.into(), is_view, columns: HashMap::new() }
    }
}

/// A relation as a face of a table: of itself, or of the table that it is a view of.
struct Face<'p> {
    place: &'p Place,
    /// Its columns, by the numbers of the table's.
    columns: HashMap<i16, String>,
}

impl Face<'_> {
    /// Its names for columns of the table, if it has them all.
    fn names(&self, columns: &[i16]) -> Option<Vec<String>> {
        columns.iter().map(|column| self.columns.get(column).cloned()).collect()
    }
}

/// Finds keys and links.
pub(super) fn find(
    schemas: &mut [Schema],
    places: &HashMap<u32, Place>,
    constraints: &[Constraint],
    origins: &HashMap<u32, Vec<Origin>>,
) {
    let faces = faces(places, origins);
    let of = |table: u32| faces.get(&table).map(Vec::as_slice).unwrap_or_default();
    let unique: HashSet<(u32, Vec<i16>)> = constraints
        .iter()
        .filter(|constraint| !matches!(constraint.kind, Kind::Foreign { .. }))
        .map(|constraint| (constraint.table, sorted(&constraint.columns)))
        .collect();
    for schema in schemas.iter_mut() {
        let here = |face: &&Face<'_>| face.place.schema == schema.name;
        let mut links = Vec::new();
        for constraint in constraints {
            match &constraint.kind {
                Kind::Unique => {}
                Kind::Primary => {
                    for face in of(constraint.table).iter().filter(here) {
                        let relation = schema.relations.get_mut(&face.place.relation);
                        if let (Some(relation), Some(key)) = (relation, face.names(&constraint.columns)) {
                            relation.key = key;
                        }
                    }
                }
                Kind::Foreign { to, columns } => {
                    let is_unique = unique.contains(&(constraint.table, sorted(&constraint.columns)));
                    for face in of(constraint.table).iter().filter(here) {
                        let Some(own) = face.names(&constraint.columns) else { continue };
                        for other in of(*to).iter().filter(here) {
                            let Some(theirs) = other.names(columns) else { continue };
                            let pairs = own.iter().cloned().zip(theirs).collect();
                            links.extend(both_ways(&constraint.name, (face.place, other.place), pairs, is_unique));
                        }
                    }
                }
            }
        }
        links.extend(many_to_many(schema, &links));
        for link in links {
            schema.links.entry(link.from.clone()).or_default().push(link);
        }
        schema.links.values_mut().for_each(|links| links.sort_by(|a, b| order(a).cmp(&order(b))));
    }
}

fn order(link: &Link) -> (Cardinality, &str, &str) {
    (link.cardinality, &link.name, &link.to)
}

fn sorted(columns: &[i16]) -> Vec<i16> {
    let mut columns = columns.to_vec();
    columns.sort_unstable();
    columns
}

fn both_ways(name: &str, (own, other): (&Place, &Place), pairs: Vec<(String, String)>, is_unique: bool) -> [Link; 2] {
    let (there, back) = match is_unique {
        true => (Cardinality::OneToOne, Cardinality::OneToOne),
        false => (Cardinality::ManyToOne, Cardinality::OneToMany),
    };
    let link = Link {
        name: name.into(),
        from: own.relation.clone(),
        to: other.relation.clone(),
        cardinality: there,
        pairs,
        between: None,
        to_is_view: other.is_view,
    };
    let backwards = link.backwards(back, own.is_view);
    [link, backwards]
}

/// Relations that refer to two others by columns of their primary key.
fn many_to_many(schema: &Schema, links: &[Link]) -> Vec<Link> {
    let refers = |link: &&Link| {
        let key = schema.relations.get(&link.from).map(|relation| relation.key.as_slice()).unwrap_or_default();
        link.cardinality == Cardinality::ManyToOne && link.pairs.iter().all(|(from, _)| key.contains(from))
    };
    let mut by_between: HashMap<&str, Vec<&Link>> = HashMap::new();
    for link in links.iter().filter(refers) {
        by_between.entry(&link.from).or_default().push(link);
    }
    let mut found = Vec::new();
    for (between, referring) in by_between {
        for one in &referring {
            for other in referring.iter().filter(|other| other.name != one.name) {
                if one.to == other.to || one.to == between || other.to == between {
                    continue;
                }
                found.push(Link {
                    name: between.into(),
                    from: one.to.clone(),
                    to: other.to.clone(),
                    cardinality: Cardinality::ManyToMany,
                    pairs: Vec::new(),
                    between: Some(Between {
                        relation: between.into(),
                        names: (one.name.clone(), other.name.clone()),
                        from: one.pairs.iter().map(|(between, to)| (to.clone(), between.clone())).collect(),
                        to: other.pairs.clone(),
                    }),
                    to_is_view: other.to_is_view,
                });
            }
        }
    }
    found
}

/// The relations that show rows of a table, by the table.
fn faces<'p>(places: &'p HashMap<u32, Place>, origins: &HashMap<u32, Vec<Origin>>) -> HashMap<u32, Vec<Face<'p>>> {
    const DEEPEST: usize = 32;
    // Through views of views.
    let source = |mut from: (u32, i16)| {
        for _ in 0..DEEPEST {
            let Some(columns) = origins.get(&from.0) else { return Some(from) };
            from = columns.iter().find(|origin| origin.number == from.1)?.from;
        }
        None
    };
    let mut faces: HashMap<u32, Vec<Face<'_>>> = HashMap::new();
    for (number, place) in places {
        let mut by_table: HashMap<u32, HashMap<i16, String>> = HashMap::new();
        for (column, name) in &place.columns {
            if let Some((table, column)) = source((*number, *column)) {
                by_table.entry(table).or_default().entry(column).or_insert_with(|| name.clone());
            }
        }
        for (table, columns) in by_table {
            faces.entry(table).or_default().push(Face { place, columns });
        }
    }
    faces
}

/// Adds what projections declare: of rows of a generation, that those of one view refer to those of another.
pub(super) fn declare(schema: &mut Schema, declared: &[(i64, String, String, Vec<String>)]) {
    for (generation, from, to, by) in declared {
        let is_of = |view: &String| {
            let projected = schema.relations.get(view).and_then(|relation| relation.projected.as_ref());
            projected.is_some_and(|projected| projected.generation == *generation)
        };
        if !is_of(from) || !is_of(to) {
            continue;
        }
        let key = |view: &String| schema.relations.get(view).map(|relation| relation.key.clone()).unwrap_or_default();
        let pairs: Vec<(String, String)> = by.iter().cloned().zip(key(to)).collect();
        let known = schema.links.get(from).into_iter().flatten();
        if known.into_iter().any(|link| link.to == *to && link.pairs == pairs) {
            continue;
        }
        let place = |view: &String| Place::new((&schema.name, view), false);
        let name = format!("{from}_{}_fkey", by.join("_"));
        let is_unique = sorted_names(by) == sorted_names(&key(from));
        for link in both_ways(&name, (&place(from), &place(to)), pairs, is_unique) {
            schema.links.entry(link.from.clone()).or_default().push(link);
        }
    }
    schema.links.values_mut().for_each(|links| links.sort_by(|a, b| order(a).cmp(&order(b))));
}

fn sorted_names(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_unstable();
    names
}
