//! Events that cannot be applied, for a demo of what becomes of them.

use serde_json::json;

use super::{Told, event, time};

/// A payment whose amount has a comma, one of a version that nobody knows yet, and an order whose text was cut off, with
/// what comes after it.
pub fn told() -> Vec<Told> {
    let booked_at = time(21, 0);
    let payment = |id: &str, number: usize, more: serde_json::Value| {
        let mut data = json!({ "payment_id": id, "from": "a001", "to": "a002", "booked_at": booked_at });
        if let (Some(data), Some(more)) = (data.as_object_mut(), more.as_object()) {
            data.extend(more.clone());
        }
        event("bank", "bank.payments", "PaymentBooked", id, number, &booked_at, data)
    };
    let placed_at = time(20, 0);
    let order = |type_: &str, number: usize| {
        let data = json!({ "order_id": "o90001", "placed_at": placed_at, "total": 12.5, "lines": [] });
        event("shop", "shop.orders", type_, "o90001", number, &placed_at, data)
    };
    let mut cut_off = order("OrderPlaced", 900_003);
    cut_off.payload.truncate(150);
    vec![
        payment("p90001", 900_001, json!({ "amount": "12,50", "reference": "invoice 90001" })),
        payment("p90002", 900_002, json!({ "version": 3, "total": { "amount": 7, "currency": "EUR" } })),
        cut_off,
        order("OrderShipped", 900_004),
    ]
}
