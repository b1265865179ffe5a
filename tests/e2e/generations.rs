//! Views are built anew beside those that readers see, and take their place without anybody noticing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use projector::store::promotion::{Promoted, promote};
use projector::store::{connect, generations};
use serde_json::json;

use super::world::{Daemon, Message, World, event, free_port};

pub const ORDERS: &str = "
projection: orders
sources: { shop: { topic: TOPIC(shop), ordered_by: data.id } }
key: { id: data.id }
columns: { total: bigint }
handlers: { shop: { Placed: { set: { total: data.total } } } }
";

/// One column more, and before that which is there: the view cannot be replaced in place.
pub fn with_note() -> String {
    ORDERS
        .replace("columns: {", "columns: { note: text, ")
        .replace("set: { total: data.total }", "set: { total: data.total, note: data.note }")
}

pub fn send(world: &World, numbers: std::ops::Range<usize>) {
    let message = |at: usize| Message {
        partition: (at % 4) as i32,
        key: format!("o{at}"),
        payload: event("Placed", json!({ "id": format!("o{at}"), "total": 1, "note": format!("n{at}") })),
    };
    world.send("shop", &numbers.map(message).collect::<Vec<_>>());
}

pub fn world(name: &str) -> World {
    let world = World::new(name);
    world.create_topic("shop", 4, &[]);
    world.projection("orders.yaml", ORDERS);
    world
}

fn serve(world: &World) -> (Daemon, u16) {
    let port = free_port();
    (world.start(&[("PROJECTOR__SERVE__LISTEN", &format!("127.0.0.1:{port}"))]), port)
}

fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_string())
}

pub fn counted(world: &World) -> Result<usize, String> {
    let rows = world.try_query("SELECT count(*)::text AS n FROM views.orders").map_err(|error| error.to_string())?;
    Ok(rows[0].split('"').nth(3).unwrap().parse().unwrap())
}

pub fn served(world: &World) -> String {
    let served =
        "SELECT g.number::text AS n FROM projector.served s JOIN projector.generations g ON g.id = s.generation_id
        WHERE s.view = 'orders'";
    world.query(served).remove(0).split('"').nth(3).unwrap().to_string()
}

pub fn until_served(world: &World, number: &str) {
    world.wait("the generation to be served", || match served(world) {
        found if found == number => Ok(()),
        found => Err(format!("generation {found} is")),
    });
}

pub fn until_counted(world: &World, rows: usize) {
    world.wait("all rows", || match counted(world)? {
        found if found == rows => Ok(()),
        found => Err(format!("{found} of {rows}")),
    });
}

/// Waits until a generation has caught up.
pub fn until_ready(world: &World, number: i32) {
    let ready = format!("SELECT 1 AS n FROM projector.generations WHERE number = {number} AND ready_at IS NOT NULL");
    world.wait("it to catch up", || match world.try_query(&ready) {
        Ok(rows) if !rows.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Says what `projector VERB` says, which has to succeed.
pub fn says(world: &World, arguments: &[&str]) -> String {
    let (code, text) = world.output(arguments);
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

/// Reads all the time, in SQL and over HTTP, while something happens: no error, nothing empty, nothing older than before.
fn while_reading(world: &World, port: u16, something: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sql = scope.spawn(|| {
            let (mut last, mut reads) = (0, 0);
            while !done.load(Ordering::SeqCst) {
                let now = counted(world).unwrap();
                assert!(now >= last, "a reader went from {last} rows back to {now}");
                (last, reads) = (now, reads + 1);
            }
            reads
        });
        let http = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                let (status, body) = get(port, "/orders?id=eq.o0");
                assert!(status == 200 && body.contains("\"o0\""), "{status}: {body}");
                reads += 1;
            }
            reads
        });
        something();
        done.store(true, Ordering::SeqCst);
        let (sql, http) = (sql.join().unwrap(), http.join().unwrap());
        assert!(sql > 10 && http > 10, "{sql} and {http} reads are too few to mean anything");
    });
}

#[test]
fn a_changed_definition_takes_over_unnoticed_and_back() {
    let world = world("takeover");
    send(&world, 0..2_000);
    let (_daemon, port) = serve(&world);
    until_counted(&world, 2_000);
    let role = format!("reader_{}", world.name);
    world.execute(&format!(
        "CREATE ROLE {role}; GRANT SELECT ON views.orders TO {role}; GRANT SELECT (total) ON views.orders TO PUBLIC;
         COMMENT ON COLUMN views.orders.total IS 'in cents';
         CREATE VIEW public.dear AS SELECT id FROM views.orders WHERE total > 0;
         GRANT SELECT ON public.dear TO {role}"
    ));
    while_reading(&world, port, || {
        world.projection("orders.yaml", &with_note());
        assert!(says(&world, &["apply"]).contains("orders: generation 2 is built"));
        send(&world, 2_000..3_000);
        until_served(&world, "2");
        send(&world, 3_000..3_500);
        until_counted(&world, 3_500);
    });
    let noted = world.query("SELECT count(*)::text AS n FROM views.orders WHERE note = 'n' || substr(id, 2)");
    assert_eq!(noted, ["{\"n\":\"3500\"}"], "events from before the change are folded by it, too");
    let kept = format!(
        "SELECT has_table_privilege('{role}', 'views.orders', 'SELECT') AND has_table_privilege('{role}', 'public.dear', 'SELECT')
             AND has_column_privilege('{role}', 'views.orders', 'total', 'SELECT')
             AND col_description('views.orders'::regclass, 3) = 'in cents' AND (SELECT count(*) FROM public.dear) = 3500 AS kept"
    );
    assert_eq!(world.query(&kept), ["{\"kept\":true}"]);

    while_reading(&world, port, || {
        send(&world, 3_500..4_000);
        assert!(says(&world, &["rollback", "orders"]).contains("orders: readers see generation 1"));
        until_counted(&world, 4_000);
    });
    assert!(world.try_query("SELECT note FROM views.orders").is_err(), "the column is of generation 2");
    assert_eq!(world.query("SELECT count(*)::text AS n FROM public.dear"), ["{\"n\":\"4000\"}"]);
    says(&world, &["rollback", "orders", "2"]);
    let (code, text) = world.output(&["drop", "orders", "2"]);
    assert!(code != 0 && text.contains("the one that readers see"), "{text}");
    says(&world, &["drop", "orders", "1"]);
    assert!(world.query("SELECT 1 AS n FROM pg_namespace WHERE nspname = 'orders@1'").is_empty());
    world.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn what_stands_on_a_view_is_kept_or_named() {
    let world = world("dependants");
    send(&world, 0..10);
    let daemon = world.start(&[]);
    until_counted(&world, 10);
    world.execute("CREATE MATERIALIZED VIEW public.summed AS SELECT sum(total) AS total FROM views.orders");
    world.projection("orders.yaml", &with_note());
    says(&world, &["apply"]);
    world.wait("the refusal", || match world.try_query("SELECT refused FROM projector.generations WHERE number = 2") {
        Ok(rows) if rows[0].contains("public.summed stands on views.orders") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(served(&world), "1");
    world.execute("DROP MATERIALIZED VIEW public.summed");
    until_served(&world, "2");
    let told = [
        "orders.1: a lane owns",
        "folding orders.2 (building)",
        "orders.2: a lane owns",
        "orders.2 has caught up",
        "orders.2 is not promoted: public.summed stands on",
        "readers see orders.2",
    ];
    world.wait("the log to name generations", || match daemon.log() {
        log if told.iter().all(|line| log.contains(line)) => Ok(()),
        log => Err(log),
    });
}

#[test]
fn an_older_deployment_builds_nothing_again() {
    let world = world("older");
    send(&world, 0..100);
    let old = world.start(&[]);
    until_counted(&world, 100);
    world.projection("orders.yaml", &with_note());
    says(&world, &["apply"]);
    until_served(&world, "2");
    drop(old);
    // The old files come again, as when a deployment is rolled back, or an old pod is started anew.
    world.projection("orders.yaml", ORDERS);
    let daemon = world.start(&[]);
    send(&world, 100..200);
    until_counted(&world, 200);
    assert_eq!(served(&world), "2");
    assert_eq!(world.query("SELECT count(*)::text AS n FROM projector.generations"), ["{\"n\":\"2\"}"]);
    assert!(daemon.log().contains("a newer definition was applied after this one"), "{}", daemon.log());
    let (code, text) = world.output(&["apply"]);
    assert!(code != 0 && text.contains("projector rollback orders 1"), "{text}");
}

#[test]
fn a_replay_ends_in_the_same_rows() {
    let world = world("replay");
    send(&world, 0..5_000);
    let daemon = world.start(&[]);
    until_counted(&world, 5_000);
    world.execute("UPDATE \"orders@1\".orders SET total = 7 WHERE id = 'o17'");
    let text = says(&world, &["replay", "orders", "--max-rate", "4000"]);
    assert!(text.contains("readers see generation 2"), "{text}");
    let wrong = world.query("SELECT id FROM views.orders WHERE total <> 1");
    assert!(wrong.is_empty(), "{wrong:?}");
    // Killed in the middle, it goes on where it was.
    says(&world, &["replay", "orders", "--max-rate", "1000", "--detach"]);
    drop(daemon);
    let _again = world.start(&[]);
    until_served(&world, "3");
    until_counted(&world, 5_000);
    let kept = "SELECT number FROM projector.generations WHERE state IN ('live', 'kept') ORDER BY number";
    world.wait("one generation to be kept beside the live one", || match world.try_query(kept) {
        Ok(rows) if rows == ["{\"number\":2}", "{\"number\":3}"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn kills_leave_the_old_view_or_the_new_one() {
    for (failpoint, number) in [("before-commit", "1"), ("after-commit", "2")] {
        let world = world("promokill");
        send(&world, 0..100);
        let _daemon = world.start(&[]);
        until_counted(&world, 100);
        world.projection("orders.yaml", &with_note());
        says(&world, &["apply", "--manual"]);
        until_ready(&world, 2);
        assert_eq!(served(&world), "1", "nobody has said that it may be shown");
        let killed = world.command(&["promote", "orders"]).env("PROJECTOR_FAILPOINT", failpoint).output().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{killed:?}");
        assert_eq!(served(&world), number, "{failpoint}");
        let columns = "SELECT count(*)::text AS n FROM information_schema.columns WHERE table_schema = 'views'";
        let expected = if number == "1" { "2" } else { "3" };
        assert_eq!(world.query(columns), [format!("{{\"n\":\"{expected}\"}}")]);
        send(&world, 100..150);
        until_counted(&world, 150);
        if number == "1" {
            says(&world, &["promote", "orders"]);
        }
        assert_eq!(served(&world), "2");
    }
}

#[test]
fn nobody_is_sent_back_in_time() {
    let world = world("behind");
    send(&world, 0..100);
    let daemon = world.start(&[]);
    until_counted(&world, 100);
    says(&world, &["replay", "orders"]);
    daemon.stop();
    world.execute(
        "UPDATE projector.checkpoints SET next_offset = next_offset - 1 FROM projector.generations g
        WHERE g.id = generation_id AND g.state = 'kept' AND partition = 2",
    );
    let promoted = world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 2, 60_000);
        let listed = generations::list(&pool).await.unwrap();
        let kept = listed.iter().find(|listed| listed.state == generations::State::Kept).unwrap();
        promote(&pool, &kept.plan(&[]).unwrap(), &kept.generation, "views").await.unwrap()
    });
    assert_eq!(promoted, Promoted::Behind(1));
    let sabotaged =
        world.command(&["rollback", "orders"]).env("PROJECTOR_SABOTAGE", "promote-behind").output().unwrap();
    assert!(sabotaged.status.success(), "without the step that keeps it, it is promoted: {sabotaged:?}");
}

#[test]
fn a_plan_says_what_it_takes() {
    let world = world("plan");
    send(&world, 0..500);
    let plan = |code: i32, parts: &[&str]| {
        let (found, text) = world.output(&["plan"]);
        assert!(found == code && parts.iter().all(|part| text.contains(part)), "{found}: {text}");
    };
    plan(2, &["orders: is new", "500 events", "time: not known; no build of it has been measured yet", "1 to create"]);
    let _daemon = world.start(&[]);
    until_counted(&world, 500);
    plan(0, &["orders: unchanged"]);
    let described = ORDERS.replace(
        "columns: { total: bigint }",
        "columns: { total: { type: bigint, description: In cents } }\nindexes: [[total]]",
    );
    let described = format!("{described}show: row.total < 1000\n");
    world.projection("orders.yaml", &described);
    plan(2, &["orders: changes in place", "+ indexes", "+ show", "1 to change in place"]);
    let text = says(&world, &["apply"]);
    assert!(text.contains("orders: changed in place"), "{text}");
    let indexes =
        "SELECT count(*)::text AS n FROM pg_indexes WHERE schemaname = 'orders@1' AND indexdef LIKE '%(total)%'";
    assert_eq!(world.query(indexes), ["{\"n\":\"1\"}"]);
    assert_eq!(world.query("SELECT col_description('views.orders'::regclass, 2) AS c"), ["{\"c\":\"In cents\"}"]);
    world.projection("orders.yaml", &described.replace("indexes: [[total]]\n", ""));
    says(&world, &["apply"]);
    assert_eq!(world.query(indexes), ["{\"n\":\"0\"}"]);
    plan(0, &["orders: unchanged"]);
    assert_eq!(
        world.query("SELECT count(*)::text AS n FROM projector.generations"),
        ["{\"n\":\"1\"}"],
        "nothing was folded again"
    );

    world.execute("CREATE VIEW public.dear AS SELECT id FROM views.orders WHERE total > 0");
    world.projection("orders.yaml", &with_note());
    plan(
        2,
        &[
            "orders: is built anew",
            "+ columns.note",
            "500 events of",
            "time: not known",
            "on top of it: public.dear",
            "1 to build anew",
        ],
    );
    let rebuild = plan_json(&world);
    assert_eq!((&rebuild["action"], &rebuild["events"]), (&json!("rebuild"), &json!(500)));
    assert_eq!((&rebuild["estimated_s"], &rebuild["last_build_s"]), (&json!(null), &json!(null)));
    says(&world, &["apply", "--manual"]);
    world.wait("it to be ready", || match world.output(&["status"]).1 {
        text if text.contains("orders: generation 2 has caught up; compare it with: projector diff orders") => Ok(()),
        text => Err(text),
    });
    says(&world, &["promote", "orders"]);
    let text = says(&world, &["status"]);
    assert!(text.contains("readers get it back with: projector rollback orders 1"), "{text}");

    // What was measured of the last build tells what the next one takes.
    send(&world, 500..1_000);
    until_counted(&world, 1_000);
    world.projection("orders.yaml", ORDERS);
    plan(0, &["a newer definition was applied after this one"]);
    world.projection("orders.yaml", &with_note().replace("total: data.total,", "total: data.total + 1,"));
    plan(2, &["1000 events of", "time: about ", "; the last build folded 500 events in "]);
    let last = plan_json(&world);
    let number = |what: &str| last[what].as_f64().unwrap_or_else(|| panic!("{what} in {last}"));
    assert_eq!(last["last_build_events"], 500, "{last}");
    assert!((number("estimated_s") - 2.0 * number("last_build_s")).abs() < 0.001, "{last}");
    // One that was slowed down on purpose tells nothing.
    says(&world, &["replay", "orders", "--max-rate", "100000"]);
    assert_eq!(plan_json(&world)["last_build_events"], 500);
}

fn plan_json(world: &World) -> serde_json::Value {
    let (code, text) = world.output(&["plan", "--format", "json"]);
    assert_eq!(code, 2, "{text}");
    serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
}

#[test]
fn a_projection_is_taken_away_and_its_view_given_to_another() {
    let world = world("away");
    send(&world, 0..10);
    let _daemon = world.start(&[]);
    until_counted(&world, 10);
    std::fs::remove_file(world.projections().join("orders.yaml")).unwrap();
    world.projection(
        "sales.yaml",
        "
projection: sales
serve: orders
sources: { shop: { topic: TOPIC(shop), ordered_by: data.id } }
tables:
  orders:
    key: { id: data.id }
    columns: { total: bigint }
    handlers: { shop: { Placed: { set: { total: data.total } } } }
",
    );
    let (code, text) = world.output(&["apply"]);
    assert!(code == 64 && text.contains("projector drop orders --all"), "{text}");
    world.execute("CREATE VIEW public.dear AS SELECT id FROM views.orders");
    let (code, text) = world.output(&["drop", "orders", "--all"]);
    assert!(code != 0 && text.contains("view dear depends on view views.orders"), "{text}");
    world.execute("DROP VIEW public.dear");
    says(&world, &["drop", "orders", "--all"]);
    says(&world, &["apply"]);
    until_counted(&world, 10);
    let left = world.query("SELECT nspname FROM pg_namespace WHERE nspname LIKE '%@%'");
    assert_eq!(left, ["{\"nspname\":\"sales@1\"}"]);
}

#[test]
fn an_older_upcaster_builds_nothing_again() {
    let world = world("steps");
    std::fs::create_dir(world.projections().join("upcasters")).unwrap();
    let upcaster = |to: &str| {
        let text = format!(
            "upcaster: named\ntopic: TOPIC(shop)\ntype: Placed\nversion: opt(data.version)\nsteps: {{ 1: {{ move: {{ {to} }} }} }}\n"
        );
        world.projection("upcasters/named.yaml", &text);
    };
    upcaster("name: full_name");
    world.apply();
    upcaster("name: whole_name");
    assert!(says(&world, &["apply"]).contains("generation 2 is built"));
    upcaster("name: full_name");
    let (code, text) = world.output(&["apply"]);
    assert!(code == 64 && text.contains("projector drop orders 2"), "{text}");
    assert_eq!(world.query("SELECT count(*)::text AS n FROM projector.generations"), ["{\"n\":\"2\"}"]);
}
