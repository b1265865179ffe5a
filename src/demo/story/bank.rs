//! Accounts are opened and money moves between them; some payments are sent twice.

use serde_json::json;

use super::{Dice, Told, event, money, time};

const ACCOUNTS: u64 = 60;

pub fn told() -> Vec<Told> {
    let mut dice = Dice(17);
    let mut told = Vec::new();
    for account in 0..ACCOUNTS {
        let id = format!("a{account:03}");
        let owner = format!("{} {account}", dice.pick(&["Ada", "Bo", "Chidi", "Dana"]));
        let data = json!({ "account_id": id, "owner": owner, "currency": "EUR" });
        told.push(event("bank", "bank.accounts", "AccountOpened", &id, told.len(), &time(0, account), data));
    }
    for payment in 0..1_500u64 {
        let from = dice.roll(ACCOUNTS);
        let to = (from + 1 + dice.roll(ACCOUNTS - 1)) % ACCOUNTS;
        let id = format!("p{payment:05}");
        let booked_at = time(8 + payment / 100, payment % 100 * 36);
        let data = json!({
            "payment_id": id, "from": format!("a{from:03}"), "to": format!("a{to:03}"),
            "amount": money(1 + dice.roll(50_000)), "booked_at": booked_at, "reference": format!("invoice {payment}"),
        });
        let number = told.len();
        for _ in 0..=u64::from(dice.roll(20) == 0) {
            told.push(event("bank", "bank.payments", "PaymentBooked", &id, number, &booked_at, data.clone()));
        }
    }
    for account in (0..ACCOUNTS).step_by(20) {
        let id = format!("a{account:03}");
        told.push(event(
            "bank",
            "bank.accounts",
            "AccountFrozen",
            &id,
            told.len(),
            &time(23, account),
            json!({ "account_id": id }),
        ));
    }
    told
}
