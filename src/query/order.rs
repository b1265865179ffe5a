//! What `order` says.

use super::{Order, Unreadable, field::field, reader::Reader};

const EXAMPLE: &str =
    "for example order=placed_at.desc.nullslast,id or, by an embedded relation, order=clients(name).desc";

pub(super) fn order(parameter: &str, text: &str) -> Result<Vec<Order>, Unreadable> {
    let mut reader = Reader::new(parameter, text);
    let mut terms = vec![term(&mut reader)?];
    while reader.take(",") {
        terms.push(term(&mut reader)?);
    }
    reader.end(EXAMPLE)?;
    Ok(terms)
}

fn term(reader: &mut Reader) -> Result<Order, Unreadable> {
    let mut order = Order { field: field(reader, EXAMPLE)?, ..Order::default() };
    if order.field.path.is_empty() && reader.take("(") {
        let of = std::mem::take(&mut order.field.column);
        order = Order { of: Some(of), field: field(reader, EXAMPLE)?, ..order };
        if !reader.take(")") {
            return Err(reader.refuse("`)`", EXAMPLE));
        }
    }
    order.descending = !reader.take(".asc") && reader.take(".desc");
    order.nulls_first = [(".nullsfirst", true), (".nullslast", false)]
        .into_iter()
        .find_map(|(word, first)| reader.take(word).then_some(first));
    reader.spaces();
    match reader.rest().is_empty() || reader.sees(",") {
        true => Ok(order),
        false => Err(reader.refuse("`,`, the end, or .asc or .desc and then .nullsfirst or .nullslast", EXAMPLE)),
    }
}
