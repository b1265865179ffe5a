//! The projector as a child process, seen from outside: its log, its catalog, its memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::{Result, Services};

/// A projector that has `shutdown_s` to stop, and a little more.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// A running projector. It is killed when it is dropped without having been stopped.
pub struct Product {
    child: Child,
    log: PathBuf,
    /// Just before the process was made.
    pub started: Instant,
}

/// How far a topic is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Partitions with a checkpoint.
    pub partitions: i64,
    /// The sum of the checkpoints.
    pub next_offsets: i64,
}

impl Product {
    /// Starts the projector with a folder of projections below `bench/` and otherwise default settings.
    pub fn start(services: &Services, projections: &str) -> Result<Product> {
        Product::start_with(services, projections, json!({}))
    }

    /// The same, with sections of settings of its own.
    pub fn start_with(services: &Services, projections: &str, sections: Value) -> Result<Product> {
        let log = services.directory.join("projector.log");
        let projections = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(projections);
        // JSON is YAML, with every path quoted.
        let mut settings = json!({
            "projections": projections,
            "kafka": { "brokers": services.brokers },
            "postgres": { "host": services.postgres_host, "port": services.postgres_port },
            "serve": { "listen": "" },
        });
        for (name, section) in sections.as_object().into_iter().flatten() {
            settings[name] = section.clone();
        }
        std::fs::write(settings_file(services), format!("{settings:#}\n"))?;
        tell_overrides();
        let log_file = File::create(&log)?;
        let started = Instant::now();
        let child = Command::new(&services.projector)
            .args(["run", "--apply", "--config"])
            .arg(settings_file(services))
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .map_err(|error| format!("{} cannot be run: {error}", services.projector.display()))?;
        Ok(Product { child, log, started })
    }

    /// Runs another verb to its end, with the settings of the projector that was started last.
    pub async fn verb(services: &Services, arguments: &[&str]) -> Result<()> {
        let output = tokio::process::Command::new(&services.projector)
            .args(arguments)
            .arg("--config")
            .arg(settings_file(services))
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("projector {}: {}: {}", arguments.join(" "), output.status, told.trim_end()).into());
        }
        Ok(())
    }

    /// The address of the query endpoint, as the log tells it: the system chose the port.
    pub fn address(&self) -> Result<String> {
        let log = std::fs::read_to_string(&self.log)?;
        match log.lines().find_map(|line| line.split_once(" on http://")) {
            Some((_, address)) => Ok(address.trim_end().to_string()),
            None => Err(self.failure("the projector does not say where it serves")),
        }
    }

    /// How far the projector says it is.
    ///
    /// # Errors
    /// When it has ended or stands still.
    pub async fn applied(&mut self, connection: &mut PgConnection, topic: &str) -> Result<Applied> {
        self.check_runs()?;
        // The catalog is there when the projection has been applied.
        let catalog: bool =
            sqlx::query_scalar("SELECT to_regclass('projector.halts') IS NOT NULL").fetch_one(&mut *connection).await?;
        if !catalog {
            return Ok(Applied::default());
        }
        let (partitions, next_offsets, halt): (i64, i64, Option<String>) = sqlx::query_as(
            "SELECT count(*), COALESCE(sum(next_offset), 0)::bigint, (SELECT min(message) FROM projector.halts)
             FROM projector.checkpoints WHERE topic = $1",
        )
        .bind(topic)
        .fetch_one(&mut *connection)
        .await?;
        match halt {
            Some(message) => Err(self.failure(&format!("a projection stands still: {message}"))),
            None => Ok(Applied { partitions, next_offsets }),
        }
    }

    /// # Errors
    /// When the process has ended.
    pub fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(self.failure(&format!("the projector ended by itself, {status}"))),
            None => Ok(()),
        }
    }

    /// An error with the end of the log.
    pub fn failure(&self, message: &str) -> Box<dyn std::error::Error + Send + Sync> {
        const LINES: usize = 20;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        format!("{message}; the end of its log:\n{end}").into()
    }

    /// The most memory the process has held so far, in MiB.
    pub fn peak_rss_mb(&self) -> Result<f64> {
        self.memory_mb("VmHWM:")
    }

    /// The memory that it holds now, in MiB.
    pub fn rss_mb(&self) -> Result<f64> {
        self.memory_mb("VmRSS:")
    }

    fn memory_mb(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kb: Option<f64> = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
        match kb {
            Some(kb) => Ok(kb / 1024.0),
            None => Err("the system does not tell the projector's memory".into()),
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Stops the projector as a service manager would, and repeats what its log complains of.
    pub async fn stop(mut self) -> Result<()> {
        const COMPLAINTS: usize = 5;
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => return Err(self.failure("the projector does not heed SIGTERM")),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        if !status.success() {
            return Err(self.failure(&format!("the projector did not stop cleanly, {status}")));
        }
        let log = std::fs::read_to_string(&self.log)?;
        let complaints: Vec<&str> = log.lines().filter(|l| l.contains(" WARN ") || l.contains("ERROR ")).collect();
        if !complaints.is_empty() {
            eprintln!("bench: the projector's log has {} complaints, such as:", complaints.len());
        }
        for line in complaints.iter().take(COMPLAINTS) {
            eprintln!("bench:   {line}");
        }
        Ok(())
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // Neither does anything to a process that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings_file(services: &Services) -> PathBuf {
    services.directory.join("projector.yaml")
}

/// Settings can be overridden from the environment; whoever does so should not find it out from the figures.
fn tell_overrides() {
    for (name, value) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROJECTOR__") {
            eprintln!("bench: not the default settings: {}={}", name.display(), value.display());
        }
    }
}

/// Row versions that were written to the one table of a projection's first generation. To be asked when the projector
/// has stopped: sessions report their statistics at their end.
pub async fn rows_written(connection: &mut PgConnection, projection: &str) -> Result<i64> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let written = sqlx::query_scalar(
        "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = $2",
    )
    .bind(format!("{projection}@1"))
    .bind(projection)
    .fetch_one(connection)
    .await?;
    Ok(written)
}
