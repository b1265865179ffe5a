//! Surroundings that cannot be, or that go away: settings, passwords, ports, poolers, brokers, a full disk.

use std::process::{Child, Command, Stdio};

use sqlx::{ConnectOptions, Executor};

use super::bad_input::STRICT;
use super::generations::says;
use super::world::{Message, World, event, free_port};

#[test]
fn settings_that_cannot_be() {
    let world = World::new("surroundings");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    let refused = |environment: &[(&str, &str)], verb: &[&str], expected: &str| {
        let output = world.command(verb).envs(environment.iter().copied()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(text.contains(expected), "{expected} is not in: {text}");
    };
    refused(&[("PROJECTOR__KAFKA__BROKRES", "x")], &["run"], "brokres");
    refused(&[("PROJECTOR__LOG__FORMAT", "xml")], &["run"], "text, json");
    refused(&[("PROJECTOR__PROJECTIONS", "/nowhere")], &["run"], "/nowhere");
    refused(&[("PROJECTOR__POSTGRES__PASSWORD_FILE", "/nowhere/password")], &["run"], "/nowhere/password");
    refused(&[("PROJECTOR__POSTGRES__DATABASE", "nowhere")], &["run"], "does not exist");
    refused(&[("PROJECTOR__POSTGRES__TLS", "verify-full")], &["run"], "encrypted connection");
    refused(&[], &["run"], "projector apply");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&[("PROJECTOR__SERVE__LISTEN", &address)], &["run"], "cannot listen on");
    world.execute("CREATE SCHEMA views; CREATE TABLE views.strict (mine text)");
    refused(&[], &["apply"], "already a table views.strict");
    world.execute("CREATE ROLE powerless_surroundings LOGIN");
    refused(&[("PROJECTOR__POSTGRES__USER", "powerless_surroundings")], &["apply"], "lacks a right");
    world.execute("DROP ROLE powerless_surroundings");
}

/// A migration that fails is tried again, and the session in which it failed keeps nobody waiting.
#[test]
fn a_migration_that_failed_leaves_no_lock() {
    let world = World::new("migration");
    world.projection("strict.yaml", STRICT);
    says(&world, &["apply"]);
    world.execute(&format!(
        "ALTER TABLE projector.generations DROP COLUMN built_events; DELETE FROM projector.migrations WHERE version = 7;
         ALTER DATABASE {} SET lock_timeout = '200ms'",
        world.name
    ));
    let mut reader = world.runtime.block_on(world.options().connect()).unwrap();
    let reading = "BEGIN; LOCK TABLE projector.generations IN ACCESS SHARE MODE";
    world.runtime.block_on(reader.execute(reading)).unwrap();
    let daemon = world.start(&[]);
    world.wait("a complaint", || if daemon.log().contains("trying on") { Ok(()) } else { Err(daemon.log()) });
    world.runtime.block_on(reader.execute("ROLLBACK")).unwrap();
    world.wait("it to go on", || if daemon.log().contains("folding strict.1") { Ok(()) } else { Err(daemon.log()) });
    let held = "SELECT count(*) AS n FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND a.datname = current_database() AND a.state = 'idle'";
    assert_eq!(world.query(held), ["{\"n\":0}"]);
}

#[test]
fn a_broker_that_is_no_kafka_is_told_once() {
    let world = World::new("nokafka");
    world.projection("strict.yaml", STRICT);
    let port = world.postgres_port.to_string();
    let daemon = world.start(&[("PROJECTOR__KAFKA__BROKERS", &format!("127.0.0.1:{port}"))]);
    world.wait("a complaint", || if daemon.log().contains("WARN") { Ok(()) } else { Err(daemon.log()) });
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.matches("WARN").count() <= 4, "{log}");
}

/// The role's password is checked by the server (scripts/test writes the line into pg_hba.conf), and is never shown.
#[test]
fn a_wrong_password_is_refused_and_not_shown() {
    let world = World::new("password");
    world.projection("strict.yaml", STRICT);
    let database = &world.name;
    world.execute(&format!(
        "DROP ROLE IF EXISTS needs_password; CREATE ROLE needs_password LOGIN PASSWORD 'right-secret';
         GRANT ALL ON DATABASE {database} TO needs_password"
    ));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let run = |secret: &str| {
        std::fs::write(&file, secret).unwrap();
        let mut command = world.command(&["apply"]);
        command.env("PROJECTOR__POSTGRES__USER", "needs_password").env("PROJECTOR__LOG__LEVEL", "trace");
        let output = command.env("PROJECTOR__POSTGRES__PASSWORD_FILE", &file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("-secret"), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = run("wrong-secret\n");
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("does not accept the user or the password") && text.contains("password_file"), "{text}");
    let (code, text) = run("right-secret\n");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn tls_that_the_broker_does_not_speak_is_told() {
    let world = World::new("kafkatls");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    let daemon = world.start(&[("PROJECTOR__KAFKA__SECURITY", "ssl")]);
    world.wait("a complaint", || match daemon.log() {
        log if log.contains("WARN") && log.to_lowercase().contains("ssl") => Ok(()),
        log => Err(log),
    });
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.matches("WARN").count() <= 4, "{log}");
}

#[test]
fn a_view_name_that_another_projection_has_is_refused() {
    let world = World::new("collision");
    world.projection("strict.yaml", STRICT);
    let other = STRICT.replace("projection: strict", "projection: other\nserve: strict");
    world.projection("other.yaml", &other);
    let folder = world.projections();
    for verb in [&["validate", folder.to_str().unwrap()][..], &["apply"], &["run", "--apply"]] {
        let (code, text) = world.output(verb);
        assert_eq!(code, 64, "{verb:?}: {text}");
        assert!(text.contains("name-taken") && text.contains("the view `strict`"), "{verb:?}: {text}");
    }
    assert!(world.try_query("SELECT 1 FROM projector.generations").is_err(), "nothing was made");
}

/// A trigger stands in for the full disk: Postgres reports just what it would report then.
#[test]
fn a_full_disk_is_waited_out_and_told_once() {
    let world = World::new("fulldisk");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    world.apply();
    world.execute(
        "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER disk_full BEFORE INSERT ON \"strict@1\".strict EXECUTE FUNCTION disk_full()",
    );
    let daemon = world.start_applied(&[]);
    let paid = event("Paid", serde_json::json!({ "k": "x", "amount": 1 }));
    world.send("events", &[Message { partition: 0, key: "k".into(), payload: paid }]);
    world.wait("a complaint", || match daemon.log() {
        log if log.contains("No space left on device") => Ok(()),
        log => Err(log),
    });
    assert!(world.query("SELECT k FROM views.strict").is_empty());
    world.execute("DROP TRIGGER disk_full ON \"strict@1\".strict");
    world.applied("strict", "events");
    assert_eq!(world.query("SELECT k, n FROM views.strict"), [r#"{"k":"x","n":1}"#]);
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("No space left on device").count(), 1, "{log}");
}

struct Bouncer {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Bouncer {
    fn start(world: &World, mode: &str) -> Bouncer {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("users"), "\"projector\" \"\"\n").unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\n",
            world.postgres_port,
            path("users").display()
        );
        std::fs::write(path("pgbouncer.ini"), settings).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if nix::unistd::Uid::effective().is_root() {
            assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(directory.path()).status().unwrap().success());
            command.args(["-u", "postgres"]);
        }
        let child = command.arg(path("pgbouncer.ini")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        world.wait("the pooler", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        Bouncer { child, port, _directory: directory }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pooler_in_session_mode_will_do() {
    let world = World::new("session");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    let bouncer = Bouncer::start(&world, "session");
    let _daemon = world.start(&[("PROJECTOR__POSTGRES__PORT", &bouncer.port.to_string())]);
    let paid = event("Paid", serde_json::json!({ "k": "x", "amount": 1 }));
    world.send("events", &[Message { partition: 0, key: "k".into(), payload: paid }]);
    world.applied("strict", "events");
    assert_eq!(world.query("SELECT k FROM views.strict"), [r#"{"k":"x"}"#]);
}

#[test]
fn a_pooler_in_transaction_mode_is_refused_by_name() {
    let world = World::new("pooled");
    world.projection("strict.yaml", STRICT);
    world.apply();
    let bouncer = Bouncer::start(&world, "transaction");
    let mut command = world.command(&["run"]);
    let output = command.env("PROJECTOR__POSTGRES__PORT", bouncer.port.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("transaction mode") && text.contains("session"), "{text}");
}
