//! What is made of a history that is folded again, and when.

use projector::store::finish::finish;
use projector::store::{connect, generations};
use serde_json::json;

use super::generations::{ORDERS, says, send, until_counted, until_served};
use super::world::{Message, World, event};

/// What an event requires of its row is asked of the row that is there, not of a new one.
#[test]
fn a_requirement_is_asked_of_a_row_that_was_built_before() {
    let world = World::new("required");
    world.create_topic("shop", 1, &[]);
    world.projection(
        "orders.yaml",
        "
projection: orders
sources: { shop: { topic: TOPIC(shop), ordered_by: data.id } }
key: { id: data.id }
columns: { status: text }
handlers:
  shop:
    Opened: { set: { status: \"'open'\" } }
    Closed: { require: { open: row.status == 'open' }, set: { status: \"'closed'\" } }
",
    );
    let message = |type_| Message { partition: 0, key: "o".into(), payload: event(type_, json!({ "id": "o" })) };
    world.send("shop", &[message("Opened"), message("Closed")]);
    let _daemon = world.start(&[]);
    let closed = ["{\"status\":\"closed\",\"parked\":\"0\"}"];
    let rows = "SELECT status, (SELECT count(*) FROM projector.dead_letters)::text AS parked FROM views.orders";
    world.wait("the order", || match world.try_query(rows) {
        Ok(found) if found == closed => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // So slow that each event is a batch of its own.
    says(&world, &["replay", "orders", "--max-rate", "2"]);
    until_served(&world, "2");
    assert_eq!(world.query(rows), closed);
}

/// The indexes of a generation, without its number.
fn indexes(world: &World, number: i32) -> Vec<String> {
    world.query(&format!(
        "SELECT replace(indexdef, '@{number}', '') AS made FROM pg_indexes WHERE schemaname = 'orders@{number}' ORDER BY 1"
    ))
}

fn indexed(name: &str) -> World {
    let world = World::new(name);
    world.create_topic("shop", 4, &[]);
    let projection = ORDERS.replace("columns: { total: bigint }", "columns: { total: bigint, note: text }");
    let projection = projection.replace("set: { total: data.total }", "set: { total: data.total, note: data.note }");
    world.projection(
        "orders.yaml",
        &(projection + "indexes: [[total], [note, total]]\nsearch: { columns: [note], method: fts }\n"),
    );
    world
}

#[test]
fn indexes_that_a_build_does_not_need_are_made_last() {
    let world = indexed("indexes");
    send(&world, 0..200);
    let _daemon = world.start(&[]);
    until_counted(&world, 200);
    let all = indexes(&world, 1);
    assert_eq!(all.len(), 4, "{all:?}");
    says(&world, &["replay", "orders", "--max-rate", "100", "--detach"]);
    let early = indexes(&world, 2);
    assert!(early.len() == 1 && early[0].contains("orders_pkey"), "{early:?}");
    let (_, text) = world.output(&["status"]);
    assert!(text.contains("behind the live one; its indexes are made last"), "{text}");
    let (code, text) = world.output(&["promote", "orders"]);
    assert!(code == 1 && text.contains("events are missing"), "{text}");
    until_served(&world, "2");
    assert_eq!(indexes(&world, 2), all);
    send(&world, 200..220);
    until_counted(&world, 220);
}

#[test]
fn a_daemon_that_dies_while_it_makes_indexes_is_made_up_for() {
    let world = indexed("indexing");
    send(&world, 0..200);
    let mut daemon = world.start(&[("PROJECTOR_FAILPOINT", "indexing:1")]);
    until_counted(&world, 200);
    let all = indexes(&world, 1);
    says(&world, &["replay", "orders", "--detach"]);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&daemon.ended()), Some(9), "{}", daemon.log());
    assert_eq!(indexes(&world, 2).len(), 1);
    let stopped = world
        .query("SELECT DISTINCT stop_at = next_offset AS still FROM projector.checkpoints WHERE generation_id = 2");
    assert_eq!(stopped, ["{\"still\":true}"], "its lanes were stopped, each where it was");
    send(&world, 200..220);
    let _daemon = world.start(&[]);
    until_counted(&world, 220);
    until_served(&world, "2");
    assert_eq!(indexes(&world, 2), all);
    until_counted(&world, 220);
}

/// Two daemons may find at once that indexes are missing.
#[test]
fn who_comes_second_to_the_indexes_stops_nobody() {
    let world = indexed("second");
    send(&world, 0..20);
    let _daemon = world.start(&[]);
    until_counted(&world, 20);
    let all = indexes(&world, 1);
    world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 2, 60_000);
        let first = generations::list(&pool).await.unwrap().remove(0);
        finish(&pool, &first.plan(&[]).unwrap(), &first.generation).await.unwrap();
    });
    assert_eq!(indexes(&world, 1), all);
    send(&world, 20..40);
    until_counted(&world, 40);
}

/// What a build parks of events that the live generation has not come to says nothing against it.
#[test]
fn a_build_may_be_ahead_of_the_live_one() {
    let world = super::generations::world("ahead");
    send(&world, 0..20);
    let _daemon = world.start(&[]);
    until_counted(&world, 20);
    world.execute("UPDATE projector.checkpoints SET stop_at = next_offset, stop_until = now() + interval '1 min'");
    world.send("shop", &[Message { partition: 0, key: "bad".into(), payload: b"no event".to_vec() }]);
    says(&world, &["replay", "orders", "--manual", "--detach"]);
    let parked = "SELECT count(*)::text AS n FROM projector.dead_letters WHERE generation_id = 2";
    world.wait("the build to be ahead", || match world.try_query(parked) {
        Ok(found) if found == ["{\"n\":\"1\"}"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world.execute("UPDATE projector.generations SET promote = 'auto' WHERE number = 2");
    until_served(&world, "2");
    let refused = world.query("SELECT refused FROM projector.generations WHERE refused IS NOT NULL");
    assert!(refused.is_empty(), "{refused:?}");
}
