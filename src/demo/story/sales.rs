//! Sales, customers and compliance: orders are placed, customers change their names, verdicts come when they come.

use serde_json::json;

use super::{Dice, NAMES, Told, event, money, time};

const CUSTOMERS: u64 = 120;
const COMPANIES: u64 = 12;
const ORDERS: u64 = 1_500;
const RENAMES: u64 = 40;

pub fn told() -> Vec<Told> {
    let mut dice = Dice(23);
    let mut told = Vec::new();
    let profile = |told: &mut Vec<Told>, type_: &str, id: &str, at: &str, data| {
        told.push(event("customer", "customer.profiles", type_, id, told.len(), at, data));
    };
    for company in 0..COMPANIES {
        let id = format!("k{company:03}");
        profile(
            &mut told,
            "CompanyNamed",
            &id,
            &time(0, company),
            json!({ "id": id, "name": format!("Works {}", company + 1) }),
        );
    }
    for customer in 0..CUSTOMERS {
        let id = format!("c{customer:04}");
        let company = (dice.roll(3) == 0).then(|| format!("k{:03}", dice.roll(COMPANIES)));
        let data = json!({
            "id": id, "name": format!("{} {}", dice.pick(NAMES), customer + 1),
            "tier": dice.pick(&["basic", "silver", "gold"]), "company_id": company,
        });
        profile(&mut told, "CustomerRegistered", &id, &time(1, customer), data);
    }
    for order in 0..ORDERS {
        let id = format!("s{order:05}");
        let placed_at = time(8 + order / 150, order % 150 * 20);
        let customer = format!("c{:04}", dice.roll(CUSTOMERS));
        let data = json!({ "order_id": id, "customer_id": customer, "total": money(500 + dice.roll(40_000)) });
        told.push(event("sales", "sales.orders", "OrderPlaced", &id, told.len(), &placed_at, data));
        if dice.roll(20) == 0 {
            let cancelled = json!({ "order_id": id });
            told.push(event("sales", "sales.orders", "OrderCancelled", &id, told.len(), &placed_at, cancelled));
        }
        let result = if dice.roll(25) == 0 { "suspicious" } else { "clear" };
        let check = json!({ "order_id": id, "result": result, "checked_at": placed_at });
        told.push(event("compliance", "compliance.checks", "CheckCompleted", &id, told.len(), &placed_at, check));
    }
    // Names change when the orders are there already: each reaches all orders of its customer.
    for rename in 0..RENAMES {
        let customer = dice.roll(CUSTOMERS);
        let id = format!("c{customer:04}");
        let data = json!({ "id": id, "name": format!("{} {}", dice.pick(NAMES), customer + 1) });
        profile(&mut told, "CustomerRenamed", &id, &time(20, rename), data);
    }
    profile(&mut told, "CompanyNamed", "k007", &time(21, 0), json!({ "id": "k007", "name": "New Works" }));
    profile(&mut told, "CustomerErased", "c0013", &time(22, 0), json!({ "id": "c0013" }));
    told
}
