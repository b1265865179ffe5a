//! The daemon's settings: a file, then environment overrides. `config/projector.yaml` is their reference.

mod serve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

pub use serve::{Auth, Limits, Rate, Serve, Tls};

/// All settings. Unknown ones are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder of projection files.
    pub projections: PathBuf,
    pub kafka: Kafka,
    pub postgres: Postgres,
    pub serve: Serve,
    pub operations: Operations,
    pub fold: Fold,
    pub rebuild: Rebuild,
    pub log: Log,
    /// Seconds that a stopping daemon may take to commit what it has folded.
    pub shutdown_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Consumer groups are named PREFIX.PROJECTION.GENERATION.
    pub group_prefix: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security: String,
    pub sasl_mechanism: String,
    pub user: String,
    /// File that holds the SASL password.
    pub password_file: Option<PathBuf>,
    /// File of the certificate authorities to trust, PEM; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// Further librdkafka properties.
    pub properties: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    /// File that holds the password; else the credential `postgres_password` of the service manager, if there is one.
    pub password_file: Option<PathBuf>,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub tls: String,
    pub ca_file: Option<PathBuf>,
    /// Connections at most, readers not counted.
    pub max_connections: u32,
    /// Milliseconds that one statement of a commit may take.
    pub statement_timeout_ms: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operations {
    /// Address of the port for health checks; empty: none.
    pub listen: String,
    /// Seconds that the rows of a view may be stale for the process to be ready; null: any. All processes read the same
    /// rows: what makes one not ready makes all of them so.
    pub ready_within_s: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fold {
    /// Lanes of each projection in this process.
    pub lanes: usize,
    /// Megabytes of patches that a lane folds before it has to write.
    pub memory_mb: usize,
    /// Seconds that a lane far behind folds before it writes.
    pub catch_up_s: u64,
    /// A lane with more than this many events before it is far behind.
    pub far_behind: i64,
    /// Every so many seconds expired rows are swept.
    pub sweep_s: u64,
    /// Megabytes of messages that a lane fetches ahead.
    pub fetch_mb: usize,
    /// An event that brings the process down, or runs out of time, this often is parked as poison.
    pub poison_attempts: u32,
    /// A lane that does not move for so many seconds ends the process: something it folds never ends.
    pub stuck_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rebuild {
    /// Generations of a projection that are kept after they were replaced, and are folded on; the newest ones.
    pub keep_generations: usize,
    /// Seconds for which they are kept at most.
    pub keep_for_s: u64,
    /// Lanes of a generation that is being built, in this process.
    pub lanes: usize,
    /// The part of the time in which these work, all together, while readers or live projections of this process need
    /// answers.
    pub share_percent: u8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: String,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,projector=debug`.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            projections: "projections".into(),
            kafka: Kafka::default(),
            postgres: Postgres::default(),
            serve: Serve::default(),
            operations: Operations::default(),
            fold: Fold::default(),
            rebuild: Rebuild::default(),
            log: Log::default(),
            shutdown_s: 20,
        }
    }
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            brokers: "localhost:9092".into(),
            group_prefix: "projector".into(),
            security: "plaintext".into(),
            sasl_mechanism: "SCRAM-SHA-512".into(),
            user: String::new(),
            password_file: None,
            ca_file: None,
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Postgres {
    fn default() -> Postgres {
        Postgres {
            host: "localhost".into(),
            port: 5432,
            database: "projector".into(),
            user: "projector".into(),
            password_file: None,
            tls: "prefer".into(),
            ca_file: None,
            max_connections: 16,
            statement_timeout_ms: 60_000,
        }
    }
}

impl Default for Fold {
    fn default() -> Fold {
        Fold {
            lanes: 2,
            memory_mb: 64,
            catch_up_s: 10,
            far_behind: 20_000,
            sweep_s: 60,
            fetch_mb: 16,
            poison_attempts: 3,
            stuck_s: 120,
        }
    }
}

impl Default for Rebuild {
    fn default() -> Rebuild {
        Rebuild { keep_generations: 1, keep_for_s: 86_400, lanes: 2, share_percent: 30 }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { format: "text".into(), level: "info".into() }
    }
}

/// Settings that cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("the settings cannot be read: {0}. config/projector.yaml of the source tree lists every setting")]
    Read(#[from] config::ConfigError),
    #[error("`{setting}` is {given:?}; it can be {allowed}")]
    Word { setting: &'static str, given: String, allowed: &'static str },
    #[error("`{setting}` must be at least 1")]
    Zero { setting: &'static str },
    #[error("the password file {path} cannot be read: {source}")]
    PasswordFile { path: String, source: std::io::Error },
}

impl Settings {
    /// Reads a file, then overrides such as `PROJECTOR__POSTGRES__HOST=db`.
    ///
    /// # Errors
    /// What is wrong, and where it is to be mended.
    pub fn load(file: Option<&Path>) -> Result<Settings, SettingsError> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Yaml));
        }
        let environment =
            config::Environment::with_prefix("PROJECTOR").prefix_separator("__").separator("__").try_parsing(true);
        let settings: Settings = builder.add_source(environment).build()?.try_deserialize()?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let word = |setting, given: &str, allowed: &'static str| {
            if allowed.split(", ").any(|word| word == given) {
                return Ok(());
            }
            Err(SettingsError::Word { setting, given: given.into(), allowed })
        };
        word("log.format", &self.log.format, "text, json")?;
        word("postgres.tls", &self.postgres.tls, "disable, prefer, require, verify-ca, verify-full")?;
        word("kafka.security", &self.kafka.security, "plaintext, ssl, sasl_plaintext, sasl_ssl")?;
        let positive = [
            ("fold.lanes", self.fold.lanes as u64),
            ("rebuild.lanes", self.rebuild.lanes as u64),
            ("rebuild.share_percent", self.rebuild.share_percent.into()),
            ("fold.memory_mb", self.fold.memory_mb as u64),
            ("fold.fetch_mb", self.fold.fetch_mb as u64),
            ("fold.poison_attempts", self.fold.poison_attempts.into()),
            ("fold.stuck_s", self.fold.stuck_s),
            ("postgres.max_connections", self.postgres.max_connections.into()),
            ("serve.max_connections", self.serve.max_connections.into()),
            ("serve.max_rows", self.serve.max_rows.into()),
            ("serve.limits.max_connections_open", self.serve.limits.max_connections_open as u64),
            ("serve.limits.header_timeout_s", self.serve.limits.header_timeout_s),
            ("serve.limits.write_timeout_s", self.serve.limits.write_timeout_s),
            ("serve.limits.idle_timeout_s", self.serve.limits.idle_timeout_s),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((setting, _)) => Err(SettingsError::Zero { setting }),
            None => Ok(()),
        }
    }
}

/// A password: from its file, else from the service manager's credentials directory, else none.
///
/// # Errors
/// When the file is named but cannot be read.
pub fn password(file: Option<&Path>, credential: &str) -> Result<Option<SecretString>, SettingsError> {
    let given = match file {
        Some(file) => Some(file.to_path_buf()),
        None => std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| Path::new(&directory).join(credential))
            .filter(|path| path.exists()),
    };
    let Some(path) = given else { return Ok(None) };
    let text = std::fs::read_to_string(&path)
        .map_err(|source| SettingsError::PasswordFile { path: path.display().to_string(), source })?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_shows_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/projector.yaml");
        let settings = Settings::load(Some(&path)).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn wrong_words_are_told() {
        let mut settings = Settings::default();
        settings.log.format = "xml".into();
        assert!(settings.check().unwrap_err().to_string().contains("text, json"));
    }
}
