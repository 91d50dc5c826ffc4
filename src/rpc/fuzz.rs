//! Bytes and tokens that nobody made well: whatever arrives is understood or refused, and nothing panics.

use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::{
    domain::{Faults, Interaction, InteractionId, PersonId, PolicyVersion, TenantId, Timestamp},
    scoring::{DEFAULT, Policy, RankKey},
    testing::{damaged, fuzzing},
};

use super::{
    page_token::{Place, Sealer},
    pb, request, status,
};

/// How the bytes of a message are changed.
fn changes() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    vec((any::<Index>(), 0_u8..3, any::<u8>()), 0..8)
}

fn sound_interaction() -> pb::Interaction {
    pb::Interaction {
        interaction_id: "review-1".to_owned(),
        actor: "bob".to_owned(),
        recipients: vec!["ada".to_owned(), "zoë".to_owned()],
        interaction_time: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 5 }),
        kind: 5,
        effort: Some(prost_types::Duration { seconds: 90, nanos: 1 }),
        audience_count: 7,
        channel: "email".to_owned(),
        topics: vec!["rust".to_owned()],
        goal: "ship".to_owned(),
        unprompted: true,
        due_time: Some(prost_types::Timestamp { seconds: 1_777_225_600, nanos: 0 }),
        refers_to: "ask-1".to_owned(),
    }
}

fn sound_ranking() -> pb::RankConnectionsRequest {
    pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        order_by: 2,
        as_of_time: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
        statuses: vec![1, 4],
        channels: vec!["email".to_owned()],
        topics: vec!["rust".to_owned()],
        minimum_score: 0.25,
        page_size: 50,
        page_token: "token".to_owned(),
        explain: true,
        at_least_as_fresh_as: "token".to_owned(),
    }
}

/// Converts bytes as every method would, as far as they are its message.
fn convert(bytes: &[u8]) {
    if let Ok(message) = pb::RecordInteractionRequest::decode(bytes) {
        take_in(message.interaction);
    }
    if let Ok(message) = pb::RecordInteractionsRequest::decode(bytes) {
        take_in(message.interaction);
    }
    if let Ok(message) = pb::RankConnectionsRequest::decode(bytes) {
        let (query, faults) = request::rank_query(&message, &TenantId::unnamed());
        // Either it can be asked, or it is said why not.
        assert!(query.is_some() || !faults.list().is_empty());
        assert!(query.is_none_or(|query| (1..=1000).contains(&query.page_size)));
        say(&faults);
    }
    if let Ok(message) = pb::GetConnectionRequest::decode(bytes)
        && let Err(faults) = request::connection_query(&message, &TenantId::unnamed())
    {
        say(&faults);
    }
}

fn take_in(given: Option<pb::Interaction>) {
    let mut faults = Faults::default();
    let draft = request::draft(given, &mut faults);
    match Interaction::parse(&draft, Timestamp::MAX, || InteractionId::parse("made"), faults) {
        Ok(interaction) => assert!(!interaction.recipients.is_empty()),
        Err(faults) => say(&faults),
    }
}

/// What is wrong fits into what clients take, however much it is.
fn say(faults: &Faults) {
    if !faults.list().is_empty() {
        let status = status::of_faults(faults);
        assert!(status.message().len() + status.details().len() * 4 / 3 < 7 * 1024, "{}", status.details().len());
    }
}

fn place() -> Place {
    let after = RankKey {
        primary: std::cmp::Reverse(1),
        secondary: std::cmp::Reverse(2),
        peer: PersonId::parse("bob").unwrap(),
    };
    Place {
        as_of: Timestamp::from_micros(42).unwrap(),
        revision: 8,
        policy: PolicyVersion::parse("fitted-1").unwrap(),
        after,
    }
}

proptest! {
    #![proptest_config(fuzzing())]

    #[test]
    fn any_bytes_are_converted_or_refused(
        bytes in vec(any::<u8>(), 0..200),
        changes in changes(),
        which in 0_u8..3,
        validate_only in any::<bool>(),
    ) {
        convert(&bytes);
        let interaction = Some(sound_interaction());
        let sound = match which {
            0 => pb::RecordInteractionRequest { interaction, validate_only }.encode_to_vec(),
            1 => pb::RecordInteractionsRequest { sequence: 1, interaction }.encode_to_vec(),
            _ => sound_ranking().encode_to_vec(),
        };
        convert(&damaged(sound, &changes));
    }

    #[test]
    fn any_metadata_is_read_or_refused(timeout in "[0-9a-zA-Z+-]{0,12}", tenant in vec(32_u8..=255, 0..80)) {
        let mut metadata = MetadataMap::new();
        if let Ok(value) = timeout.parse() {
            metadata.insert("grpc-timeout", value);
        }
        let limit = request::head(&metadata);
        prop_assert!(limit.as_ref().is_err() || limit.is_ok_and(|head| head.tenant.is_none()));
        metadata.clear();
        if let Ok(value) = MetadataValue::try_from(&tenant[..]) {
            metadata.insert(super::TENANT_KEY, value);
            let named = request::head(&metadata).map(|head| head.tenant);
            prop_assert!(named.is_err() || named.is_ok_and(|named| named.is_some_and(|named| named.as_str().as_bytes() == tenant)));
        }
    }

    #[test]
    fn only_whole_page_tokens_are_opened(text in ".{0,200}", changes in changes()) {
        let (sealer, tenant) = (Sealer::new(&[7; 32]).unwrap(), TenantId::unnamed());
        prop_assert!(sealer.open(&text, b"arguments").is_none() && sealer.open_list(&text, &tenant).is_none());
        let tokens = [sealer.seal(&place(), b"arguments").unwrap(), sealer.seal_list(41, &tenant).unwrap()];
        for token in tokens {
            let changed = damaged(token.clone().into_bytes(), &changes);
            let Ok(changed) = String::from_utf8(changed) else { continue };
            let opened = sealer.open(&changed, b"arguments").is_some() || sealer.open_list(&changed, &tenant).is_some();
            prop_assert_eq!(opened, changed == token);
        }
    }

    #[test]
    fn any_document_is_a_policy_or_is_told_why_not(text in ".{0,300}", changes in changes()) {
        let read = |text: &str| match Policy::parse(text) {
            // What is understood is understood the same when it is written again.
            Ok(policy) => {
                let written = policy.document();
                Policy::parse(&written).is_ok_and(|again| again.document() == written)
            }
            Err(faults) => !faults.is_empty(),
        };
        prop_assert!(read(&text));
        let document = damaged(DEFAULT.document().into_bytes(), &changes);
        prop_assert!(read(&String::from_utf8_lossy(&document)));
    }
}
