//! The wire: requests are converted once, with every fault collected, a use case is called, and its answer is converted
//! back. Generated types stay in here. Rules and SQL live elsewhere.

mod admission;
mod answer;
mod audit;
mod connections;
mod consistency;
mod gate;
mod gathered;
mod handlers;
mod layers;
mod observe;
mod page_token;
mod policies;
mod request;
mod room;
mod server;
mod standing;
mod status;
mod stream;
mod tls;
mod unread;

/// The contract as generated from `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::as_conversions, reason = "generated")]
pub mod pb {
    tonic::include_proto!("rapport.v1");

    /// The descriptors of the contract, of all that it imports and of the details of its errors: an encoded
    /// `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rapport.binpb"));
}

pub use admission::AdmissionLimits;
pub use connections::ConnectionLimits;
pub use gate::Gate;
pub(crate) use gathered::Gathering;
pub use page_token::Sealer;
pub use request::interaction;
pub use server::{Health, MAX_MESSAGE_BYTES, Rpc, SERVICE_NAMES, ServeError};
pub use tls::{Certificate, Tls, TlsError, TlsFiles};

/// The metadata key that names the tenant.
pub const TENANT_KEY: &str = "rapport-tenant";

#[cfg(test)]
mod fuzz;
