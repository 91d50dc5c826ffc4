//! A client for programs in Rust. It makes the calls of the contract, and makes them again as long as that can help and
//! the call's deadline allows: after lost connections, `UNAVAILABLE`, and `RESOURCE_EXHAUSTED` where the server says when to
//! come back. That is safe, because every interaction has an id before it is sent for the first time: what an answer got lost
//! of is recognised. It knows the wire and nothing of the server behind it.
//!
//! ```no_run
//! use rapport::{client::Client, domain::{Kind, TenantId}, rpc::pb};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::at("http://127.0.0.1:50051")?.as_tenant(&TenantId::parse_metadata("sample")?)?;
//! let recorded = client
//!     .record(pb::Interaction {
//!         actor: "bob".to_owned(),
//!         recipients: vec!["ada".to_owned()],
//!         interaction_time: Some(prost_types::Timestamp { seconds: 1_795_600_000, nanos: 0 }),
//!         kind: Kind::Help.number().into(),
//!         ..Default::default()
//!     })
//!     .await?;
//! println!("recorded as {}", recorded.interaction_id);
//!
//! let request = pb::RankConnectionsRequest { person: "ada".to_owned(), ..Default::default() };
//! for connection in client.rank(request).await?.connections {
//!     println!("{}: {:?}", connection.peer, connection.they_would_help);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Many interactions go over one stream, [`Client::record_stream`], which is taken up again after every break.

mod error;
mod retry;
mod session;
mod stream;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use uuid::Uuid;

use crate::{
    causes,
    domain::TenantId,
    rpc::{
        Gathering, TENANT_KEY,
        pb::{
            self, policy_service_client::PolicyServiceClient, relationship_service_client::RelationshipServiceClient,
        },
    },
};

pub use error::{CallError, SetupError};
pub use session::Session;
pub use stream::{Acknowledgements, StreamEvent, WINDOW};

use retry::Budget;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often a connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// The largest answer taken in, in bytes: the largest that a server sends.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How long a call may take, and how often it may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The deadline of a call, with all its tries and the pauses between them. For a stream, how long it may go without an
    /// acknowledgement while it is broken.
    pub limit: Duration,
    /// How often a call is made at most; a stream is taken up again as often as the limit allows.
    pub attempts: u32,
}

impl Default for Patience {
    /// Half a minute, and as many tries as fit.
    fn default() -> Self {
        Self { limit: Duration::from_secs(30), attempts: u32::MAX }
    }
}

/// What is believed and shown over TLS, in PEM.
#[derive(Clone, Default)]
pub struct Trust {
    /// The authorities whose server certificates are believed; those of the machine when `None`.
    pub authorities: Option<Vec<u8>>,
    /// The name that the server's certificate must be for; the host in the address when `None`.
    pub server_name: Option<String>,
    /// The certificate that proves who calls, and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A key stays out of logs.
impl std::fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Trust(…)")
    }
}

impl Trust {
    fn config(self) -> ClientTlsConfig {
        let config = match self.authorities {
            Some(authorities) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let config = match self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        };
        match self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

/// A server, or several behind one channel, as one tenant sees them. Cloning is cheap; clones share the connection and the
/// budget for tries.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    caller: Caller,
    session: Option<Session>,
    patience: Patience,
    budget: Arc<Budget>,
}

/// Names the tenant in every call, and whoever makes it.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let given = [(TENANT_KEY, &self.tenant), ("authorization", &self.authorization)];
        for (key, value) in given {
            if let Some(value) = value {
                request.metadata_mut().insert(key, value.clone());
            }
        }
        Ok(request)
    }
}

/// A channel on which every call names its tenant.
pub type Named = InterceptedService<Channel, Caller>;

impl Client {
    /// A client of the server at an address such as `http://127.0.0.1:50051`, or over TLS at `https://rapport.example`. It is
    /// reached for at the first call.
    pub fn at(address: &str) -> Result<Self, SetupError> {
        Self::over_tls(address, Trust::default())
    }

    /// A client of the server at an address, which believes and shows what is given when that begins with `https`.
    pub fn over_tls(address: &str, trust: Trust) -> Result<Self, SetupError> {
        // A password may hold any character, so the address is not split to look for it.
        if address.contains('@') {
            return Err(SetupError::UserInfo);
        }
        let unfit = || SetupError::Address(address.to_owned());
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| unfit())?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("http") => endpoint,
            Some("https") => endpoint.tls_config(trust.config()).map_err(|error| unfit_for_tls(&error))?,
            _ => return Err(unfit()),
        };
        let endpoint = endpoint
            .executor(Gathering)
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
        Ok(Self::over(endpoint.connect_lazy()))
    }

    /// A client over a channel of the caller's, such as one that is balanced over several servers.
    pub fn over(channel: Channel) -> Self {
        let caller = Caller { tenant: None, authorization: None };
        Self { channel, caller, session: None, patience: Patience::default(), budget: Arc::default() }
    }

    /// The same client in the name of a tenant, which has to be in visible ASCII; without, it is the only one of the caller,
    /// or `default` where nobody has to prove who calls. A session
    /// belongs to a tenant, and comes after it.
    pub fn as_tenant(mut self, tenant: &TenantId) -> Result<Self, SetupError> {
        let tenant = TenantId::parse_metadata(tenant.as_str()).map_err(|_| SetupError::Tenant)?;
        self.caller.tenant = Some(tenant.as_str().parse().map_err(|_| SetupError::Tenant)?);
        self.session = None;
        Ok(self)
    }

    /// The same client, showing a key or a token.
    pub fn with_token(mut self, token: &str) -> Result<Self, SetupError> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| SetupError::Token)?;
        value.set_sensitive(true);
        self.caller.authorization = Some(value);
        Ok(self)
    }

    /// The same client with other patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same client, reading within a session: what it and others in the session were told is in every answer, and what
    /// else happened may come to it a little later, because a replica may answer. Without a session every answer shows
    /// everything that was acknowledged before the call. The first reading of a new session does, too.
    #[must_use]
    pub fn in_session(self, session: Session) -> Self {
        Self { session: Some(session), ..self }
    }

    fn saw(&self, token: &str) {
        if let Some(session) = &self.session {
            session.saw(token);
        }
    }

    /// The token to read by, unless the caller names one.
    fn offer(&self, token: &mut String) {
        if let Some(session) = self.session.as_ref().filter(|_| token.is_empty()) {
            *token = session.token();
        }
    }

    /// Records an interaction, exactly once. One without an id is given one (a UUID of version 7), which the answer
    /// names. When an answer got lost on the way, the one to the next try says `replayed`.
    pub async fn record(&self, mut interaction: pb::Interaction) -> Result<pb::RecordInteractionResponse, CallError> {
        name(&mut interaction);
        let request = pb::RecordInteractionRequest { interaction: Some(interaction), validate_only: false };
        let recorded = self.tried(request, true, |client, request| async move {
            client.relationships().record_interaction(request).await
        });
        let recorded = recorded.await?;
        self.saw(&recorded.consistency_token);
        Ok(recorded)
    }

    /// What recording an interaction would answer, without recording it.
    pub async fn validate(&self, interaction: pb::Interaction) -> Result<pb::RecordInteractionResponse, CallError> {
        let request = pb::RecordInteractionRequest { interaction: Some(interaction), validate_only: true };
        self.tried(
            request,
            true,
            |client, request| async move { client.relationships().record_interaction(request).await },
        )
        .await
    }

    /// A page of a person's connections, ranked.
    pub async fn rank(
        &self,
        mut request: pb::RankConnectionsRequest,
    ) -> Result<pb::RankConnectionsResponse, CallError> {
        self.offer(&mut request.at_least_as_fresh_as);
        let ranked = self.tried(request, true, |client, request| async move {
            client.relationships().rank_connections(request).await
        });
        let ranked = ranked.await?;
        self.saw(&ranked.consistency_token);
        Ok(ranked)
    }

    /// One connection with its full explanation.
    pub async fn connection(
        &self,
        mut request: pb::GetConnectionRequest,
    ) -> Result<pb::GetConnectionResponse, CallError> {
        self.offer(&mut request.at_least_as_fresh_as);
        let shown =
            self.tried(
                request,
                true,
                |client, request| async move { client.relationships().get_connection(request).await },
            );
        let shown = shown.await?;
        self.saw(&shown.consistency_token);
        Ok(shown)
    }

    /// Publishes a scoring policy.
    pub async fn publish_policy(
        &self,
        request: pb::PublishPolicyRequest,
    ) -> Result<pb::PublishPolicyResponse, CallError> {
        let published =
            self.tried(request, true, |client, request| async move { client.policies().publish_policy(request).await });
        let published = published.await?;
        self.saw(&published.consistency_token);
        Ok(published)
    }

    /// A page of the versions of the scoring policy, newest first.
    pub async fn list_policies(&self, request: pb::ListPoliciesRequest) -> Result<pb::ListPoliciesResponse, CallError> {
        self.tried(request, true, |client, request| async move { client.policies().list_policies(request).await }).await
    }

    /// One version of the scoring policy with its document.
    pub async fn policy(&self, request: pb::GetPolicyRequest) -> Result<pb::GetPolicyResponse, CallError> {
        self.tried(request, true, |client, request| async move { client.policies().get_policy(request).await }).await
    }

    /// Puts an earlier version of the scoring policy to use again. Where none is named it is tried only once: a second time
    /// it could go back by two.
    pub async fn roll_back_policy(
        &self,
        request: pb::RollbackPolicyRequest,
    ) -> Result<pb::RollbackPolicyResponse, CallError> {
        let again = !request.version.is_empty();
        let rolled_back = self
            .tried(request, again, |client, request| async move { client.policies().rollback_policy(request).await });
        let rolled_back = rolled_back.await?;
        self.saw(&rolled_back.consistency_token);
        Ok(rolled_back)
    }

    /// The generated client, for calls that are to be made once only.
    pub fn relationships(&self) -> RelationshipServiceClient<Named> {
        let named = InterceptedService::new(self.channel.clone(), self.caller.clone());
        RelationshipServiceClient::new(named).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The generated client of policies, likewise.
    pub fn policies(&self) -> PolicyServiceClient<Named> {
        let named = InterceptedService::new(self.channel.clone(), self.caller.clone());
        PolicyServiceClient::new(named).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Makes a call until it is answered, or trying again helps no more, or is not to be done (`again`).
    async fn tried<M: Clone, T, F>(
        &self,
        message: M,
        again: bool,
        attempt: impl Fn(Self, Request<M>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + self.patience.limit;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut request = Request::new(message.clone());
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            let status = match timeout_at(until, attempt(self.clone(), request)).await {
                Ok(Ok(answer)) => {
                    self.budget.succeeded();
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if !is_cut_off(&status, until) => status,
                _ => Status::deadline_exceeded("no answer came in time"),
            };
            let pause = retry::pause_after(&status, attempts);
            let may_go_on = pause.is_some() && self.budget.failed() && again && attempts < self.patience.attempts;
            match pause {
                // What went wrong says more than that the time is over.
                Some(pause) if may_go_on && Instant::now() + pause < until => sleep(pause).await,
                _ => return Err(CallError::new(status, attempts)),
            }
        }
    }
}

/// What the library for TLS says is wrong.
fn unfit_for_tls(error: &tonic::transport::Error) -> SetupError {
    SetupError::Tls(causes(error).last().map_or_else(|| error.to_string(), ToString::to_string))
}

/// Whether the transport gave a call up at its deadline, of which it says nothing.
fn is_cut_off(status: &Status, until: Instant) -> bool {
    status.code() == Code::Cancelled && until.saturating_duration_since(Instant::now()) < Duration::from_millis(5)
}

/// Gives an interaction an id, unless it has one.
fn name(interaction: &mut pb::Interaction) {
    if interaction.interaction_id.is_empty() {
        interaction.interaction_id = Uuid::now_v7().to_string();
    }
}
