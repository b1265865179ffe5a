//! One test's own database, topics, projection files and daemons.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use projector::golden::Encoded;
use projector::plan::Plan;
use projector::store::catalog::{self, Asked};
use projector::store::{Generation, generations};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub name: String,
    pub runtime: Runtime,
    directory: tempfile::TempDir,
    pub brokers: String,
    pub postgres_port: u16,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    pub admin: AdminClient<DefaultClientContext>,
    /// Topics that go with the test: there are many.
    passing: Mutex<Vec<String>>,
}

/// A message to be sent; the partition is the caller's choice, as a producer's partitioner would make it.
pub struct Message {
    pub partition: i32,
    /// Empty: none.
    pub key: String,
    pub payload: Vec<u8>,
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run scripts/test, which starts the services"))
}

impl World {
    pub fn new(name: &str) -> World {
        World::on(name, &setting("PROJECTOR_TEST_KAFKA"), setting("PROJECTOR_TEST_POSTGRES_PORT").parse().unwrap())
    }

    pub fn on(name: &str, brokers: &str, postgres_port: u16) -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let mut producer = config.clone();
        // Without idempotence a message that is sent again comes behind those that were sent after it.
        producer.set("message.max.bytes", "25000000").set("enable.idempotence", "true");
        let world = World {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap(),
            directory: tempfile::tempdir().unwrap(),
            brokers: brokers.into(),
            postgres_port,
            producer: producer.create().unwrap(),
            admin: config.create().unwrap(),
            passing: Mutex::default(),
            name,
        };
        world.runtime.block_on(async {
            let mut connection = world.options().database("postgres").connect().await.unwrap();
            connection.execute(AssertSqlSafe(format!("CREATE DATABASE {}", world.name))).await.unwrap();
        });
        std::fs::create_dir(world.directory.path().join("projections")).unwrap();
        world
    }

    /// The real name of a topic of this test.
    pub fn topic(&self, short: &str) -> String {
        format!("{}.{short}", self.name)
    }

    pub fn create_topic(&self, short: &str, partitions: i32, settings: &[(&str, &str)]) {
        let name = self.topic(short);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = self.runtime.block_on(self.admin.create_topics(&[topic], &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
    }

    /// Several at once, by short name and number of partitions, which keep records of any time. They go with the test.
    pub fn create_topics(&self, topics: &[(String, i32)]) {
        let forever = [("retention.ms", "-1"), ("message.timestamp.after.max.ms", "9223372036854775807")];
        let names: Vec<String> = topics.iter().map(|(short, _)| self.topic(short)).collect();
        let topics: Vec<NewTopic<'_>> = std::iter::zip(&names, topics)
            .map(|(name, (_, partitions))| {
                let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
                forever.into_iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let results = self.runtime.block_on(self.admin.create_topics(&topics, &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
        self.passing.lock().unwrap().extend(names);
    }

    pub fn add_partitions(&self, short: &str, count: usize) {
        let name = self.topic(short);
        let partitions = [NewPartitions::new(&name, count)];
        let results = self.runtime.block_on(self.admin.create_partitions(&partitions, &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
        self.wait("the producer to know the partitions", || {
            let metadata = self.producer.client().fetch_metadata(Some(&name), PATIENCE).map_err(|e| e.to_string())?;
            let known = metadata.topics()[0].partitions().len();
            if known == count { Ok(()) } else { Err(format!("{known} of {count}")) }
        });
    }

    pub fn delete_topic(&self, short: &str) {
        let name = self.topic(short);
        let results = self.runtime.block_on(self.admin.delete_topics(&[&name], &AdminOptions::new())).unwrap();
        results.into_iter().for_each(|result| drop(result.unwrap()));
    }

    pub fn send(&self, short: &str, messages: &[Message]) {
        messages.iter().for_each(|message| self.send_only(short, message));
        self.flush();
    }

    /// Sends without waiting for an answer.
    pub fn send_only(&self, short: &str, message: &Message) {
        let topic = self.topic(short);
        let record = || {
            let record = BaseRecord::to(&topic).partition(message.partition).payload(&message.payload[..]);
            if message.key.is_empty() { record } else { record.key(message.key.as_bytes()) }
        };
        self.hand_over(record);
    }

    /// Sends an event of a golden case to a topic without waiting for an answer.
    pub fn send_golden(&self, short: &str, event: &Encoded) {
        let topic = self.topic(short);
        self.hand_over(|| {
            let headers = event.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_bytes()) })
            });
            BaseRecord {
                key: event.key.as_deref(),
                payload: event.payload.as_deref(),
                // Kafka dates in milliseconds.
                timestamp: Some(event.time / 1_000),
                headers: Some(headers),
                ..BaseRecord::to(&topic).partition(event.partition)
            }
        });
    }

    fn hand_over<'r>(&self, record: impl Fn() -> BaseRecord<'r, [u8], [u8]>) {
        while let Err((error, _)) = self.producer.send(record()) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
            self.producer.flush(Duration::from_secs(1)).ok();
        }
    }

    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// Writes a projection file; `TOPIC(x)` in it becomes this test's topic of that name.
    pub fn projection(&self, file: &str, text: &str) {
        let mut text = text.to_string();
        while let Some(start) = text.find("TOPIC(") {
            let end = start + text[start..].find(')').unwrap();
            text = format!("{}{}{}", &text[..start], self.topic(&text[start + 6..end]), &text[end + 1..]);
        }
        std::fs::write(self.projections().join(file), text).unwrap();
    }

    pub fn projections(&self) -> PathBuf {
        self.directory.path().join("projections")
    }

    /// The program with this test's settings in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
        command
            .args(arguments)
            .env("PROJECTOR__KAFKA__BROKERS", &self.brokers)
            .env("PROJECTOR__KAFKA__GROUP_PREFIX", &self.name)
            .env("PROJECTOR__POSTGRES__HOST", "127.0.0.1")
            .env("PROJECTOR__POSTGRES__PORT", self.postgres_port.to_string())
            .env("PROJECTOR__POSTGRES__DATABASE", &self.name)
            .env("PROJECTOR__PROJECTIONS", self.projections())
            .env("PROJECTOR__SERVE__LISTEN", "")
            .env("PROJECTOR__SERVE__AUTH__ANONYMOUS_ROLE", "projector")
            .env("PROJECTOR__LOG__LEVEL", "info");
        command
    }

    /// Runs the program to its end.
    pub fn output(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text)
    }

    pub fn apply(&self) {
        let (code, text) = self.output(&["apply"]);
        assert_eq!(code, 0, "{text}");
    }

    /// Starts a daemon; each has a log of its own.
    pub fn start(&self, environment: &[(&str, &str)]) -> Daemon {
        self.start_verb(&["run", "--apply"], environment)
    }

    /// The same, without applying: all that it commits are batches.
    pub fn start_applied(&self, environment: &[(&str, &str)]) -> Daemon {
        self.start_verb(&["run"], environment)
    }

    pub fn start_verb(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Daemon {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let log = self.directory.path().join(format!("daemon-{}.log", NEXT.fetch_add(1, Ordering::SeqCst)));
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        let child = command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        Daemon { child, log }
    }

    /// How the test itself connects to its database.
    pub fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.postgres_port);
        options.username("projector").database(&self.name)
    }

    pub fn query(&self, sql: &str) -> Vec<String> {
        self.try_query(sql).unwrap()
    }

    /// The rows of a query, each as JSON text.
    pub fn try_query(&self, sql: &str) -> Result<Vec<String>, sqlx::Error> {
        self.runtime.block_on(async {
            // Of large queries over small tables, compiling would take longer than running.
            let options = self.options().options([("jit", "off")]);
            let mut connection = options.connect().await?;
            let whole = format!("SELECT row_to_json(q)::text FROM ({sql}) AS q");
            let rows = connection.fetch_all(AssertSqlSafe(whole)).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
    }

    pub fn execute(&self, sql: &str) {
        self.runtime.block_on(async {
            let mut connection = self.options().connect().await.unwrap();
            connection.execute(AssertSqlSafe(sql.to_string())).await.unwrap();
        });
    }

    /// Waits until a condition holds; what it last said is the panic's message.
    pub fn wait(&self, what: &str, condition: impl Fn() -> Result<(), String>) {
        self.try_wait(what, condition).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn try_wait(&self, what: &str, condition: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match condition() {
                Ok(()) => return Ok(()),
                Err(last) if Instant::now() > deadline => return Err(format!("{what}: {last}")),
                Err(_) => std::thread::sleep(Duration::from_millis(25)),
            }
        }
    }

    fn ends(&self, short: &str) -> BTreeMap<i32, i64> {
        let topic = self.topic(short);
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions().iter().map(|p| p.id());
        partitions.map(|p| (p, consumer.fetch_watermarks(&topic, p, PATIENCE).unwrap().1)).collect()
    }

    pub fn has_topic(&self, short: &str) -> bool {
        let topic = self.topic(short);
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        consumer.fetch_metadata(None, PATIENCE).unwrap().topics().iter().any(|known| known.name() == topic)
    }

    /// Waits until a topic is applied to its end.
    pub fn try_applied(&self, projection: &str, short: &str) -> Result<(), String> {
        let end: i64 = self.ends(short).values().sum();
        let sql = format!(
            "SELECT coalesce(sum(next_offset), 0)::text AS n FROM projector.checkpoints c
             JOIN projector.generations g ON g.id = c.generation_id AND g.state = 'live'
             WHERE g.projection = '{projection}' AND topic = '{}'",
            self.topic(short)
        );
        self.try_wait("applying everything", || match self.try_query(&sql) {
            Ok(rows) if rows == [format!("{{\"n\":\"{end}\"}}")] => Ok(()),
            other => Err(format!("{other:?} of {end}")),
        })
    }

    pub fn applied(&self, projection: &str, short: &str) {
        self.try_applied(projection, short).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until a projection stands still; returns the code and the message.
    pub fn halted(&self, projection: &str) -> String {
        let sql = format!(
            "SELECT code, message, topic, partition, \"offset\" FROM projector.halts h
             JOIN projector.generations g ON g.id = h.generation_id WHERE g.projection = '{projection}'"
        );
        self.wait("a halt", || match self.try_query(&sql) {
            Ok(rows) if !rows.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self.query(&sql).remove(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let topics = self.passing.get_mut().map(std::mem::take).unwrap_or_default();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.runtime.block_on(async {
            if !topics.is_empty() {
                let _ = self.admin.delete_topics(&topics, &AdminOptions::new()).await;
            }
            if let Ok(mut connection) = self.options().database("postgres").connect().await {
                let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
                let _ = connection.execute(AssertSqlSafe(drop)).await;
            }
        });
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the process to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not end; its log: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> (Option<i32>, String) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = self.ended();
        (status.code(), self.log())
    }

    pub fn last_words(&self) -> String {
        let log = self.log();
        let last: Vec<&str> = log.lines().rev().take(30).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the daemon's last words:\n{}", self.last_words());
        }
    }
}

/// Makes a projection in the catalog, anew if it is there. Returns its generation.
pub async fn made(pool: &sqlx::PgPool, plan: &Plan) -> Generation {
    let recreate = [plan.name.clone()];
    let asked = Asked { recreate: &recreate, ..Asked::default() };
    let applied = catalog::apply(pool, std::slice::from_ref(plan), asked, "views").await;
    applied.unwrap_or_else(|error| panic!("{error}\n{}", plan.definition));
    let listed = generations::list(pool).await.unwrap();
    let live = listed.into_iter().find(|listed| listed.generation.projection == plan.name);
    live.unwrap().generation
}

/// A port that nobody listens at.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A CloudEvent in structured mode.
pub fn event(type_: &str, data: serde_json::Value) -> Vec<u8> {
    let event = serde_json::json!({ "specversion": "1.0", "id": "1", "source": "/test", "type": type_, "data": data });
    event.to_string().into_bytes()
}

/// A sequence that looks random and never changes.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
