//! Scoring policies through the API: published once and for all, put to use at once and everywhere, taken back.

use rapport::{
    domain::Kind,
    rpc::pb,
    scoring::{DEFAULT, Policy},
    service::{Clock, MAX_DOCUMENT_BYTES},
};
use sqlx::{Connection as _, PgConnection};
use tonic::{Code, Status};

use crate::{
    harness::{
        Client, PolicyClient, act, address, client_of, config, database, day, document, error_metadata, policies_of,
        reason, record, start, unique, violations,
    },
    wire::assert_refused,
};

fn policies() -> (String, PolicyClient) {
    let tenant = unique();
    (tenant.clone(), policies_of(address(), &tenant))
}

fn publishing(document: String) -> pb::PublishPolicyRequest {
    let policy = Some(pb::Policy { document, ..pb::Policy::default() });
    pb::PublishPolicyRequest { policy, ..pb::PublishPolicyRequest::default() }
}

async fn publish(client: &mut PolicyClient, version: &str) -> pb::PublishPolicyResponse {
    client.publish_policy(publishing(document(version))).await.unwrap().into_inner()
}

async fn get(client: &mut PolicyClient, version: &str) -> Result<pb::Policy, Status> {
    let request = pb::GetPolicyRequest { version: version.to_owned() };
    client.get_policy(request).await.map(|answer| answer.into_inner().policy.unwrap())
}

async fn in_use(client: &mut PolicyClient) -> String {
    let policy = get(client, "").await.unwrap();
    assert!(policy.in_use);
    policy.version
}

async fn roll_back(client: &mut PolicyClient, version: &str) -> Result<String, Status> {
    let request = pb::RollbackPolicyRequest { version: version.to_owned() };
    let used = client.rollback_policy(request).await?.into_inner().policy.unwrap();
    assert!(used.in_use && !used.document.is_empty());
    Ok(used.version)
}

/// All versions, by pages of that size, each with whether it is in use.
async fn list(client: &mut PolicyClient, page_size: i32) -> Vec<(String, bool)> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListPoliciesRequest { page_size, page_token };
        let page = client.list_policies(request).await.unwrap().into_inner();
        assert!(page.policies.len() <= page_size as usize && !page.policies.is_empty());
        assert!(page.policies.iter().all(|policy| policy.document.is_empty()));
        found.extend(page.policies.into_iter().map(|policy| (policy.version, policy.in_use)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// The first page of a ranking, or the one after it.
async fn ranked(client: &mut Client, page_token: &str) -> pb::RankConnectionsResponse {
    let request = pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
        ..pb::RankConnectionsRequest::default()
    };
    client.rank_connections(request).await.unwrap().into_inner()
}

async fn scored_by(client: &mut Client) -> String {
    let (person, peer) = ("ada".to_owned(), "bob".to_owned());
    let asked = pb::GetConnectionRequest { person, peer, as_of_time: None, ..Default::default() };
    let of_connection = client.get_connection(asked).await.unwrap().into_inner().policy_version;
    assert_eq!(ranked(client, "").await.policy_version, of_connection);
    of_connection
}

#[tokio::test]
async fn who_published_nothing_uses_the_policy_built_in() {
    let (tenant, mut client) = policies();
    let built_in = get(&mut client, "").await.unwrap();
    assert!(built_in.built_in && built_in.in_use && built_in.publish_time.is_none());
    assert_eq!((&*built_in.version, built_in.document.clone()), (&*DEFAULT.version, DEFAULT.document()));
    assert_eq!(get(&mut client, &DEFAULT.version).await.unwrap(), built_in);
    assert_eq!(list(&mut client, 1).await, [(DEFAULT.version.to_string(), true)]);
    assert_eq!(scored_by(&mut client_of(address(), &tenant)).await, DEFAULT.version);
}

#[tokio::test]
async fn what_is_published_is_used_by_the_next_answer() {
    let (tenant, mut client) = policies();
    let mut asking = client_of(address(), &tenant);
    for version in ["fitted-1", "fitted-2", "Fitted_2.b"] {
        let answer = publish(&mut client, version).await;
        let policy = answer.policy.unwrap();
        assert!(!answer.replayed && policy.in_use && !policy.built_in && policy.publish_time.is_some());
        assert_eq!((&*policy.version, &policy.document), (version, &document(version)));
        assert_eq!(scored_by(&mut asking).await, version);
        assert_eq!(get(&mut client, version).await.unwrap(), policy);
    }
    let aside = pb::PublishPolicyRequest { put_to_use: Some(false), ..publishing(document("aside")) };
    assert!(!client.publish_policy(aside).await.unwrap().into_inner().policy.unwrap().in_use);
    assert_eq!(scored_by(&mut asking).await, "Fitted_2.b");
    let expected = [("aside", false), ("Fitted_2.b", true), ("fitted-2", false), ("fitted-1", false)];
    let mut expected: Vec<_> = expected.map(|(version, used)| (version.to_owned(), used)).into();
    expected.push((DEFAULT.version.to_string(), false));
    for page_size in [1, 2, 3, 1000] {
        assert_eq!(list(&mut client, page_size).await, expected, "pages of {page_size}");
    }
}

#[tokio::test]
async fn publishing_again_only_puts_to_use_again() {
    let (_, mut client) = policies();
    let first = publish(&mut client, "fitted-1").await.policy.unwrap();
    publish(&mut client, "fitted-2").await;
    // The same, laid out in another way, and put to use again.
    let value: serde_json::Value = serde_json::from_str(&document("fitted-1")).unwrap();
    let again = client.publish_policy(publishing(format!("{value:#}"))).await.unwrap().into_inner();
    assert!(again.replayed);
    assert_eq!(again.policy.unwrap(), first);
    assert_eq!(in_use(&mut client).await, "fitted-1");
}

#[tokio::test]
async fn only_validating_changes_nothing() {
    let (_, mut client) = policies();
    publish(&mut client, "fitted-1").await;
    let check = |version: &str| pb::PublishPolicyRequest { validate_only: true, ..publishing(document(version)) };
    for _ in 0..2 {
        let answer = client.publish_policy(check("fitted-2")).await.unwrap().into_inner();
        assert!(!answer.replayed && answer.policy.unwrap().in_use);
        assert!(client.publish_policy(check("fitted-1")).await.unwrap().into_inner().replayed);
    }
    assert_eq!(get(&mut client, "fitted-2").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(in_use(&mut client).await, "fitted-1");
    let faulty = pb::PublishPolicyRequest { validate_only: true, ..publishing("{".to_owned()) };
    assert_eq!(client.publish_policy(faulty).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_fault_of_a_document_is_named_at_once() {
    let (_, mut client) = policies();
    let mut all_wrong: serde_json::Value = serde_json::from_str(&DEFAULT.document()).unwrap();
    all_wrong.as_object_mut().unwrap().values_mut().for_each(|value| *value = serde_json::json!({ "zed-77": [] }));
    let all_wrong = all_wrong.to_string();
    let named = |field: &str| match field {
        "" => "policy.document".to_owned(),
        field => format!("policy.document.{field}"),
    };
    for document in [&*all_wrong, "", "{", "[]", "{}", r#"{"version": 1}"#] {
        let refused = client.publish_policy(publishing(document.to_owned())).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "FIELDS_INVALID"));
        let found = violations(&refused);
        for fault in Policy::parse(document).unwrap_err() {
            assert!(found.contains_key(&named(&fault.field)), "{fault} is not in {found:?}");
        }
    }
    let long = format!("{}{}", " ".repeat(MAX_DOCUMENT_BYTES), document("fitted-1"));
    let cases = [
        (long, "policy.document", "must be at most 65536 bytes long"),
        (
            document(&DEFAULT.version),
            "policy.document.version",
            "must not begin with 'default-', as the policies built into programs do",
        ),
        (document(&"v".repeat(65)), "policy.document.version", "must be at most 64 bytes long"),
        (document("fitted 1"), "policy.document.version", "must consist of letters a to z, digits, '.', '_' and '-'"),
        (document(""), "policy.document.version", "must not be empty"),
        ("{".to_owned(), "policy.document", "must be a policy in JSON: EOF while parsing an object at line 1 column 1"),
    ];
    for (document, field, description) in cases {
        let found = violations(&client.publish_policy(publishing(document)).await.unwrap_err());
        assert_eq!(found.get(field).map(String::as_str), Some(description), "{found:?}");
    }
    assert!(client.publish_policy(pb::PublishPolicyRequest::default()).await.is_err());
    assert_eq!(list(&mut client, 9).await.len(), 1);
    let sound = document("fitted-1");
    let padded = " ".repeat(MAX_DOCUMENT_BYTES - sound.len()) + &sound;
    client.publish_policy(publishing(padded)).await.unwrap();
}

#[tokio::test]
async fn rolling_back_goes_back_step_by_step() {
    let (tenant, mut client) = policies();
    let mut asking = client_of(address(), &tenant);
    let nothing = roll_back(&mut client, "").await.unwrap_err();
    assert_refused(&nothing, Code::NotFound, "POLICY_NOT_FOUND", &[]);
    for version in ["one", "two", "three"] {
        publish(&mut client, version).await;
    }
    // Put to use again while it is in use: no step.
    publish(&mut client, "three").await;
    for expected in ["two", "one", &DEFAULT.version] {
        assert_eq!(roll_back(&mut client, "").await.unwrap(), expected);
        assert_eq!(scored_by(&mut asking).await, expected);
    }
    let nothing = roll_back(&mut client, "").await.unwrap_err();
    assert_eq!(nothing.message(), "no other version of the scoring policy was in use before");
    // By name, in any direction, and back from there.
    for (version, expected) in [("three", "three"), ("three", "three"), (&*DEFAULT.version, &*DEFAULT.version)] {
        assert_eq!(roll_back(&mut client, version).await.unwrap(), expected);
    }
    for expected in ["three", &DEFAULT.version] {
        assert_eq!(roll_back(&mut client, "").await.unwrap(), expected);
    }
    assert!(roll_back(&mut client, "").await.is_err());
    publish(&mut client, "four").await;
    assert_eq!(roll_back(&mut client, "").await.unwrap(), DEFAULT.version);
}

#[tokio::test]
async fn unknown_versions_and_made_up_tokens_are_refused() {
    let (_, mut client) = policies();
    let (other, mut others) = policies();
    for version in ["a", "b", "c"] {
        publish(&mut others, version).await;
    }
    for refused in [get(&mut client, "a").await.unwrap_err(), roll_back(&mut client, "a").await.unwrap_err()] {
        assert_refused(&refused, Code::NotFound, "POLICY_NOT_FOUND", &[]);
    }
    for refused in [get(&mut client, "a b").await.unwrap_err(), roll_back(&mut client, "a b").await.unwrap_err()] {
        assert!(refused.code() == Code::InvalidArgument && violations(&refused).contains_key("version"));
    }
    let request =
        |page_size, page_token: &str| pb::ListPoliciesRequest { page_size, page_token: page_token.to_owned() };
    let token = others.list_policies(request(1, "")).await.unwrap().into_inner().next_page_token;
    assert!(others.list_policies(request(2, &token)).await.is_ok());
    record(&mut client_of(address(), &other), act(Kind::Help, "bob", "ada", day(0))).await;
    record(&mut client_of(address(), &other), act(Kind::Help, "cleo", "ada", day(0))).await;
    let of_ranking = ranked(&mut client_of(address(), &other), "").await.next_page_token;
    for (client, page_size, page_token, field) in [
        (&client, 1, &*token, "page_token"),
        (&others, 1, &of_ranking, "page_token"),
        (&others, 1, "made up", "page_token"),
        (&others, -1, "", "page_size"),
    ] {
        let mut client = client.clone();
        let refused = client.list_policies(request(page_size, page_token)).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && violations(&refused).contains_key(field), "{refused:?}");
    }
}

#[tokio::test]
async fn tenants_keep_their_policies_apart() {
    let [(one, mut ones), (two, mut twos)] = [policies(), policies()];
    publish(&mut ones, "fitted-1").await;
    assert_eq!(scored_by(&mut client_of(address(), &two)).await, DEFAULT.version);
    // The same name means nothing to the other.
    assert!(!publish(&mut twos, "fitted-1").await.replayed);
    publish(&mut twos, "fitted-2").await;
    assert_eq!(scored_by(&mut client_of(address(), &one)).await, "fitted-1");
    assert_eq!(scored_by(&mut client_of(address(), &two)).await, "fitted-2");
    assert_eq!((list(&mut ones, 9).await.len(), list(&mut twos, 9).await.len()), (2, 3));
}

#[tokio::test]
async fn pages_go_on_by_the_policy_they_began_with() {
    let (tenant, mut client) = policies();
    let mut asking = client_of(address(), &tenant);
    for peer in ["bob", "cleo", "dora", "emil"] {
        record(&mut asking, act(Kind::Help, peer, "ada", day(0))).await;
    }
    let mut page = ranked(&mut asking, "").await;
    let mut peers = vec![page.connections[0].peer.clone()];
    for version in ["one", "two", "three"] {
        publish(&mut client, version).await;
        page = ranked(&mut asking, &page.next_page_token).await;
        assert_eq!(page.policy_version, DEFAULT.version);
        peers.push(page.connections[0].peer.clone());
    }
    assert_eq!((page.next_page_token.as_str(), peers.join(" ").as_str()), ("", "bob cleo dora emil"));
    // A version of one's own holds as well, also after it was taken back.
    let page = ranked(&mut asking, "").await;
    roll_back(&mut client, "").await.unwrap();
    let next = ranked(&mut asking, &page.next_page_token).await;
    assert_eq!((page.policy_version.as_str(), next.policy_version.as_str()), ("three", "three"));
    assert_eq!(scored_by(&mut asking).await, "two");
}

#[tokio::test]
async fn all_servers_of_a_database_switch_together() {
    let url = database(true).await;
    let [one, two] = [start(config(url.clone()), Clock::system()).await, start(config(url), Clock::system()).await];
    let mut clients = [one.address(), two.address()].map(|address| policies_of(address, "t"));
    let mut asking = [one.address(), two.address()].map(|address| client_of(address, "t"));
    for number in 0..6 {
        let version = format!("v{number}");
        publish(&mut clients[number % 2], &version).await;
        for asking in &mut asking {
            assert_eq!(scored_by(asking).await, version);
        }
    }
    assert_eq!(roll_back(&mut clients[0], "").await.unwrap(), "v4");
    assert_eq!(roll_back(&mut clients[1], "").await.unwrap(), "v3");
    for asking in &mut asking {
        assert_eq!(scored_by(asking).await, "v3");
    }
}

#[tokio::test]
async fn a_ranking_by_a_policy_that_is_gone_has_to_begin_again() {
    let url = database(true).await;
    let [one, two] =
        [start(config(url.clone()), Clock::system()).await, start(config(url.clone()), Clock::system()).await];
    publish(&mut policies_of(one.address(), "t"), "fitted-1").await;
    let [mut first, mut second] = [&one, &two].map(|app| client_of(app.address(), "t"));
    for peer in ["bob", "cleo"] {
        record(&mut first, act(Kind::Help, peer, "ada", day(0))).await;
    }
    let token = ranked(&mut first, "").await.next_page_token;
    // No program does that; but another version of the program has another policy built in.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("DELETE FROM policy_use; DELETE FROM policy").execute(&mut connection).await.unwrap();
    let request =
        pb::RankConnectionsRequest { page_token: token, page_size: 1, person: "ada".to_owned(), ..Default::default() };
    let refused = second.rank_connections(request).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && violations(&refused).contains_key("page_token"), "{refused:?}");
    assert_eq!(ranked(&mut second, "").await.policy_version, DEFAULT.version);
}

#[tokio::test]
async fn many_who_publish_at_once_all_succeed() {
    let (tenant, mut client) = policies();
    let publish_all = |name: fn(usize) -> String| {
        let calls: Vec<_> = (0..24)
            .map(|number| {
                let mut client = policies_of(address(), &tenant);
                tokio::spawn(async move { publish(&mut client, &name(number)).await.replayed })
            })
            .collect();
        async move {
            let mut fresh = 0;
            for call in calls {
                fresh += usize::from(!call.await.unwrap());
            }
            fresh
        }
    };
    assert_eq!(publish_all(|_| "same".to_owned()).await, 1);
    assert_eq!(publish_all(|number| format!("v{number}")).await, 24);
    let listed = list(&mut client, 7).await;
    assert_eq!((listed.len(), listed.iter().filter(|(_, used)| *used).count()), (26, 1));
    for _ in 0..25 {
        roll_back(&mut client, "").await.unwrap();
    }
    assert_eq!(in_use(&mut client).await, DEFAULT.version);
}

#[tokio::test]
async fn a_tenant_has_a_thousand_versions_at_most_and_each_stands_for_one_document() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = policies_of(app.address(), "t");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let rows = "INSERT INTO policy SELECT 't', 'v' || n, n, '{\"version\": \"v' || n || '\"}', '2026-01-01 00:00+00'
                FROM generate_series(1, 999) AS n";
    sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    publish(&mut client, "last").await;
    let refused = client.publish_policy(publishing(document("one-more"))).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_POLICIES", &[]);
    assert_eq!(error_metadata(&refused), [("limit".to_owned(), "1000".to_owned())]);
    assert!(publish(&mut client, "last").await.replayed, "what is there already is no more");
    assert_eq!(list(&mut client, 1000).await.len(), 1001);
    for beyond in [1001, i32::MAX] {
        let request = pb::ListPoliciesRequest { page_size: beyond, page_token: String::new() };
        let page = client.list_policies(request).await.unwrap().into_inner();
        assert_eq!((page.policies.len(), page.next_page_token.is_empty()), (1000, false), "more is cut to the most");
    }
    sqlx::raw_sql("UPDATE policy SET document = '{\"version\": \"v7\", \"other\": 1}' WHERE version = 'v7'")
        .execute(&mut connection)
        .await
        .unwrap();
    let refused = client.publish_policy(publishing(document("v7"))).await.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "POLICY_CONFLICT", &[]);
    // A document that this program cannot read is not put to use, so that answers can still be given.
    sqlx::raw_sql("UPDATE policy SET document = 'x' WHERE version = 'v8'").execute(&mut connection).await.unwrap();
    let refused = roll_back(&mut client, "v8").await.unwrap_err();
    assert_refused(&refused, Code::Internal, "INTERNAL", &[]);
    assert_eq!(scored_by(&mut client_of(app.address(), "t")).await, "last");
}
