//! What callers find without knowing the contract: reflection in both of its versions, and health.

use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use rapport::{app::App, service::Clock};

use crate::{
    harness::{address, channel, config, database},
    program::{Ran, program},
    wire::{KEYS, assert_refused},
};

const SERVICES: [&str; 5] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "rapport.v1.PolicyService",
    "rapport.v1.RelationshipService",
];

/// The services that reflection lists, and the files in which it finds symbols.
macro_rules! listed {
    ($version:ident, $address:expr, $symbols:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask =
            |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
        let described = $symbols.map(|symbol: &str| ask(MessageRequest::FileContainingSymbol(symbol.to_owned())));
        let questions = [ask(MessageRequest::ListServices(String::new()))].into_iter().chain(described);
        let questions: Vec<_> = questions.collect();
        let mut client = ServerReflectionClient::new(channel($address));
        let answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap().message_response.unwrap()).collect::<Vec<_>>().await;
        let [MessageResponse::ListServicesResponse(list), described @ ..] = &answers[..] else { panic!("{answers:?}") };
        let files = described.iter().map(|answer| match answer {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto.concat(),
            other => panic!("{other:?}"),
        });
        let files: Vec<Vec<u8>> = files.collect();
        let mut names: Vec<String> = list.service.iter().map(|service| service.name.clone()).collect();
        names.sort_unstable();
        (names, files)
    }};
}

/// Whether these bytes hold a text.
fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn both_versions_of_reflection_describe_everything() {
    // Each version lists itself.
    let others = |own: &str| -> Vec<&str> {
        SERVICES.into_iter().filter(|name| !name.contains("reflection") || name.contains(own)).collect()
    };
    let symbols = ["rapport.v1.RelationshipService", "google.rpc.BadRequest", "google.api.HttpRule"];
    let (old, new) = (listed!(v1alpha, address(), symbols), listed!(v1, address(), symbols));
    assert_eq!(old.0, others(".v1alpha."));
    assert_eq!(new.0, others(".v1."));
    for files in [old.1, new.1] {
        assert!(holds(&files[0], "/v1/persons/{person}/connections"), "paths of HTTP are part of the contract");
    }
}

#[tokio::test]
async fn the_port_for_probes_describes_the_health_service_and_nothing_else() {
    let mut config = config(database(true).await);
    config.health_listen = Some(([127, 0, 0, 1], 0).into());
    let app = App::start(config, Clock::system()).await.unwrap();
    let (port, symbols) = (app.health_address().unwrap(), ["grpc.health.v1.Health"]);
    let described =
        |version: &str| ["grpc.health.v1.Health".to_owned(), format!("grpc.reflection.{version}.ServerReflection")];
    assert_eq!(listed!(v1, port, symbols).0, described("v1"));
    assert_eq!(listed!(v1alpha, port, symbols).0, described("v1alpha"));
}

/// Every unary method has a path for callers over HTTP, and streams have none.
#[test]
fn every_single_call_can_be_made_over_http() {
    let mut paths = 0;
    for contract in [
        include_str!("../../proto/rapport/v1/relationship_service.proto"),
        include_str!("../../proto/rapport/v1/policy_service.proto"),
    ] {
        let lines: Vec<&str> = contract.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("rpc ")) {
            let has_path = pair[1].starts_with("option (google.api.http) = {");
            assert_eq!(has_path, !pair[0].contains("stream "), "{}", pair[0]);
            paths += usize::from(has_path);
        }
    }
    assert_eq!(paths, 7);
}

#[test]
fn descriptors_are_complete_and_hold_the_paths_of_http() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rapport.binpb");
    let written = program(&["descriptors"]).output().unwrap();
    assert!(written.status.success() && written.stderr.is_empty(), "{written:?}");
    let mut command = program(&["descriptors", "--output"]);
    assert_eq!(Ran::from(command.arg(&file).output().unwrap()).expect(0).out, "");
    assert_eq!(std::fs::read(&file).unwrap(), written.stdout);

    let set = prost_types::FileDescriptorSet::decode(&written.stdout[..]).unwrap();
    let mut known = Vec::new();
    for file in &set.file {
        assert!(file.dependency.iter().all(|needed| known.contains(needed)), "{} comes too early", file.name());
        assert!(!known.contains(&file.name().to_owned()), "{} comes twice", file.name());
        known.push(file.name().to_owned());
    }
    for needed in ["rapport/v1/policy_service.proto", "rapport/v1/error_reason.proto", "google/rpc/error_details.proto"]
    {
        assert!(known.contains(&needed.to_owned()), "{needed}");
    }
    assert!(holds(&written.stdout, "/v1/persons/{person}/connections/{peer}"));
}

/// What a reason's description begins with: the codes that it comes with.
const CODES: [&str; 12] = [
    "ABORTED",
    "INVALID_ARGUMENT",
    "ALREADY_EXISTS",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "INTERNAL",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "Never sent.",
];

#[test]
fn every_reason_says_with_which_code_it_comes_and_is_sent_by_the_server() {
    let contract = include_str!("../../proto/rapport/v1/error_reason.proto");
    let sent = include_str!("../../src/rpc/status.rs");
    let mut reasons = 0;
    for (number, line) in contract.lines().enumerate().filter(|(_, line)| line.trim().starts_with("ERROR_REASON_")) {
        let above: Vec<&str> = contract
            .lines()
            .take(number)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .take_while(|line| line.contains("//"))
            .collect();
        let first = above.last().unwrap_or(&"").trim().trim_start_matches("// ");
        assert!(CODES.iter().any(|code| first.starts_with(code)), "{line} says {first:?}");
        let value: i32 = line.trim_end_matches(';').rsplit(' ').next().unwrap().parse().unwrap();
        let reason = rapport::rpc::pb::ErrorReason::try_from(value).unwrap();
        let told = KEYS.iter().filter(|(of, ..)| reason.as_str_name() == format!("ERROR_REASON_{of}"));
        for key in told.flat_map(|(_, _, keys)| *keys) {
            assert!(above.iter().any(|line| line.contains(&format!("`{key}`"))), "{line} does not say what {key} is");
            assert!(sent.contains(&format!("\"{key}\"")), "nothing sends {key}");
        }
        let name = format!("ErrorReason::{reason:?}");
        assert!(value == 0 || sent.contains(&name), "nothing sends {name}");
        reasons += 1;
    }
    assert!(reasons > 12);
}

#[tokio::test]
async fn health_is_told_of_the_server_and_its_service() {
    let mut health = HealthClient::new(channel(address()));
    for service in ["", "liveness", "readiness", "rapport.v1.RelationshipService", "rapport.v1.PolicyService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().get_ref().status(), ServingStatus::Serving, "{service}");
    }
    let status = health.check(HealthCheckRequest { service: "zed-77".to_owned() }).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "CALL_NOT_UNDERSTOOD", &["zed-77"]);
}
