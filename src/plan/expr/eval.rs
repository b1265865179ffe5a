//! Evaluation: no I/O, no clock, no chance.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde_json::value::RawValue;

use super::{Arithmetic, Comparison, DATA, Elements, Expr, FIRST_ELEMENT, KEY, MESSAGE, Meta, Node, ScopeId};
use crate::event::Event;
use crate::json_paths::Slots;
use crate::value::Value;
use crate::value::json::json_value;
use crate::value::show;

/// What an expression may read while it is evaluated.
#[derive(Clone, Copy)]
pub struct Env<'e, 'a> {
    event: Option<&'e Event<'a>>,
    /// By scope: the elements that the handler's `for_each` stands at.
    elements: &'e [Slots<'a>],
    row: Option<RowView<'e>>,
    /// A reader asks: there is nobody to stop, so that a division by zero is NULL, as Postgres is told to have it.
    read: bool,
}

/// A row that expressions read: its key, and a value for each column.
#[derive(Clone, Copy)]
pub struct RowView<'e> {
    pub key: &'e [Value],
    pub values: &'e [Value],
}

/// Why an expression has no value. `code` is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    fn missing(name: &str) -> Failure {
        Failure {
            code: "missing-field",
            message: format!(
                "`{name}` is missing; opt({name}) would be NULL instead, coalesce(opt({name}), …) what you say"
            ),
        }
    }

    pub fn wrong(message: String) -> Failure {
        Failure { code: "wrong-value", message }
    }
}

impl<'e, 'a> Env<'e, 'a> {
    pub fn event(event: &'e Event<'a>, elements: &'e [Slots<'a>]) -> Env<'e, 'a> {
        Env { event: Some(event), elements, row: None, read: false }
    }

    /// For expressions that read nothing but the row.
    pub fn row(row: RowView<'e>) -> Env<'e, 'a> {
        Env { event: None, elements: &[], row: Some(row), read: false }
    }

    /// For columns that are worked out when a row is read.
    pub fn reader(row: RowView<'e>) -> Env<'e, 'a> {
        Env { read: true, ..Env::row(row) }
    }

    fn raw(&self, scope: ScopeId, slot: usize) -> Option<&'a str> {
        match (scope, self.event) {
            (DATA, Some(event)) => event.data[slot],
            (KEY, Some(event)) => event.key.get(slot).copied().flatten(),
            (MESSAGE, Some(event)) => event.message.get(slot).copied().flatten(),
            (element, _) => self.elements.get(element - FIRST_ELEMENT)?.get(slot).copied().flatten(),
        }
    }

    fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.event?.record.header(name)
    }
}

impl Expr {
    /// Evaluates the expression.
    ///
    /// # Errors
    /// When a field it reads is missing, or a value is not of the kind that is needed.
    pub fn eval(&self, env: &Env<'_, '_>) -> Result<Value, Failure> {
        eval(&self.node, env)
    }

    /// Evaluates, or `None` when the whole expression is one path and the document does not have it.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn eval_if_present(&self, env: &Env<'_, '_>) -> Result<Option<Value>, Failure> {
        match &self.node {
            Node::Path { scope, slot, .. } if env.raw(*scope, *slot).is_none() => Ok(None),
            node => eval(node, env).map(Some),
        }
    }

    /// Evaluates a condition; NULL counts as false.
    ///
    /// # Errors
    /// As [`Expr::eval`], and when the value is no boolean.
    pub fn holds(&self, env: &Env<'_, '_>) -> Result<bool, Failure> {
        Ok(truth(eval(&self.node, env)?)?.unwrap_or(false))
    }

    /// `opt(path)`: nothing there is as good as nothing in it.
    pub fn is_optional(&self) -> bool {
        matches!(self.node, Node::Opt { .. })
    }

    /// The raw JSON that a path expression stands at, for `for_each`.
    pub fn raw<'a>(&self, env: &Env<'_, 'a>) -> Option<&'a str> {
        match &self.node {
            Node::Path { scope, slot, .. } | Node::Opt { scope, slot } => env.raw(*scope, *slot),
            _ => None,
        }
    }
}

pub(super) fn eval(node: &Node, env: &Env<'_, '_>) -> Result<Value, Failure> {
    Ok(match node {
        Node::Const(value) => value.clone(),
        Node::Path { scope, slot, name } => match env.raw(*scope, *slot) {
            Some(raw) => json_value(raw).map_err(Failure::wrong)?,
            None => return Err(Failure::missing(name)),
        },
        Node::Opt { scope, slot } => match env.raw(*scope, *slot) {
            Some(raw) => json_value(raw).map_err(Failure::wrong)?,
            None => Value::Null,
        },
        Node::Has { scope, slot } => Value::Bool(env.raw(*scope, *slot).is_some()),
        Node::Meta(meta) => eval_meta(*meta, env)?,
        Node::Header { name, required } => match env.header(name) {
            Some(bytes) => utf8(bytes, "the header")?,
            None if *required => return Err(Failure::missing(&format!("headers.{name}"))),
            None => Value::Null,
        },
        Node::HasHeader(name) => Value::Bool(env.header(name).is_some()),
        Node::Capture(name) => match env.event.and_then(|event| event.captures.iter().find(|(n, _)| n == name)) {
            Some((_, value)) => Value::text(value),
            None => Value::Null,
        },
        Node::Not(inner) => truth(eval(inner, env)?)?.map_or(Value::Null, |b| Value::Bool(!b)),
        Node::Negate(inner) => arithmetic(Arithmetic::Subtract, Value::Int(0), eval(inner, env)?)?,
        Node::And(a, b) => match truth(eval(a, env)?)? {
            Some(false) => Value::Bool(false),
            first => match (first, truth(eval(b, env)?)?) {
                (_, Some(false)) => Value::Bool(false),
                (Some(true), Some(true)) => Value::Bool(true),
                _ => Value::Null,
            },
        },
        Node::Or(a, b) => match truth(eval(a, env)?)? {
            Some(true) => Value::Bool(true),
            first => match (first, truth(eval(b, env)?)?) {
                (_, Some(true)) => Value::Bool(true),
                (Some(false), Some(false)) => Value::Bool(false),
                _ => Value::Null,
            },
        },
        Node::If(condition, yes, no) => {
            let holds = truth(eval(condition, env)?)?.unwrap_or(false);
            eval(if holds { yes } else { no }, env)?
        }
        Node::Compare(comparison, a, b) => compare(*comparison, eval(a, env)?, eval(b, env)?)?,
        Node::Arithmetic(operator, a, b) => {
            let (a, b) = (eval(a, env)?, eval(b, env)?);
            let divides = matches!(operator, Arithmetic::Divide | Arithmetic::Modulo);
            match b.as_decimal() {
                Some(zero) if env.read && divides && zero.is_zero() => Value::Null,
                _ => arithmetic(*operator, a, b)?,
            }
        }
        Node::In(item, list) => {
            let item = eval(item, env)?;
            let mut found = false;
            for other in list {
                found = found || eval(other, env)? == item;
            }
            Value::Bool(found)
        }
        Node::Call(function, arguments) => {
            let arguments: Result<smallvec::SmallVec<[Value; 3]>, Failure> =
                arguments.iter().map(|argument| eval(argument, env)).collect();
            function.call(&arguments?).map_err(Failure::wrong)?
        }
        Node::Matches(text, regex) => match eval(text, env)? {
            Value::Null => Value::Null,
            Value::Text(text) => Value::Bool(regex.is_match(&text)),
            other => return Err(Failure::wrong(format!("matches needs a text, this is {}", other.kind()))),
        },
        Node::Extract(text, regex) => match eval(text, env)? {
            Value::Null => Value::Null,
            Value::Text(text) => {
                let found = regex.captures(&text).and_then(|groups| groups.get(1).or(groups.get(0)));
                found.map_or(Value::Null, |found| Value::text(found.as_str()))
            }
            other => return Err(Failure::wrong(format!("extract needs a text, this is {}", other.kind()))),
        },
        Node::Elements(elements) => eval_elements(elements, env)?,
        Node::Row(column) => {
            let row = env.row.map(|row| if column.of_key { row.key } else { row.values });
            row.and_then(|values| values.get(usize::from(column.at))).cloned().unwrap_or(Value::Null)
        }
        Node::Fail(failure) => return Err(failure.clone()),
    })
}

/// NULL as in SQL's `bool_or` and `bool_and` over comparisons: an element that is neither leaves the answer open.
fn eval_elements(elements: &Elements, env: &Env<'_, '_>) -> Result<Value, Failure> {
    let raw = match &elements.list {
        Node::Path { scope, slot, name } => Some(env.raw(*scope, *slot).ok_or_else(|| Failure::missing(name))?),
        Node::Opt { scope, slot } => env.raw(*scope, *slot),
        _ => None,
    };
    let Some(raw) = raw.filter(|raw| *raw != "null") else { return Ok(Value::Null) };
    let items: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|_| Failure::wrong(format!("a list is needed, this is {}", show(raw))))?;
    let mut answer = Some(elements.every);
    for item in items {
        let slots = elements
            .paths
            .read(item.get())
            .map_err(|e| Failure::wrong(format!("an element of the list is not readable: {e}")))?;
        let at = elements.scope - FIRST_ELEMENT;
        let mut scopes: Vec<Slots<'_>> = env.elements.to_vec();
        scopes.resize(at + 1, Slots::new());
        scopes[at] = slots;
        let inner = Env { elements: &scopes, ..*env };
        match truth(eval(&elements.condition, &inner)?)? {
            Some(holds) if holds != elements.every => return Ok(Value::Bool(holds)),
            Some(_) => {}
            None => answer = None,
        }
    }
    Ok(answer.map_or(Value::Null, Value::Bool))
}

fn eval_meta(meta: Meta, env: &Env<'_, '_>) -> Result<Value, Failure> {
    let Some(event) = env.event else { return Ok(Value::Null) };
    let text_or = |text: &Option<std::borrow::Cow<'_, str>>, name: &str| match text {
        Some(text) => Ok(Value::text(text)),
        None => Err(Failure::missing(name)),
    };
    Ok(match meta {
        Meta::Type => Value::text(&event.type_),
        Meta::Id => text_or(&event.id, "id")?,
        Meta::Subject => text_or(&event.subject, "subject")?,
        Meta::Time => Value::Time(event.time.ok_or_else(|| Failure::missing("time"))?),
        Meta::RecordKey => match event.record.key {
            Some(bytes) => utf8(bytes, "the record key")?,
            None => Value::Null,
        },
        Meta::RecordKeyBytes => event.record.key.map_or(Value::Null, |bytes| Value::text(&hex::encode(bytes))),
        Meta::RecordTopic => Value::text(event.record.topic),
        Meta::RecordPartition => Value::Int(event.record.partition.into()),
        Meta::RecordOffset => Value::Int(event.record.offset),
        Meta::RecordTime => Value::Time(event.record.time.ok_or_else(|| Failure::missing("record.time"))?),
    })
}

fn utf8(bytes: &[u8], what: &str) -> Result<Value, Failure> {
    std::str::from_utf8(bytes).map(Value::text).map_err(|_| Failure::wrong(format!("{what} is not UTF-8")))
}

fn truth(value: Value) -> Result<Option<bool>, Failure> {
    match value {
        Value::Bool(b) => Ok(Some(b)),
        Value::Null => Ok(None),
        other => Err(Failure::wrong(format!("a condition needs a boolean, this is {}", other.kind()))),
    }
}

fn compare(comparison: Comparison, a: Value, b: Value) -> Result<Value, Failure> {
    use Comparison::*;
    if a.is_null() || b.is_null() {
        return Ok(match comparison {
            Equal => Value::Bool(a.is_null() && b.is_null()),
            NotEqual => Value::Bool(a.is_null() != b.is_null()),
            _ => Value::Null,
        });
    }
    if let (Value::Digits(_), _) | (_, Value::Digits(_)) = (&a, &b)
        && matches!(comparison, Equal | NotEqual)
    {
        return Ok(Value::Bool((a == b) == (comparison == Equal)));
    }
    let ordering = match a.compare(&b) {
        Some(ordering) => ordering,
        // Values of two kinds are not equal, and that is all there is to say of them.
        None if matches!(comparison, Equal | NotEqual) => return Ok(Value::Bool(comparison == NotEqual)),
        None => {
            return Err(Failure::wrong(format!(
                "{} ({}) cannot be compared with {} ({})",
                show(&a.to_json_text()),
                a.kind(),
                show(&b.to_json_text()),
                b.kind()
            )));
        }
    };
    Ok(Value::Bool(match comparison {
        Equal => ordering == Ordering::Equal,
        NotEqual => ordering != Ordering::Equal,
        Less => ordering == Ordering::Less,
        LessOrEqual => ordering != Ordering::Greater,
        Greater => ordering == Ordering::Greater,
        GreaterOrEqual => ordering != Ordering::Less,
    }))
}

fn arithmetic(operator: Arithmetic, a: Value, b: Value) -> Result<Value, Failure> {
    if a.is_null() || b.is_null() {
        return Ok(Value::Null);
    }
    if let (Arithmetic::Add, Value::Text(x), Value::Text(y)) = (operator, &a, &b) {
        return Ok(Value::text(&format!("{x}{y}")));
    }
    let sign = if operator == Arithmetic::Subtract { -1 } else { 1 };
    let sum = match (operator, &a, &b) {
        (Arithmetic::Add | Arithmetic::Subtract, Value::Time(t), Value::Duration(d)) => {
            Some(t.checked_add(sign * d).map(Value::Time))
        }
        (Arithmetic::Add, Value::Duration(d), Value::Time(t)) => Some(t.checked_add(*d).map(Value::Time)),
        (Arithmetic::Subtract, Value::Time(t), Value::Time(u)) => Some(t.checked_sub(*u).map(Value::Duration)),
        (Arithmetic::Add | Arithmetic::Subtract, Value::Duration(x), Value::Duration(y)) => {
            Some(x.checked_add(sign * y).map(Value::Duration))
        }
        _ => None,
    };
    if let Some(sum) = sum {
        return sum.ok_or_else(|| Failure::wrong("the time is out of range".into()));
    }
    if let (Value::Int(x), Value::Int(y)) = (&a, &b) {
        let whole = match operator {
            Arithmetic::Add => x.checked_add(*y),
            Arithmetic::Subtract => x.checked_sub(*y),
            Arithmetic::Multiply => x.checked_mul(*y),
            Arithmetic::Divide | Arithmetic::Modulo => None,
        };
        if let Some(whole) = whole {
            return Ok(Value::Int(whole));
        }
    }
    let (Some(x), Some(y)) = (a.as_decimal(), b.as_decimal()) else {
        return Err(Failure::wrong(format!("arithmetic needs numbers, these are {} and {}", a.kind(), b.kind())));
    };
    let result = match operator {
        Arithmetic::Add => x.checked_add(y),
        Arithmetic::Subtract => x.checked_sub(y),
        Arithmetic::Multiply => exact_product(x, y),
        Arithmetic::Divide => x.checked_div(y),
        Arithmetic::Modulo => x.checked_rem(y),
    };
    result.map(Value::Decimal).ok_or_else(|| {
        let zero = y.is_zero() && matches!(operator, Arithmetic::Divide | Arithmetic::Modulo);
        let why = if zero { "division by zero" } else { "the result has more than 28 digits" };
        Failure::wrong(format!("{why}: {x} and {y}"))
    })
}

/// A product that would have to drop digits is refused.
fn exact_product(x: Decimal, y: Decimal) -> Option<Decimal> {
    let (x, y) = (x.normalize(), y.normalize());
    let product = x.checked_mul(y)?;
    (product.scale() == x.scale() + y.scale() || product.is_zero()).then_some(product)
}
