//! A catalogue, a warehouse and what buyers think; the orders are the shop's.

use serde_json::json;

use super::{Dice, Told, event, money, time};

const REVIEWS: u64 = 400;
const TITLES: &[&str] = &["Holds tea", "Too blue", "As described", "Would buy again", "Arrived broken"];

pub fn told() -> Vec<Told> {
    let mut dice = Dice(31);
    let mut told = Vec::new();
    for (at, (id, name, cents)) in super::shop::PRODUCTS.iter().enumerate() {
        let listed = json!({
            "product_id": id, "name": name, "price": money(*cents),
            "attributes": { "weight_g": 100 + 50 * at, "colour": dice.pick(&["blue", "green", "black"]) },
        });
        let mut say = |service: &str, topic: &'static str, type_: &str, at: &str, data| {
            told.push(event(service, topic, type_, id, told.len(), at, data));
        };
        say("catalogue", "catalogue.products", "ProductListed", &time(0, at as u64), listed);
        let counted = json!({ "product_id": id, "on_hand": 40 + dice.roll(60) });
        say("stock", "stock.levels", "StockCounted", &time(1, at as u64), counted);
        for reserved in 0..20 + dice.roll(20) {
            let quantity = 1 + dice.roll(4);
            let data = json!({ "product_id": id, "quantity": quantity });
            say("stock", "stock.levels", "StockReserved", &time(9 + reserved / 4, reserved), data.clone());
            if dice.roll(3) > 0 {
                say("stock", "stock.levels", "StockReleased", &time(10 + reserved / 4, reserved), data);
            }
        }
        let attributes = json!({ "product_id": id, "attributes": { "glazed": true } });
        say("catalogue", "catalogue.products", "AttributesChanged", &time(12, at as u64), attributes);
    }
    // More is promised of the teapot than there is.
    let data = json!({ "product_id": "pot", "quantity": 150 });
    told.push(event("stock", "stock.levels", "StockReserved", "pot", told.len(), &time(21, 0), data));
    for review in 0..REVIEWS {
        let id = format!("r{review:04}");
        let (product, ..) = super::shop::PRODUCTS[dice.roll(super::shop::PRODUCTS.len() as u64) as usize];
        let posted_at = time(8 + review / 40, review * 37);
        let rating = 1 + dice.roll(5);
        let data = json!({
            "review_id": id, "product_id": product, "rating": rating, "title": dice.pick(TITLES), "posted_at": posted_at,
        });
        told.push(event("review", "review.reviews", "ReviewPosted", &id, told.len(), &posted_at, data));
        match dice.roll(20) {
            0 => {
                let data = json!({ "review_id": id });
                told.push(event("review", "review.reviews", "ReviewRemoved", &id, told.len(), &posted_at, data));
            }
            1 => {
                let data = json!({ "review_id": id, "rating": 1 + dice.roll(5) });
                told.push(event("review", "review.reviews", "ReviewEdited", &id, told.len(), &posted_at, data));
            }
            _ => {}
        }
    }
    told
}
