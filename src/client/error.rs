//! Why a call failed after all, and why a client could not be made.

use std::error::Error as _;

use tonic::Status;
use tonic_types::StatusExt as _;

use crate::rpc::pb::ErrorReason;

/// Why a client could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// It would not know where to call.
    #[error("a server's address is written as http://127.0.0.1:50051, not as {0}")]
    Address(String),
    /// A name or a password in the address. The address is not repeated here.
    #[error("a server's address must not hold a name or a password; a key or a token proves who calls")]
    UserInfo,
    /// What is to be believed or shown over TLS is no such thing in PEM, or a certificate and its key do not fit together.
    #[error("TLS cannot be spoken with these authorities, certificate and key: {0}")]
    Tls(String),
    /// A tenant that metadata cannot name.
    #[error("a tenant must be in visible ASCII to be named")]
    Tenant,
    /// A token with characters that cannot be sent. It is not repeated here.
    #[error("a token must be visible ASCII")]
    Token,
}

/// Why a call failed for good: what its last try came to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .status.message())]
pub struct CallError {
    status: Status,
    attempts: u32,
}

/// Of a call that was made once.
impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self { status, attempts: 1 }
    }
}

impl CallError {
    pub(super) fn new(status: Status, attempts: u32) -> Self {
        Self { status, attempts }
    }

    /// What the server answered, or why no answer came.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// How often the call was made.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The reason that the server gave; `None` when it gave none that is known.
    pub fn reason(&self) -> Option<ErrorReason> {
        let details = self.status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == "rapport")?;
        ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
    }

    /// Whether it failed on the way: no server was reached, or the connection to it was lost.
    pub fn is_of_transport(&self) -> bool {
        self.status.source().is_some()
    }
}
