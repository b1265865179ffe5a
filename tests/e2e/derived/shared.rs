//! Projections that use one shared file keep one copy of its tables.

use serde_json::json;

use crate::world::{Message, World, event};

const PEOPLE: &str = "
projection: people
sources:
  crm: { topic: TOPIC(crm), ordered_by: data.id }
tables:
  people:
    key: { person_id: data.id }
    columns: { name: text }
    handlers: { crm: { Named: { set: { name: data.name } } } }
";

/// A projection of things that belong to people; with a golden case beside it.
fn things(world: &World, name: &str) {
    let file = format!(
        "
projection: {name}
shared: people
description: All {name}
sources:
  post: {{ topic: TOPIC(post), ordered_by: data.id }}
tables:
  {name}:
    key: {{ id: data.id }}
    columns: {{ to_id: text }}
    join: {{ table: people, by: to_id, fill: {{ to_name: name }} }}
    handlers: {{ post: {{ {name}.Sent: {{ set: {{ to_id: data.to }} }} }} }}
"
    );
    world.projection(&format!("{name}.yaml"), &file);
    let cases = format!(
        "
cases:
  - name: a shared name
    events:
      - {{ source: crm, type: Named, data: {{ id: ada, name: Ada }} }}
      - {{ source: post, type: {name}.Sent, data: {{ id: x1, to: ada }} }}
    rows: {{ {name}: [{{ id: x1, to_id: ada, to_name: Ada }}] }}
"
    );
    world.projection(&format!("{name}.test.yaml"), &cases);
}

fn send(world: &World, topic: &str, type_: &str, data: serde_json::Value) {
    let key = data["id"].as_str().unwrap_or_default().to_string();
    world.send(topic, &[Message { partition: 0, key, payload: event(type_, data) }]);
}

#[test]
fn two_projections_have_one_copy_of_what_they_share() {
    let world = World::new("shared");
    for topic in ["crm", "post"] {
        world.create_topic(topic, 2, &[]);
    }
    std::fs::create_dir(world.projections().join("shared")).unwrap();
    world.projection("shared/people.yaml", PEOPLE);
    things(&world, "letters");
    things(&world, "parcels");
    let tested = world.command(&["test"]).arg(world.projections()).output().unwrap();
    assert!(String::from_utf8_lossy(&tested.stdout).contains("2 passed, 0 failed"), "{tested:?}");

    world.apply();
    let _daemon = world.start(&[]);
    send(&world, "crm", "Named", json!({ "id": "ada", "name": "Ada" }));
    send(&world, "post", "letters.Sent", json!({ "id": "l1", "to": "ada" }));
    send(&world, "post", "parcels.Sent", json!({ "id": "p1", "to": "ada" }));
    let names = "SELECT to_name FROM views.letters UNION ALL SELECT to_name FROM views.parcels";
    let both = |name: &str| {
        world.wait("both to have the name", || match world.try_query(names) {
            Ok(rows) if rows == [format!("{{\"to_name\":\"{name}\"}}"), format!("{{\"to_name\":\"{name}\"}}")] => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        });
    };
    both("Ada");
    send(&world, "crm", "Named", json!({ "id": "ada", "name": "Ada Lovelace" }));
    both("Ada Lovelace");
    let copies = world.query("SELECT schemaname FROM pg_tables WHERE tablename = 'people'");
    assert_eq!(copies, ["{\"schemaname\":\"people@1\"}"]);
    let read = world.query("SELECT DISTINCT generation_id FROM projector.checkpoints");
    assert_eq!(read.len(), 1, "each topic is read once: {read:?}");
    let comment = world.query("SELECT obj_description('views.letters'::regclass) AS c");
    assert_eq!(comment, ["{\"c\":\"All letters\"}"]);
}
