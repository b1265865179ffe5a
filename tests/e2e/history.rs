//! History that is not what a generation needs: it stands still with the exact gap in words, and loses nothing.

use serde_json::json;

use super::generations::{ORDERS, says, served, until_counted, until_served};
use super::world::{Message, World, event};

const COUNTER: &str = "
projection: counter
sources: { events: { topic: TOPIC(events) } }
key: { k: data.k }
columns: { n: { type: bigint, default: 0 } }
handlers: { events: { Counted: { add: { n: 1 } } } }
";

fn counted(partition: i32, k: &str) -> Message {
    Message { partition, key: k.into(), payload: event("Counted", json!({ "k": k })) }
}

pub fn delete_before(world: &World, topic: &str, partition: i32, offset: i64) {
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&world.topic(topic), partition, rdkafka::Offset::Offset(offset)).unwrap();
    world.runtime.block_on(world.admin.delete_records(&list, &rdkafka::admin::AdminOptions::new())).unwrap();
}

#[test]
fn truncated_history_needs_a_reason() {
    let world = World::new("truncated");
    world.create_topic("events", 1, &[]);
    world.send("events", &[counted(0, "a"), counted(0, "b"), counted(0, "c")]);
    delete_before(&world, "events", 0, 2);
    world.projection("counter.yaml", COUNTER);
    let daemon = world.start(&[]);
    let halt = world.halted("counter");
    assert!(halt.contains("truncated-history") && halt.contains("2 earlier events are gone"), "{halt}");
    assert!(daemon.log().contains("counter.1 stands still"), "{}", daemon.log());
    drop(daemon);

    let accepted = COUNTER.replace("TOPIC(events) }", "TOPIC(events), accept_truncated: the first year was archived }");
    world.projection("counter.yaml", &accepted);
    let (code, text) = world.output(&["apply", "--recreate", "counter"]);
    assert_eq!(code, 0, "{text}");
    let _daemon = world.start(&[]);
    world.applied("counter", "events");
    assert_eq!(world.query("SELECT k, n FROM views.counter"), [r#"{"k":"c","n":1}"#]);
    let (_, status) = world.output(&["status"]);
    assert!(status.contains("the first year was archived"), "{status}");
}

#[test]
fn a_compacted_topic_needs_a_reason() {
    let world = World::new("compacted");
    world.create_topic("events", 1, &[("cleanup.policy", "compact")]);
    world.projection("counter.yaml", COUNTER);
    let _daemon = world.start(&[]);
    let halt = world.halted("counter");
    assert!(halt.contains("compacted"), "{halt}");
}

#[test]
fn a_gap_after_the_checkpoint_is_told_in_numbers() {
    let world = World::new("gap");
    world.create_topic("events", 1, &[]);
    world.projection("counter.yaml", COUNTER);
    world.send("events", &[counted(0, "a")]);
    let daemon = world.start(&[]);
    world.applied("counter", "events");
    daemon.stop();
    world.send("events", &[counted(0, "b"), counted(0, "c"), counted(0, "d")]);
    delete_before(&world, "events", 0, 3);
    let _daemon = world.start(&[]);
    let halt = world.halted("counter");
    assert!(halt.contains("events 1 to 2 (2 of them) were deleted"), "{halt}");
    assert_eq!(world.query("SELECT k, n FROM views.counter"), [r#"{"k":"a","n":1}"#]);
}

#[test]
fn a_topic_made_anew_is_not_taken_for_the_old_one() {
    let world = World::new("anew");
    world.create_topic("events", 1, &[]);
    world.projection("counter.yaml", COUNTER);
    world.send("events", &[counted(0, "a")]);
    let daemon = world.start(&[]);
    world.applied("counter", "events");
    daemon.stop();
    world.delete_topic("events");
    world.wait("the topic to be gone", || if world.has_topic("events") { Err("still there".into()) } else { Ok(()) });
    world.create_topic("events", 1, &[]);
    world.send("events", &[counted(0, "x"), counted(0, "y")]);
    let _daemon = world.start(&[]);
    let halt = world.halted("counter");
    assert!(halt.contains("topic-made-anew"), "{halt}");
}

#[test]
fn a_topic_that_comes_later_is_waited_for() {
    let world = World::new("later");
    world.projection("counter.yaml", COUNTER);
    let daemon = world.start(&[]);
    world.wait("waiting", || if daemon.log().contains("does not exist yet") { Ok(()) } else { Err(daemon.log()) });
    let (_, status) = world.output(&["status"]);
    assert!(status.contains("waiting for its topics"), "{status}");
    world.create_topic("events", 2, &[]);
    world.send("events", &[counted(0, "a"), counted(1, "b")]);
    world.applied("counter", "events");
}

#[test]
fn partitions_added_later_are_read_from_their_beginning() {
    let world = World::new("added");
    world.create_topic("events", 1, &[]);
    world.projection("counter.yaml", COUNTER);
    world.send("events", &[counted(0, "a")]);
    let _daemon = world.start(&[]);
    world.applied("counter", "events");
    world.add_partitions("events", 3);
    world.send("events", &[counted(0, "a"), counted(1, "b"), counted(2, "c")]);
    world.applied("counter", "events");
    let rows = world.query("SELECT k, n FROM views.counter ORDER BY k");
    assert_eq!(rows, [r#"{"k":"a","n":2}"#, r#"{"k":"b","n":1}"#, r#"{"k":"c","n":1}"#]);
    let waited = world.query("SELECT count(*) AS n FROM projector.checkpoints WHERE waits_for IS NOT NULL");
    assert_eq!(waited, [r#"{"n":0}"#]);
}

/// A transaction's marker takes an offset at the end that no message has.
#[test]
fn transaction_markers_do_not_keep_a_view_behind() {
    use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
    use std::time::Duration;
    let world = World::new("markers");
    world.create_topic("events", 1, &[]);
    world.projection("counter.yaml", COUNTER);
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("transactional.id", &world.name)
        .create()
        .unwrap();
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).unwrap();
    for (k, commits) in [("a", true), ("never", false), ("b", true)] {
        producer.begin_transaction().unwrap();
        let payload = event("Counted", json!({ "k": k }));
        producer.send(BaseRecord::to(&world.topic("events")).key(k).payload(&payload)).ok().unwrap();
        if commits { producer.commit_transaction(wait).unwrap() } else { producer.abort_transaction(wait).unwrap() }
    }
    let _daemon = world.start(&[]);
    world.applied("counter", "events");
    let rows = world.query("SELECT k, n FROM views.counter ORDER BY k");
    assert_eq!(rows, [r#"{"k":"a","n":1}"#, r#"{"k":"b","n":1}"#]);
}

/// What a topic of a pattern had is gone with it: nobody waits for it, and nobody loses it without having said so.
#[test]
fn a_topic_that_is_gone_holds_up_nobody() {
    let world = World::new("gonetopic");
    let definition = |total: &str, source: &str| {
        let pattern = format!("topics: '{}[.](?<country>[a-z]+)[.]orders', {source}", world.name);
        let text = ORDERS.replace("topic: TOPIC(shop),", &format!("{pattern} "));
        text.replace("total: data.total", &format!("total: {total}"))
    };
    world.projection("orders.yaml", &definition("data.total", ""));
    for (country, id) in [("it", "a"), ("no", "b")] {
        let topic = format!("{country}.orders");
        world.create_topic(&topic, 2, &[]);
        let payload = event("Placed", json!({ "id": id, "total": 1 }));
        world.send(&topic, &[Message { partition: 1, key: id.into(), payload }]);
    }
    let daemon = world.start(&[]);
    until_counted(&world, 2);
    world.delete_topic("no.orders");
    world
        .wait("the topic to be gone", || if world.has_topic("no.orders") { Err("still there".into()) } else { Ok(()) });
    world.projection("orders.yaml", &definition("data.total + 1", ""));
    says(&world, &["apply"]);
    let refused = "SELECT refused FROM projector.generations WHERE number = 2";
    world.wait("the refusal", || match world.try_query(refused) {
        Ok(rows) if rows[0].contains("no.orders is not there any more") => Ok(()),
        other => Err(format!("{other:?}; {}", daemon.log())),
    });
    assert_eq!(served(&world), "1");
    assert!(daemon.log().contains("no.orders is not there any more, and is not waited for"), "{}", daemon.log());
    let text = says(&world, &["diff", "orders", "--no-events"]);
    assert!(text.contains("- orders {\"id\":\"b\""), "{text}");
    let (code, text) = world.output(&["verify", "orders", "--repair"]);
    assert!(code == 1 && text.contains("rows that were made of it would be taken out"), "{text}");
    until_counted(&world, 2);

    world.projection("orders.yaml", &definition("data.total + 2", "accept_truncated: Norway is closed, "));
    says(&world, &["apply"]);
    // The third was there for `verify`.
    until_served(&world, "4");
    until_counted(&world, 1);
}
