//! A projection in which everything hangs together: chains of joins, rollups on joins, on rollups and by columns that move.

use serde_json::json;

use super::Sent;
use crate::world::Dice;

pub const YAML: &str = r#"
projection: network
serve: [companies, customers, orders, lines, tiers, parties]
sources:
  companies: { topic: companies, ordered_by: data.id }
  customers: { topic: customers, ordered_by: data.id }
  orders: { topic: orders, ordered_by: data.id }
  lines: { topic: lines, ordered_by: data.id }
tables:
  companies:
    key: { company: data.id }
    columns: { name: text }
    handlers:
      companies:
        Named: { create: true, set: { name: data.name } }
        Closed: { delete: true }
  customers:
    key: { customer: data.id }
    columns: { name: text, tier: text, company: text }
    join:
      - { table: companies, by: company, fill: { company_name: name } }
    rollups:
      - table: orders
        by: customer
        fill: { order_count: { count: true }, spent: { sum: total } }
    handlers:
      customers:
        Registered: { create: true, set: { name: data.name, tier: data.tier, company: opt(data.company) } }
        Renamed: { set: { name: data.name } }
        Tiered: { set: { tier: data.tier } }
        Hired: { set: { company: opt(data.company) } }
        Left: { delete: true }
        Erased: { delete: final }
  orders:
    key: { order_id: data.id }
    columns: { customer: text, payee: text }
    join:
      - { table: customers, by: customer, fill: { customer_name: name, customer_company: company_name } }
      - { table: customers, by: payee, fill: { payee_name: name }, on_delete: keep }
    rollups:
      - table: lines
        by: order_id
        fill:
          lines: { count: true }
          large: { count: true, where: amount > 5 }
          total: { sum: amount }
          mean: { avg: amount }
          any_large: { any: amount > 5 }
          least: { min: amount }
          most: { max: label }
          labels: { count_distinct: label }
          newest: { latest: label, by: [rank] }
          newest_two: { latest: 2, by: [rank], of: [line, label, rank] }
          all_labels: { list: label, by: [label] }
          by_line: { object: label, value: amount }
    handlers:
      orders:
        Placed: { create: true, set: { customer: data.customer } }
        PaidTo: { set: { payee: data.payee } }
        Moved: { set: { customer: opt(data.customer) } }
        Cancelled: { delete: true }
  lines:
    key: { line: data.id }
    columns: { order_id: text, label: text, amount: "numeric(12,2)", rank: integer }
    join:
      - { table: orders, by: order_id, fill: { buyer: customer_name } }
    handlers:
      lines:
        Added: { create: true, set: { order_id: data.order, label: opt(data.label), amount: data.amount, rank: opt(data.rank) } }
        Changed: { set_if_present: { amount: data.amount, label: data.label } }
        Shifted: { set: { order_id: opt(data.order) } }
        Removed: { delete: true }
  tiers:
    key: { tier: null }
    rollups:
      - table: customers
        by: tier
        fill:
          customers: { count: true }
          spent: { sum: spent }
          names: { list: name, by: [name] }
          companies: { count_distinct: company_name }
  parties:
    key: { customer: null }
    rollups:
      - { table: orders, by: customer, fill: { bought: { count: true } } }
      - { table: orders, by: payee, fill: { received: { count: true }, last_buyer: { max: customer_name } } }
"#;

/// Something that happens, over so few keys that all of it meets. What is erased stays so: each era has keys of its own,
/// and now and then one of the era before is met again.
pub fn event(dice: &mut Dice, era: u64) -> Sent {
    let id = |kind: &str, dice: &mut Dice, of: u64| {
        let era = if dice.roll(8) == 0 { era.saturating_sub(1) } else { era };
        format!("{kind}{}_{era}", dice.roll(of))
    };
    let text = |dice: &mut Dice| ["Ada", "Bo", "é", "", "Zoë \"x\""][dice.roll(5) as usize];
    let maybe = |some: String, dice: &mut Dice| if dice.roll(4) == 0 { json!(null) } else { json!(some) };
    let (company, customer, order, line) = (id("k", dice, 2), id("c", dice, 3), id("o", dice, 3), id("l", dice, 5));
    let (other_customer, other_order) = (id("c", dice, 3), id("o", dice, 3));
    let tier = ["gold", "silver"][dice.roll(2) as usize];
    let amount = dice.roll(1_000) as f64 / 100.0;
    let rank = dice.roll(4);
    let (source, type_, data) = match dice.roll(26) {
        0 | 1 => (0, "Named", json!({ "id": company, "name": text(dice) })),
        2 => (0, "Closed", json!({ "id": company })),
        3..=5 => {
            let company = maybe(company, dice);
            (1, "Registered", json!({ "id": customer, "name": text(dice), "tier": tier, "company": company }))
        }
        6 | 7 => (1, "Renamed", json!({ "id": customer, "name": text(dice) })),
        8 => (1, "Tiered", json!({ "id": customer, "tier": tier })),
        9 => (1, "Hired", json!({ "id": customer, "company": maybe(company, dice) })),
        10 => (1, "Left", json!({ "id": customer })),
        11 if dice.roll(40) == 0 => (1, "Erased", json!({ "id": customer })),
        11..=13 => (2, "Placed", json!({ "id": order, "customer": customer })),
        14 => (2, "PaidTo", json!({ "id": order, "payee": other_customer })),
        15 => (2, "Moved", json!({ "id": order, "customer": maybe(other_customer, dice) })),
        16 => (2, "Cancelled", json!({ "id": order })),
        17..=20 => {
            let label = maybe(text(dice).into(), dice);
            let rank = if dice.roll(4) == 0 { json!(null) } else { json!(rank) };
            (3, "Added", json!({ "id": line, "order": order, "label": label, "amount": amount, "rank": rank }))
        }
        21 | 22 => (3, "Changed", json!({ "id": line, "amount": amount })),
        23 => (3, "Shifted", json!({ "id": line, "order": maybe(other_order, dice) })),
        24 => (3, "Removed", json!({ "id": line })),
        _ => (3, "Changed", json!({ "id": line, "label": text(dice) })),
    };
    Sent { source, type_, data }
}
