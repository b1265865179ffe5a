//! What is told of the rows beside them: how fresh they are, why an event is not in them, and whether they can be had.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use sqlx::{Connection, Executor, PgConnection};

use super::super::world::{Daemon, Message, World, event, free_port};
use super::{Answer, ask};

const ORDERS: &str = "
projection: orders
serve: [orders, customers]
sources:
  shop: { topic: TOPIC(shop), ordered_by: data.id }
  crm: { topic: TOPIC(crm), ordered_by: data.id }
tables:
  orders:
    key: { id: data.id }
    columns: { customer: text, amount: bigint }
    join: { table: customers, by: customer, fill: { name: name } }
    handlers: { shop: { Placed: { set: { customer: data.customer, amount: opt(data.amount) } } } }
  customers:
    key: { id: data.id }
    columns: { name: text }
    handlers: { crm: { Named: { set: { name: data.name } } } }
";

fn world(name: &str) -> World {
    let world = World::new(name);
    world.create_topic("shop", 1, &[]);
    world.create_topic("crm", 1, &[]);
    world.projection("orders.yaml", ORDERS);
    world
}

fn start(world: &World, environment: &[(&str, &str)]) -> (Daemon, u16) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let all: Vec<(&str, &str)> =
        [("PROJECTOR__SERVE__LISTEN", listen.as_str())].iter().chain(environment).copied().collect();
    let daemon = world.start(&all);
    until_listening(world, port);
    (daemon, port)
}

fn until_listening(world: &World, port: u16) {
    world.wait("the endpoint", || match std::net::TcpStream::connect(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    });
}

fn placed(id: &str, amount: Json) -> Message {
    let payload = event("Placed", json!({ "id": id, "customer": "c1", "amount": amount }));
    Message { partition: 0, key: id.into(), payload }
}

fn named(name: &str) -> Message {
    Message { partition: 0, key: "c1".into(), payload: event("Named", json!({ "id": "c1", "name": name })) }
}

fn get(port: u16, target: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    ask(port, "GET", target, &headers)
}

fn connected(world: &World) -> PgConnection {
    world.runtime.block_on(PgConnection::connect_with(&world.options())).unwrap()
}

/// Waits until an answer is 200 and has a text in it.
fn until(world: &World, port: u16, target: &str, headers: &[(&str, &str)], text: &str) {
    world.wait(text, || match get(port, target, headers) {
        answer if answer.status == 200 && answer.body.contains(text) => Ok(()),
        answer => Err(format!("{}: {}", answer.status, answer.body)),
    });
}

/// Rows whose joined columns are not up to date are not complete, though all events are in rows of their own.
fn followed(sabotage: &str) -> Result<(), String> {
    let world = world("followed");
    world.send("shop", &[placed("o1", json!(1))]);
    world.send("crm", &[named("Ada")]);
    let (_daemon, port) = start(&world, &[("PROJECTOR_SABOTAGE", sabotage)]);
    let fresh = [("Projector-Max-Staleness", "5")];
    until(&world, port, "/orders", &fresh, "\"name\":\"Ada\"");

    // Whoever propagates stands in this line (`store/propagate.rs`).
    let mut session = connected(&world);
    let hold = "SELECT pg_advisory_lock(1886545666, id::integer) FROM projector.generations";
    world.runtime.block_on(session.execute(hold)).unwrap();
    world.send("crm", &[named("Eve")]);
    until(&world, port, "/customers", &[], "\"name\":\"Eve\"");
    let since = Instant::now();
    loop {
        let least = since.elapsed().as_secs_f64();
        let answer = get(port, "/orders", &[]);
        assert!(answer.body.contains("\"name\":\"Ada\""), "{}", answer.body);
        let stale_s: f64 = answer.headers["projector-staleness"].parse().unwrap();
        if stale_s < least {
            return Err(format!("the rows have lacked an event for {least} s, and say that they are {stale_s} s old"));
        }
        let answer = get(port, "/orders", &fresh);
        if answer.status == 503 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    world.runtime.block_on(session.execute("SELECT pg_advisory_unlock_all()")).unwrap();
    until(&world, port, "/orders", &fresh, "\"name\":\"Eve\"");
    Ok(())
}

#[test]
fn rows_are_as_fresh_as_what_follows() {
    followed("").unwrap();
    assert!(followed("wait-followed").unwrap_err().contains("have lacked an event"));
}

/// What a parked event holds is for those who may read the dead letters.
#[test]
fn errors_are_told_to_those_who_may_read_dead_letters() {
    let world = world("discreet");
    let role = format!("reader_{}", world.name);
    world.apply();
    world.execute(&format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA views TO {role}; GRANT SELECT ON views.orders TO {role}"
    ));
    world.send("shop", &[placed("o1", json!("a secret")), placed("o2", json!(2))]);
    let (_daemon, port) = start(&world, &[("PROJECTOR__SERVE__AUTH__ANONYMOUS_ROLE", &role)]);
    let after = |offset: u64| format!("{}/0@{offset}", world.topic("shop"));
    let wait = |after: &str| get(port, "/orders", &[("Projector-After", after), ("Prefer", "wait=30")]);
    world.applied("orders", "shop");
    let told = wait(&after(0));
    let names = |answer: &Answer| answer.body.contains(&after(0)) && answer.body.contains("[wrong-value]");
    assert!(told.status == 409 && names(&told) && !told.body.contains("secret"), "{} {}", told.status, told.body);
    world.execute(&format!("GRANT SELECT (message) ON projector.dead_letters TO {role}"));
    let told = wait(&after(0));
    assert!(told.status == 409 && names(&told) && told.body.contains("a secret"), "{} {}", told.status, told.body);

    // An answer's token says how far it was; what was parked on the way was not in it either.
    let answer = wait(&after(1));
    assert_eq!(answer.status, 200, "{}", answer.body);
    world.send("shop", &[placed("o3", json!("another secret"))]);
    world.applied("orders", "shop");
    let token = get(port, "/orders", &[]).headers["projector-token"].clone();
    assert!(token.contains(":3"), "{token}");
    let answer = wait(&token);
    assert_eq!(answer.status, 200, "{token}: {}", answer.body);
    world.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// The time that a query may take is that of its role, be it less than that of others or more.
#[test]
fn roles_have_as_much_time_as_is_theirs() {
    let world = world("patience");
    let role = format!("reader_{}", world.name);
    world.apply();
    world.execute(&format!(
        "CREATE VIEW views.slow AS SELECT 'done' AS slept FROM pg_sleep(1); CREATE ROLE {role};
         GRANT USAGE ON SCHEMA views TO {role}; GRANT SELECT ON views.slow TO {role}"
    ));
    let own = format!("PROJECTOR__SERVE__LIMITS__BY_ROLE__{role}__STATEMENT_TIMEOUT_MS");
    let answer = |all: &str, of_role: &str| {
        let limits = [("PROJECTOR__SERVE__STATEMENT_TIMEOUT_MS", all), (own.as_str(), of_role)];
        let role = [("PROJECTOR__SERVE__AUTH__ANONYMOUS_ROLE", role.as_str())];
        let (_daemon, port) = start(&world, &[&limits[..], &role[..]].concat());
        get(port, "/slow", &[])
    };
    let hasty = answer("30000", "200");
    assert!(hasty.status == 504 && hasty.body.contains("\"57014\""), "{} {}", hasty.status, hasty.body);
    let patient = answer("200", "30000");
    assert!(patient.status == 200 && patient.body.contains("done"), "{} {}", patient.status, patient.body);
    world.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A process is ready when it can answer, and says of each view how it is.
#[test]
fn one_that_stands_still_keeps_nobody_from_answering() {
    let world = world("readiness");
    world.projection("orders.yaml", &ORDERS.replace("\ntables:", "\nerrors: { default: halt }\ntables:"));
    world.create_topic("other", 1, &[]);
    let other = "
projection: other
sources: { other: { topic: TOPIC(other) } }
key: { id: data.id }
columns: { n: bigint }
handlers: { other: { Counted: { add: { n: 1 } } } }
";
    world.projection("other.yaml", other);
    let counted = Message { partition: 0, key: "a".into(), payload: event("Counted", json!({ "id": "a" })) };
    world.send("other", &[counted]);
    world.send("shop", &[placed("o1", json!("much"))]);
    let (healthy, strict) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let port = |listen: &str| listen.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let (_daemon, _) = start(&world, &[("PROJECTOR__OPERATIONS__LISTEN", &healthy)]);
    world.halted("orders");
    let ready = |listen: &str| {
        let answer = get(port(listen), "/ready", &[]);
        (answer.status, serde_json::from_str::<Json>(&answer.body).unwrap())
    };
    world.wait("the other one to be known as fresh", || match ready(&healthy) {
        (200, body) if body["views"][2]["stale_s"].as_f64().is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (_, body) = ready(&healthy);
    assert_eq!(body["why"], Json::Null, "{body}");
    let views: Vec<(&str, &Json)> =
        body["views"].as_array().unwrap().iter().map(|v| (v["view"].as_str().unwrap(), &v["halted"])).collect();
    let halted = json!("wrong-value");
    assert_eq!(views, [("customers", &halted), ("orders", &halted), ("other", &Json::Null)]);

    // Whoever would rather have no answer than an old one can have that.
    let only = ("PROJECTOR__OPERATIONS__READY_WITHIN_S", "3600");
    let (_strict, _) = start(&world, &[("PROJECTOR__OPERATIONS__LISTEN", &strict), only]);
    until_listening(&world, port(&strict));
    let (status, body) = ready(&strict);
    let why = body["why"].as_str().unwrap();
    assert!(status == 503 && why.starts_with("nobody knows yet how fresh"), "{status} {body}");
}
