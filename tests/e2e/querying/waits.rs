//! Whoever waits for an event and is answered has it in the rows, or a later one of its key, whatever happens meanwhile:
//! the daemon, which serves too, is killed again and again, keys are parked, and the view is replayed and promoted under it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use projector::event::Place;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value as Json, json};

use super::super::world::{Daemon, Dice, Message, World, event, free_port};
use super::{Answer, try_ask};

const ORDERS: &str = "
projection: orders
serve: [orders, customers]
sources:
  shop: { topic: TOPIC(shop), ordered_by: data.id }
  crm: { topic: TOPIC(crm), ordered_by: data.id }
errors: { unhandled: park, max_parked_events: 100000, max_parked_sequences: 100000 }
tables:
  orders:
    key: { id: data.id }
    columns: { seq: bigint, customer: text, note: text }
    join: { table: customers, by: customer, fill: { customer_seq: seq } }
    handlers:
      shop:
        Placed:
          require: { polite: \"data.note != 'rude'\" }
          set: { seq: data.seq, customer: data.customer, note: data.note }
  customers:
    key: { id: data.id }
    columns: { seq: bigint }
    rollups:
      - { table: orders, by: customer, fill: { newest: { max: seq } } }
    handlers: { crm: { Named: { set: { seq: data.seq } } } }
";

const WRITERS: usize = 4;
/// So many orders does each customer have: what follows from a customer takes a while.
const ORDERS_EACH: u64 = 150;
const CUSTOMERS_EACH: u64 = 3;
const SHOP_PARTITIONS: u64 = 3;
const CRM_PARTITIONS: u64 = 2;
/// So often has every kind of question to be answered in each phase.
const ENOUGH: usize = 12;

/// What is asked, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Own,
    Joined,
    Rolled,
    Parked,
    Token,
}
const KINDS: [Kind; 5] = [Kind::Own, Kind::Joined, Kind::Rolled, Kind::Parked, Kind::Token];

#[derive(Default)]
struct Counted {
    /// 200, or for what is parked 409, of the phase that is on.
    answered: [AtomicUsize; KINDS.len()],
    late: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

struct Scene {
    world: World,
    producer: FutureProducer,
    port: u16,
    counted: Counted,
    /// What was found wrong; the first ends all.
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
    numbers: AtomicU64,
    killed: AtomicUsize,
}

/// What a reader was shown last, by view and key: column by column the greatest. No later answer may be older.
type Shown = HashMap<(&'static str, String), BTreeMap<&'static str, i64>>;

impl Scene {
    fn new(name: &str) -> Scene {
        let world = World::new(name);
        world.create_topic("shop", SHOP_PARTITIONS as i32, &[]);
        world.create_topic("crm", CRM_PARTITIONS as i32, &[]);
        world.projection("orders.yaml", ORDERS);
        world.apply();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &world.brokers).set("enable.idempotence", "true").set("linger.ms", "0");
        Scene {
            producer: config.create().unwrap(),
            port: free_port(),
            counted: Counted::default(),
            wrong: Mutex::default(),
            over: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            killed: AtomicUsize::new(0),
            world,
        }
    }

    /// Nobody has to wait until the group has noticed that its last member was killed: each has a group of its own.
    fn start(&self, sabotage: &str) -> Daemon {
        let number = self.killed.load(Ordering::SeqCst);
        let (group, listen) = (format!("{}-{number}", self.world.name), format!("127.0.0.1:{}", self.port));
        self.world.start_applied(&[
            ("PROJECTOR__SERVE__LISTEN", &listen),
            ("PROJECTOR__KAFKA__GROUP_PREFIX", &group),
            ("PROJECTOR_SABOTAGE", sabotage),
            // It is the test that kills, and no event: none is to be parked for it.
            ("PROJECTOR__FOLD__POISON_ATTEMPTS", "100"),
        ])
    }

    fn send(&self, topic: &str, message: &Message) -> Place {
        let topic = self.world.topic(topic);
        let record = FutureRecord::to(&topic).partition(message.partition).key(&message.key).payload(&message.payload);
        let sent = self.world.runtime.block_on(self.producer.send(record, Duration::from_secs(60))).unwrap();
        Place { topic, partition: sent.partition, offset: sent.offset }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn found(&self, wrong: String) {
        self.wrong.lock().unwrap().push(wrong);
        self.over.store(true, Ordering::SeqCst);
    }

    /// Asks until there is an answer; `None` when all is over. What was cut short is none.
    fn ask(&self, target: &str, after: &str) -> Option<Answer> {
        let mut headers = vec![("Prefer".to_string(), "wait=20".to_string())];
        headers.extend((!after.is_empty()).then(|| ("Projector-After".to_string(), after.to_string())));
        while !self.is_over() {
            if let Ok(answer) = try_ask(self.port, "GET", target, &headers) {
                let length = answer.headers.get("content-length").and_then(|length| length.parse().ok());
                if answer.status != 0 && length == Some(answer.body.len()) {
                    return Some(answer);
                }
            }
            self.counted.broken.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// The rows of an answer that counts. 503 and 504 may come, and are no rows.
    fn rows(&self, kind: Kind, target: &str, after: &str) -> Option<(Vec<Json>, String)> {
        let answer = self.ask(target, after)?;
        match answer.status {
            200 => {
                self.counted.answered[kind as usize].fetch_add(1, Ordering::SeqCst);
                let token = answer.headers.get("projector-token").cloned().unwrap_or_default();
                Some((serde_json::from_str(&answer.body).unwrap(), token))
            }
            504 => {
                self.counted.late.fetch_add(1, Ordering::SeqCst);
                None
            }
            503 => {
                self.counted.refused.fetch_add(1, Ordering::SeqCst);
                None
            }
            status => {
                self.found(format!("{kind:?}: {target} after {after}: {status} {}", answer.body));
                None
            }
        }
    }

    /// Nothing that a reader was shown before may be newer than what it is shown now.
    fn remember(&self, shown: &mut Shown, view: &'static str, rows: &[Json], told: &str) {
        for row in rows {
            let id = row["id"].as_str().unwrap().to_string();
            let known = shown.entry((view, id.clone())).or_default();
            for column in ["seq", "customer_seq", "newest"] {
                let Some(now) = row[column].as_i64() else { continue };
                let before = known.insert(column, now).unwrap_or(now);
                if before > now {
                    self.found(format!("{column} of {view} {id} was {before}, and is {now} {told}"));
                }
            }
        }
    }
}

fn order(writer: usize, number: u64, customer: u64) -> String {
    format!("o{writer}-{customer}-{number}")
}

fn placed(id: &str, number: u64, customer: &str, seq: u64) -> Message {
    let payload = event("Placed", json!({ "id": id, "seq": seq, "customer": customer, "note": "fine" }));
    Message { partition: (number % SHOP_PARTITIONS) as i32, key: id.into(), payload }
}

fn named(id: &str, number: u64, seq: u64) -> Message {
    let payload = event("Named", json!({ "id": id, "seq": seq }));
    Message { partition: (number % CRM_PARTITIONS) as i32, key: id.into(), payload }
}

/// Writes events of keys that nobody else writes, and reads each of them back.
struct Writer<'s> {
    scene: &'s Scene,
    number: usize,
    dice: Dice,
    shown: Shown,
    token: String,
}

impl Writer<'_> {
    fn work(&mut self) {
        while !self.scene.is_over() {
            let seq = self.scene.numbers.fetch_add(1, Ordering::SeqCst);
            match self.dice.roll(10) {
                0..4 => self.own(seq),
                4..7 => self.joined(seq),
                7..9 => self.rolled(seq),
                _ => self.parked(seq),
            }
            self.back();
        }
    }

    fn customer(&mut self) -> (u64, String) {
        let number = self.dice.roll(CUSTOMERS_EACH);
        (number, format!("c{}-{number}", self.number))
    }

    fn place(&mut self, seq: u64) -> (Place, String, String) {
        let (at, customer) = self.customer();
        let number = self.dice.roll(ORDERS_EACH);
        let id = order(self.number, number, at);
        (self.scene.send("shop", &placed(&id, number, &customer, seq)), id, customer)
    }

    /// Rows of which a column has to be no less than a number.
    fn asks(&mut self, kind: Kind, place: &Place, (view, filter): (&'static str, &str), (column, seq): (&str, u64)) {
        let target = format!("/{view}?{filter}");
        let Some((rows, token)) = self.scene.rows(kind, &target, &place.to_string()) else { return };
        let missed = rows.iter().find(|row| row[column].as_i64() < Some(seq as i64));
        if missed.is_some() || rows.is_empty() {
            let missed = missed.map_or_else(|| "no row".into(), Json::to_string);
            self.scene.found(format!("{kind:?}: {target} after {place}: {column} {seq} is not in {missed}"));
        }
        self.scene.remember(&mut self.shown, view, &rows, &format!("after {place}"));
        self.token = token;
    }

    fn own(&mut self, seq: u64) {
        let (place, id, _) = self.place(seq);
        self.asks(Kind::Own, &place, ("orders", &format!("id=eq.{id}")), ("seq", seq));
    }

    fn joined(&mut self, seq: u64) {
        let (number, customer) = self.customer();
        let place = self.scene.send("crm", &named(&customer, number, seq));
        self.asks(Kind::Joined, &place, ("orders", &format!("customer=eq.{customer}")), ("customer_seq", seq));
    }

    fn rolled(&mut self, seq: u64) {
        let (place, _, customer) = self.place(seq);
        self.asks(Kind::Rolled, &place, ("customers", &format!("id=eq.{customer}")), ("newest", seq));
    }

    /// An event that cannot be applied, and one behind it that could be.
    fn parked(&mut self, seq: u64) {
        let id = format!("bad{}-{seq}", self.number);
        let good = placed(&id, seq, "c0-0", seq);
        let (payload, code) = match self.dice.roll(3) {
            0 => (b"\xff{".to_vec(), "undecodable"),
            1 => (event("Unheard", json!({ "id": id })), "unhandled-type"),
            _ => (event("Placed", json!({ "id": id, "seq": seq, "customer": "c0-0", "note": "rude" })), "requirement"),
        };
        let bad = Message { partition: good.partition, key: id.clone(), payload };
        let places = [(self.scene.send("shop", &bad), code), (self.scene.send("shop", &good), "")];
        for (place, code) in places {
            let Some(answer) = self.scene.ask(&format!("/orders?id=eq.{id}"), &place.to_string()) else { return };
            let is_told = |answer: &Answer| answer.body.contains(&place.to_string()) && answer.body.contains(code);
            match answer.status {
                409 if is_told(&answer) => {
                    self.scene.counted.answered[Kind::Parked as usize].fetch_add(1, Ordering::SeqCst)
                }
                504 => self.scene.counted.late.fetch_add(1, Ordering::SeqCst),
                503 => self.scene.counted.refused.fetch_add(1, Ordering::SeqCst),
                status => return self.scene.found(format!("{place} is parked, and {status}: {}", answer.body)),
            };
        }
    }

    /// What was shown before is not taken back, with its token and without.
    fn back(&mut self) {
        let (_, customer) = self.customer();
        let token = if self.dice.roll(4) == 0 { String::new() } else { self.token.clone() };
        let target = format!("/orders?customer=eq.{customer}");
        let Some((rows, next)) = self.scene.rows(Kind::Token, &target, &token) else { return };
        self.scene.remember(&mut self.shown, "orders", &rows, &format!("after {token}"));
        self.token = next;
    }
}

impl Scene {
    /// Lets everybody write and read until every kind was answered often enough.
    fn phase(&self, what: &str) -> Result<(), String> {
        let counted = || KINDS.map(|kind| self.counted.answered[kind as usize].load(Ordering::SeqCst));
        let done = self.world.try_wait(what, || match counted() {
            answered if self.is_over() || answered.iter().all(|answered| *answered >= ENOUGH) => Ok(()),
            answered => Err(format!("{KINDS:?}: {answered:?} answers")),
        });
        let [late, refused, broken] = [&self.counted.late, &self.counted.refused, &self.counted.broken]
            .map(|count| count.swap(0, Ordering::SeqCst));
        if !self.is_over() {
            println!(
                "{what}: {KINDS:?}: {:?} answers; {late} were late, {refused} refused, {broken} broken",
                counted()
            );
        }
        self.counted.answered.iter().for_each(|answered| answered.store(0, Ordering::SeqCst));
        done
    }

    fn kill(&self, daemon: &mut Daemon, sabotage: &str) {
        daemon.kill();
        self.killed.fetch_add(1, Ordering::SeqCst);
        *daemon = self.start(sabotage);
    }

    fn verb(&self, arguments: &[&str]) -> Result<(), String> {
        match self.world.output(arguments) {
            _ if self.is_over() => Ok(()),
            (0, _) => Ok(()),
            // It was ahead of the live one by an event that both park; it is tried again.
            (_, text) if text.contains("sequences are parked in it") => Ok(()),
            (code, text) => Err(format!("{arguments:?}: {code}: {text}")),
        }
    }

    fn until(&self, what: &str, sql: &str) -> Result<(), String> {
        self.world.try_wait(what, || match self.world.try_query(sql) {
            _ if self.is_over() => Ok(()),
            Ok(rows) if !rows.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
    }

    fn until_served(&self, number: i32) -> Result<(), String> {
        let live = format!("SELECT 1 AS n FROM projector.generations WHERE number = {number} AND state = 'live'");
        self.until("the generation to be served", &live)
    }

    fn phases(&self, daemon: &mut Daemon, sabotage: &str) -> Result<(), String> {
        self.phase("at rest")?;
        for number in 1..=3 {
            self.kill(daemon, sabotage);
            self.phase(&format!("killed {number} times"))?;
        }
        self.verb(&["replay", "orders"])?;
        self.until_served(2)?;
        self.phase("replayed and promoted")?;
        self.verb(&["replay", "orders", "--manual", "--detach", "--max-rate", "500"])?;
        self.phase("while it is built")?;
        self.kill(daemon, sabotage);
        self.phase("killed while it is built")?;
        let ready = "SELECT 1 AS n FROM projector.generations WHERE number = 3 AND ready_at IS NOT NULL";
        self.until("generation 3 to catch up", ready)?;
        self.verb(&["promote", "orders"])?;
        self.until_served(3)?;
        self.phase("promoted")?;
        self.kill(daemon, sabotage);
        self.phase("killed after it was promoted")
    }
}

/// What readers were shown that they should not have been.
fn waited(sabotage: &str) -> Result<(), String> {
    let scene = Scene::new("waits");
    for writer in 0..WRITERS {
        for customer in 0..CUSTOMERS_EACH {
            let id = format!("c{writer}-{customer}");
            scene.world.send_only("crm", &named(&id, customer, 0));
            for number in 0..ORDERS_EACH {
                scene.world.send_only("shop", &placed(&order(writer, number, customer), number, &id, 0));
            }
        }
    }
    scene.world.flush();
    let mut daemon = scene.start(sabotage);
    scene.world.try_applied("orders", "shop")?;
    scene.world.try_applied("orders", "crm")?;
    let ended = std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let dice = Dice(number as u64 + 1);
            let mut writer = Writer { scene: &scene, number, dice, shown: Shown::new(), token: String::new() };
            scope.spawn(move || writer.work());
        }
        let ended = scene.phases(&mut daemon, sabotage);
        scene.over.store(true, Ordering::SeqCst);
        ended
    });
    match scene.wrong.lock().unwrap().first() {
        Some(wrong) => Err(wrong.clone()),
        None => ended.map_err(|why| {
            let how = "SELECT number, state, ready_at, topic, partition, next_offset, starts, stop_at
                       FROM projector.generations g JOIN projector.checkpoints c ON c.generation_id = g.id ORDER BY 1, 4, 5";
            format!("{why}\n{}\n{}", scene.world.query(how).join("\n"), daemon.last_words())
        }),
    }
}

#[test]
fn who_has_waited_never_misses_a_write() {
    waited("").unwrap();
}

#[test]
fn who_does_not_wait_misses_writes() {
    let missed = |sabotage: &str, kinds: &[&str]| {
        let wrong = waited(sabotage).unwrap_err();
        assert!(kinds.iter().any(|kind| wrong.contains(kind)), "{sabotage}: {wrong}");
    };
    missed("wait-applied", &["is not in", "is parked, and 200"]);
    missed("wait-followed", &["Joined: ", "Rolled: "]);
}
