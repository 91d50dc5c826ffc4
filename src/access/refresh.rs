//! Following the access file, the issuer's keys, and what else a server reads from files, without a restart. Files are read
//! again and compared, because those mounted from secrets are replaced in ways that no watcher sees everywhere.

use std::{
    io::Read as _,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Access, Guard, Rules,
    file::bounded,
    token::{IssuerKeys, KeySource, issuer_keys},
};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often an issuer is asked for its keys, and how soon again when a token names one that is not known.
const ASK: (Duration, Duration) = (Duration::from_mins(10), Duration::from_secs(30));
/// How long an issuer may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The most that an issuer may answer, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;

impl Access {
    /// Follows what the file says, until this is dropped. What cannot be followed changes nothing, and is logged.
    pub async fn follow(self) {
        let Some(guard) = self.0 else { return };
        let mut seen = guard.begun;
        let (mut asked, mut wanted) = (None::<Instant>, false);
        loop {
            let pause = if wanted { ASK.1 } else { ASK.0 };
            if let Some(url) = guard.issuer_url()
                && asked.is_none_or(|asked| asked.elapsed() >= pause)
            {
                guard.ask(url).await;
                (asked, wanted) = (Some(Instant::now()), false);
            }
            sleep(LOOK).await;
            wanted |= guard.wanted.swap(false, Ordering::Relaxed);
            let now = guard.texts();
            if now != seen {
                seen = now;
                guard.read_again();
                asked = None;
            }
        }
    }
}

/// The hashes of an access file and of the keys that it names; `None` for a file that cannot be read.
pub(super) type Texts = [Option<blake3::Hash>; 2];

/// What an access file comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// How many principals it names.
    pub principals: usize,
    /// How many keys the issuer of tokens has; `None` where no tokens are taken.
    pub issuer_keys: Option<usize>,
}

impl Access {
    /// What the file comes to, once the issuer of tokens has been asked for its keys; `None` where nobody is asked.
    pub async fn examine(&self) -> Option<Examined> {
        let guard = self.0.as_ref()?;
        if let Some(url) = guard.issuer_url() {
            guard.ask(url).await;
        }
        let rules = guard.rules();
        let issuer_keys = rules.tokens.as_ref().map(|tokens| tokens.keys().len());
        Some(Examined { principals: rules.principals.len(), issuer_keys })
    }
}

impl Guard {
    /// What stands in the files now.
    pub(super) fn texts(&self) -> Texts {
        let text = |path: &Path| bounded(path).ok().map(|text| blake3::hash(text.as_bytes()));
        let keys_file = self.rules().tokens.as_ref().and_then(|tokens| match &tokens.source {
            KeySource::File(file) => text(file),
            KeySource::Url(_) => None,
        });
        [text(&self.path), keys_file]
    }

    fn read_again(&self) {
        match Rules::read(&self.path) {
            Ok(rules) => {
                keep_keys(&self.rules(), &rules);
                tracing::info!(principals = rules.principals.len(), "the access file has changed, and is followed");
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
            }
            Err(error) => tracing::error!("{error}; what the file said before still holds"),
        }
    }

    fn issuer_url(&self) -> Option<String> {
        match &self.rules().tokens.as_ref()?.source {
            KeySource::Url(url) => Some(url.clone()),
            KeySource::File(_) => None,
        }
    }

    async fn ask(&self, url: String) {
        let asked = tokio::task::spawn_blocking(move || fetched(&url)).await.ok().flatten();
        if let (Some(keys), Some(tokens)) = (asked, &self.rules().tokens) {
            tracing::info!(keys = keys.len(), "the token issuer's keys were fetched");
            tokens.set_keys(keys);
        } else {
            tracing::warn!("the token issuer's keys cannot be fetched; those known stay");
        }
    }
}

/// Keys that were fetched outlive a change of the file that does not concern them.
fn keep_keys(before: &Rules, after: &Rules) {
    if let (Some(before), Some(after)) = (&before.tokens, &after.tokens)
        && before.source == after.source
        && matches!(after.source, KeySource::Url(_))
    {
        after.set_keys(before.keys());
    }
}

fn fetched(url: &str) -> Option<IssuerKeys> {
    // An issuer that is asked in confidence sends nobody where others can listen.
    let agent = ureq::Agent::config_builder().https_only(url.starts_with("https://"));
    let agent = agent.timeout_global(Some(ANSWER_LIMIT)).max_redirects(3).build();
    let mut answer = ureq::Agent::new_with_config(agent).get(url).call().ok()?;
    let mut text = String::new();
    answer.body_mut().as_reader().take(MAX_ANSWER).read_to_string(&mut text).ok()?;
    issuer_keys(&text)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        sync::atomic::AtomicUsize,
    };

    use serde_json::json;

    use super::*;
    use crate::{
        access::{Credentials, Key, Right, token::tests::issued},
        domain::Timestamp,
    };

    /// An issuer that counts how often it is asked for its keys.
    fn issuer(keys: String) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let _ = lines.by_ref().find(String::is_empty);
                count.fetch_add(1, Ordering::Relaxed);
                let length = keys.len();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{keys}")
                    .unwrap();
            }
        });
        (url, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_not_known_makes_the_issuer_be_asked_again_but_not_often() {
        let ((keys, good), (_, unknown)) = (issued("one", "ours"), issued("two", "ours"));
        let (url, asked) = issuer(keys);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        let document = json!({
            "principals": [{"name": "crm", "subjects": ["ours"], "grants": [{"tenants": ["crm"], "rights": ["rank"]}]}],
            "tokens": {"issuer": "i", "audience": "a", "algorithms": ["ES256"], "keys_url": url},
        });
        std::fs::write(&path, document.to_string()).unwrap();
        let access = Access::guarded(&path).unwrap();
        let following = tokio::spawn(access.clone().follow());
        let shows = |token: &str| {
            let shown = Credentials { bearer: Some(token), ..Credentials::default() };
            access.admit(&shown, None, Right::Rank, Timestamp::from_seconds(500, 0).unwrap()).is_ok()
        };
        let asked = || asked.load(Ordering::Relaxed);
        sleep(ASK.1 * 3).await;
        assert!(asked() == 1 && shows(&good) && asked() == 1, "asked {} times", asked());
        assert!(!shows(&unknown));
        sleep(LOOK * 2).await;
        assert_eq!(asked(), 2, "a key that is not known is asked for");
        for _ in 0..60 {
            assert!(!shows(&unknown) && shows(&good));
            sleep(Duration::from_secs(1)).await;
        }
        assert!((3..=4).contains(&asked()), "within a minute at most twice more, and not {}", asked());
        let before = asked();
        sleep(ASK.0.saturating_sub(ASK.1 * 2)).await;
        assert!(asked() <= before + 1, "then not again before its time");
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_before_it_is_followed_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        let (before, after) = (Key::new().unwrap(), Key::new().unwrap());
        let grants = json!([{"tenants": ["crm"], "rights": ["rank"]}]);
        let document = |key: &Key| json!({"principals": [{"name": "crm", "keys": [key.entry()], "grants": grants}]});
        std::fs::write(&path, document(&before).to_string()).unwrap();
        let access = Access::guarded(&path).unwrap();
        std::fs::write(&path, document(&after).to_string()).unwrap();
        let following = tokio::spawn(access.clone().follow());
        sleep(LOOK * 2).await;
        let admits = |key: &Key| {
            let shown = Credentials { bearer: Some(key.as_str()), ..Credentials::default() };
            access.admit(&shown, None, Right::Rank, Timestamp::MIN).is_ok()
        };
        assert!(admits(&after) && !admits(&before));
        following.abort();
    }

    #[test]
    fn files_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(4 * 1024 * 1024 + 1).unwrap();
        let told = Access::guarded(&path).unwrap_err().to_string();
        assert_eq!(told, format!("the access file {} cannot be read: it is larger than 4 MiB", path.display()));
        file.set_len(4 * 1024 * 1024).unwrap();
        assert!(Access::guarded(&path).unwrap_err().to_string().contains("line 1, column"));
    }
}
