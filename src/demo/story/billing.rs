//! Users have names, invoices have users: the same name lives in two services.

use serde_json::json;

use super::{Dice, NAMES, Told, event, money, time};

const USERS: u64 = 80;
const INVOICES: u64 = 1_200;

pub fn told() -> Vec<Told> {
    let mut dice = Dice(41);
    let mut told = Vec::new();
    let name = |dice: &mut Dice, user: u64| format!("{} {}", dice.pick(NAMES), user + 1);
    let user = |told: &mut Vec<Told>, type_: &str, id: &str, at: &str, data| {
        told.push(event("user", "user.users", type_, id, told.len(), at, data));
    };
    for number in 0..USERS {
        let id = format!("u{number:03}");
        let data = json!({ "user_id": id, "name": name(&mut dice, number) });
        user(&mut told, "UserRegistered", &id, &time(0, number), data);
    }
    for invoice in 0..INVOICES {
        let id = format!("i{invoice:05}");
        let at = time(8 + invoice / 150, invoice % 150 * 20);
        let payer = format!("u{:03}", dice.roll(USERS));
        let recipient = (dice.roll(10) == 0).then(|| format!("u{:03}", dice.roll(USERS)));
        let mut data =
            json!({ "invoice_id": id, "payer_id": payer, "amount": money(300 + dice.roll(90_000)), "issued_at": at });
        if let Some(recipient) = recipient {
            data["recipient_id"] = json!(recipient);
        }
        told.push(event("billing", "billing.invoices", "InvoiceIssued", &id, told.len(), &at, data));
        let type_ = match dice.roll(50) {
            0 => "InvoiceVoided",
            1..=35 => "InvoicePaid",
            _ => continue,
        };
        told.push(event("billing", "billing.invoices", type_, &id, told.len(), &at, json!({ "invoice_id": id })));
    }
    for _ in 0..30 {
        let number = dice.roll(USERS);
        let id = format!("u{number:03}");
        let data = json!({ "user_id": id, "name": name(&mut dice, number) });
        user(&mut told, "UserRenamed", &id, &time(20, number), data);
    }
    user(&mut told, "UserDeleted", "u007", &time(21, 0), json!({ "user_id": "u007" }));
    told
}
