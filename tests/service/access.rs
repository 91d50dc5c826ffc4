//! Who gets in: keys, tokens and client certificates, what they are granted, and that both follow their files.

use std::{error::Error as _, time::Duration};

use rapport::{access::Key, domain::Kind, rpc::pb};
use rcgen::SanType;
use serde_json::{Value, json};
use tonic::{Code, Request, service::interceptor::InterceptedService};

use crate::{
    authority::{Authority, tls_channel, tls_files, write_tls},
    guarded::{Guarded, Shown, client, principal, rank, record},
    harness::{act, channel, day, document, error_metadata, eventually, reason},
    program::{Ran, program},
    wire::assert_refused,
};

#[tokio::test]
async fn whoever_is_not_known_is_refused_and_whoever_may_not_is_denied() {
    let (crm, other) = (Key::new().unwrap(), Key::new().unwrap());
    let document = json!({"principals": [
        principal("crm", &[&crm], &["crm"], &["record", "rank"]),
        principal("other", &[&other], &["other", "more"], &["rank"]),
    ]});
    let server = Guarded::start(&document, |_, _| {}).await;
    let with = |key: &Key, tenant| client(channel(server.address()), key.as_str().to_owned(), tenant);
    record(&mut with(&crm, None)).await.unwrap();
    assert_eq!(rank(&mut with(&crm, Some("crm"))).await.unwrap().connections.len(), 1);
    for shown in [None, Some(String::new()), Some("nonsense".to_owned()), Some(format!("{}0", crm.as_str()))] {
        let refused = rank(&mut client(channel(server.address()), shown, Some("crm"))).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::Unauthenticated, "UNAUTHENTICATED"));
    }
    let denied = [
        rank(&mut with(&other, Some("crm"))).await.unwrap_err(),
        rank(&mut with(&other, Some("never-heard-of"))).await.unwrap_err(),
        rank(&mut with(&other, None)).await.unwrap_err(),
    ];
    let of_recording = [
        record(&mut with(&other, Some("other"))).await.unwrap_err(),
        record(&mut with(&other, Some("crm"))).await.unwrap_err(),
        record(&mut with(&other, Some("never-heard-of"))).await.unwrap_err(),
    ];
    for (denied, right) in [(denied, "rank"), (of_recording, "record")] {
        for one in &denied {
            assert_refused(one, Code::PermissionDenied, "PERMISSION_DENIED", &["crm", "other", "never"]);
            assert_eq!(error_metadata(one), [("right".to_owned(), right.to_owned())]);
            // Nothing tells a tenant that is somebody else's from one that is nobody's.
            assert_eq!((one.message(), one.details()), (denied[0].message(), denied[0].details()));
        }
    }
}

#[tokio::test]
async fn two_keys_prove_nothing() {
    let (key, other) = (Key::new().unwrap(), Key::new().unwrap());
    let document = json!({"principals": [principal("crm", &[&key, &other], &["crm"], &["rank"])]});
    let server = Guarded::start(&document, |_, _| {}).await;
    for second in [&key, &other] {
        let mut request = Request::new(pb::RankConnectionsRequest { person: "zed".to_owned(), ..Default::default() });
        request.metadata_mut().append("authorization", format!("Bearer {}", second.as_str()).parse().unwrap());
        let mut plain = pb::relationship_service_client::RelationshipServiceClient::new(channel(server.address()));
        plain.rank_connections(request).await.expect("one is enough");
        let mut request = Request::new(pb::RankConnectionsRequest { person: "zed".to_owned(), ..Default::default() });
        for shown in [&key, second] {
            request.metadata_mut().append("authorization", format!("Bearer {}", shown.as_str()).parse().unwrap());
        }
        let refused = plain.rank_connections(request).await.unwrap_err();
        assert_refused(&refused, Code::Unauthenticated, "UNAUTHENTICATED", &[key.as_str(), second.as_str()]);
    }
}

#[tokio::test]
async fn a_right_in_one_tenant_opens_nothing_that_another_has_made() {
    let (first, second) = (Key::new().unwrap(), Key::new().unwrap());
    let document = json!({"principals": [
        principal("first", &[&first], &["first"], &["record", "rank", "admin"]),
        principal("second", &[&second], &["second"], &["record", "rank", "admin"]),
    ]});
    let server = Guarded::start(&document, |_, _| {}).await;
    let [mut first, mut second] =
        [&first, &second].map(|key| client(channel(server.address()), key.as_str().to_owned(), None));
    for peer in ["ada", "rosa", "kim"] {
        let interaction = Some(act(Kind::Help, peer, "zed", day(0)));
        first.record_interaction(pb::RecordInteractionRequest { interaction, validate_only: false }).await.unwrap();
    }
    let page = |page_token: String| pb::RankConnectionsRequest {
        person: "zed".to_owned(),
        page_size: 1,
        page_token,
        ..Default::default()
    };
    let theirs = first.rank_connections(page(String::new())).await.unwrap().into_inner();
    assert!(rank(&mut second).await.unwrap().connections.is_empty());
    let taken = second.rank_connections(page(theirs.next_page_token)).await.unwrap_err();
    let made_up = second.rank_connections(page("made-up".to_owned())).await.unwrap_err();
    assert_eq!(
        (taken.code(), taken.message(), taken.details()),
        (made_up.code(), made_up.message(), made_up.details())
    );
}

#[tokio::test]
async fn policies_are_for_those_who_may_administer() {
    let (operator, clerk) = (Key::new().unwrap(), Key::new().unwrap());
    let grants = json!({"principals": [
        principal("operator", &[&operator], &["*"], &["admin"]),
        principal("clerk", &[&clerk], &["*"], &["record", "rank"]),
    ]});
    let server = Guarded::start(&grants, |_, _| {}).await;
    let publish = async |key: &Key| {
        let shown = Shown { bearer: Some(key.as_str().to_owned()), tenant: Some("any") };
        let channel = InterceptedService::new(channel(server.address()), shown);
        let mut policies = pb::policy_service_client::PolicyServiceClient::new(channel);
        let policy = pb::Policy { document: document("ours-1"), ..pb::Policy::default() };
        policies.publish_policy(pb::PublishPolicyRequest { policy: Some(policy), ..Default::default() }).await
    };
    assert_eq!(publish(&clerk).await.unwrap_err().code(), Code::PermissionDenied);
    publish(&operator).await.unwrap();
    let operator = client(channel(server.address()), operator.as_str().to_owned(), Some("any"));
    assert_eq!(rank(&mut operator.clone()).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_access_file_is_followed_and_a_broken_one_is_not() {
    let (old, new) = (Key::new().unwrap(), Key::new().unwrap());
    let document = |keys: &[&Key]| json!({"principals": [principal("crm", keys, &["crm"], &["rank"])]});
    let server = Guarded::start(&document(&[&old]), |_, _| {}).await;
    let [mut with_old, mut with_new] =
        [&old, &new].map(|key| client(channel(server.address()), key.as_str().to_owned(), None));
    assert!(rank(&mut with_new).await.is_err());
    std::fs::write(&server.file, document(&[&old, &new]).to_string()).unwrap();
    eventually("the new key is taken", async || rank(&mut with_new).await.is_ok()).await;
    rank(&mut with_old).await.expect("both are");
    std::fs::write(&server.file, "{").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    rank(&mut with_old).await.expect("what is broken changes nothing");
    std::fs::write(&server.file, document(&[&new]).to_string()).unwrap();
    eventually("the old key is refused", async || rank(&mut with_old).await.is_err()).await;
    rank(&mut with_new).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_proves_who_calls() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let document = json!({"principals": [{"name": "crm", "certificates": ["spiffe://example.org/crm"],
        "grants": [{"tenants": ["crm"], "rights": ["rank"]}]}]});
    let server = Guarded::start(&document, |folder, config| {
        write_tls(folder, &authority.server());
        std::fs::write(folder.join("clients.crt"), authority.0.pem()).unwrap();
        config.tls = Some(tls_files(folder, true));
    })
    .await;
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let as_whom =
        async |identity| rank(&mut client(tls_channel(server.address(), &authority, identity), None, None)).await;
    as_whom(Some(authority.issue(uri("spiffe://example.org/crm")))).await.unwrap();
    let other = as_whom(Some(authority.issue(uri("spiffe://example.org/other")))).await.unwrap_err();
    assert_eq!(other.code(), Code::Unauthenticated);
    assert_eq!(as_whom(None).await.unwrap_err().code(), Code::Unauthenticated);
    let stranger = as_whom(Some(strangers.issue(uri("spiffe://example.org/crm")))).await.unwrap_err();
    assert!(stranger.source().is_some(), "the handshake fails: {stranger:?}");
    let plain = rank(&mut client(channel(server.address()), None, None)).await.unwrap_err();
    assert!(plain.source().is_some(), "nothing is said without TLS: {plain:?}");
}

#[tokio::test]
async fn another_certificate_is_shown_without_a_restart() {
    let (before, after) = (Authority::new(), Authority::new());
    let key = Key::new().unwrap();
    let document = json!({"principals": [principal("crm", &[&key], &["crm"], &["rank"])]});
    let mut place = None;
    let server = Guarded::start(&document, |folder, config| {
        write_tls(folder, &before.server());
        config.tls = Some(tls_files(folder, false));
        place = Some(folder.to_owned());
    })
    .await;
    let through =
        |authority: &Authority| client(tls_channel(server.address(), authority, None), key.as_str().to_owned(), None);
    let mut open = through(&before);
    rank(&mut open).await.unwrap();
    assert!(rank(&mut through(&after)).await.is_err());
    write_tls(&place.unwrap(), &after.server());
    eventually("the new certificate is shown", async || rank(&mut through(&after)).await.is_ok()).await;
    assert!(rank(&mut through(&before)).await.is_err(), "and the old one no more");
    rank(&mut open).await.expect("what is open stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_a_guarded_server_with_a_key_that_was_made_for_them() {
    let made = Ran::from(program(&["keys", "new"]).output().unwrap()).expect(0);
    let entry: Value = serde_json::from_str(made.err.trim().split_once(": ").unwrap().1).unwrap();
    let document = json!({"principals": [{"name": "crm", "keys": [entry],
        "grants": [{"tenants": ["crm"], "rights": ["rank"]}]}]});
    let authority = Authority::new();
    let mut place = None;
    let server = Guarded::start(&document, |folder, config| {
        write_tls(folder, &authority.server());
        std::fs::write(folder.join("authority.crt"), authority.0.pem()).unwrap();
        std::fs::write(folder.join("key"), &made.out).unwrap();
        config.tls = Some(tls_files(folder, false));
        place = Some(folder.to_owned());
    })
    .await;
    let rank = |host: &str, arguments: &[&[&str]]| {
        let mut command = program(&["rank", "zed", "--server", &format!("https://{host}:{}", server.address().port())]);
        Ran::from(command.args(arguments.concat()).current_dir(place.as_ref().unwrap()).output().unwrap())
    };
    let (key, authority) = (["--key-file", "key"], ["--server-authorities", "authority.crt"]);
    rank("localhost", &[&key, &authority]).expect(0);
    rank("127.0.0.1", &[&key, &authority, &["--server-name", "localhost"]]).expect(0);
    let unknown = rank("localhost", &[&authority]).expect(1);
    assert!(unknown.err.starts_with("rapport: the server refused: the call carries no valid credentials; --key-file"));
    std::fs::write(place.as_ref().unwrap().join("old"), Key::new().unwrap().as_str()).unwrap();
    let old = rank("localhost", &[&["--key-file", "old"], &authority]).expect(1).err;
    assert!(old.ends_with("; the key or token in --key-file is not, or no longer, in force there\n"), "{old}");
    for (strange, flag) in [
        (rank("localhost", &[&key]), "--server-authorities names a file with whoever issued it"),
        (rank("127.0.0.1", &[&key, &authority]), "--server-name says what it must be for"),
    ] {
        let told = strange.expect(1).err;
        assert!(told.contains(" is not believed: invalid peer certificate: ") && told.contains(flag), "{told}");
    }
}
