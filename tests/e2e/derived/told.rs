//! What people are told of joins and rollups by the built program: readers who wait, the column `parked`, `status`, the
//! graph. And how little is written for them.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Map, Value as Json, json};
use sqlx::{ConnectOptions, Executor};

use crate::world::{Daemon, Message, World, event, free_port};

/// Two joins in a row. Of the topics, by name, that of the orders comes before that of the people.
const SHOP: &str = "
projection: shop
serve: [orders, customers]
sources:
  firms: { topic: TOPIC(firms), ordered_by: data.id }
  orders: { topic: TOPIC(orders), ordered_by: data.id }
  people: { topic: TOPIC(people), ordered_by: data.id }
tables:
  orders:
    key: { order_id: data.id }
    columns: { customer: text, total: bigint }
    join: { table: customers, by: customer, fill: { customer_name: name, company_name: company_name } }
    handlers:
      orders:
        Placed: { create: true, set: { customer: data.customer, total: data.total } }
        Repriced: { set: { total: data.total } }
  customers:
    key: { customer: data.id }
    columns: { name: text, company: text }
    join: { table: companies, by: company, fill: { company_name: name } }
    ROLLUP
    handlers:
      people:
        Registered: { create: true, set: { name: data.name, company: data.company } }
        Renamed: { set: { name: data.name } }
  companies:
    key: { company: data.id }
    columns: { name: text }
    handlers:
      firms:
        Named: { set: { name: data.name } }
";

const ROLLUP: &str =
    "    rollups: { table: orders, by: customer, fill: { order_count: { count: true }, spent: { sum: total } } }\n";

fn shop(name: &str, rollup: &str, partitions: i32) -> World {
    let world = World::new(name);
    for topic in ["firms", "orders", "people"] {
        world.create_topic(topic, partitions, &[]);
    }
    world.projection("shop.yaml", &SHOP.replace("    ROLLUP\n", rollup));
    world
}

fn message(type_: &str, id: &str, mut data: Json) -> Message {
    data["id"] = json!(id);
    Message { partition: 0, key: id.into(), payload: event(type_, data) }
}

fn named(id: &str, name: &str) -> Message {
    message("Named", id, json!({ "name": name }))
}

fn registered(id: &str, name: &str) -> Message {
    message("Registered", id, json!({ "name": name, "company": "k1" }))
}

fn renamed(id: &str, name: &str) -> Message {
    message("Renamed", id, json!({ "name": name }))
}

fn placed(at: usize, customer: &str) -> Message {
    message("Placed", &format!("o{at}"), json!({ "customer": customer, "total": 10 }))
}

/// A daemon that answers readers at a port.
fn serve(world: &World, sabotage: &str) -> (Daemon, u16) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let environment = [("PROJECTOR__SERVE__LISTEN", listen.as_str()), ("PROJECTOR_SABOTAGE", sabotage)];
    (world.start(&environment), port)
}

fn ask(port: u16, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_string())
}

/// The rows of an answer, of each the values in the order in which they were asked for.
fn rows(port: u16, path: &str, headers: &str) -> Vec<String> {
    let (status, body) = ask(port, path, headers);
    assert_eq!(status, 200, "{path}: {body}");
    let rows: Vec<Map<String, Json>> = serde_json::from_str(&body).unwrap();
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    rows.iter().map(|row| row.values().map(text).collect::<Vec<_>>().join(" ")).collect()
}

/// Waits until all that is marked has followed.
fn followed(world: &World) {
    world.wait(
        "all to be followed",
        || match &world.query("SELECT count(*) AS n FROM \"shop@1\".projector_marks")[..] {
            [none] if none == "{\"n\":0}" => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

/// Waits until all that was sent is applied, and has followed: marks commit with the checkpoint.
fn caught_up(world: &World) {
    for topic in ["firms", "people", "orders"] {
        world.applied("shop", topic);
    }
    followed(world);
}

/// Renames a customer and the company by turns. Whoever has waited for a rename has to see it in every order.
fn wait_for_renames(name: &str, sabotage: &str) -> Result<(), String> {
    const ORDERS: usize = 300;
    const RENAMES: usize = 200;
    let world = shop(name, "", 1);
    world.send("firms", &[named("k1", "Acme")]);
    world.send("people", &[registered("c1", "Ada")]);
    let orders: Vec<Message> = (0..ORDERS).map(|at| placed(at, "c1")).collect();
    world.send("orders", &orders);
    let (_daemon, port) = serve(&world, sabotage);
    caught_up(&world);
    let mut names = ["Ada".to_string(), "Acme".to_string()];
    for at in 0..RENAMES {
        let name = format!("name{at}");
        let (topic, message) = match at % 2 {
            0 => ("people", renamed("c1", &name)),
            // Over two joins.
            _ => ("firms", named("k1", &name)),
        };
        names[at % 2] = name;
        world.send(topic, &[message]);
        let place = format!("{}/0@{}", world.topic(topic), 1 + at / 2);
        let after = format!("Projector-After: {place}\r\nPrefer: wait=30\r\n");
        let found = rows(port, "/orders?select=customer_name,company_name", &after);
        let expected = names.join(" ");
        let right = found.iter().filter(|row| **row == expected).count();
        if (found.len(), right) != (ORDERS, ORDERS) {
            return Err(format!("after {place}: {right} of {} orders say {expected}", found.len()));
        }
    }
    Ok(())
}

#[test]
fn who_has_waited_sees_a_rename_in_every_row() {
    wait_for_renames("waits", "").unwrap();
}

#[test]
fn a_rename_can_be_lost_between_two_joins() {
    assert!(wait_for_renames("lost", "next-hop").is_err());
}

/// A company, two customers of it, and two orders of each. Names and totals that Postgres refuses are parked.
fn refusing(name: &str, rollup: &str) -> (World, Daemon, u16) {
    let world = shop(name, rollup, 1);
    world.apply();
    world.execute("ALTER TABLE \"shop@1\".customers ADD CONSTRAINT polite CHECK (name <> 'rude')");
    world.execute("ALTER TABLE \"shop@1\".orders ADD CONSTRAINT small CHECK (total < 1000)");
    world.send("firms", &[named("k1", "Acme")]);
    world.send("people", &[registered("c1", "Ada"), registered("c2", "Bo")]);
    let orders: Vec<Message> = (0..4).map(|at| placed(at, if at % 2 == 0 { "c1" } else { "c2" })).collect();
    world.send("orders", &orders);
    let (daemon, port) = serve(&world, "");
    caught_up(&world);
    (world, daemon, port)
}

/// Retries what is parked, now that the constraint is gone.
fn retry(world: &World, table: &str, constraint: &str) {
    world.execute(&format!("ALTER TABLE \"shop@1\".{table} DROP CONSTRAINT {constraint}"));
    let (code, text) = world.output(&["dead-letters", "retry", "--all"]);
    assert!(code == 0 && text.contains("1 settled"), "{text}");
    followed(world);
}

const OF_ORDERS: &str = "/orders?select=order_id,customer_name,parked&order=order_id";
const OF_CUSTOMERS: &str = "/customers?select=customer,name,spent,parked&order=customer";

#[test]
fn rows_say_what_is_parked_of_the_rows_that_they_follow_from() {
    let (world, _daemon, port) = refusing("told", ROLLUP);
    assert_eq!(rows(port, OF_ORDERS, ""), ["o0 Ada false", "o1 Bo false", "o2 Ada false", "o3 Bo false"]);
    assert_eq!(rows(port, OF_CUSTOMERS, ""), ["c1 Ada 20 false", "c2 Bo 20 false"]);

    // By way of a join: all orders of the customer.
    world.send("people", &[renamed("c1", "rude")]);
    world.applied("shop", "people");
    assert_eq!(rows(port, OF_ORDERS, ""), ["o0 Ada true", "o1 Bo false", "o2 Ada true", "o3 Bo false"]);
    assert_eq!(rows(port, OF_CUSTOMERS, ""), ["c1 Ada 20 true", "c2 Bo 20 false"]);
    retry(&world, "customers", "polite");
    assert_eq!(rows(port, OF_ORDERS, ""), ["o0 rude false", "o1 Bo false", "o2 rude false", "o3 Bo false"]);
    assert_eq!(rows(port, OF_CUSTOMERS, ""), ["c1 rude 20 false", "c2 Bo 20 false"]);

    // By way of a rollup: the customer of the order.
    world.send("orders", &[message("Repriced", "o1", json!({ "total": 5_000 }))]);
    world.applied("shop", "orders");
    assert_eq!(rows(port, OF_CUSTOMERS, ""), ["c1 rude 20 false", "c2 Bo 20 true"]);
    let some = format!("{OF_ORDERS}&order_id=in.(o0,o1,o2)");
    assert_eq!(rows(port, &some, ""), ["o0 rude false", "o1 Bo true", "o2 rude false"]);
    retry(&world, "orders", "small");
    assert_eq!(rows(port, OF_CUSTOMERS, ""), ["c1 rude 20 false", "c2 Bo 5010 false"]);
    assert_eq!(rows(port, OF_ORDERS, ""), ["o0 rude false", "o1 Bo false", "o2 rude false", "o3 Bo false"]);
}

/// Orders and customers follow from each other, by other columns: what an order copies of its customer is not made of
/// the customer's other orders.
#[test]
fn rows_say_nothing_of_what_their_own_columns_do_not_follow_from() {
    let of_acme = "of_acme: { count: true, where: \"company_name == 'Acme'\" }, spent:";
    let (world, _daemon, port) = refusing("columns", &ROLLUP.replace("spent:", of_acme));
    world.send("orders", &[message("Repriced", "o1", json!({ "total": 5_000 }))]);
    world.applied("shop", "orders");
    assert_eq!(rows(port, "/customers?select=customer,of_acme&order=customer", ""), ["c1 2", "c2 2"]);
    assert_eq!(rows(port, OF_CUSTOMERS, ""), ["c1 Ada 20 false", "c2 Bo 20 true"]);
    assert_eq!(rows(port, OF_ORDERS, ""), ["o0 Ada false", "o1 Bo true", "o2 Ada false", "o3 Bo false"]);
}

#[test]
fn status_names_what_is_under_way() {
    const NAMES: &str = "/orders?select=customer_name";
    let world = shop("underway", "", 1);
    world.send("firms", &[named("k1", "Acme")]);
    let customer = |at: usize| format!("c{}", at % 3);
    let people: Vec<Message> = (0..3).map(|at| registered(&customer(at), "Ada")).collect();
    world.send("people", &people);
    let orders: Vec<Message> = (0..9).map(|at| placed(at, &customer(at))).collect();
    world.send("orders", &orders);
    let (_daemon, port) = serve(&world, "");
    caught_up(&world);
    // Whoever holds an order of the customer that is renamed first holds up all three.
    let mut other = world.runtime.block_on(async {
        let mut other = world.options().connect().await.unwrap();
        other.execute("BEGIN").await.unwrap();
        other.execute("SELECT 1 FROM \"shop@1\".orders WHERE order_id = 'o0' FOR UPDATE").await.unwrap();
        other
    });
    let people: Vec<Message> = (0..3).map(|at| renamed(&customer(at), "Eve")).collect();
    world.send("people", &people);
    world.applied("shop", "people");

    let line = || {
        let (code, text) = world.output(&["status"]);
        assert_eq!(code, 0, "{text}");
        text.lines().find(|line| line.contains("propagating")).unwrap_or_default().to_string()
    };
    let age = || -> f64 {
        let line = line();
        let age = line.strip_prefix("shop: 3 keys propagating from customers to orders, oldest ");
        let age = age.and_then(|age| age.strip_suffix(" s")).and_then(|age| age.parse().ok());
        age.unwrap_or_else(|| panic!("`{line}`"))
    };
    let first = age();
    world.wait("it to grow older", || match age() {
        older if older > first => Ok(()),
        same => Err(format!("{same} s")),
    });
    let after = format!("Projector-After: {}/0@5\r\n", world.topic("people"));
    let (status, body) = ask(port, NAMES, &after);
    assert!(status == 504 && body.contains("has not reached all rows of orders"), "{status} {body}");
    assert_eq!(rows(port, NAMES, ""), ["Ada"; 9]);

    world.runtime.block_on(async { other.execute("ROLLBACK").await.unwrap() });
    world.wait("nothing to be under way", || match line() {
        none if none.is_empty() => Ok(()),
        line => Err(line),
    });
    assert_eq!(rows(port, NAMES, &after), ["Eve"; 9]);
}

/// Stops a daemon, and says how many orders were rewritten so far. Sessions have reported that when they are gone.
fn rewritten(world: &World, daemon: Daemon) -> String {
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    let sessions = "SELECT count(*) AS n FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'projector'";
    world.wait("the sessions to end", || match &world.query(sessions)[..] {
        [none] if none == "{\"n\":0}" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let sql = "SELECT n_tup_ins > 0 AS counted, n_tup_upd AS rewritten FROM pg_stat_user_tables
        WHERE schemaname = 'shop@1' AND relname = 'orders'";
    world.query(sql).remove(0)
}

#[test]
fn topics_of_joined_tables_are_read_first() {
    // Together less than `fold.far_behind`: a lane commits while it reads, and the names that count come last.
    const ORDERS: usize = 2_000;
    const PEOPLE: usize = 300;
    const NAMES: usize = 40;
    let world = shop("turns", "", 4);
    let people = (0..NAMES * PEOPLE).map(|at| {
        let (id, name) = (format!("c{}", at % PEOPLE), format!("name {}", at / PEOPLE));
        let message = if at < PEOPLE { registered(&id, &name) } else { renamed(&id, &name) };
        // Not where the orders are: half of all customers come over the other lane.
        Message { partition: (at % PEOPLE / 4 % 4) as i32, ..message }
    });
    let people: Vec<Message> = people.collect();
    let orders =
        (0..ORDERS).map(|at| Message { partition: (at % 4) as i32, ..placed(at, &format!("c{}", at % PEOPLE)) });
    let orders: Vec<Message> = orders.collect();
    world.send("orders", &orders);
    world.send("people", &people);
    world.send("firms", &[named("k1", "Acme")]);
    let daemon = world.start(&[]);
    caught_up(&world);
    let last = "SELECT count(*) AS n FROM views.orders WHERE customer_name = 'name 39' AND company_name = 'Acme'";
    assert_eq!(world.query(last), [format!("{{\"n\":{ORDERS}}}")]);
    assert_eq!(rewritten(&world, daemon), "{\"counted\":true,\"rewritten\":0}");

    // That it would be counted: one more name, and the orders of that one customer.
    let daemon = world.start_applied(&[]);
    world.send("people", &[renamed("c0", "Eve")]);
    caught_up(&world);
    let own = ORDERS.div_ceil(PEOPLE);
    assert_eq!(rewritten(&world, daemon), format!("{{\"counted\":true,\"rewritten\":{own}}}"));
}

#[test]
fn the_graph_shows_what_flows_where() {
    let world = shop("graph", ROLLUP, 1);
    let file = world.projections().join("shop.yaml");
    let (code, text) = world.output(&["validate", "--graph", file.to_str().unwrap()]);
    let (firms, orders, people) = (world.topic("firms"), world.topic("orders"), world.topic("people"));
    let expected = format!(
        r#"flowchart LR
    subgraph shop
        shop.orders[[orders]]
        shop.customers[[customers]]
        shop.companies[companies]
        shop.customers -->|customer_name, company_name| shop.orders
        shop.companies -->|company_name| shop.customers
        shop.orders ==>|order_count, spent| shop.customers
    end
    shop_firms(["{firms}"]) --> shop.companies
    shop_orders(["{orders}"]) --> shop.orders
    shop_people(["{people}"]) --> shop.customers
"#
    );
    assert_eq!((code, text), (0, expected));
}

/// Rows that one transaction wrote have its number in `xmin`.
#[test]
fn a_rename_over_very_many_rows_is_written_in_chunks() {
    const ORDERS: usize = 20_000;
    // As in `store/propagate.rs`: for so many rows are others kept waiting.
    const CHUNK: usize = 4_000;
    let world = shop("chunks", "", 1);
    world.send("firms", &[named("k1", "Acme")]);
    world.send("people", &[registered("c1", "Ada")]);
    let orders: Vec<Message> = (0..ORDERS).map(|at| placed(at, "c1")).collect();
    world.send("orders", &orders);
    let _daemon = world.start(&[]);
    caught_up(&world);
    world.send("people", &[renamed("c1", "Eve")]);
    caught_up(&world);
    let sql = "SELECT count(*) AS n FROM \"shop@1\".orders WHERE customer_name = 'Eve' GROUP BY xmin::text";
    let chunks: Vec<Json> = world.query(sql).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let chunks: Vec<usize> = chunks.iter().map(|chunk| chunk["n"].as_u64().unwrap() as usize).collect();
    assert_eq!(chunks.iter().sum::<usize>(), ORDERS);
    assert!(chunks.len() >= ORDERS / CHUNK && chunks.iter().all(|rows| *rows <= CHUNK), "{chunks:?}");
}
