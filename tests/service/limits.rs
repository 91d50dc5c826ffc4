//! Every limit of the contract: what lies exactly on it is taken, one step beyond is refused under the name of its field.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;
use prost_types::{Duration, Timestamp};
use rapport::{domain::Kind, rpc::pb, service::Clock};
use tonic::Code;

use crate::{
    harness::{
        act, after, client, client_of, config, connection, database, day, error_metadata, record, start, try_record,
        unique,
    },
    wire::{self, assert_faulty, assert_refused, method},
};

const LAST: Timestamp = Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };
const DAY: i64 = 86_400;

/// What is tried, how it differs from a sound request, and the field that it is refused for.
type Case<T> = (&'static str, fn(&mut T), Option<&'static str>);

fn now_and(seconds: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Timestamp { seconds: now as i64 + seconds, nanos: 0 }
}

fn days_and(days: i64, seconds: i64, nanos: i32) -> Duration {
    Duration { seconds: days * DAY + seconds, nanos }
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}{number}")).collect()
}

/// As many bytes as that, the last two of them one letter.
fn umlaut(bytes: usize) -> String {
    format!("{}ü", "x".repeat(bytes - 2))
}

async fn try_all(cases: &[Case<pb::Interaction>]) {
    let mut client = client();
    for (name, change, expected) in cases {
        let mut interaction = act(Kind::Help, "zed-77", "rosa-99", day(0));
        change(&mut interaction);
        match (try_record(&mut client, interaction.clone()).await, expected) {
            (Ok(answer), None) => assert!(!answer.replayed, "{name}"),
            (Err(status), Some(field)) => {
                assert_faulty(&status, &[&format!("interaction.{field}")], &["zed-77", "rosa-99"]);
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
        if expected.is_none() {
            // What the database took in, it gives back.
            let kept = connection(&mut client, &interaction.recipients[0], &interaction.actor, LAST).await;
            assert!(!kept.their_interaction_counts.is_empty(), "{name}");
            let again = record(&mut client, interaction.clone()).await;
            assert_eq!(again.replayed, !interaction.interaction_id.is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn ids_and_words() {
    try_all(&[
        ("no id", |act| act.interaction_id.clear(), None),
        ("id of 128 bytes", |act| act.interaction_id = unique() + &"i".repeat(128 - unique().len()), None),
        ("id of 129 bytes", |act| act.interaction_id = "i".repeat(129), Some("interaction_id")),
        ("actor of 1 byte", |act| act.actor = "a".to_owned(), None),
        ("actor of 128 bytes", |act| act.actor = "a".repeat(128), None),
        ("actor of 129 bytes", |act| act.actor = "a".repeat(129), Some("actor")),
        ("actor of 127 letters, 128 bytes", |act| act.actor = umlaut(128), None),
        ("actor of 128 letters, 129 bytes", |act| act.actor = umlaut(129), Some("actor")),
        ("actor of 32 letters of 4 bytes", |act| act.actor = "🦀".repeat(32), None),
        ("actor of 33 letters of 4 bytes", |act| act.actor = "🦀".repeat(33), Some("actor")),
        ("composed", |act| act.actor = "zoë".to_owned(), None),
        ("decomposed", |act| act.actor = "zoe\u{308}".to_owned(), Some("actor")),
        ("composed otherwise", |act| act.actor = "\u{212b}".to_owned(), Some("actor")),
        ("compatible letters stay apart", |act| act.actor = "ﬁ①".to_owned(), None),
        ("white space within", |act| act.actor = "zed  the 77th".to_owned(), None),
        ("white space before", |act| act.actor = " zed".to_owned(), Some("actor")),
        ("white space after", |act| act.actor = "zed\u{3000}".to_owned(), Some("actor")),
        ("only white space", |act| act.actor = " ".to_owned(), Some("actor")),
        ("white space that is not U+0020", |act| act.actor = "zed\u{a0}the 77th".to_owned(), Some("actor")),
        ("a zero-width space alone", |act| act.actor = "\u{200b}".to_owned(), Some("actor")),
        ("a Hangul filler alone", |act| act.recipients = vec!["\u{3164}".to_owned()], Some("recipients[0]")),
        ("a blank Braille cell", |act| act.actor = "\u{2800}".to_owned(), Some("actor")),
        ("a joiner", |act| act.actor = "zed\u{200d}".to_owned(), Some("actor")),
        ("a direction mark", |act| act.goal = "zed\u{202e}".to_owned(), Some("goal")),
        ("a soft hyphen", |act| act.interaction_id = "z\u{ad}ed".to_owned(), Some("interaction_id")),
        ("a variation selector", |act| act.topics = vec!["❤\u{fe0f}".to_owned()], Some("topics[0]")),
        ("a tag", |act| act.channel = "mail\u{e0041}".to_owned(), Some("channel")),
        ("a private-use character", |act| act.actor = "zed\u{e000}".to_owned(), Some("actor")),
        ("a noncharacter", |act| act.actor = "zed\u{fdd0}".to_owned(), Some("actor")),
        ("an unassigned code point", |act| act.refers_to = "zed\u{378}".to_owned(), Some("refers_to")),
        ("emoji without selectors", |act| act.topics = vec!["❤👍🏽🇫🇮".to_owned()], None),
        ("NUL", |act| act.actor = "z\0ed".to_owned(), Some("actor")),
        ("unit separator", |act| act.topics = vec!["a\u{1f}b".to_owned()], Some("topics[0]")),
        ("DEL", |act| act.actor = "z\u{7f}ed".to_owned(), Some("actor")),
        ("a control of the second set", |act| act.channel = "z\u{85}ed".to_owned(), Some("channel")),
        ("a quote, a backslash, a brace", |act| act.topics = numbered("'\"\\{,}%$1;--", 2), None),
        ("no channel", |act| act.channel.clear(), None),
        ("channel of 64 bytes", |act| act.channel = umlaut(64), None),
        ("channel of 65 bytes", |act| act.channel = umlaut(65), Some("channel")),
        ("goal of 128 bytes", |act| act.goal = umlaut(128), None),
        ("goal of 129 bytes", |act| act.goal = umlaut(129), Some("goal")),
        ("topic of 64 bytes", |act| act.topics = vec![umlaut(64)], None),
        ("topic of 65 bytes", |act| act.topics = vec![umlaut(64), umlaut(65)], Some("topics[1]")),
        ("an empty topic", |act| act.topics = vec![String::new()], Some("topics[0]")),
        ("16 topics", |act| act.topics = numbered("topic", 16), None),
        ("17 topics", |act| act.topics = numbered("topic", 17), Some("topics")),
        ("a topic twice", |act| act.topics = vec!["a".to_owned(); 2], Some("topics[1]")),
        ("refers to 128 bytes", |act| act.refers_to = umlaut(128), None),
        ("refers to 129 bytes", |act| act.refers_to = umlaut(129), Some("refers_to")),
    ])
    .await;
}

#[tokio::test]
async fn recipients_and_audiences() {
    try_all(&[
        ("nobody", |act| act.recipients.clear(), Some("recipients")),
        ("100 recipients", |act| act.recipients = numbered("peer", 100), None),
        ("101 recipients", |act| act.recipients = numbered("peer", 101), Some("recipients")),
        ("a recipient twice", |act| act.recipients = vec!["rosa".to_owned(); 2], Some("recipients[1]")),
        ("the actor as well", |act| act.recipients.push(act.actor.clone()), Some("recipients[1]")),
        ("the actor alone", |act| act.recipients = vec![act.actor.clone()], Some("recipients[0]")),
        ("an empty recipient", |act| act.recipients.insert(0, String::new()), Some("recipients[0]")),
        ("recipient of 128 bytes", |act| act.recipients = vec![umlaut(128)], None),
        ("recipient of 129 bytes", |act| act.recipients = vec![umlaut(129)], Some("recipients[0]")),
        ("audience of 1", |act| act.audience_count = 1, None),
        (
            "audience of 1 for 2",
            |act| (act.audience_count = 1, act.recipients.push("quinn".to_owned())).0,
            Some("audience_count"),
        ),
        ("audience of 2 for 2", |act| (act.audience_count = 2, act.recipients.push("quinn".to_owned())).0, None),
        ("audience of 1e9", |act| act.audience_count = 1_000_000_000, None),
        ("audience of 1e9 + 1", |act| act.audience_count = 1_000_000_001, Some("audience_count")),
        ("audience beyond 32 bits", |act| act.audience_count = 1 << 32, Some("audience_count")),
        ("audience of -1", |act| act.audience_count = -1, Some("audience_count")),
        ("least audience", |act| act.audience_count = i64::MIN, Some("audience_count")),
    ])
    .await;
}

#[tokio::test]
async fn kinds_efforts_and_times() {
    try_all(&[
        ("no kind", |act| act.kind = 0, Some("kind")),
        ("kind 18", |act| act.kind = 18, Some("kind")),
        ("kind -1", |act| act.kind = -1, Some("kind")),
        ("kind 256 + 6", |act| act.kind = 262, Some("kind")),
        ("effort of 0", |act| act.effort = Some(days_and(0, 0, 0)), None),
        ("effort of 1 ns", |act| act.effort = Some(days_and(0, 0, 1)), None),
        ("effort of -1 ns", |act| act.effort = Some(days_and(0, 0, -1)), Some("effort")),
        ("effort of 30 days", |act| act.effort = Some(days_and(30, 0, 0)), None),
        ("effort of 30 days and 1 ns", |act| act.effort = Some(days_and(30, 0, 1)), Some("effort")),
        ("effort of 30 days and 1 s", |act| act.effort = Some(days_and(30, 1, 0)), Some("effort")),
        ("effort of -1 s", |act| act.effort = Some(days_and(0, -1, 0)), Some("effort")),
        ("greatest effort", |act| act.effort = Some(Duration { seconds: i64::MAX, nanos: i32::MAX }), Some("effort")),
        ("least effort", |act| act.effort = Some(Duration { seconds: i64::MIN, nanos: i32::MIN }), Some("effort")),
        ("no time", |act| act.interaction_time = None, Some("interaction_time")),
        ("1970", |act| act.interaction_time = Some(Timestamp::default()), None),
        (
            "just before 1970",
            |act| act.interaction_time = Some(Timestamp { seconds: -1, nanos: 999_999_999 }),
            Some("interaction_time"),
        ),
        ("4 minutes ahead", |act| act.interaction_time = Some(now_and(240)), None),
        ("6 minutes ahead", |act| act.interaction_time = Some(now_and(360)), Some("interaction_time")),
        ("9999", |act| act.interaction_time = Some(LAST), Some("interaction_time")),
        (
            "negative nanos",
            |act| act.interaction_time = Some(Timestamp { nanos: -1, ..day(0) }),
            Some("interaction_time"),
        ),
        (
            "a second in nanos",
            |act| act.interaction_time = Some(Timestamp { nanos: 1_000_000_000, ..day(0) }),
            Some("interaction_time"),
        ),
        (
            "greatest time",
            |act| act.interaction_time = Some(Timestamp { seconds: i64::MAX, nanos: 0 }),
            Some("interaction_time"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn due_times_and_references() {
    fn as_kind(act: &mut pb::Interaction, kind: Kind) {
        act.kind = kind.number().into();
    }
    fn due(act: &mut pb::Interaction, kind: Kind, due_time: Timestamp) {
        as_kind(act, kind);
        act.due_time = Some(due_time);
    }
    try_all(&[
        ("a promise due at once", |act| due(act, Kind::Promise, day(0)), None),
        ("an ask due at once", |act| due(act, Kind::Ask, day(0)), None),
        ("due in 9999", |act| due(act, Kind::Promise, LAST), None),
        (
            "due in 10000",
            |act| due(act, Kind::Promise, Timestamp { seconds: LAST.seconds + 1, nanos: 0 }),
            Some("due_time"),
        ),
        ("due a second before", |act| due(act, Kind::Ask, after(day(0), -1)), Some("due_time")),
        ("due before 1970", |act| due(act, Kind::Ask, Timestamp { seconds: -1, nanos: 0 }), Some("due_time")),
        ("help falls due", |act| due(act, Kind::Help, day(1)), Some("due_time")),
        ("a kept promise refers to nothing", |act| as_kind(act, Kind::PromiseKept), Some("refers_to")),
        ("help refers to itself", |act| act.refers_to = act.interaction_id.clone(), Some("refers_to")),
        ("help without an id refers", |act| (act.refers_to, act.interaction_id) = (unique(), String::new()), None),
        ("help refers to what is to come", |act| act.refers_to = unique(), None),
    ])
    .await;
    let outcomes = [Kind::PromiseKept, Kind::PromiseBroken, Kind::PromiseReleased, Kind::AskGranted, Kind::AskDeclined];
    let mut client = client();
    for kind in Kind::ALL {
        let mut interaction = act(kind, "zed-77", "rosa-99", day(0));
        let refers = try_record(&mut client, interaction.clone()).await;
        assert_eq!(refers.is_err(), outcomes.contains(&kind), "{kind:?} without refers_to");
        interaction.interaction_id = unique();
        interaction.due_time = Some(day(1));
        interaction.refers_to = unique();
        let due = try_record(&mut client, interaction).await;
        assert_eq!(due.is_ok(), [Kind::Promise, Kind::Ask].contains(&kind), "{kind:?} with due_time");
    }
}

#[tokio::test]
async fn the_last_moment_of_9999_can_be_recorded_where_the_server_allows_it() {
    let mut settings = config(database(true).await);
    settings.service.future = std::time::Duration::from_hours(8100 * 366 * 24);
    let app = start(settings, Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, act(Kind::Help, "zed-77", "rosa-99", LAST)).await;
    record(&mut client, act(Kind::Help, "zed-77", "rosa-99", Timestamp::default())).await;
    let kept = connection(&mut client, "rosa-99", "zed-77", LAST).await;
    let to_the_microsecond = Timestamp { nanos: 999_999_000, ..LAST };
    assert_eq!(
        (kept.first_interaction_time, kept.last_interaction_time),
        (Some(Timestamp::default()), Some(to_the_microsecond))
    );
    assert_eq!(kept.their_interaction_counts[0].count, 2);
    let beyond = act(Kind::Help, "zed-77", "rosa-99", Timestamp { seconds: LAST.seconds + 1, nanos: 0 });
    assert_faulty(&try_record(&mut client, beyond).await.unwrap_err(), &["interaction.interaction_time"], &[]);
}

#[tokio::test]
async fn rankings() {
    let mut client = client();
    let mut peers = act(Kind::Help, "zed-77", "", day(0));
    for part in 0..11 {
        peers.interaction_id = unique();
        peers.recipients = numbered(&format!("peer{part}-"), if part == 10 { 1 } else { 100 });
        record(&mut client, peers.clone()).await;
    }
    let cases: &[(Case<pb::RankConnectionsRequest>, usize)] = &[
        (("page of 0", |rank| rank.page_size = 0, None), 50),
        (("page of 1", |rank| rank.page_size = 1, None), 1),
        (("page of 1000", |rank| rank.page_size = 1000, None), 1000),
        (("page of 1001", |rank| rank.page_size = 1001, None), 1000),
        (("greatest page", |rank| rank.page_size = i32::MAX, None), 1000),
        (("page of -1", |rank| rank.page_size = -1, Some("page_size")), 0),
        (("least page", |rank| rank.page_size = i32::MIN, Some("page_size")), 0),
        (("page of 0, explained", |rank| rank.explain = true, None), 50),
        (("page of 100, explained", |rank| (rank.page_size, rank.explain) = (100, true), None), 100),
        (("page of 101, explained", |rank| (rank.page_size, rank.explain) = (101, true), None), 100),
        (("page of -1, explained", |rank| (rank.page_size, rank.explain) = (-1, true), Some("page_size")), 0),
        (("score of 0", |rank| rank.minimum_score = 0.0, None), 50),
        (("score of -0", |rank| rank.minimum_score = -0.0, None), 50),
        (("score of 1", |rank| rank.minimum_score = 1.0, None), 0),
        (("score of 1.1", |rank| rank.minimum_score = 1.1, Some("minimum_score")), 0),
        (("score of -0.1", |rank| rank.minimum_score = -0.1, Some("minimum_score")), 0),
        (("score of NaN", |rank| rank.minimum_score = f64::NAN, Some("minimum_score")), 0),
        (("infinite score", |rank| rank.minimum_score = f64::INFINITY, Some("minimum_score")), 0),
        (("16 channels", |rank| rank.channels = numbered("channel", 16), None), 0),
        (("17 channels", |rank| rank.channels = numbered("channel", 17), Some("channels")), 0),
        (("16 topics", |rank| rank.topics = numbered("topic", 16), None), 0),
        (("17 topics", |rank| rank.topics = numbered("topic", 17), Some("topics")), 0),
        (("channel of 65 bytes", |rank| rank.channels = vec![umlaut(64), umlaut(65)], Some("channels[1]")), 0),
        (("every status", |rank| rank.statuses = (1..=6).collect(), None), 50),
        (("status 7", |rank| rank.statuses = vec![7], Some("statuses[0]")), 0),
        (("no status", |rank| rank.statuses = vec![0], Some("statuses[0]")), 0),
        (("no order", |rank| rank.order_by = 0, None), 50),
        (("order 5", |rank| rank.order_by = 5, Some("order_by")), 0),
        (("as of 1970", |rank| rank.as_of_time = Some(Timestamp::default()), None), 0),
        (("as of before", |rank| rank.as_of_time = Some(Timestamp { seconds: -1, nanos: 0 }), Some("as_of_time")), 0),
        (("as of 9999", |rank| rank.as_of_time = Some(LAST), None), 50),
        (("as of 10000", |rank| rank.as_of_time = Some(after(LAST, 1)), Some("as_of_time")), 0),
        (("person of 128 bytes", |rank| rank.person = umlaut(128), None), 0),
        (("person of 129 bytes", |rank| rank.person = umlaut(129), Some("person")), 0),
    ];
    for ((name, change, expected), count) in cases {
        let mut request = pb::RankConnectionsRequest { person: "zed-77".to_owned(), ..Default::default() };
        change(&mut request);
        match (client.rank_connections(request).await, expected) {
            (Ok(answer), None) => assert_eq!(answer.get_ref().connections.len(), *count, "{name}"),
            (Err(status), Some(field)) => assert_faulty(&status, &[field], &["zed-77"]),
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
    // Whoever is beyond the most of a page comes with the next one.
    let mut request = pb::RankConnectionsRequest { person: "zed-77".to_owned(), page_size: 5000, ..Default::default() };
    request.page_token = client.rank_connections(request.clone()).await.unwrap().into_inner().next_page_token;
    let rest = client.rank_connections(request).await.unwrap().into_inner();
    assert_eq!((rest.connections.len(), &*rest.next_page_token), (1, ""));
}

#[tokio::test]
async fn tenants() {
    let address = crate::harness::address();
    for (length, expected) in [(1, true), (64, true), (65, false)] {
        let tenant = "t".repeat(length);
        let answer = try_record(&mut client_of(address, &tenant), act(Kind::Help, "zed-77", "rosa-99", day(0))).await;
        assert_eq!(answer.is_ok(), expected, "{length} bytes: {answer:?}");
    }
    let visible: String = ('!'..='~').collect();
    let (first, second) = visible.split_at(47);
    for tenant in [first, second] {
        record(&mut client_of(address, tenant), act(Kind::Help, "zed-77", "rosa-99", day(0))).await;
    }
}

#[tokio::test]
async fn a_message_of_one_mebibyte_is_read() {
    let with_goal = |bytes| {
        let interaction = pb::Interaction { goal: "g".repeat(bytes), ..act(Kind::Help, "zed-77", "rosa-99", day(0)) };
        pb::RecordInteractionRequest { interaction: Some(interaction), validate_only: false }.encode_to_vec()
    };
    let around = with_goal(1 << 20).len() - (1 << 20);
    for (beyond, faulty) in [(0, true), (1, false)] {
        let bytes = with_goal((1 << 20) - around + beyond);
        assert_eq!(bytes.len(), (1 << 20) + beyond);
        let status = wire::call(crate::harness::address(), &method("RecordInteraction"), bytes).await.unwrap_err();
        if faulty {
            assert_faulty(&status, &["interaction.goal"], &["zed-77", "ggg"]);
        } else {
            assert_refused(&status, Code::ResourceExhausted, "CALL_NOT_UNDERSTOOD", &["zed-77", "ggg"]);
            assert_eq!(error_metadata(&status), [("limit_bytes".to_owned(), (1 << 20).to_string())]);
        }
    }
}

#[tokio::test]
async fn metadata() {
    let ranked = async |bytes: usize| {
        let mut request = tonic::Request::new(pb::RankConnectionsRequest {
            person: "ada".to_owned(),
            ..pb::RankConnectionsRequest::default()
        });
        request.metadata_mut().insert("padding", "x".repeat(bytes).parse().unwrap());
        client().rank_connections(request).await
    };
    assert!(ranked(15 * 1024).await.is_ok());
    assert!(ranked(17 * 1024).await.is_err());
}
