//! The methods of `RelationshipService`: let in, convert, call, convert.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    access::{Access, Credentials, Right},
    domain::{Faults, TenantId},
    service::{RankQuery, Service, ServiceError},
};

use super::{
    admission::{Admission, Shape, Turn},
    answer,
    audit::Audit,
    connections::Peer,
    consistency,
    gate::Gate,
    page_token::{Place, Sealer, arguments},
    pb, request,
    standing::Standing,
    status, stream,
};

/// What the methods need.
#[derive(Clone)]
pub(super) struct Handlers {
    pub service: Service,
    /// Who may call.
    pub access: Access,
    /// What is noted of it.
    pub audit: Audit,
    /// How much is taken on.
    pub admission: Admission,
    /// Open while the database can be worked with.
    pub gate: Arc<Gate>,
}

#[tonic::async_trait]
impl pb::relationship_service_server::RelationshipService for Handlers {
    async fn record_interaction(
        &self,
        call: Request<pb::RecordInteractionRequest>,
    ) -> Result<Response<pb::RecordInteractionResponse>, Status> {
        let (tenant, limit, turn) = self.enter(&call, Right::Record, Shape::Single)?;
        self.sealer()?;
        let request = call.into_inner();
        let mut faults = Faults::default();
        let draft = request::draft(request.interaction, &mut faults);
        let recorded = if request.validate_only {
            in_time(limit, self.service.validate(tenant.clone(), &draft, faults)).await
        } else {
            in_time(limit, self.service.record(tenant.clone(), &draft, faults)).await
        };
        Ok(answered(answer::recorded(&tenant, recorded?), turn))
    }

    type RecordInteractionsStream = stream::Acknowledgements;

    async fn record_interactions(
        &self,
        call: Request<Streaming<pb::RecordInteractionsRequest>>,
    ) -> Result<Response<Self::RecordInteractionsStream>, Status> {
        let (tenant, _, turn) = self.enter(&call, Right::Record, Shape::Stream)?;
        self.sealer()?;
        let connection = peer(&call).cloned().unwrap_or_default();
        let standing = self.standing(&call, &tenant, Right::Record);
        let service = self.service.clone();
        Ok(Response::new(stream::record(service, tenant, turn, call.into_inner(), connection, standing)))
    }

    async fn rank_connections(
        &self,
        call: Request<pb::RankConnectionsRequest>,
    ) -> Result<Response<pb::RankConnectionsResponse>, Status> {
        let (tenant, limit, turn) = self.enter(&call, Right::Rank, Shape::Single)?;
        let request = call.into_inner();
        let (sealer, arguments) = (self.sealer()?, arguments(&tenant, &request));
        let query = rank_query(&request, &tenant, sealer, &arguments).map_err(|faults| status::of_faults(&faults))?;
        let page = in_time(limit, self.service.rank(tenant.clone(), query)).await?;
        let place = |after| Place { as_of: page.as_of, revision: page.revision, policy: page.policy.clone(), after };
        let next = page.next.map(|after| sealer.seal(&place(after), &arguments).ok_or_else(unsealed));
        let answer = pb::RankConnectionsResponse {
            connections: page.connections.iter().map(answer::connection).collect(),
            next_page_token: next.transpose()?.unwrap_or_default(),
            as_of_time: Some(answer::time(page.as_of)),
            policy_version: page.policy.as_str().to_owned(),
            consistency_token: consistency::token(&tenant, page.revision),
        };
        Ok(answered(answer, turn))
    }

    async fn get_connection(
        &self,
        call: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        let (tenant, limit, turn) = self.enter(&call, Right::Rank, Shape::Single)?;
        self.sealer()?;
        let query = request::connection_query(call.get_ref(), &tenant).map_err(|faults| status::of_faults(&faults))?;
        let shown = in_time(limit, self.service.connection(tenant.clone(), query)).await?;
        let answer = pb::GetConnectionResponse {
            connection: Some(answer::connection(&shown.connection)),
            as_of_time: Some(answer::time(shown.as_of)),
            policy_version: shown.policy.as_str().to_owned(),
            consistency_token: consistency::token(&tenant, shown.revision),
        };
        Ok(answered(answer, turn))
    }
}

impl Handlers {
    /// The tenant that a call is for, if the caller may do this there, and how long the call may still take.
    pub(super) fn tenant<T>(&self, call: &Request<T>, right: Right) -> Result<(TenantId, Option<Duration>), Status> {
        let head = request::head(call.metadata()).map_err(|faults| status::of_faults(&faults))?;
        let shown = Credentials {
            bearer: request::bearer(call.metadata()),
            certificate_names: peer(call).map(|peer| &*peer.certificate_names).unwrap_or_default(),
        };
        let admitted = self.access.admit(&shown, head.tenant, right, self.service.now());
        self.audit.note(right, &admitted);
        let admitted = admitted.map_err(|refusal| status::of_refusal(&refusal, right))?;
        Ok((admitted.tenant, head.time_left))
    }

    /// The tenant of a call that is let in until the turn is dropped, and how long the call may still take.
    fn enter<T>(
        &self,
        call: &Request<T>,
        right: Right,
        shape: Shape,
    ) -> Result<(TenantId, Option<Duration>, Turn), Status> {
        let (tenant, limit) = self.tenant(call, right)?;
        let connection = peer(call).map(|peer| peer.unread.clone()).unwrap_or_default();
        let turn = self.admission.enter(&tenant, shape, connection);
        Ok((tenant, limit, turn.map_err(|crowded| status::of_service(&crowded.into()))?))
    }

    /// What the caller of a stream in a tenant has to go on showing.
    fn standing<T>(&self, call: &Request<T>, tenant: &TenantId, right: Right) -> Standing {
        Standing {
            access: self.access.clone(),
            audit: self.audit.clone(),
            service: self.service.clone(),
            bearer: request::bearer(call.metadata()).map(str::to_owned),
            peer: peer(call).cloned(),
            tenant: tenant.clone(),
            right,
        }
    }

    /// The sealer of page tokens, or a refusal as long as the database has never been ready or does not serve this program:
    /// then nothing can be done.
    pub(super) fn sealer(&self) -> Result<&Sealer, Status> {
        let not_ready = || ServiceError::Unavailable("the database is not ready for this program".into());
        self.gate.sealer().ok_or_else(|| status::of_service(&not_ready()))
    }
}

/// An answer, with the turn of its call for as long as it is on its way.
fn answered<T>(answer: T, turn: Turn) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(Arc::new(turn));
    response
}

/// There was no randomness to seal a page token with.
pub(super) fn unsealed() -> Status {
    status::of_service(&ServiceError::Internal("no randomness to seal a page token".into()))
}

/// Answers before the transport does at the caller's deadline: that says CANCELLED, and not why.
pub(super) async fn in_time<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, ServiceError>>,
) -> Result<T, Status> {
    let done = match limit {
        Some(limit) => timeout(limit, work).await.map_err(|_| status::of_deadline())?,
        None => work.await,
    };
    done.map_err(|error| status::of_service(&error))
}

fn peer<T>(call: &Request<T>) -> Option<&Peer> {
    call.extensions().get::<Peer>()
}

fn rank_query(
    request: &pb::RankConnectionsRequest,
    tenant: &TenantId,
    sealer: &Sealer,
    arguments: &[u8],
) -> Result<RankQuery, Faults> {
    let (mut query, mut faults) = request::rank_query(request, tenant);
    if !request.page_token.is_empty() {
        let opened = sealer.open(&request.page_token, arguments);
        let place = faults.take("page_token", opened.ok_or("must be the next_page_token of the same request"));
        if let (Some(query), Some(place)) = (&mut query, place) {
            query.as_of = Some(place.as_of);
            query.policy = Some(place.policy);
            query.after = Some(place.after);
            // No page is older than the one before it.
            query.at_least = query.at_least.map(|revision| revision.max(place.revision));
        }
    }
    faults.or(query)
}
