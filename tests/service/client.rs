//! The library's client against a server that answers as it is told: what it tries again, what it does not, and when it
//! gives up. How it fares against a real one that is killed is in `faults`.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rapport::{
    client::{Client, Patience, SetupError, StreamEvent},
    domain::{Kind, TenantId},
    rpc::pb::{
        self, ErrorReason,
        policy_service_server::{PolicyService, PolicyServiceServer},
        relationship_service_server::{RelationshipService, RelationshipServiceServer},
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    harness::{act, day},
    process::free_address,
};

/// A server that refuses its next calls with these statuses, and knows what it was asked.
#[derive(Clone, Default)]
struct Scripted {
    refusals: Arc<Mutex<VecDeque<Status>>>,
    /// The ids that it was sent, and the metadata they came with.
    seen: Arc<Mutex<Vec<(String, MetadataMap)>>>,
    /// After how many items of a stream it breaks off, for each stream.
    breaks: Arc<Mutex<VecDeque<usize>>>,
}

impl Scripted {
    async fn start(refusals: Vec<Status>) -> (Self, Client) {
        let scripted = Self { refusals: Arc::new(Mutex::new(refusals.into())), ..Self::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            Server::builder()
                .add_service(RelationshipServiceServer::new(scripted.clone()))
                .add_service(PolicyServiceServer::new(scripted.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (scripted, client(address))
    }

    fn asked(&self, id: &str, metadata: &MetadataMap) -> Result<(), Status> {
        self.seen.lock().unwrap().push((id.to_owned(), metadata.clone()));
        self.refusals.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn ids(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }
}

fn client(address: SocketAddr) -> Client {
    Client::at(&format!("http://{address}")).unwrap()
}

#[tonic::async_trait]
impl RelationshipService for Scripted {
    async fn record_interaction(
        &self,
        request: Request<pb::RecordInteractionRequest>,
    ) -> Result<Response<pb::RecordInteractionResponse>, Status> {
        let interaction_id = request.get_ref().interaction.clone().unwrap().interaction_id;
        self.asked(&interaction_id, request.metadata())?;
        Ok(Response::new(pb::RecordInteractionResponse { interaction_id, ..Default::default() }))
    }

    type RecordInteractionsStream = ReceiverStream<Result<pb::RecordInteractionsResponse, Status>>;

    async fn record_interactions(
        &self,
        request: Request<Streaming<pb::RecordInteractionsRequest>>,
    ) -> Result<Response<Self::RecordInteractionsStream>, Status> {
        let (answers, stream) = mpsc::channel(16);
        let (scripted, metadata) = (self.clone(), request.metadata().clone());
        let mut items = request.into_inner();
        let mut left = self.breaks.lock().unwrap().pop_front().unwrap_or(usize::MAX);
        tokio::spawn(async move {
            while let Ok(Some(item)) = items.message().await {
                scripted.asked(&item.interaction.unwrap().interaction_id, &metadata).unwrap();
                if left == 0 {
                    // Taken in, and the answer is lost.
                    let _ = answers.send(Err(Status::unavailable("gone"))).await;
                    return;
                }
                left -= 1;
                let answer = pb::RecordInteractionsResponse { sequence: item.sequence, ..Default::default() };
                let _ = answers.send(Ok(answer)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn rank_connections(
        &self,
        request: Request<pb::RankConnectionsRequest>,
    ) -> Result<Response<pb::RankConnectionsResponse>, Status> {
        self.asked("", request.metadata())?;
        std::future::pending().await
    }

    async fn get_connection(
        &self,
        request: Request<pb::GetConnectionRequest>,
    ) -> Result<Response<pb::GetConnectionResponse>, Status> {
        self.asked("", request.metadata())?;
        Ok(Response::new(pb::GetConnectionResponse::default()))
    }
}

#[tonic::async_trait]
impl PolicyService for Scripted {
    async fn publish_policy(
        &self,
        _: Request<pb::PublishPolicyRequest>,
    ) -> Result<Response<pb::PublishPolicyResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn list_policies(
        &self,
        _: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn get_policy(&self, _: Request<pb::GetPolicyRequest>) -> Result<Response<pb::GetPolicyResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn rollback_policy(
        &self,
        request: Request<pb::RollbackPolicyRequest>,
    ) -> Result<Response<pb::RollbackPolicyResponse>, Status> {
        self.asked(&request.get_ref().version, request.metadata())?;
        Ok(Response::new(pb::RollbackPolicyResponse::default()))
    }
}

fn help() -> pb::Interaction {
    pb::Interaction { interaction_id: String::new(), ..act(Kind::Help, "zed-77", "rosa-99", day(0)) }
}

fn come_back(code: Code, millis: u64) -> Status {
    Status::with_error_details(code, "later", ErrorDetails::with_retry_info(Some(Duration::from_millis(millis))))
}

#[tokio::test]
async fn a_call_is_tried_again_under_the_same_id_until_it_is_answered() {
    let refusals =
        vec![Status::unavailable("gone"), come_back(Code::ResourceExhausted, 300), come_back(Code::Unavailable, 200)];
    let (server, client) = Scripted::start(refusals).await;
    let began = Instant::now();
    let recorded = client.record(help()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "it waits as long as it is told");
    let ids = server.ids();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| *id == recorded.interaction_id), "{ids:?}");
    assert_eq!(uuid::Uuid::parse_str(&recorded.interaction_id).unwrap().get_version_num(), 7);
}

#[tokio::test]
async fn what_trying_again_does_not_help_is_tried_once() {
    let details = |reason: &str| ErrorDetails::with_error_info(reason, "rapport", []);
    let conflict = Status::with_error_details(Code::AlreadyExists, "no", details("INTERACTION_CONFLICT"));
    let large = Status::with_error_details(Code::ResourceExhausted, "no", details("HISTORY_TOO_LARGE"));
    let (server, client) = Scripted::start(vec![conflict, large, Status::internal("a defect")]).await;
    for reason in [Some(ErrorReason::InteractionConflict), Some(ErrorReason::HistoryTooLarge), None] {
        let error = client.record(help()).await.unwrap_err();
        assert_eq!((error.reason(), error.attempts(), error.is_of_transport()), (reason, 1, false), "{error:?}");
    }
    assert_eq!(server.ids().len(), 3);
    // Going back a second time would go back by two; going back to a named version would not.
    let gone = || Status::unavailable("gone");
    let (server, client) = Scripted::start(vec![gone(), gone()]).await;
    assert!(client.roll_back_policy(pb::RollbackPolicyRequest::default()).await.is_err());
    client.roll_back_policy(pb::RollbackPolicyRequest { version: "one".to_owned() }).await.unwrap();
    assert_eq!(server.ids(), ["", "one", "one"]);
}

#[tokio::test]
async fn a_deadline_holds_for_all_tries_together() {
    let limit = Duration::from_millis(700);
    let patient = |client: Client| client.with_patience(Patience { limit, ..Patience::default() });
    let (_, client) = Scripted::start(vec![Status::unavailable("gone"); 200]).await;
    let began = Instant::now();
    let error = patient(client).record(help()).await.unwrap_err();
    assert_eq!(error.status().code(), Code::Unavailable, "what went wrong is said, not that the time is over");
    assert!(error.attempts() > 2, "{error:?}");
    let (server, client) = Scripted::start(Vec::new()).await;
    let error = patient(client).rank(pb::RankConnectionsRequest::default()).await.unwrap_err();
    assert_eq!((error.status().code(), error.attempts()), (Code::DeadlineExceeded, 1));
    assert!(server.seen.lock().unwrap()[0].1.contains_key("grpc-timeout"), "the server knows of it");
    let error = patient(client_of_nobody()).record(help()).await.unwrap_err();
    assert!(error.is_of_transport() && error.attempts() > 1, "{error:?}");
    assert!(began.elapsed() < 4 * limit);
}

fn client_of_nobody() -> Client {
    client(free_address())
}

#[tokio::test]
async fn failures_that_go_on_spend_the_budget_of_all_calls() {
    let (server, client) = Scripted::start(vec![Status::unavailable("gone"); 10_000]).await;
    let calls: Vec<_> = (0..80)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.record(help()).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().status().code(), Code::Unavailable);
    }
    let tries = server.ids().len();
    assert!((80..=80 + 49).contains(&tries), "{tries}");
}

#[tokio::test]
async fn every_call_names_its_tenant_and_shows_its_token() {
    let (server, client) = Scripted::start(Vec::new()).await;
    let client = client.as_tenant(&TenantId::parse_metadata("acme").unwrap()).unwrap().with_token("s3cret").unwrap();
    assert!(!format!("{client:?}").contains("s3cret"));
    client.record(help()).await.unwrap();
    let (_, metadata) = server.seen.lock().unwrap().pop().unwrap();
    assert_eq!(metadata.get("rapport-tenant").unwrap(), "acme");
    assert_eq!(metadata.get("authorization").unwrap(), "Bearer s3cret");
    assert_eq!(client.clone().with_token("line\nbreak").unwrap_err(), SetupError::Token);
    assert_eq!(client.as_tenant(&TenantId::parse("zoë").unwrap()).unwrap_err(), SetupError::Tenant);
    assert!(matches!(Client::at("localhost:1"), Err(SetupError::Address(_))));
}

#[tokio::test]
async fn a_stream_goes_on_behind_what_was_acknowledged() {
    let (server, client) = Scripted::start(Vec::new()).await;
    server.breaks.lock().unwrap().extend([2, 3]);
    let item = |number: i64| pb::RecordInteractionsRequest { sequence: 10 * number, interaction: Some(help()) };
    let mut acknowledgements = client.record_stream(tokio_stream::iter((1..=8).map(item).collect::<Vec<_>>()));
    let (mut acknowledged, mut opened, mut broken) = (Vec::new(), 0, 0);
    while let Some(event) = acknowledgements.next().await.unwrap() {
        match event {
            StreamEvent::Opened => opened += 1,
            StreamEvent::Acknowledged(answer) => acknowledged.push(answer.sequence),
            StreamEvent::Broken(_) => broken += 1,
        }
    }
    assert_eq!((opened, broken), (3, 2));
    assert_eq!(acknowledged, [10, 20, 30, 40, 50, 60, 70, 80]);
    // What was sent again has the id that it had.
    let ids = server.ids();
    assert_eq!((ids.len(), std::collections::BTreeSet::from_iter(&ids).len()), (10, 8));
    // And when nobody is there it ends.
    let client =
        client_of_nobody().with_patience(Patience { limit: Duration::from_millis(300), ..Patience::default() });
    let mut acknowledgements = client.record_stream(tokio_stream::iter([item(1)]));
    let error = loop {
        if let Err(error) = acknowledgements.next().await {
            break error;
        }
    };
    assert!(error.is_of_transport());
}
