//! A believable day: customers register, change and leave; a shop sells, and some orders are cancelled. The same day
//! every time.

use serde_json::{Value, json};

/// An event of the story as it is sent.
#[derive(Debug)]
pub struct Told {
    pub topic: &'static str,
    pub key: String,
    pub payload: String,
}

const DAY: &str = "2026-11-20";
const CUSTOMERS: u64 = 240;
const ORDERS: u64 = 3_000;
const NAMES: &[&str] = &["Ada", "Bo", "Chidi", "Dana", "Emre", "Fatou", "Goro", "Hana", "Ines", "Jonas", "Kofi", "Lea"];
const CITIES: &[&str] = &["Lisbon", "Nairobi", "Osaka", "Quito", "Turku"];
/// Product, name, price in cents.
const PRODUCTS: &[(&str, &str, u64)] = &[
    ("mug", "Mug", 1_250),
    ("tea", "Green tea, 100 g", 780),
    ("pot", "Teapot", 4_900),
    ("tin", "Tea tin", 960),
    ("whisk", "Bamboo whisk", 2_199),
];

/// A sequence that looks random and never changes (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// The day, in the order in which the services send it.
pub fn day() -> Vec<Told> {
    let mut dice = Dice(7);
    let mut told = Vec::new();
    for customer in 0..CUSTOMERS {
        let name = NAMES[dice.roll(NAMES.len() as u64) as usize];
        let id = format!("c{customer:04}");
        let data = json!({
            "id": id, "name": format!("{name} {}", customer + 1), "email": format!("{}{customer}@example.com", name.to_lowercase()),
            "city": CITIES[dice.roll(CITIES.len() as u64) as usize],
        });
        told.push(event("crm", "crm.customers", "CustomerRegistered", &id, told.len(), &time(0, customer), data));
    }
    for order in 0..ORDERS {
        // Most orders fall into the evening.
        let hour = (8 + dice.roll(8) + dice.roll(8)).min(23);
        let placed_at = time(hour, dice.roll(3_600));
        let id = format!("o{order:05}");
        let data = order_data(&mut dice, &id, &placed_at);
        told.push(event("shop", "shop.orders", "OrderPlaced", &id, told.len(), &placed_at, data.clone()));
        if dice.roll(12) == 0 {
            told.push(event("shop", "shop.orders", "OrderCancelled", &id, told.len(), &placed_at, data));
        } else {
            told.push(event(
                "shop",
                "shop.orders",
                "OrderShipped",
                &id,
                told.len(),
                &placed_at,
                json!({ "order_id": id }),
            ));
        }
        if dice.roll(8) == 0 {
            let id = format!("c{:04}", dice.roll(CUSTOMERS));
            let (type_, data) = match dice.roll(6) {
                0 => ("CustomerDeleted", json!({ "id": id })),
                1 | 2 => ("TierChanged", json!({ "id": id, "tier": (["silver", "gold"][dice.roll(2) as usize]) })),
                _ => ("CustomerChanged", json!({ "id": id, "city": CITIES[dice.roll(CITIES.len() as u64) as usize] })),
            };
            told.push(event("crm", "crm.customers", type_, &id, told.len(), &placed_at, data));
        }
    }
    told
}

fn order_data(dice: &mut Dice, id: &str, placed_at: &str) -> Value {
    let mut cents = 0;
    let lines: Vec<Value> = (0..=dice.roll(3))
        .map(|_| {
            let (product, name, price) = PRODUCTS[dice.roll(PRODUCTS.len() as u64) as usize];
            let quantity = 1 + dice.roll(3);
            cents += quantity * price;
            json!({ "product_id": product, "name": name, "quantity": quantity, "price": money(price) })
        })
        .collect();
    json!({ "order_id": id, "placed_at": placed_at, "total": money(cents), "lines": lines })
}

fn money(cents: u64) -> Value {
    // Two digits survive the way through a float; larger sums than a demo's would not.
    json!(cents as f64 / 100.0)
}

fn time(hour: u64, seconds: u64) -> String {
    format!("{DAY}T{hour:02}:{:02}:{:02}Z", seconds / 60 % 60, seconds % 60)
}

fn event(service: &str, topic: &'static str, type_: &str, key: &str, number: usize, time: &str, data: Value) -> Told {
    let payload = json!({
        "specversion": "1.0", "id": format!("{number}"), "source": format!("/acme/{service}"),
        "type": format!("com.acme.{service}.{type_}"), "time": time, "data": data,
    });
    Told { topic, key: key.to_string(), payload: payload.to_string() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_day_is_the_same_every_time() {
        let (one, two) = (super::day(), super::day());
        assert!(one.len() > 6_000);
        assert!(one.iter().zip(&two).all(|(a, b)| a.payload == b.payload));
    }
}
