//! Generations compared with each other, and with the log, while events come all the time.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value as Json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor};

use super::generations::{ORDERS, says, send, until_counted, world};
use super::world::World;

/// Orders come all the time, one by one, while something happens. Returns how many there were at last.
fn while_ordering<T>(world: &World, first: usize, something: impl FnOnce() -> T) -> (T, usize) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ordering = scope.spawn(|| {
            let mut next = first;
            while !done.load(Ordering::SeqCst) {
                send(world, next..next + 1);
                next += 1;
            }
            next
        });
        let came_of_it = std::panic::catch_unwind(std::panic::AssertUnwindSafe(something));
        done.store(true, Ordering::SeqCst);
        let next = ordering.join().unwrap();
        (came_of_it.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), next)
    })
}

/// What `diff` finds, as JSON.
fn diff(world: &World, sabotage: &str) -> Json {
    let mut command = world.command(&["diff", "orders", "--format", "json"]);
    let output = command.env("PROJECTOR_SABOTAGE", sabotage).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<Json>(&output.stdout).unwrap()["views"][0].clone()
}

#[test]
fn generations_are_compared_at_the_same_place() {
    let world = world("diff");
    send(&world, 0..3_000);
    let _daemon = world.start(&[]);
    until_counted(&world, 3_000);
    // One of the notes is a number in the new definition, and a column is new.
    let changed = ORDERS.replace("columns: {", "columns: { note: text, ").replace(
        "set: { total: data.total }",
        "set: { total: \"data.id == 'o7' ? data.total + 1 : data.total\", note: data.note }",
    );
    world.projection("orders.yaml", &changed);
    says(&world, &["apply", "--manual"]);
    let ready = "SELECT 1 AS n FROM projector.generations WHERE number = 2 AND ready_at IS NOT NULL";
    world.wait("it to catch up", || match world.try_query(ready) {
        Ok(rows) if !rows.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let ((), orders) = while_ordering(&world, 3_000, || {
        for _ in 0..5 {
            let found = diff(&world, "");
            let counts = ["removed", "added", "changed"].map(|what| found[what].as_i64().unwrap());
            assert_eq!(counts, [0, 0, 1], "{found}");
            assert_eq!(found["columns"]["total"], 1, "{found}");
            assert_eq!(found["columns_new_only"][0], "note", "{found}");
            assert_eq!(found["samples"][0]["new"]["id"], "o7", "{found}");
        }
    });
    until_counted(&world, orders);
    // One of the two is kept behind, from where both are.
    let built = "SELECT count(*)::text AS n FROM \"orders@2\".orders";
    world.wait("the other one", || match world.try_query(built) {
        Ok(rows) if rows == [format!("{{\"n\":\"{orders}\"}}")] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world.execute(
        "UPDATE projector.checkpoints SET stop_at = next_offset, stop_until = now() + interval '1 min' WHERE generation_id = 2",
    );
    send(&world, orders..orders + 10);
    until_counted(&world, orders + 10);
    assert_eq!(diff(&world, "meeting-place")["removed"], 10, "wherever they are, they differ by what one has not read");
    let (code, text) = world.output(&["diff", "orders", "--fail-if", "changed > 0"]);
    assert!(code == 1 && text.contains("it is so: changed > 0"), "{text}");
    assert!(text.contains("total: 1 -> 2"), "{text}");
    let text = says(&world, &["diff", "orders", "--fail-if", "removed > 0"]);
    assert!(text.contains("orders: columns new: note"), "{text}");
}

#[test]
fn rows_that_somebody_changed_are_found_and_put_right() {
    let world = world("verify");
    send(&world, 0..2_000);
    let daemon = world.start(&[]);
    until_counted(&world, 2_000);
    let text = says(&world, &["verify", "orders"]);
    assert!(text.contains("orders") && !text.contains("differs"), "{text}");
    assert!(!daemon.log().contains("ERROR"), "nobody has to know that it was dropped again: {}", daemon.log());
    world.execute(
        "UPDATE \"orders@1\".orders SET total = 99 WHERE id = 'o1'; DELETE FROM \"orders@1\".orders WHERE id = 'o2';
         INSERT INTO \"orders@1\".orders (id, total) VALUES ('nobody', 1)",
    );
    let (code, text) = world.output(&["verify", "orders"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("total: 99 -> 1") && text.contains("+ orders") && text.contains("\"nobody\""), "{text}");
    let ((), orders) = while_ordering(&world, 2_000, || {
        let text = says(&world, &["verify", "orders", "--repair"]);
        assert!(text.contains("orders: 3 rows put right"), "{text}");
    });
    until_counted(&world, orders);
    let wrong = world.query("SELECT id FROM views.orders WHERE total <> 1 OR id = 'nobody'");
    assert!(wrong.is_empty(), "{wrong:?}");
    let left = world.query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'orders@%'");
    assert_eq!(left, ["{\"nspname\":\"orders@1\"}"], "what was folded for comparison is gone");
}

#[test]
fn nothing_is_put_right_by_what_was_not_folded_yet() {
    let world = world("few");
    send(&world, 0..20);
    let _daemon = world.start(&[]);
    until_counted(&world, 20);
    let text = says(&world, &["verify", "orders", "--repair", "--max-rate", "10"]);
    assert!(text.contains("nothing to put right"), "{text}");
    assert_eq!(super::generations::counted(&world), Ok(20));
    let text = says(&world, &["replay", "orders", "--manual"]);
    assert!(text.contains("has caught up"), "{text}");
    let text = says(&world, &["diff", "orders", "--fail-if", "removed > 0"]);
    assert!(text.contains("orders"), "{text}");
}

#[test]
fn rows_are_put_right_only_when_nothing_else_differs() {
    let world = world("refused");
    send(&world, 0..20);
    let _daemon = world.start(&[]);
    until_counted(&world, 20);
    // Somebody else compares.
    let (code, text) = world.runtime.block_on(async {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(world.postgres_port);
        let mut session = options.username("projector").database(&world.name).connect().await.unwrap();
        session.execute("SELECT pg_advisory_lock(x'70726703'::int, hashtext('orders'))").await.unwrap();
        world.output(&["verify", "orders"])
    });
    assert!(code == 1 && text.contains("being compared by somebody else"), "{text}");
    // What is parked in the one was perhaps applied in the other.
    world.execute(&format!(
        "UPDATE \"orders@1\".orders SET total = 99 WHERE id = 'o1';
         INSERT INTO projector.dead_letters (generation_id, topic, partition, \"offset\", header_names, header_values, sequences,
             code, message, waits) VALUES (1, '{}', 0, 1, '{{}}', '{{}}', '{{}}', 'missing-field', 'made up', false)",
        world.topic("shop")
    ));
    let (code, text) = world.output(&["verify", "orders", "--repair"]);
    assert!(code == 1 && text.contains("1 events are parked in the one and not in the other"), "{text}");
    assert_eq!(world.query("SELECT total FROM views.orders WHERE id = 'o1'"), ["{\"total\":99}"]);
}
