//! A believable day, one file a system: a shop and its saga, its storefront, sales, customers, companies, invoices,
//! documents, a bank, sessions. The same day every
//! time, but for the sessions, which are of now: a session of yesterday has expired.

mod bank;
mod billing;
mod companies;
mod customers;
mod documents;
mod sales;
mod sessions;
mod shop;
mod storefront;
mod trouble;

use serde_json::{Value, json};

/// An event of the story as it is sent.
#[derive(Debug)]
pub struct Told {
    pub topic: &'static str,
    pub key: String,
    pub payload: String,
}

const DAY: &str = "2026-11-20";
const NAMES: &[&str] = &["Ada", "Bo", "Chidi", "Dana", "Emre", "Fatou", "Goro", "Hana", "Ines", "Jonas", "Kofi", "Lea"];

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

    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.roll(of.len() as u64) as usize]
    }
}

/// What the services send, each in its own order. `now` is in seconds since 1970.
pub fn day(now: i64, with_trouble: bool) -> Vec<Told> {
    let mut told = customers::told();
    told.extend(shop::told());
    told.extend(documents::told());
    told.extend(bank::told());
    told.extend(sales::told());
    told.extend(storefront::told());
    told.extend(billing::told());
    told.extend(companies::told());
    told.extend(sessions::told(now));
    if with_trouble {
        told.extend(trouble::told());
    }
    told
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
        let (one, two) = (super::day(0, true), super::day(0, true));
        assert!(one.len() > 10_000);
        assert!(one.iter().zip(&two).all(|(a, b)| a.payload == b.payload));
    }
}
