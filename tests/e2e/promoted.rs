//! What a promotion leaves alone, what it waits for, and what is told of generations that do not get on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use sqlx::{ConnectOptions, Executor};

use super::generations::{says, send, served, until_counted, until_ready, until_served, with_note, world};
use super::world::{Message, World, event};

/// What `status` says of the generation that readers do not see.
fn other(world: &World) -> Json {
    let status: Json = serde_json::from_str(&says(world, &["status", "--format", "json"])).unwrap();
    status[0]["others"][0].clone()
}

#[test]
fn views_that_other_people_made_are_left_alone() {
    let world = world("others");
    send(&world, 0..10);
    let _daemon = world.start(&[]);
    until_counted(&world, 10);
    let two = "
projection: orders
serve: [orders, totals]
sources: { shop: { topic: TOPIC(shop), ordered_by: data.id } }
tables:
  orders:
    key: { id: data.id }
    columns: { total: bigint }
    handlers: { shop: { Placed: { set: { total: data.total } } } }
  totals:
    key: { total: data.total }
    columns: { total: bigint, orders: { type: bigint, default: 0 } }
    handlers: { shop: { Placed: { add: { orders: 1 } } } }
";
    world.projection("orders.yaml", two);
    says(&world, &["apply", "--manual"]);
    until_ready(&world, 2);
    let theirs = "CREATE VIEW views.totals AS SELECT 'mine' AS whose";
    world.execute(theirs);
    let (code, text) = world.output(&["promote", "orders"]);
    assert!(
        code == 64 && text.contains("there is already a view views.totals that the projector did not make"),
        "{text}"
    );
    assert_eq!(world.query("SELECT whose FROM views.totals"), ["{\"whose\":\"mine\"}"]);
    assert_eq!(served(&world), "1");
    // The one who is about to apply is told at once.
    says(&world, &["drop", "orders", "2"]);
    let (code, text) = world.output(&["apply", "--again"]);
    assert!(code == 64 && text.contains("views.totals that the projector did not make"), "{text}");
    world.execute("DROP VIEW views.totals");
    says(&world, &["apply", "--again"]);
    until_served(&world, "3");
    assert_eq!(world.query("SELECT orders FROM views.totals"), ["{\"orders\":10}"]);
}

#[test]
fn what_was_revoked_is_not_given_back_by_default() {
    let world = world("revoked");
    send(&world, 0..10);
    let _daemon = world.start(&[]);
    until_counted(&world, 10);
    let [reader, stranger] = ["reader", "stranger"].map(|role| format!("{role}_{}", world.name));
    world.execute(&format!(
        "CREATE ROLE {reader}; CREATE ROLE {stranger};
         CREATE VIEW public.dear AS SELECT id FROM views.orders WHERE total > 0;
         ALTER DEFAULT PRIVILEGES IN SCHEMA views GRANT SELECT ON TABLES TO {stranger}, PUBLIC;
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, UPDATE ON TABLES TO {stranger};
         GRANT SELECT ON views.orders, public.dear TO {reader}"
    ));
    world.projection("orders.yaml", &with_note());
    says(&world, &["apply"]);
    until_served(&world, "2");
    let may = |role: &str, view: &str| format!("has_table_privilege('{role}', '{view}', 'SELECT')");
    let rights = world.query(&format!(
        "SELECT {} AND {} AS reader, {} OR {} AS stranger",
        may(&reader, "views.orders"),
        may(&reader, "public.dear"),
        may(&stranger, "views.orders"),
        may(&stranger, "public.dear")
    ));
    world.execute(&format!("DROP OWNED BY {reader}, {stranger}; DROP ROLE {reader}, {stranger}"));
    assert_eq!(rights, ["{\"reader\":true,\"stranger\":false}"]);
}

/// A decision about an event that a generation meets some seconds later.
#[test]
fn decisions_reach_generations_that_are_being_built() {
    const BROKEN: usize = 30;
    let world = world("decided");
    let order = |at: usize| {
        let total = if at == BROKEN { json!("many") } else { json!(1) };
        let payload = event("Placed", json!({ "id": format!("o{at}"), "total": total }));
        Message { partition: 2, key: format!("o{at}"), payload }
    };
    world.send("shop", &(0..BROKEN + 10).map(order).collect::<Vec<_>>());
    let daemon = world.start(&[]);
    world.applied("orders", "shop");
    says(&world, &["replay", "orders", "--max-rate", "10", "--detach"]);
    let begun = "SELECT 1 AS n FROM projector.checkpoints c JOIN projector.generations g ON g.id = c.generation_id
        AND g.number = 2 WHERE c.next_offset > 0";
    world.wait("it to begin", || match world.try_query(begun) {
        Ok(rows) if !rows.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let place = format!("{}/2@{BROKEN}", world.topic("shop"));
    says(&world, &["dead-letters", "discard", &place, "--reason", "made up"]);
    until_served(&world, "2");
    assert!(world.query("SELECT code FROM projector.dead_letters").is_empty());
    let log = daemon.stop().1;
    assert_eq!(log.matches("1 parked; the first is").count(), 1, "the live one alone has parked it: {log}");
    until_counted(&world, BROKEN + 9);
}

#[test]
fn who_reads_for_long_keeps_a_promotion_waiting_and_nobody_else() {
    const WATCHED: Duration = Duration::from_secs(9);
    let world = world("busy");
    send(&world, 0..10);
    let _daemon = world.start(&[]);
    until_counted(&world, 10);
    let reading = world.runtime.block_on(async {
        let mut session = world.options().connect().await.unwrap();
        session.execute("BEGIN; SELECT count(*) FROM views.orders").await.unwrap();
        session
    });
    world.projection("orders.yaml", &with_note());
    says(&world, &["apply"]);
    until_ready(&world, 2);
    let done = AtomicBool::new(false);
    let attempts = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let (mut longest, mut reads) = (Duration::ZERO, 0);
            while !done.load(Ordering::SeqCst) {
                let begun = Instant::now();
                until_counted(&world, 10);
                (longest, reads) = (longest.max(begun.elapsed()), reads + 1);
            }
            (longest, reads)
        });
        // Each transaction that waits for the view is an attempt.
        let waiting = "SELECT a.xact_start::text AS begun FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE l.mode = 'AccessExclusiveLock' AND NOT l.granted AND l.relation = to_regclass('views.orders')";
        let begun = Instant::now();
        let mut attempts = BTreeSet::new();
        while begun.elapsed() < WATCHED {
            attempts.extend(world.query(waiting));
        }
        done.store(true, Ordering::SeqCst);
        let (longest, reads) = others.join().unwrap();
        assert!(longest < Duration::from_secs(3) && reads > 20, "{reads} reads, {longest:?} the longest");
        attempts
    });
    assert!((1..=5).contains(&attempts.len()), "{attempts:?}: later and later means four within this time");
    assert_eq!(served(&world), "1");
    assert_eq!(other(&world)["behind"], 0);
    drop(reading);
    until_served(&world, "2");
}

#[test]
fn a_build_that_stands_still_is_told_and_readers_notice_nothing() {
    let world = world("standing");
    send(&world, 0..50);
    let _daemon = world.start(&[]);
    until_counted(&world, 50);
    let strict = with_note().replace("note: data.note", "note: data.remark") + "errors: { default: halt }\n";
    world.projection("orders.yaml", &strict);
    says(&world, &["apply"]);
    world.wait("the halt", || match other(&world)["error"].as_str() {
        Some(error) if error.contains("`data.remark` is missing") => Ok(()),
        error => Err(format!("{error:?}")),
    });
    let text = says(&world, &["status"]);
    assert!(text.contains("orders: generation 2 stands still: "), "{text}");
    send(&world, 50..60);
    until_counted(&world, 60);
    assert_eq!(served(&world), "1");
    world.projection("orders.yaml", &with_note());
    says(&world, &["apply"]);
    until_served(&world, "3");
}

#[test]
fn what_another_version_made_is_left_to_it() {
    let world = world("versions");
    send(&world, 0..50);
    let daemon = world.start(&[]);
    until_counted(&world, 50);
    daemon.stop();
    world.projection("orders.yaml", &with_note());
    says(&world, &["apply"]);
    world.execute("UPDATE projector.generations SET semantics_version = 999 WHERE number = 2");
    let daemon = world.start_applied(&[]);
    send(&world, 50..60);
    until_counted(&world, 60);
    assert!(daemon.log().contains("semantics version 999"), "{}", daemon.log());
    let text = says(&world, &["status"]);
    assert!(text.contains("generation 2 was made by another version of the program, and is not folded"), "{text}");
    let (code, text) = world.output(&["promote", "orders"]);
    assert!(code == 64 && text.contains("made by another version of the program"), "{text}");
    let folded = "SELECT 1 AS n FROM projector.checkpoints c JOIN projector.generations g ON g.id = c.generation_id
        AND g.number = 2";
    assert!(world.query(folded).is_empty());
    // A program with another meaning of the same words builds it anew, and says so before.
    let (code, text) = world.output(&["plan"]);
    assert!(code == 2 && text.contains("orders: is built anew: "), "{code}: {text}");
    assert!(says(&world, &["apply"]).contains("generation 3 is built"));
    until_served(&world, "3");
}

#[test]
fn a_catalog_that_does_not_fit_is_told_in_a_sentence() {
    let world = world("unmigrated");
    let place = format!("{}/0@0", world.topic("shop"));
    let verbs: &[&[&str]] = &[
        &["run"],
        &["status"],
        &["replay", "orders"],
        &["diff", "orders"],
        &["verify", "orders"],
        &["explain", "orders", "o1"],
        &["promote", "orders"],
        &["rollback", "orders"],
        &["drop", "orders", "2"],
        &["drop", "orders", "--all"],
        &["resume", "orders"],
        &["dead-letters", "list"],
        &["dead-letters", "discard", &place, "--reason", "x"],
    ];
    let told = |verb: &[&str], sentence: &str| {
        let (code, text) = world.output(verb);
        let lines = text.lines().count();
        assert!([1, 64].contains(&code) && text.contains(sentence) && lines <= 2, "{verb:?}, {code}: {text}");
    };
    verbs.iter().for_each(|verb| told(verb, "the database has no catalog yet. Make it with: projector apply"));
    world.apply();
    world.execute("DELETE FROM projector.migrations WHERE version = (SELECT max(version) FROM projector.migrations)");
    let older = "the catalog is of an older program. Bring it up to date with: projector apply";
    verbs.iter().chain([&&["plan"][..]]).for_each(|verb| told(verb, older));
}
