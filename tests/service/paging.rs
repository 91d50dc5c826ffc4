//! Pages are parts of one answer: whatever is recorded between them, nothing comes twice and nothing is missing.

use rapport::{domain::Kind, rpc::pb};

use crate::{
    harness::{Client, act, after, client, day, record, unix_now},
    oracle::assert_same,
};

/// How many peers, and how many acts of each pair.
const PEERS: usize = 10;
const ACTS: usize = 18;

async fn page(client: &mut Client, request: &pb::RankConnectionsRequest) -> pb::RankConnectionsResponse {
    client.rank_connections(request.clone()).await.unwrap().into_inner()
}

/// People who helped each other on the same days, several times a day and not in order: sums that come out a little
/// different when they are summed in another order, and scores that are the same but for that.
async fn befriend(client: &mut Client) {
    let mut acts = Vec::new();
    for peer in 0..PEERS {
        // Half of the peers did the very same, the other half differ a little.
        let more = if peer % 2 == 0 { 0 } else { peer as i64 };
        for days in [7, 3, 11] {
            for hours in [1, 3, 2] {
                let effort = Some(prost_types::Duration { seconds: 1000 + 77 * hours + 60 * more, nanos: 0 });
                let (peer, time) = (format!("peer{peer:02}"), after(day(days), hours * 3600));
                acts.push(pb::Interaction { effort, ..act(Kind::Help, &peer, "ada", time) });
                acts.push(pb::Interaction { effort, ..act(Kind::Idea, "ada", &peer, time) });
            }
        }
    }
    // Each peer's acts of a day are recorded apart, so that they are absorbed one by one.
    for chunk in 0..ACTS {
        let calls: Vec<_> = acts
            .iter()
            .skip(chunk)
            .step_by(ACTS)
            .map(|act| {
                let (mut client, act) = (client.clone(), act.clone());
                tokio::spawn(async move { record(&mut client, act).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    }
}

#[tokio::test]
async fn pages_are_parts_of_one_answer_while_acts_are_recorded_between_them() {
    let asked = [
        (pb::RankOrder::Mutual, None),
        (pb::RankOrder::TheyWouldHelp, Some(day(20))),
        (pb::RankOrder::YouWouldHelp, None),
        (pb::RankOrder::LastInteraction, Some(day(20))),
    ];
    for (order, as_of) in asked {
        let mut client = client();
        befriend(&mut client).await;
        check(&mut client, order, as_of).await;
    }
}

async fn check(client: &mut Client, order: pb::RankOrder, as_of: Option<prost_types::Timestamp>) {
    let mut request = pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        order_by: order.into(),
        as_of_time: as_of,
        page_size: 1,
        ..Default::default()
    };
    let mut paged = Vec::new();
    let mut pinned = as_of;
    loop {
        let answer = page(client, &request).await;
        let then = answer.as_of_time.unwrap();
        assert_eq!(then, *pinned.get_or_insert(then), "the time of the first page holds");
        paged.extend(answer.connections);
        assert!(paged.len() <= PEERS, "nothing comes twice: {order:?}");
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
        // By the owner, by one shown already, by one to come, and by somebody new: all later than the pinned time.
        let later = prost_types::Timestamp { seconds: unix_now() + 60, nanos: 0 };
        for (actor, recipient) in [("ada", "peer03"), (&*paged[0].peer, "ada"), ("peer07", "ada"), ("new", "ada")] {
            record(client, act(Kind::Help, actor, recipient, later)).await;
        }
    }
    request = pb::RankConnectionsRequest { as_of_time: pinned, page_size: 0, page_token: String::new(), ..request };
    let whole = page(client, &request).await.connections;
    assert_eq!(whole.len(), PEERS, "somebody new was nobody then");
    let peers = |page: &[pb::Connection]| page.iter().map(|connection| connection.peer.clone()).collect::<Vec<_>>();
    assert_eq!(peers(&paged), peers(&whole), "{order:?}");
    paged.iter().zip(&whole).for_each(|(paged, whole)| assert_same(paged, whole, "paged and whole"));
}

#[tokio::test]
async fn equal_scores_are_in_order_of_peers_however_they_were_recorded() {
    let mut client = client();
    // The same acts for all, in another order for each: their sums are the same but for rounding.
    for peer in 0..8 {
        let mut days = [1, 4, 9, 2, 6, 13, 3];
        days.rotate_left(peer % 7);
        for days in days {
            for hours in [5, 2] {
                let time = after(day(days), hours * 3600);
                record(&mut client, act(Kind::Help, &format!("peer{peer}"), "ada", time)).await;
            }
        }
    }
    let wanted: Vec<_> = (0..8).map(|peer| format!("peer{peer}")).collect();
    for order in [pb::RankOrder::Mutual, pb::RankOrder::TheyWouldHelp, pb::RankOrder::YouWouldHelp] {
        for days in [14, 15, 30] {
            let (person, as_of_time) = ("ada".to_owned(), Some(day(days)));
            let request =
                pb::RankConnectionsRequest { person, order_by: order.into(), as_of_time, ..Default::default() };
            let found: Vec<_> =
                page(&mut client, &request).await.connections.into_iter().map(|connection| connection.peer).collect();
            assert_eq!(found, wanted, "{order:?} on day {days}");
        }
    }
}
