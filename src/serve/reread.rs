//! Files that are read again when they change.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Nobody looks at a file more often than this.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Keys and certificates are far smaller than this.
const LARGEST: u64 = 1 << 20;

/// A file that cannot be used. Says nothing of its content but where it is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the file {} cannot be used: {reason}", path.display())]
pub struct Unusable {
    pub path: PathBuf,
    pub reason: String,
}

/// What some files say, one beside the other, or why they cannot be used and which of them.
type Reader<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, (usize, String)> + Send + Sync>;

/// What some files say, read again when they say something else. What cannot be used is told once, and what they said
/// before goes on.
///
/// Whoever asks looks, once in [`EVERY`]. The files are read whole: they are small, a read is as cheap as what
/// surrounds it, and times of change miss what is written twice within one tick of the file system's clock.
pub(crate) struct Reread<T> {
    paths: Vec<PathBuf>,
    reader: Reader<T>,
    state: RwLock<State<T>>,
}

struct State<T> {
    looked_at: Instant,
    /// Of what was read last, usable or not.
    digest: [u8; 32],
    said: Arc<T>,
    changes: u64,
}

impl<T> Reread<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(crate) fn new(
        paths: Vec<PathBuf>,
        reader: impl Fn(&[Vec<u8>]) -> Result<T, (usize, String)> + Send + Sync + 'static,
    ) -> Result<Reread<T>, Unusable> {
        let contents = contents(&paths)?;
        let said = reader(&contents).map_err(|(which, reason)| unusable(&paths[which], reason))?;
        let state = State { looked_at: Instant::now(), digest: digest_of(&contents), said: Arc::new(said), changes: 0 };
        Ok(Reread { paths, reader: Box::new(reader), state: RwLock::new(state) })
    }

    /// What the files say, and how often they have come to say something else.
    pub(crate) fn current(&self) -> (Arc<T>, u64) {
        {
            let state = self.state.read().unwrap_or_else(|e| e.into_inner());
            if state.looked_at.elapsed() < EVERY {
                return (state.said.clone(), state.changes);
            }
        }
        let mut state = self.state.write().unwrap_or_else(|e| e.into_inner());
        if state.looked_at.elapsed() >= EVERY {
            state.looked_at = Instant::now();
            self.look(&mut state);
        }
        (state.said.clone(), state.changes)
    }

    fn look(&self, state: &mut State<T>) {
        let contents = contents(&self.paths);
        let digest = match &contents {
            Ok(contents) => digest_of(contents),
            Err(unusable) => Sha256::digest(unusable.to_string()).into(),
        };
        if digest == state.digest {
            return;
        }
        state.digest = digest;
        let read = contents.and_then(|contents| {
            (self.reader)(&contents).map_err(|(which, reason)| unusable(&self.paths[which], reason))
        });
        match read {
            Ok(said) => {
                tracing::info!("{} has changed and was read again", self.paths[0].display());
                state.said = Arc::new(said);
                state.changes += 1;
            }
            Err(unusable) => tracing::warn!("{unusable}; what it said before stays in force"),
        }
    }
}

fn unusable(path: &Path, reason: String) -> Unusable {
    Unusable { path: path.to_path_buf(), reason }
}

fn contents(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Unusable> {
    let read = |path: &PathBuf| {
        let mut content = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content));
        match read {
            Ok(_) if content.len() as u64 > LARGEST => {
                Err(unusable(path, format!("it is larger than {LARGEST} bytes")))
            }
            Ok(_) => Ok(content),
            Err(error) => Err(unusable(path, error.to_string())),
        }
    };
    paths.iter().map(read).collect()
}

fn digest_of(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for content in contents {
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(contents: &[Vec<u8>]) -> Result<u32, (usize, String)> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.parse().map_err(|_| (0, "line 1: no number".to_string()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_after_a_second_and_a_bad_one_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let reread = Reread::new(vec![path.clone()], number).unwrap();
        std::fs::write(&path, "2").unwrap();
        assert_eq!(*reread.current().0, 1, "nobody looks within a second");
        tokio::time::advance(EVERY).await;
        assert_eq!((*reread.current().0, reread.current().1), (2, 1));
        std::fs::write(&path, "x").unwrap();
        tokio::time::advance(EVERY).await;
        assert_eq!((*reread.current().0, reread.current().1), (2, 1));
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(EVERY).await;
        assert_eq!((*reread.current().0, reread.current().1), (2, 1));
        std::fs::write(&path, "3").unwrap();
        tokio::time::advance(EVERY).await;
        assert_eq!((*reread.current().0, reread.current().1), (3, 2));
    }

    #[test]
    fn at_start_a_bad_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let told = |path: &Path| Reread::new(vec![path.to_path_buf()], number).err().unwrap().to_string();
        assert!(told(&path).contains("No such file"));
        std::fs::write(&path, "x").unwrap();
        assert!(told(&path).ends_with("cannot be used: line 1: no number"), "{}", told(&path));
    }
}
