//! A stream outlives the check of its caller's credentials. They are checked again as long as the stream is open, so that a key
//! that is taken away, or a token that expires, ends it.

use std::{future::pending, time::Duration};

use tokio::time::sleep;
use tonic::Status;

use crate::{
    access::{Access, Credentials, Right},
    domain::TenantId,
    service::Service,
};

use super::{audit::Audit, connections::Peer, status};

/// How often credentials are checked again. The access file is looked at every 2 seconds, so a stream ends within 5 seconds of a
/// change.
const CHECK: Duration = Duration::from_secs(1);

/// What the caller of a stream showed, and what for.
pub(super) struct Standing {
    pub access: Access,
    pub audit: Audit,
    /// Its clock tells when a token expires.
    pub service: Service,
    pub bearer: Option<String>,
    pub peer: Option<Peer>,
    pub tenant: TenantId,
    pub right: Right,
}

impl Standing {
    /// Waits until the caller would be refused, and tells how.
    pub(super) async fn lost(self) -> Status {
        if !self.access.is_guarded() {
            return pending().await;
        }
        let shown = Credentials {
            bearer: self.bearer.as_deref(),
            certificate_names: self.peer.as_ref().map(|peer| &*peer.certificate_names).unwrap_or_default(),
        };
        loop {
            sleep(CHECK).await;
            let admitted = self.access.admit(&shown, Some(self.tenant.clone()), self.right, self.service.now());
            if let Err(refusal) = &admitted {
                self.audit.note(self.right, &admitted);
                return status::of_refusal(refusal, self.right);
            }
        }
    }
}
