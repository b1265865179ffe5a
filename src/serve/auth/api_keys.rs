//! API keys: long random texts, of which a file holds the hashes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Caller, check_role};

const PREFIX: &str = "pk_";

/// 32 bytes in base64url.
const LENGTH: usize = 43;

/// The keys of a file, by the first bytes of their hashes.
#[derive(Debug)]
pub(super) struct ApiKeys(HashMap<[u8; 8], ApiKey>);

#[derive(Debug)]
struct ApiKey {
    /// SHA-256 of the key. Slow hashes protect what people think up; 32 random bytes cannot be found by trying, however
    /// fast a try is, and a fast hash costs a request nothing.
    hash: [u8; 32],
    caller: Arc<Caller>,
}

/// A key that was made.
#[derive(Debug)]
pub struct NewApiKey {
    /// For who asks. It is written down nowhere.
    pub key: String,
    /// For the file.
    pub line: String,
}

impl NewApiKey {
    /// Makes a key that is known by a name and reads as a Postgres role.
    ///
    /// # Errors
    /// When a line of the file cannot have such a name or role, or the system no random bytes.
    pub fn of(name: &str, role: &str) -> Result<NewApiKey, &'static str> {
        if name.is_empty() || name.starts_with('#') || name.contains(char::is_whitespace) {
            return Err("the name is empty, begins with # or has a space");
        }
        if role.contains(['\n', '\r']) {
            return Err("the role has a line end");
        }
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random bytes")?;
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let line = format!("{name} {role} sha256:{}", hex::encode(Sha256::digest(&key)));
        ApiKey::parse(&line)?;
        Ok(NewApiKey { key, line })
    }
}

/// Whether a text has the form of an API key.
pub(super) fn has_form(text: &str) -> bool {
    let is_coded = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == LENGTH && rest.bytes().all(is_coded))
}

impl ApiKeys {
    /// Reads `name role sha256:HEX`, one a line. Lines that begin with # are comments. Roles may have spaces.
    ///
    /// # Errors
    /// Which line is wrong, and why. Never what stands there: it may be a key.
    pub(super) fn parse(content: &[u8]) -> Result<ApiKeys, String> {
        let text = std::str::from_utf8(content).map_err(|_| "it is no text".to_string())?;
        let (mut keys, mut names) = (HashMap::new(), HashSet::new());
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = ApiKey::parse(line).map_err(|reason| format!("line {number}: {reason}"))?;
            if !names.insert(key.caller.name.clone()) || keys.insert(first(&key.hash), key).is_some() {
                return Err(format!("line {number}: the name or the hash is that of a line before it"));
            }
        }
        Ok(ApiKeys(keys))
    }

    /// Whose key it is. How long it takes tells something of the hash at most, of which nobody comes to the key.
    pub(super) fn caller(&self, key: &str) -> Option<Arc<Caller>> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let held = self.0.get(&first(&hash))?;
        bool::from(held.hash.ct_eq(&hash)).then(|| held.caller.clone())
    }
}

fn first(hash: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|at| hash[at])
}

impl ApiKey {
    fn parse(line: &str) -> Result<ApiKey, &'static str> {
        const FORM: &str = "a line is: name role sha256:HEX, where HEX is the SHA-256 of the key in 64 digits";
        let (name, rest) = line.split_once(char::is_whitespace).ok_or(FORM)?;
        let (role, hash) = rest.trim_start().rsplit_once(char::is_whitespace).ok_or(FORM)?;
        let digits = hash.strip_prefix("sha256:").ok_or(FORM)?;
        let hash = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(FORM)?;
        let role = check_role(role.trim_end()).ok_or("the role is empty or `none`, or has a NUL")?;
        let caller = Caller {
            role: role.to_string(),
            claims: json!({ "role": role, "api_key": name }).to_string(),
            name: format!("key:{name}"),
        };
        Ok(ApiKey { hash, caller: Arc::new(caller) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_is_known_by_its_hash() {
        let [NewApiKey { key, line }, NewApiKey { key: other, .. }] =
            ["reports", "others"].map(|name| NewApiKey::of(name, "web anon").unwrap());
        assert!(has_form(&key) && has_form(&other) && key != other);
        let file = format!("# people\n\n  {line}\n");
        let keys = ApiKeys::parse(file.as_bytes()).unwrap();
        let caller = keys.caller(&key).unwrap();
        assert_eq!((caller.role.as_str(), caller.name.as_str()), ("web anon", "key:reports"));
        assert_eq!(caller.claims, r#"{"role":"web anon","api_key":"reports"}"#);
        assert!(keys.caller(&other).is_none());
    }

    #[test]
    fn only_its_own_form_is_a_key() {
        let NewApiKey { key, .. } = NewApiKey::of("reports", "web").unwrap();
        for other in
            [&key[1..], &key[..45], &format!("{key}a"), &key.replace("pk_", "sk_"), &format!("{}.", &key[..45])]
        {
            assert!(!has_form(other), "{other}");
        }
    }

    #[test]
    fn no_key_is_made_that_its_file_could_not_hold() {
        for (name, role) in [("", "web"), ("#a", "web"), ("a b", "web"), ("a", ""), ("a", "we\0b"), ("a", "web\nb")] {
            assert!(NewApiKey::of(name, role).is_err(), "{name:?} {role:?}");
        }
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_and_not_shown() {
        let made = |name| NewApiKey::of(name, "web").unwrap();
        let hash = |line: &str| line.rsplit(' ').next().unwrap().to_string();
        let NewApiKey { key, line } = made("a");
        let (hash, second) = (hash(&line), hash(&made("b").line));
        let wrong = [
            format!("a web {hash}\nb web {key}"),
            format!("a web {hash}\nb {second}"),
            format!("a web {hash}\nb web {}", &second[..70]),
            format!("a web {hash}\nb web {}", hash.replace("sha256", "md5")),
            format!("a web {hash}\na web {second}"),
            format!("a web {hash}\nb web {hash}"),
            format!("a web {hash}\nb we\0b {second}"),
        ];
        for file in wrong {
            let told = ApiKeys::parse(file.as_bytes()).unwrap_err();
            assert!(told.starts_with("line 2: ") && !told.contains(&key), "{told}");
        }
    }
}
