//! The methods of `PolicyService`: convert, call, convert.

use tonic::{Request, Response, Status};

use crate::{
    access::Right,
    domain::{Faults, PolicyVersion, TenantId},
    service::{MAX_POLICY_PAGE, PolicyDraft, PolicyEntry},
};

use super::{
    answer, consistency,
    handlers::{Handlers, in_time, unsealed},
    page_token::Sealer,
    pb, request, status,
};

#[tonic::async_trait]
impl pb::policy_service_server::PolicyService for Handlers {
    async fn publish_policy(
        &self,
        call: Request<pb::PublishPolicyRequest>,
    ) -> Result<Response<pb::PublishPolicyResponse>, Status> {
        let (tenant, limit) = self.tenant(&call, Right::Admin)?;
        self.sealer()?;
        let request = call.into_inner();
        let draft = PolicyDraft {
            document: request.policy.unwrap_or_default().document,
            put_to_use: request.put_to_use.unwrap_or(true),
            validate_only: request.validate_only,
        };
        let published = in_time(limit, self.service.publish_policy(tenant.clone(), draft)).await?;
        let (entry, replayed, revision) = published;
        let consistency_token = revision.map(|revision| consistency::token(&tenant, revision)).unwrap_or_default();
        Ok(Response::new(pb::PublishPolicyResponse { policy: Some(policy(entry)), replayed, consistency_token }))
    }

    async fn list_policies(
        &self,
        call: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        let (tenant, limit) = self.tenant(&call, Right::Admin)?;
        let sealer = self.sealer()?;
        let (below, page_size) = list(call.get_ref(), sealer, &tenant).map_err(|faults| status::of_faults(&faults))?;
        let page = in_time(limit, self.service.policies(tenant.clone(), below, page_size)).await?;
        let next = page.next.map(|place| sealer.seal_list(place, &tenant).ok_or_else(unsealed));
        Ok(Response::new(pb::ListPoliciesResponse {
            policies: page.policies.into_iter().map(policy).collect(),
            next_page_token: next.transpose()?.unwrap_or_default(),
        }))
    }

    async fn get_policy(&self, call: Request<pb::GetPolicyRequest>) -> Result<Response<pb::GetPolicyResponse>, Status> {
        let (tenant, limit) = self.tenant(&call, Right::Admin)?;
        self.sealer()?;
        let version = version(&call.get_ref().version)?;
        let entry = in_time(limit, self.service.policy(tenant, version)).await?;
        Ok(Response::new(pb::GetPolicyResponse { policy: Some(policy(entry)) }))
    }

    async fn rollback_policy(
        &self,
        call: Request<pb::RollbackPolicyRequest>,
    ) -> Result<Response<pb::RollbackPolicyResponse>, Status> {
        let (tenant, limit) = self.tenant(&call, Right::Admin)?;
        self.sealer()?;
        let version = version(&call.get_ref().version)?;
        let (entry, revision) = in_time(limit, self.service.roll_back_policy(tenant.clone(), version)).await?;
        let consistency_token = consistency::token(&tenant, revision);
        Ok(Response::new(pb::RollbackPolicyResponse { policy: Some(policy(entry)), consistency_token }))
    }
}

fn version(text: &str) -> Result<Option<PolicyVersion>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut faults = Faults::default();
    let version = faults.take("version", PolicyVersion::parse(text));
    faults.or(version).map(Some).map_err(|faults| status::of_faults(&faults))
}

/// Below which place a list begins, and how many versions it holds.
fn list(request: &pb::ListPoliciesRequest, sealer: &Sealer, tenant: &TenantId) -> Result<(Option<i64>, usize), Faults> {
    let mut faults = Faults::default();
    let page_size = request::page_size(request.page_size, MAX_POLICY_PAGE, &mut faults);
    let token = Some(&request.page_token).filter(|token| !token.is_empty());
    let below = token.and_then(|token| {
        let opened = sealer.open_list(token, tenant);
        faults.take("page_token", opened.ok_or("must be the next_page_token of a list of the same tenant"))
    });
    faults.or(Some((below, page_size)))
}

fn policy(entry: PolicyEntry) -> pb::Policy {
    pb::Policy {
        version: entry.version,
        document: entry.document,
        publish_time: entry.publish_time.map(answer::time),
        in_use: entry.is_in_use,
        built_in: entry.place == 0,
    }
}
