//! What operators see, at its most talkative, holds nothing personal and no secrets: logs for people and for machines,
//! spans, metrics. Nor do errors, but for what the caller has just said itself.

use std::fs::{self, File};

use rapport::{domain::Kind, rpc::pb};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};
use tonic::{Request, Status};

use crate::{
    collector::Collector,
    harness::{Client, act, client_of, connection, database, day, document, policies_of, rank, ready, try_record},
    program::{Running, folder, program},
    telemetry::scrape,
};

/// Words that stand in requests, as ids, words, tenants and metadata, and nowhere else.
const PERSONAL: [&str; 10] = [
    "zora-1f",
    "yann-2e",
    "quilting-3d",
    "letter-4c",
    "oslo-5b",
    "goal-6a",
    "tenant-79",
    "fitted-88",
    "stately-97",
    "method-a6",
];
const SECRETS: [&str; 2] = ["secret-70", "secret-71"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_and_no_secret_is_told_to_operators_in_lines_for_people() {
    nothing_is_told("pretty").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_and_no_secret_is_told_to_operators_in_lines_for_machines() {
    nothing_is_told("json").await;
}

async fn nothing_is_told(format: &str) {
    let url = database(true).await;
    // The database refuses one interaction, as a defect would, and shows its row in what the driver knows of it.
    let mut connected = PgConnection::connect(&url).await.unwrap();
    let refuse = "ALTER TABLE ledger ADD CONSTRAINT refused CHECK (interaction_id <> 'letter-4c-refused')";
    sqlx::raw_sql(refuse).execute(&mut connected).await.unwrap();
    let (collector, at) = Collector::start().await;
    let place = folder();
    let log = place.path().join("log");
    let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command
        .env("DATABASE_URL", format!("{url}&password=secret-70"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{at}"))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret-71")
        .env("RAPPORT_SLOW_STATEMENT_MS", "1")
        .env("RAPPORT_LOG_FORMAT", format)
        .env("RAPPORT_LOG", "rapport=trace,sqlx=trace,tonic=trace,opentelemetry=trace,hyper=trace");
    command.stderr(File::create(&log).unwrap());
    let mut server = Running::start(command);
    let said = server.line_with("Metrics are at http://");
    let metrics =
        said.trim().trim_start_matches("Metrics are at http://").trim_end_matches("/metrics").parse().unwrap();
    let address = server.line_with("Rapport listens on ").trim().rsplit(' ').next().unwrap().parse().unwrap();
    ready(address).await;
    converse(address).await;
    let scraped = scrape(metrics).await;
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let (logged, exported) = (fs::read_to_string(&log).unwrap(), collector.everything());
    for word in ["a batch was not recorded", "INSERT INTO ledger", "slow statement"] {
        assert!(logged.contains(word), "{word} is not in the log: {logged}");
    }
    assert!(exported.contains("record batch") && exported.contains("rpc.server.call.duration"), "{exported}");
    assert!(scraped.contains("ALREADY_EXISTS") && scraped.contains("UNIMPLEMENTED"), "{scraped}");
    for word in PERSONAL.into_iter().chain(SECRETS) {
        for (place, said) in [("log", &logged), ("collector", &exported), ("metrics", &scraped)] {
            assert!(!said.contains(word), "{word} is told to the {place}: {said}");
        }
    }
}

/// Calls that go well, and calls that fail in every way they can.
async fn converse(address: std::net::SocketAddr) {
    let mut client = client_of(address, "tenant-79");
    let [person, peer, topic, id, channel, goal, ..] = PERSONAL.map(str::to_owned);
    let help = pb::Interaction {
        interaction_id: id.clone(),
        topics: vec![topic.clone()],
        channel,
        goal,
        ..act(Kind::Help, &peer, &person, day(0))
    };
    assert!(try_record(&mut client, help.clone()).await.is_ok());
    let conflict = try_record(&mut client, pb::Interaction { unprompted: true, ..help.clone() }).await.unwrap_err();
    let refused = pb::Interaction { interaction_id: format!("{id}-refused"), ..help.clone() };
    let refused = try_record(&mut client, refused).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Internal);
    let own = try_record(&mut client, pb::Interaction { recipients: vec![peer.clone()], ..help.clone() }).await;
    stream(&mut client, help).await;
    assert_eq!(rank(&mut client, &person, day(1)).await.len(), 1);
    assert!(!connection(&mut client, &person, &peer, day(1)).await.reasons.is_empty());
    let mut policies = policies_of(address, "tenant-79");
    let policy = |document| pb::PublishPolicyRequest {
        policy: Some(pb::Policy { document, ..pb::Policy::default() }),
        ..pb::PublishPolicyRequest::default()
    };
    policies.publish_policy(policy(document("fitted-88"))).await.unwrap();
    // This error quotes the document that the caller has just sent, to the caller and to nobody else.
    let quoting = policies.publish_policy(policy("{\"goal-6a\": 1".to_owned())).await.unwrap_err();
    assert!(quoting.message().contains("goal-6a"));
    for status in [conflict, refused, own.unwrap_err(), unknown_method(address).await] {
        assert_says_nothing(&status);
    }
}

/// A stream, with a tracestate that is not ours to repeat.
async fn stream(client: &mut Client, interaction: pb::Interaction) {
    let item = |(sequence, interaction)| pb::RecordInteractionsRequest { sequence, interaction: Some(interaction) };
    let conflict = pb::Interaction { unprompted: true, ..interaction.clone() };
    let mut request = Request::new(tokio_stream::iter([(1, interaction), (2, conflict)].map(item)));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request.metadata_mut().insert("tracestate", "vendor=stately-97".parse().unwrap());
    request.metadata_mut().insert("authorization", "Bearer secret-71".parse().unwrap());
    let mut answers = client.record_interactions(request).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
}

async fn unknown_method(address: std::net::SocketAddr) -> Status {
    let mut grpc = tonic::client::Grpc::new(crate::harness::channel(address));
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::GetPolicyRequest, pb::GetPolicyResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/rapport.v1.RelationshipService/method-a6");
    grpc.unary(Request::new(pb::GetPolicyRequest::default()), path, codec).await.unwrap_err()
}

fn assert_says_nothing(status: &Status) {
    let said = format!("{status:?} {}", String::from_utf8_lossy(status.details()));
    for word in PERSONAL.into_iter().chain(SECRETS) {
        assert!(!said.contains(word), "{word} is in an error: {said}");
    }
}
