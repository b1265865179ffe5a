//! Customers register, change and leave.

use serde_json::json;

use super::{Dice, NAMES, Told, event, time};

const CUSTOMERS: u64 = 240;
const CITIES: &[&str] = &["Lisbon", "Nairobi", "Osaka", "Quito", "Turku"];

pub fn told() -> Vec<Told> {
    let mut dice = Dice(7);
    let mut told = Vec::new();
    for customer in 0..CUSTOMERS {
        let name = dice.pick(NAMES);
        let id = format!("c{customer:04}");
        let data = json!({
            "id": id, "name": format!("{name} {}", customer + 1),
            "email": format!("{}{customer}@example.com", name.to_lowercase()), "city": dice.pick(CITIES),
        });
        told.push(event("crm", "crm.customers", "CustomerRegistered", &id, told.len(), &time(0, customer), data));
    }
    for change in 0..360 {
        let id = format!("c{:04}", dice.roll(CUSTOMERS));
        let (type_, data) = match dice.roll(6) {
            0 => ("CustomerDeleted", json!({ "id": id })),
            1 | 2 => ("TierChanged", json!({ "id": id, "tier": dice.pick(&["silver", "gold"]) })),
            _ => ("CustomerChanged", json!({ "id": id, "city": dice.pick(CITIES) })),
        };
        told.push(event("crm", "crm.customers", type_, &id, told.len(), &time(8 + change / 30, change * 10), data));
    }
    told
}
