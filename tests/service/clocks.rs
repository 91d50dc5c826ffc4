//! A server's clock that is set back and ahead.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use rapport::{
    domain::{Kind, Timestamp},
    rpc::pb,
    service::Clock,
};
use tonic::Code;

use crate::{
    feed::assert_exactly,
    harness::{Client, act, after, client_of, config, database, day, record, start, try_record, violations},
};

const HOUR: i64 = 3600;

/// One page of Ada's ranking.
async fn page(client: &mut Client, token: &str) -> pb::RankConnectionsResponse {
    let request = pb::RankConnectionsRequest {
        person: "ada".to_owned(),
        page_size: 2,
        page_token: token.to_owned(),
        ..pb::RankConnectionsRequest::default()
    };
    client.rank_connections(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_clock_that_jumps_does_no_harm() {
    let seconds = Arc::new(AtomicI64::new(day(100).seconds));
    let read = Arc::clone(&seconds);
    let clock = Clock::from_fn(move || Timestamp::from_seconds(read.load(SeqCst), 0).unwrap());
    let url = database(true).await;
    let server = start(config(url.clone()), clock).await;
    let mut client = client_of(server.address(), "clocks");
    let helped = |number, whom| act(Kind::Help, &format!("p{number}"), whom, after(day(99), number));
    let mut acts = Vec::new();
    let mut last_recorded = None;
    for number in 0..4 {
        acts.push(helped(number, "ada"));
        last_recorded = record(&mut client, acts[acts.len() - 1].clone()).await.record_time;
    }
    let begun = page(&mut client, "").await;
    for jump in [-HOUR, 24 * HOUR, -10, 0] {
        seconds.store(day(100).seconds + jump, SeqCst);
        for known in &acts {
            assert!(record(&mut client, known.clone()).await.replayed, "by a clock at {jump}");
        }
        // It does not concern the ranking that has begun.
        acts.push(act(Kind::Help, "cleo", "dora", after(day(99), jump)));
        let recorded = record(&mut client, acts[acts.len() - 1].clone()).await;
        assert!(!recorded.replayed && key(recorded.record_time) > key(last_recorded), "stamps never go back");
        last_recorded = recorded.record_time;
        let first = page(&mut client, "").await;
        assert_eq!(first.as_of_time, Some(after(day(100), jump)));
        let willing: Vec<f64> =
            first.connections.iter().map(|connection| connection.mutual.unwrap().probability).collect();
        assert!(willing.iter().all(|willing| (0.0..=1.0).contains(willing)));
        // The pages of a ranking belong together, whatever the clock says meanwhile.
        let rest = page(&mut client, &begun.next_page_token).await;
        assert_eq!((rest.as_of_time, rest.connections.len()), (begun.as_of_time, 2));
    }
    // What is later than the clock's time by more than is allowed waits until the clock is right again.
    let now = act(Kind::Help, "p0", "ada", day(100));
    seconds.store(day(100).seconds - HOUR, SeqCst);
    let status = try_record(&mut client, now.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(violations(&status).contains_key("interaction.interaction_time"));
    seconds.store(day(100).seconds, SeqCst);
    assert!(!record(&mut client, now.clone()).await.replayed);
    acts.push(now);
    assert_exactly(&url, "clocks", acts.into_iter().map(|act| act.interaction_id).collect()).await;
}

fn key(time: Option<prost_types::Timestamp>) -> Option<(i64, i32)> {
    time.map(|time| (time.seconds, time.nanos))
}
