//! What a program was told, kept so that it is never told anything older (Terry et al., *Session guarantees for weakly
//! consistent replicated data*, 1994): it reads what it wrote, and what it has read does not go back.

use std::sync::{Arc, Mutex, PoisonError};

/// The freshest consistency token that clients of one tenant have seen. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Session(Arc<Mutex<String>>);

impl Session {
    /// Goes on from a token that was kept elsewhere.
    pub fn from_token(token: &str) -> Self {
        Self(Arc::new(Mutex::new(token.to_owned())))
    }

    /// The token; empty before there was one.
    pub fn token(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps a token that is fresher than the one it has.
    pub(super) fn saw(&self, token: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The contract says so: the fresher of two is the greater.
        if token > kept.as_str() {
            token.clone_into(&mut kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_freshest_whatever_comes_last() {
        let session = Session::default();
        for (seen, kept) in [("", ""), ("01", "01"), ("03", "03"), ("02", "03"), ("", "03")] {
            session.saw(seen);
            assert_eq!(session.clone().token(), kept);
        }
    }
}
