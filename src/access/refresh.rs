//! Following the access file, the issuer's keys, and what else a server reads from files, without a restart. Files are read
//! again and compared, because those mounted from secrets are replaced in ways that no watcher sees everywhere.

use std::{
    io::Read as _,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Access, Guard, Rules,
    file::{Document, bounded},
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
        let mut seen = guard.texts();
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

impl Guard {
    /// What stands in the files now; `None` for one that cannot be read.
    fn texts(&self) -> [Option<String>; 2] {
        let keys_file = self.rules().tokens.as_ref().and_then(|tokens| match &tokens.source {
            KeySource::File(file) => bounded(file).ok(),
            KeySource::Url(_) => None,
        });
        [bounded(&self.path).ok(), keys_file]
    }

    fn read_again(&self) {
        match Document::read(&self.path).and_then(|document| document.rules(&self.path)) {
            Ok(rules) => {
                keep_keys(&self.rules(), &rules);
                tracing::info!(principals = rules.principals.len(), "the access file has changed, and is followed");
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
            }
            Err(error) => tracing::error!("the access file has changed, and cannot be followed: {error}"),
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
    let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_LIMIT)).max_redirects(3).build();
    let mut answer = ureq::Agent::new_with_config(agent).get(url).call().ok()?;
    let mut text = String::new();
    answer.body_mut().as_reader().take(MAX_ANSWER).read_to_string(&mut text).ok()?;
    issuer_keys(&text)
}
