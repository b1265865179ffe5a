//! The query endpoint, over real HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::world::{Message, World, event, free_port};

const ORDERS: &str = "
projection: orders
sources: { events: { topic: TOPIC(events) } }
key: { id: data.id }
columns: { total: \"numeric(12,2)\", status: text, placed_at: timestamptz, secret: { type: text, hidden: true } }
handlers: { events: { Placed: { set: { total: data.total, status: opt(data.status), secret: data.id } } } }
";

fn request(port: u16, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_string())
}

#[test]
fn answers_in_postgrests_grammar() {
    let world = World::new("endpoint");
    world.create_topic("events", 1, &[]);
    world.projection("orders.yaml", ORDERS);
    let placed = |id: &str, total: f64, status: Option<&str>| Message {
        partition: 0,
        key: id.into(),
        payload: event("Placed", json!({ "id": id, "total": total, "status": status })),
    };
    world.send("events", &[placed("a", 10.5, Some("open")), placed("b", 7.25, Some("paid")), placed("c", 99.0, None)]);
    let port = free_port();
    let daemon = world.start(&[("PROJECTOR__SERVE__LISTEN", &format!("127.0.0.1:{port}"))]);
    world.applied("orders", "events");
    let ids = |query: &str| {
        let (status, body) = request(port, "GET", &format!("/orders?select=id&order=id&{query}"));
        assert_eq!(status, 200, "{query}: {body}");
        let rows: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_string()).collect::<String>()
    };
    assert_eq!(ids(""), "abc");
    assert_eq!(ids("total=gt.8&total=lte.10.5"), "a");
    assert_eq!(ids("status=in.(open,paid)"), "ab");
    assert_eq!(ids("status=is.null"), "c");
    assert_eq!(ids("status=not.is.null"), "ab");
    assert_eq!(ids("status=like.*p*"), "ab");
    assert_eq!(ids("status=ilike.PA*"), "b");
    assert_eq!(ids("id=neq.a"), "bc");
    assert_eq!(ids("limit=1&offset=1"), "b");
    assert_eq!(ids("id=eq.a%27%20OR%20true--"), "");
    let (_, body) = request(port, "GET", "/orders?order=total.desc.nullslast&limit=1");
    assert_eq!(body, r#"[{"id":"c","total":99.00,"status":null,"placed_at":null}]"#);

    let problem = |method: &str, path: &str, status: u16, code: &str| {
        let (got, body) = request(port, method, path);
        assert_eq!(got, status, "{path}: {body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["code"], code, "{body}");
        assert!(!body["message"].as_str().unwrap().contains("SELECT"), "{body}");
    };
    problem("GET", "/ordes", 404, "PGRST205");
    problem("GET", "/orders?totl=eq.1", 400, "42703");
    problem("GET", "/orders?secret=eq.1", 400, "42703");
    problem("GET", "/orders?total=eq.cheap", 400, "22P02");
    problem("GET", "/orders?total=is.cheap", 400, "PGRST100");
    problem("POST", "/orders", 405, "PGRST117");
    problem("DELETE", "/orders", 405, "PGRST117");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
