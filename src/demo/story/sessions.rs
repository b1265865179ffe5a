//! People log in, are seen for a while, and log out or fade away.

use jiff::Timestamp;
use serde_json::json;

use super::{Dice, Told, event};

const SESSIONS: i64 = 400;

/// The sessions of the two hours before now.
pub fn told(now: i64) -> Vec<Told> {
    let mut dice = Dice(19);
    // In the order in which they happen, as far as each partition is concerned.
    let mut happened: Vec<(i64, i64, &str)> = Vec::new();
    for session in 0..SESSIONS {
        let mut at = now - 7_200 + session * 7_200 / SESSIONS;
        happened.push((at, session, "SessionStarted"));
        for _ in 0..dice.roll(5) {
            at += 120 + dice.roll(1_200) as i64;
            if at < now {
                happened.push((at, session, "SessionRefreshed"));
            }
        }
        if dice.roll(3) == 0 && at + 60 < now {
            happened.push((at + 60, session, "SessionEnded"));
        }
    }
    happened.sort();
    let tell = |(number, (at, session, type_)): (usize, (i64, i64, &'static str))| {
        let id = format!("s{session:04}");
        let time = Timestamp::from_second(at).map(|time| time.to_string()).unwrap_or_default();
        let data = json!({
            "session_id": id, "user_id": format!("u{:03}", session % 90), "device": (["phone", "laptop"][session as usize % 2]),
            "address": format!("198.51.100.{}", session % 200),
        });
        event("auth", "auth.sessions", type_, &id, number, &time, data)
    };
    happened.into_iter().enumerate().map(tell).collect()
}
