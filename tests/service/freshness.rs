//! Consistency tokens as callers see them, with no replica there: whose they are, what they stand for, in which order.

use rapport::{
    client::{self, Session},
    domain::{Kind, TenantId},
    rpc::pb,
};
use tonic::Code;

use crate::{
    harness::{Client, act, address, client_of, day, document, policies_of, record, unique, violations},
    wire::assert_refused,
};

fn question(token: &str) -> pb::RankConnectionsRequest {
    pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        at_least_as_fresh_as: token.to_owned(),
        ..Default::default()
    }
}

async fn token_of(client: &mut Client) -> String {
    record(client, act(Kind::Help, "bob", "ada", day(0))).await.consistency_token
}

#[tokio::test]
async fn a_token_of_another_tenant_or_none_at_all_is_refused() {
    let [mine, other] = [unique(), unique()];
    let mut client = client_of(address(), &mine);
    let token = token_of(&mut client).await;
    let foreign = token_of(&mut client_of(address(), &other)).await;
    client.rank_connections(question(&token)).await.unwrap();
    for wrong in [&*foreign, "rosa-99", &token[1..], &token.to_uppercase(), &format!("{token}0"), &"0".repeat(32)] {
        if wrong == token {
            continue;
        }
        let (person, peer) = ("ada".to_owned(), "bob".to_owned());
        let asked = pb::GetConnectionRequest { person, peer, at_least_as_fresh_as: wrong.to_owned(), as_of_time: None };
        for status in [
            client.rank_connections(question(wrong)).await.unwrap_err(),
            client.get_connection(asked).await.unwrap_err(),
        ] {
            assert_refused(&status, Code::InvalidArgument, "FIELDS_INVALID", &["rosa-99"]);
            let said = violations(&status);
            assert_eq!(said["at_least_as_fresh_as"], "must be a consistency_token of the same tenant", "{wrong}");
            assert_eq!(said.len(), 1);
        }
    }
}

#[tokio::test]
async fn every_answer_names_a_state_and_later_ones_are_greater() {
    let tenant = unique();
    let mut client = client_of(address(), &tenant);
    let nothing = client.rank_connections(question("")).await.unwrap().into_inner().consistency_token;
    let first = act(Kind::Help, "bob", "ada", day(0));
    let recorded = record(&mut client, first.clone()).await.consistency_token;
    assert!(recorded > nothing);
    let later = token_of(&mut client).await;
    assert!(later > recorded);
    // What was recorded before is shown by whatever is there now.
    assert_eq!(record(&mut client, first.clone()).await.consistency_token, later);
    let ranked = client.rank_connections(question(&nothing)).await.unwrap().into_inner();
    assert_eq!(ranked.consistency_token, later);
    // The same once more, from what is kept.
    assert_eq!(client.rank_connections(question("")).await.unwrap().into_inner().consistency_token, later);
    let validated = pb::RecordInteractionRequest { interaction: Some(first), validate_only: true };
    assert_eq!(client.record_interaction(validated).await.unwrap().into_inner().consistency_token, "");

    let mut policies = policies_of(address(), &tenant);
    let policy = Some(pb::Policy { document: document("ours-1"), ..Default::default() });
    let publish = pb::PublishPolicyRequest { policy, ..Default::default() };
    let checked = pb::PublishPolicyRequest { validate_only: true, ..publish.clone() };
    assert_eq!(policies.publish_policy(checked).await.unwrap().into_inner().consistency_token, "");
    let published = policies.publish_policy(publish).await.unwrap().into_inner().consistency_token;
    assert!(published > later);
    let back = policies.rollback_policy(pb::RollbackPolicyRequest::default()).await.unwrap().into_inner();
    assert!(back.consistency_token > published);
}

#[tokio::test]
async fn acknowledgements_stand_for_all_before_them() {
    let mut client = client_of(address(), &unique());
    let item = |sequence, interaction| pb::RecordInteractionsRequest { sequence, interaction: Some(interaction) };
    let faulty = item(1, act(Kind::Help, "ada", "ada", day(0)));
    let mut answers = client.record_interactions(tokio_stream::iter([faulty])).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().consistency_token, "", "nothing is recorded yet");

    let items = (1..=2000).map(move |number| item(number, act(Kind::Help, &format!("p{number}"), "ada", day(0))));
    let mut answers =
        client.record_interactions(tokio_stream::iter(items.collect::<Vec<_>>())).await.unwrap().into_inner();
    let mut last = String::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.consistency_token >= last && answer.consistency_token.len() == 32);
        last = answer.consistency_token;
    }
    let ranked = client.rank_connections(question(&last)).await.unwrap().into_inner();
    assert_eq!(ranked.consistency_token, last);
}

#[tokio::test]
async fn a_session_offers_the_freshest_that_it_saw() {
    let tenant = TenantId::parse_metadata(&unique()).unwrap();
    let session = Session::default();
    let plain = client::Client::at(&format!("http://{}", address())).unwrap().as_tenant(&tenant).unwrap();
    let client = plain.clone().in_session(session.clone());
    let recorded = client.record(act(Kind::Help, "bob", "ada", day(0))).await.unwrap();
    assert_eq!(session.token(), recorded.consistency_token);
    let later = plain.record(act(Kind::Help, "cid", "ada", day(0))).await.unwrap().consistency_token;
    assert_eq!(session.token(), recorded.consistency_token, "told outside of the session");
    assert_eq!(client.rank(question("")).await.unwrap().connections.len(), 2);
    assert_eq!(session.token(), later);
    // It is offered: one that the server would refuse is refused.
    let other = plain.clone().in_session(Session::from_token("rosa-99"));
    let refused = other.rank(question("")).await.unwrap_err();
    assert_eq!(refused.status().code(), Code::InvalidArgument);
    let (person, peer) = ("ada".to_owned(), "bob".to_owned());
    let asked = pb::GetConnectionRequest { person, peer, ..Default::default() };
    assert_eq!(other.connection(asked).await.unwrap_err().status().code(), Code::InvalidArgument);
    assert!(other.as_tenant(&tenant).unwrap().rank(question("")).await.is_ok(), "another tenant, another session");
}
