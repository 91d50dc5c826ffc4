//! Scenarios that together tell how a deployment does.

use crate::cli::Failure;

use super::{Scenario, Shape, Stage, Work, report::Played};

fn scenario(name: &str, work: Work, callers: usize) -> Scenario {
    Scenario {
        name: name.to_owned(),
        work,
        shape: Shape::Spread,
        callers,
        rate: None,
        owners: 50,
        connections: 200,
        ranks_percent: if work == Work::Rank { 100 } else { 0 },
    }
}

/// Plays them all.
pub(super) async fn play(stage: &Stage) -> Result<Vec<Played>, Failure> {
    let mut played = Vec::new();
    let unary = stage.play(&scenario("RecordInteraction, 64 callers", Work::Unary, 64)).await?;
    let half = unary.rate() / 2.0;
    played.push(unary);
    let alone = Stage { baseline: None, crowd: stage.crowd.clone(), rapport: stage.rapport.clone(), ..*stage };
    let at_half = Scenario { rate: Some(half), ..scenario("RecordInteraction at half that rate", Work::Unary, 256) };
    played.push(stage.play(&at_half).await?);
    played.push(stage.play(&scenario("RecordInteraction, 1 caller", Work::Unary, 1)).await?);
    played.push(alone.play(&scenario("RecordInteraction, 256 callers", Work::Unary, 256)).await?);
    let one_tie =
        Scenario { shape: Shape::OneTie, ..scenario("RecordInteraction, 256 callers, one tie", Work::Unary, 256) };
    played.push(alone.play(&one_tie).await?);
    played.push(stage.play(&scenario("RecordInteractions, 1 stream", Work::Stream, 1)).await?);
    played.push(alone.play(&scenario("RecordInteractions, 4 streams", Work::Stream, 4)).await?);
    played.push(stage.play(&scenario("RankConnections, 200 connections, 16 callers", Work::Rank, 16)).await?);
    played.push(stage.play(&scenario("RankConnections, 200 connections, 1 caller", Work::Rank, 1)).await?);
    let hub = Scenario { owners: 1, connections: 100_000, ..scenario("", Work::Rank, 1) };
    let named = |name: &str| Scenario { name: name.to_owned(), ..hub.clone() };
    played.push(alone.play(&named("RankConnections, 100,000 connections, 1 caller")).await?);
    let toward = Scenario { work: Work::Unary, shape: Shape::TowardOne, callers: 64, ranks_percent: 0, ..named("") };
    let toward = Scenario { name: "RecordInteraction toward that person, 64 callers".to_owned(), ..toward };
    played.push(alone.play(&toward).await?);
    let mixed = Scenario {
        work: Work::Mixed,
        ranks_percent: 50,
        ..scenario("half rankings, half acts, 64 callers", Work::Mixed, 64)
    };
    played.push(stage.play(&mixed).await?);
    Ok(played)
}
