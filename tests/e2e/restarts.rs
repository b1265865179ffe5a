//! A Postgres and a Kafka of this test's own, killed and started again under load.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::exactly_once::{Tally, settle, tally_world};
use super::world::{World, free_port};

struct Services {
    directory: tempfile::TempDir,
    postgres_port: u16,
    kafka_port: u16,
}

fn succeed(command: &mut Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka")
}

impl Services {
    fn start() -> Services {
        let directory = tempfile::tempdir().unwrap();
        let services = Services { directory, postgres_port: free_port(), kafka_port: free_port() };
        let data = services.path("postgres");
        std::fs::create_dir(&data).unwrap();
        if nix::unistd::Uid::effective().is_root() {
            succeed(Command::new("chmod").arg("755").arg(services.directory.path()));
            succeed(Command::new("chown").arg("postgres").arg(&data));
        }
        succeed(services.postgres("initdb").args(["-A", "trust", "-U", "projector", "--no-sync", "-E", "UTF8"]));
        services.start_postgres();
        services.start_kafka();
        services
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn postgres(&self, program: &str) -> Command {
        let binary = Path::new(&std::env::var("PROJECTOR_TEST_POSTGRES_BINARIES").unwrap()).join(program);
        let mut command = if nix::unistd::Uid::effective().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(binary);
            command
        } else {
            Command::new(binary)
        };
        command.arg("-D").arg(self.path("postgres")).current_dir("/");
        command
    }

    fn start_postgres(&self) {
        let options = format!("-p {} -h 127.0.0.1 -k {}", self.postgres_port, self.path("postgres").display());
        let log = self.path("postgres").join("server.log");
        succeed(self.postgres("pg_ctl").args(["-w", "-o", &options, "-l"]).arg(log).arg("start"));
    }

    /// As if the power had gone: no checkpoint, no goodbye.
    fn kill_postgres(&self) {
        succeed(self.postgres("pg_ctl").args(["-m", "immediate", "stop"]));
    }

    fn start_kafka(&self) {
        succeed(Command::new(script()).arg("start").arg(self.path("kafka")).arg(self.kafka_port.to_string()));
    }

    fn stop_kafka(&self) {
        succeed(Command::new(script()).arg("stop").arg(self.path("kafka")));
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self.postgres("pg_ctl").args(["-m", "immediate", "stop"]).stdout(Stdio::null()).status();
        let kill = ["stop", "--kill"];
        let _ = Command::new(script()).arg(kill[0]).arg(self.path("kafka")).arg(kill[1]).stdout(Stdio::null()).status();
    }
}

#[test]
fn postgres_and_kafka_restarted_under_load() {
    let services = Services::start();
    let world = World::on("restarts", &format!("127.0.0.1:{}", services.kafka_port), services.postgres_port);
    tally_world(&world);
    let mut tally = Tally::default();
    let daemon = world.start(&[]);
    for round in 0..4 {
        world.send("events", &tally.more(round * 10_000, 10_000));
        services.kill_postgres();
        world.send("events", &tally.more(round * 10_000 + 100_000, 10_000));
        services.start_postgres();
        if round % 2 == 1 {
            services.stop_kafka();
            services.start_kafka();
        }
    }
    settle(&world, &tally).unwrap_or_else(|wrong| panic!("{wrong}; {}", daemon.log()));
    let warnings = daemon.log().matches("WARN").count();
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    // An outage is told once for each lane, when it begins, not with every attempt.
    assert!(warnings <= 40, "{warnings} warnings: {log}");
}
