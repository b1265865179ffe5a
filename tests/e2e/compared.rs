//! Generations compared with each other, and with the log, while events come all the time.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value as Json, json};
use sqlx::{ConnectOptions, Executor};

use super::generations::{ORDERS, says, send, served, until_counted, until_ready, world};
use super::history::delete_before;
use super::world::{Dice, Message, World, event};

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
    until_ready(&world, 2);
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
fn chosen_rows_are_put_right_alone() {
    let world = world("chosen");
    send(&world, 0..20);
    let _daemon = world.start(&[]);
    until_counted(&world, 20);
    world.execute("UPDATE \"orders@1\".orders SET total = 99 WHERE id IN ('o1', 'o2', 'o3'); DELETE FROM \"orders@1\".orders WHERE id = 'o4'");
    says(&world, &["verify", "orders", "--key", "o5", "--key", "nobody"]);
    let (code, text) = world.output(&["verify", "orders", "--key", "o1", "--key", "o4"]);
    assert!(code == 1 && text.contains("total: 99 -> 1") && text.contains("o4") && !text.contains("o2"), "{text}");
    let text = says(&world, &["verify", "orders", "--key", "o1", "--key", "o4", "--repair"]);
    assert!(text.contains("orders: 2 rows put right"), "{text}");
    let wrong = world.query("SELECT id FROM views.orders WHERE total <> 1 ORDER BY id");
    assert_eq!(
        (wrong, super::generations::counted(&world)),
        (vec!["{\"id\":\"o2\"}".into(), "{\"id\":\"o3\"}".into()], Ok(20))
    );
    let (code, text) = world.output(&["verify", "shop", "--key", "o1"]);
    assert!(code == 64, "{text}");
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
        let mut session = world.options().connect().await.unwrap();
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

#[test]
fn rows_of_history_that_is_gone_are_not_taken_out() {
    let world = world("bygone");
    let accepted = ORDERS.replace("ordered_by: data.id", "ordered_by: data.id, accept_truncated: it was archived");
    world.projection("orders.yaml", &accepted);
    send(&world, 0..40);
    let _daemon = world.start(&[]);
    until_counted(&world, 40);
    delete_before(&world, "shop", 1, 6);
    let (code, text) = world.output(&["verify", "orders", "--format", "json"]);
    let found: Json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((code, &found["views"][0]["removed"]), (1, &json!(6)), "{text}");
    let (code, text) = world.output(&["verify", "orders", "--repair"]);
    let gone = format!("the early history of {} is gone", world.topic("shop"));
    assert!(code == 1 && text.contains(&gone) && text.contains("Nothing was changed"), "{text}");
    assert_eq!(super::generations::counted(&world), Ok(40));
}

#[test]
fn what_begins_late_is_neither_verified_nor_shown_by_itself() {
    let world = world("late");
    let late = ORDERS.replace("ordered_by: data.id", "ordered_by: data.id, start: latest");
    world.projection("orders.yaml", &late);
    let _daemon = world.start(&[]);
    let owned = "SELECT 1 AS n FROM projector.checkpoints";
    world.wait("the partitions to be taken", || match world.try_query(owned) {
        Ok(rows) if rows.len() == 4 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    send(&world, 0..20);
    until_counted(&world, 20);
    for arguments in [&["verify", "orders"][..], &["verify", "orders", "--repair"]] {
        let (code, text) = world.output(arguments);
        assert!(code == 64 && text.contains("starts at `latest`"), "{text}");
    }
    let text = says(&world, &["replay", "orders"]);
    assert!(text.contains("generation 2 has caught up"), "{text}");
    let changed = late.replace("set: { total: data.total }", "set: { total: data.total + 1 }");
    world.projection("orders.yaml", &changed);
    says(&world, &["apply"]);
    until_ready(&world, 3);
    let promotes = world.query("SELECT DISTINCT promote FROM projector.generations WHERE number > 1");
    assert_eq!(promotes, ["{\"promote\":\"manual\"}"]);
    assert_eq!((served(&world), super::generations::counted(&world)), ("1".into(), Ok(20)));
}

/// Postgres refuses some orders, so that lanes look for them in what they keep of the log, while generations are stopped and
/// let go on. It is a race: which of them comes first is a matter of chance.
#[test]
fn nothing_is_lost_where_a_stop_meets_a_search() {
    const ROUNDS: usize = 25;
    let world = world("stops");
    send(&world, 0..4);
    let daemon = world.start(&[("PROJECTOR__FOLD__LANES", "1")]);
    until_counted(&world, 4);
    world.execute("ALTER TABLE \"orders@1\".orders ADD CHECK (total <> 13)");
    let mut dice = Dice(5);
    let (mut next, mut refused) = (4, 0);
    for _ in 0..ROUNDS {
        world.execute(&format!(
            "UPDATE projector.checkpoints SET stop_at = next_offset + {}, stop_until = now() + interval '1 min'",
            5 + dice.roll(30)
        ));
        let messages: Vec<Message> = (next..next + 200)
            .map(|at| {
                let total = if dice.roll(25) == 0 { 13 } else { 1 };
                refused += usize::from(total == 13);
                let payload = event("Placed", json!({ "id": format!("o{at}"), "total": total }));
                Message { partition: (at % 4) as i32, key: format!("o{at}"), payload }
            })
            .collect();
        next += messages.len();
        world.send("shop", &messages);
        // The pause decides nothing but who is first.
        std::thread::sleep(std::time::Duration::from_millis(dice.roll(150)));
        world.execute("UPDATE projector.checkpoints SET stop_at = NULL, stop_until = NULL");
    }
    world.applied("orders", "shop");
    let parked = world.query("SELECT count(*)::text AS n FROM projector.dead_letters");
    let counted = super::generations::counted(&world);
    assert_eq!((counted, parked), (Ok(next - refused), vec![format!("{{\"n\":\"{refused}\"}}")]), "{}", daemon.log());
}
