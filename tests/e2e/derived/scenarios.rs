//! The histories that the explorer goes through.

use super::Sent;
use super::explorer::{Part, Scenario};

pub fn scenarios() -> Vec<Scenario> {
    use serde_json::json;
    let sent = |source: usize, type_: &'static str, data| Sent { source, type_, data };
    let company = |name: &str| sent(0, "Named", json!({ "id": "k0", "name": name }));
    let customer = |id: &str, name: &str| {
        sent(1, "Registered", json!({ "id": id, "name": name, "tier": "gold", "company": "k0" }))
    };
    let rename = |name: &str| sent(1, "Renamed", json!({ "id": "c0", "name": name }));
    let order = |id: &str, customer: &str| sent(2, "Placed", json!({ "id": id, "customer": customer }));
    let moved = |id: &str, customer: &str| sent(2, "Moved", json!({ "id": id, "customer": customer }));
    let line = |id: &str, order: &str, amount: f64| {
        sent(3, "Added", json!({ "id": id, "order": order, "label": "a", "amount": amount, "rank": 1 }))
    };
    let shifted = |id: &str, order: &str| sent(3, "Shifted", json!({ "id": id, "order": order }));
    let changed = |id: &str, amount: f64| sent(3, "Changed", json!({ "id": id, "amount": amount }));
    let before = || {
        vec![
            company("Acme"),
            customer("c0", "Ada"),
            customer("c1", "Bo"),
            order("o0", "c0"),
            order("o1", "c1"),
            line("l0", "o0", 3.5),
        ]
    };
    let lane = |events: Vec<Sent>| Part::Lane(events);
    let two = |name, marked: Vec<Sent>, parts: Vec<Part>| Scenario {
        name,
        before: before(),
        marked,
        parts,
        preemptions: None,
        dies: None,
    };
    let three =
        |name, marked: Vec<Sent>, parts: Vec<Part>| Scenario { preemptions: Some(2), ..two(name, marked, parts) };
    let dying = |name, marked: Vec<Sent>, parts: Vec<Part>| Scenario { dies: Some(0), ..two(name, marked, parts) };
    let propagator = Part::Propagator(1);
    vec![
        two(
            "an order while its customer's new name propagates",
            vec![rename("Eve")],
            vec![lane(vec![order("o2", "c0")]), propagator.clone()],
        ),
        two(
            "a rename while an order is written",
            vec![],
            vec![lane(vec![order("o2", "c0")]), lane(vec![rename("Eve")])],
        ),
        three(
            "a rename while an order is written, and the propagator",
            vec![],
            vec![lane(vec![order("o2", "c0")]), lane(vec![rename("Eve")]), propagator.clone()],
        ),
        two(
            "a second rename while the first propagates",
            vec![rename("Eve")],
            vec![lane(vec![rename("Zoe")]), propagator.clone()],
        ),
        two(
            "an order moves to a customer whose new name propagates",
            vec![rename("Eve")],
            vec![lane(vec![moved("o1", "c0")]), propagator.clone()],
        ),
        two(
            "an order moves away from one",
            vec![rename("Eve")],
            vec![lane(vec![moved("o0", "c1")]), propagator.clone()],
        ),
        two(
            "a customer leaves while an order is written",
            vec![],
            vec![lane(vec![order("o2", "c0")]), lane(vec![sent(1, "Left", json!({ "id": "c0" }))])],
        ),
        three(
            "a company's name over two joins",
            vec![company("Best")],
            vec![lane(vec![order("o2", "c0")]), Part::Propagator(2), lane(vec![rename("Eve")])],
        ),
        two(
            "a line moves while its order adds up",
            vec![line("l1", "o0", 7.25)],
            vec![lane(vec![shifted("l1", "o1")]), propagator.clone()],
        ),
        two(
            "two lanes change one line",
            vec![],
            vec![lane(vec![shifted("l0", "o1")]), lane(vec![changed("l0", 9.75)])],
        ),
        two("two propagators", vec![line("l1", "o0", 7.25)], vec![propagator.clone(), propagator.clone()]),
        three(
            "a customer's tier and order",
            vec![],
            vec![
                lane(vec![sent(1, "Tiered", json!({ "id": "c0", "tier": "silver" }))]),
                lane(vec![line("l1", "o0", 1.0)]),
                Part::Propagator(2),
            ],
        ),
        dying(
            "a lane dies that writes an order",
            vec![rename("Eve")],
            vec![lane(vec![order("o2", "c0"), line("l2", "o2", 2.0)]), propagator.clone()],
        ),
        dying(
            "a propagator dies between two hops",
            vec![company("Best"), line("l1", "o0", 7.25)],
            vec![Part::Propagator(3), lane(vec![order("o2", "c0")])],
        ),
    ]
}
