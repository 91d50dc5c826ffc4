//! Requests that are refused: every faulty field is named at once, and nothing else is said.

use prost::Message as _;
use prost_types::{Duration, Timestamp};
use rapport::{domain::Kind, rpc::TENANT_KEY, rpc::pb, service::Clock};
use tonic::{Code, Request, Status, metadata::MetadataValue};

use crate::{
    harness::{
        act, address, channel, client, client_of, config, database, day, record, start, try_record, unique, violations,
    },
    wire::{self, assert_faulty, assert_refused, method},
};

const NO_TIME: Timestamp = Timestamp { seconds: 253_402_300_800, nanos: 0 };
/// As the same letter in normalization form C would be written otherwise.
const DECOMPOSED: &str = "zoe\u{308}";
/// With a letter that shows nothing: of all faults of a word, this one takes the most words to tell.
const FILLED: &str = "zo\u{3164}ë";

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Every field that can be wrong is.
fn all_wrong() -> (pb::Interaction, Vec<&'static str>) {
    let interaction = pb::Interaction {
        interaction_id: "i".repeat(129),
        actor: " zed-77".to_owned(),
        recipients: texts(&["", " zed-77", "quinn-88\u{7}", "rosa-99", "rosa-99", DECOMPOSED]),
        interaction_time: Some(NO_TIME),
        kind: 99,
        effort: Some(Duration { seconds: -1, nanos: 0 }),
        audience_count: -1,
        channel: "c".repeat(65),
        topics: texts(&["", "fine", "fine", "tab\t"]),
        goal: "g".repeat(129),
        unprompted: true,
        due_time: Some(Timestamp { seconds: 0, nanos: -1 }),
        refers_to: "padded ".to_owned(),
    };
    let fields = [
        "interaction_id",
        "actor",
        "recipients[0]",
        "recipients[1]",
        "recipients[2]",
        "recipients[4]",
        "recipients[5]",
        "interaction_time",
        "kind",
        "effort",
        "audience_count",
        "channel",
        "topics[0]",
        "topics[2]",
        "topics[3]",
        "goal",
        "due_time",
        "refers_to",
    ];
    (interaction, fields.to_vec())
}

const GIVEN: [&str; 6] = ["zed-77", "quinn-88", "rosa-99", "zoe", "padded", "fine"];

fn within_interaction(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| format!("interaction.{field}")).collect()
}

async fn assert_interaction_faulty(interaction: Option<pb::Interaction>, fields: &[&str]) {
    let fields = within_interaction(fields);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    for validate_only in [false, true] {
        let request = pb::RecordInteractionRequest { interaction: interaction.clone(), validate_only };
        assert_faulty(&client().record_interaction(request).await.unwrap_err(), &fields, &GIVEN);
    }
}

#[tokio::test]
async fn every_faulty_field_of_an_interaction_is_named_at_once() {
    let (interaction, fields) = all_wrong();
    assert_interaction_faulty(Some(interaction), &fields).await;
    let five = pb::Interaction {
        recipients: Vec::new(),
        kind: 0,
        effort: Some(Duration { seconds: 86_400 * 31, nanos: 0 }),
        topics: vec!["x".to_owned(); 17],
        refers_to: DECOMPOSED.to_owned(),
        ..act(Kind::Help, "zed-77", "rosa-99", day(0))
    };
    assert_interaction_faulty(Some(five), &["recipients", "kind", "effort", "topics", "refers_to"]).await;
    let required = ["actor", "recipients", "interaction_time", "kind"];
    assert_interaction_faulty(Some(pb::Interaction::default()), &required).await;
    assert_interaction_faulty(None, &required).await;
}

#[tokio::test]
async fn as_many_faults_as_there_can_be_still_reach_the_caller() {
    let (mut interaction, _) = all_wrong();
    interaction.interaction_id = FILLED.to_owned();
    interaction.recipients = (0..100).map(|number| format!("{FILLED}{number}")).collect();
    interaction.topics = (0..16).map(|number| format!("{FILLED}{number}")).collect();
    let status = try_record(&mut client(), interaction).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "FIELDS_INVALID", &GIVEN);
    let violations = violations(&status);
    // Of recipients, the first 16 faulty ones.
    assert_eq!(violations.len(), 16 + 16 + 10, "{status:?}");
    for named in ["recipients[0]", "recipients[15]", "topics[15]", "refers_to"] {
        assert!(violations.contains_key(&format!("interaction.{named}")), "{named}");
    }
    // As headers: the message, and the details in base64. Many clients take no more than 8 KiB.
    assert!(status.message().len() + status.details().len() * 4 / 3 < 7 * 1024);
}

#[tokio::test]
async fn every_faulty_field_of_a_ranking_is_named_at_once() {
    let request = pb::RankConnectionsRequest {
        person: " zed-77".to_owned(),
        order_by: 5,
        as_of_time: Some(NO_TIME),
        statuses: vec![0, 4, 7],
        channels: texts(&["", "fine", &"c".repeat(65)]),
        topics: texts(&["fine", "padded "]),
        minimum_score: f64::NAN,
        page_size: -1,
        page_token: "forged".to_owned(),
        explain: true,
        at_least_as_fresh_as: "forged".to_owned(),
    };
    let fields = [
        "person",
        "order_by",
        "as_of_time",
        "statuses[0]",
        "statuses[2]",
        "channels[0]",
        "channels[2]",
        "topics[1]",
        "minimum_score",
        "page_size",
        "page_token",
        "at_least_as_fresh_as",
    ];
    assert_faulty(&client().rank_connections(request).await.unwrap_err(), &fields, &[&GIVEN[..], &["forged"]].concat());
    assert_faulty(
        &client().rank_connections(pb::RankConnectionsRequest::default()).await.unwrap_err(),
        &["person"],
        &[],
    );
}

#[tokio::test]
async fn every_faulty_field_of_one_connection_is_named_at_once() {
    let faulty = async |person: &str, peer: &str, as_of_time, fields: &[&str]| {
        let request = pb::GetConnectionRequest {
            person: person.to_owned(),
            peer: peer.to_owned(),
            as_of_time,
            ..Default::default()
        };
        assert_faulty(&client().get_connection(request).await.unwrap_err(), fields, &GIVEN);
    };
    let before_1970 = Some(Timestamp { seconds: -1, nanos: 0 });
    faulty("", "rosa-99\n", before_1970, &["person", "peer", "as_of_time"]).await;
    faulty("zed-77", "zed-77", Some(NO_TIME), &["peer", "as_of_time"]).await;
    faulty("zed-77", "zed-77", None, &["peer"]).await;
    faulty("zed-77", "rosa-99", Some(Timestamp { seconds: 0, nanos: 1_000_000_000 }), &["as_of_time"]).await;
}

#[tokio::test]
async fn a_faulty_tenant_is_refused_by_every_method() {
    type Client = pb::relationship_service_client::RelationshipServiceClient<tonic::transport::Channel>;
    let mut client = Client::new(channel(address()));
    let long = "t".repeat(65);
    for tenant in [&b""[..], b"two words", b"tab\tbed", "zoë".as_bytes(), b"\xff", long.as_bytes()] {
        fn named<T>(tenant: &[u8], message: T) -> Request<T> {
            let mut request = Request::new(message);
            request.metadata_mut().insert(TENANT_KEY, MetadataValue::try_from(tenant).unwrap());
            request
        }
        let sound = act(Kind::Help, "zed-77", "rosa-99", day(0));
        let record = pb::RecordInteractionRequest { interaction: Some(sound), validate_only: false };
        let rank = pb::RankConnectionsRequest { person: "zed-77".to_owned(), ..Default::default() };
        let get = pb::GetConnectionRequest {
            person: "zed-77".to_owned(),
            peer: "rosa-99".to_owned(),
            as_of_time: None,
            ..Default::default()
        };
        let refusals = [
            client.record_interaction(named(tenant, record)).await.unwrap_err(),
            client.record_interactions(named(tenant, tokio_stream::empty())).await.unwrap_err(),
            client.rank_connections(named(tenant, rank)).await.unwrap_err(),
            client.get_connection(named(tenant, get)).await.unwrap_err(),
        ];
        for status in refusals {
            assert_faulty(&status, &[TENANT_KEY], &["zed-77", "two words", "zoë", &long]);
        }
    }
}

#[tokio::test]
async fn metadata_that_can_be_read_in_two_ways_is_refused_by_every_method() {
    type Client = pb::relationship_service_client::RelationshipServiceClient<tonic::transport::Channel>;
    type Policies = pb::policy_service_client::PolicyServiceClient<tonic::transport::Channel>;
    const TIMEOUT_KEY: &str = "grpc-timeout";
    for (entries, faulty) in [
        (&[(TENANT_KEY, "crm"), (TENANT_KEY, "other")][..], &[TENANT_KEY][..]),
        (&[(TENANT_KEY, "crm"), (TENANT_KEY, "crm")], &[TENANT_KEY]),
        (&[(TIMEOUT_KEY, "soon")], &[TIMEOUT_KEY]),
        (&[(TIMEOUT_KEY, "123456789S")], &[TIMEOUT_KEY]),
        (&[(TIMEOUT_KEY, "5S"), (TIMEOUT_KEY, "9S"), (TENANT_KEY, "")], &[TENANT_KEY, TIMEOUT_KEY]),
    ] {
        fn with<T>(entries: &[(&'static str, &str)], message: T) -> Request<T> {
            let mut request = Request::new(message);
            for (key, value) in entries {
                request.metadata_mut().append(*key, value.parse().unwrap());
            }
            request
        }
        let (mut client, mut policies) = (Client::new(channel(address())), Policies::new(channel(address())));
        let rank = pb::RankConnectionsRequest { person: "zed-77".to_owned(), ..Default::default() };
        let interaction = Some(act(Kind::Help, "zed-77", "rosa-99", day(0)));
        let record = pb::RecordInteractionRequest { interaction, validate_only: false };
        let get = pb::GetConnectionRequest::default();
        let refusals = [
            client.record_interaction(with(entries, record)).await.unwrap_err(),
            client.record_interactions(with(entries, tokio_stream::empty())).await.unwrap_err(),
            client.rank_connections(with(entries, rank)).await.unwrap_err(),
            client.get_connection(with(entries, get)).await.unwrap_err(),
            policies.get_policy(with(entries, pb::GetPolicyRequest::default())).await.unwrap_err(),
        ];
        for status in refusals {
            assert_faulty(&status, faulty, &["zed-77", "other", "soon"]);
        }
    }
}

#[tokio::test]
async fn a_page_token_serves_only_the_request_it_was_made_for() {
    let tenant = unique();
    let mut client = client_of(address(), &tenant);
    for peer in ["rosa-99", "quinn-88", "vera-66"] {
        record(&mut client, act(Kind::Help, peer, "zed-77", day(0))).await;
    }
    let first = pb::RankConnectionsRequest {
        person: "zed-77".to_owned(),
        page_size: 1,
        ..pb::RankConnectionsRequest::default()
    };
    let answer = client.rank_connections(first.clone()).await.unwrap().into_inner();
    let token = answer.next_page_token;
    assert!(!token.is_empty());
    let next = pb::RankConnectionsRequest { page_token: token.clone(), ..first };
    let again = client.rank_connections(pb::RankConnectionsRequest { page_size: 2, ..next.clone() }).await.unwrap();
    let again = again.into_inner();
    assert_eq!((again.connections.len(), again.as_of_time), (2, answer.as_of_time), "the size of a page may change");

    let changes: [fn(&mut pb::RankConnectionsRequest); 10] = [
        |request| request.person = "yann-55".to_owned(),
        |request| request.order_by = 4,
        |request| request.as_of_time = Some(day(9)),
        |request| request.statuses = vec![4],
        |request| request.channels = vec!["email".to_owned()],
        |request| request.topics = vec!["rust".to_owned()],
        |request| request.minimum_score = 0.01,
        |request| request.explain = true,
        |request| request.page_token.push('A'),
        |request| request.page_token.replace_range(30..31, if &request.page_token[30..31] == "A" { "B" } else { "A" }),
    ];
    let given = ["zed-77", "yann-55", &token[..20]];
    for change in changes {
        let mut other = next.clone();
        change(&mut other);
        assert_faulty(&client.rank_connections(other).await.unwrap_err(), &["page_token"], &given);
    }
    let mut foreign = client_of(address(), &unique());
    assert_faulty(&foreign.rank_connections(next.clone()).await.unwrap_err(), &["page_token"], &given);
    let elsewhere = start(config(database(true).await), Clock::system()).await;
    let status = client_of(elsewhere.address(), &tenant).rank_connections(next).await.unwrap_err();
    assert_faulty(&status, &["page_token"], &given);
}

#[tokio::test]
async fn a_conflict_says_nothing_of_either_content() {
    let mut client = client();
    let help = act(Kind::Help, "zed-77", "rosa-99", day(0));
    record(&mut client, help.clone()).await;
    let other = pb::Interaction { actor: "quinn-88".to_owned(), ..help };
    for validate_only in [false, true] {
        let request = pb::RecordInteractionRequest { interaction: Some(other.clone()), validate_only };
        let status = client.record_interaction(request).await.unwrap_err();
        let given = ["zed-77", "rosa-99", "quinn-88", &other.interaction_id];
        assert_refused(&status, Code::AlreadyExists, "INTERACTION_CONFLICT", &given);
    }
}

const NOT_UNDERSTOOD: &str = "CALL_NOT_UNDERSTOOD";

#[tokio::test]
async fn unknown_methods_are_refused() {
    for path in [method("Nothing"), "/rapport.v2.Other/Method".to_owned(), "/".to_owned(), "/zed-77".to_owned()] {
        let status = wire::call(address(), &path, Vec::new()).await.unwrap_err();
        assert_refused(&status, Code::Unimplemented, NOT_UNDERSTOOD, &["zed-77"]);
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    // A length beyond the end, an unknown wire type, text that is no UTF-8, and a number where a message belongs.
    for bytes in [&b"\x0a\x7fzed-77"[..], b"\x0f", b"\x0a\x04\x0a\x02\xff\xfe", b"\x08\x01"] {
        for name in ["RecordInteraction", "RankConnections", "GetConnection"] {
            let status = wire::call(address(), &method(name), bytes.to_vec()).await.unwrap_err();
            assert_garbled(&status);
        }
        let sound = act(Kind::Help, "zed-77", &unique(), day(0));
        let item = pb::RecordInteractionsRequest { sequence: 1, interaction: Some(sound) }.encode_to_vec();
        // There a number is what comes first.
        let bytes = if bytes == b"\x08\x01" { b"\x12\x01\x08" } else { bytes };
        let (answers, status) =
            wire::stream(address(), &method("RecordInteractions"), vec![item, bytes.to_vec()]).await;
        let [answer] = &answers[..] else { panic!("what came before is acknowledged: {answers:?}") };
        let acknowledgement = pb::RecordInteractionsResponse::decode(&answer[..]).unwrap();
        assert_eq!((acknowledgement.sequence, acknowledgement.recorded_count), (1, 1));
        assert_garbled(&status.unwrap());
    }
}

fn assert_garbled(status: &Status) {
    assert_refused(status, Code::InvalidArgument, NOT_UNDERSTOOD, &["zed-77"]);
}

#[tokio::test]
async fn a_message_beyond_one_mebibyte_is_refused() {
    for name in ["RecordInteraction", "RankConnections", "GetConnection"] {
        let status = wire::call(address(), &method(name), vec![b'x'; (1 << 20) + 1]).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, NOT_UNDERSTOOD, &["xxx"]);
    }
    let (answers, status) =
        wire::stream(address(), &method("RecordInteractions"), vec![vec![b'x'; (1 << 20) + 1]]).await;
    assert!(answers.is_empty());
    assert_refused(&status.unwrap(), Code::ResourceExhausted, NOT_UNDERSTOOD, &["xxx"]);
}

#[tokio::test]
async fn a_compressed_message_is_refused() {
    let mut client = pb::relationship_service_client::RelationshipServiceClient::new(channel(address()));
    let mut request = Request::new(pb::RankConnectionsRequest::default());
    request.metadata_mut().insert("grpc-encoding", MetadataValue::from_static("gzip"));
    let status = client.rank_connections(request).await.unwrap_err();
    assert_refused(&status, Code::Unimplemented, NOT_UNDERSTOOD, &[]);
}
