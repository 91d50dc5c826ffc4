//! Whether calls can be served at all: not before the database has been ready, nor while its schema does not serve this
//! program.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::page_token::Sealer;

/// Lets calls through while it is open, and keeps what seals their page tokens.
#[derive(Default)]
pub struct Gate {
    sealer: OnceLock<Sealer>,
    is_open: AtomicBool,
}

impl Gate {
    /// Lets calls through from now on. All servers of a database seal with the same key, so the first one is kept.
    pub fn open(&self, sealer: Sealer) {
        self.sealer.get_or_init(|| sealer);
        self.is_open.store(true, Ordering::Release);
    }

    /// Lets none through until it is opened again.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::Release);
    }

    /// Whether calls are let through.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// What seals page tokens, for calls that are let through.
    pub(super) fn sealer(&self) -> Option<&Sealer> {
        if self.is_open() { self.sealer.get() } else { None }
    }
}
