//! A shop sells, is paid and ships; some orders fail on the way, and what was done for them is undone.

use serde_json::{Value, json};

use super::{Dice, Told, event, money, time};

const ORDERS: u64 = 3_000;
/// Product, name, price in cents.
pub(super) const PRODUCTS: &[(&str, &str, u64)] = &[
    ("mug", "Mug", 1_250),
    ("tea", "Green tea, 100 g", 780),
    ("pot", "Teapot", 4_900),
    ("tin", "Tea tin", 960),
    ("whisk", "Bamboo whisk", 2_199),
];

pub fn told() -> Vec<Told> {
    let mut dice = Dice(11);
    let mut shop = Shop { told: Vec::new() };
    for order in 0..ORDERS {
        // Most orders fall into the evening.
        let hour = (8 + dice.roll(8) + dice.roll(8)).min(23);
        let placed_at = time(hour, dice.roll(3_600));
        let id = format!("o{order:05}");
        let data = order_data(&mut dice, &id, &placed_at);
        shop.order("OrderPlaced", &id, &placed_at, data.clone());
        shop.stock("ReservationRequested", &id, &placed_at);
        shop.payment("PaymentRequested", &id, &placed_at, json!({}));
        match dice.roll(24) {
            // The card is refused: the order is cancelled and its stock let go.
            0 => {
                shop.stock("StockReserved", &id, &placed_at);
                shop.payment("PaymentFailed", &id, &placed_at, json!({ "reason": "card refused" }));
                shop.order("OrderCancelled", &id, &placed_at, data);
                shop.stock("StockReleased", &id, &placed_at);
            }
            // Nothing is left of it: the money goes back.
            1 => {
                shop.payment("PaymentCaptured", &id, &placed_at, json!({}));
                shop.stock("ReservationRejected", &id, &placed_at);
                shop.order("OrderCancelled", &id, &placed_at, data);
                shop.payment("PaymentRefunded", &id, &placed_at, json!({}));
            }
            // A bug that somebody should see: refunded, and never captured.
            2 if dice.roll(20) == 0 => {
                shop.payment("PaymentRefunded", &id, &placed_at, json!({}));
                shop.order("OrderCancelled", &id, &placed_at, data);
            }
            _ => {
                shop.stock("StockReserved", &id, &placed_at);
                shop.payment("PaymentCaptured", &id, &placed_at, json!({}));
                shop.order("OrderShipped", &id, &placed_at, json!({ "order_id": id }));
            }
        }
    }
    shop.told
}

struct Shop {
    told: Vec<Told>,
}

impl Shop {
    fn order(&mut self, type_: &str, id: &str, time: &str, data: Value) {
        let number = self.told.len();
        self.told.push(event("shop", "shop.orders", type_, id, number, time, data));
    }

    fn stock(&mut self, type_: &str, id: &str, time: &str) {
        let number = self.told.len();
        self.told.push(event("stock", "stock.reservations", type_, id, number, time, json!({ "order_id": id })));
    }

    fn payment(&mut self, type_: &str, id: &str, time: &str, mut data: Value) {
        data["order_id"] = json!(id);
        let number = self.told.len();
        self.told.push(event("pay", "pay.payments", type_, id, number, time, data));
    }
}

fn order_data(dice: &mut Dice, id: &str, placed_at: &str) -> Value {
    let mut cents = 0;
    let lines: Vec<Value> = (1..=1 + dice.roll(3))
        .map(|line| {
            let (product, name, price) = PRODUCTS[dice.roll(PRODUCTS.len() as u64) as usize];
            let quantity = 1 + dice.roll(3);
            cents += quantity * price;
            json!({ "line": line, "product_id": product, "name": name, "quantity": quantity, "price": money(price) })
        })
        .collect();
    json!({ "order_id": id, "placed_at": placed_at, "total": money(cents), "lines": lines })
}
