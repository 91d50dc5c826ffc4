//! `rapport rank`: a person's connections, ranked.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{domain::Timestamp, rpc::pb};

use super::{
    Failure, Finished, client,
    client::{Server, ServerArguments},
    print, time,
};

/// For how long nothing has happened when a ranking without a time is said to be of old data, in seconds.
const LONG: i64 = 30 * DAY;
/// A day in seconds.
const DAY: i64 = 86_400;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Whose connections
    person: String,
    /// What to order by
    #[arg(long, value_enum, default_value_t = Order::Mutual)]
    order: Order,
    /// The time the answer is for: a date for its start, such as 2018-09-02, or 2018-09-02T10:00, in UTC unless a zone follows,
    /// or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    as_of: Option<Timestamp>,
    /// Only connections of this status; may be given several times
    #[arg(long, value_enum)]
    status: Vec<Status>,
    /// Only connections with an interaction on this channel; may be given several times
    #[arg(long, value_name = "WORD")]
    channel: Vec<String>,
    /// Only connections with an interaction about this topic; may be given several times
    #[arg(long, value_name = "WORD")]
    topic: Vec<String>,
    /// Only connections whose score (the lower bound that the order goes by) is at least this, 0 to 1
    #[arg(long, value_name = "SCORE", default_value_t = 0.0, value_parser = parse_score)]
    minimum_score: f64,
    /// How many connections to show
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    /// The answer shows at least what this consistency token stands for, and may come from a replica
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    at_least_as_fresh_as: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// By what is mutual
    Mutual,
    /// By how likely they are to help
    They,
    /// By how likely the person is to help them
    You,
    /// By the latest interaction
    Last,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Unknown,
    OneSided,
    Budding,
    Real,
    Fading,
    Broken,
}

impl From<Order> for pb::RankOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Mutual => Self::Mutual,
            Order::They => Self::TheyWouldHelp,
            Order::You => Self::YouWouldHelp,
            Order::Last => Self::LastInteraction,
        }
    }
}

impl From<Status> for pb::ConnectionStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Unknown => Self::Unknown,
            Status::OneSided => Self::OneSided,
            Status::Budding => Self::Budding,
            Status::Real => Self::Real,
            Status::Fading => Self::Fading,
            Status::Broken => Self::Broken,
        }
    }
}

fn parse_score(text: &str) -> Result<f64, &'static str> {
    let score = text.parse().ok().filter(|score| (0.0..=1.0).contains(score));
    score.ok_or("must be a number from 0 to 1")
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let server = arguments.server.server()?;
    let request = pb::RankConnectionsRequest {
        person: arguments.person,
        order_by: pb::RankOrder::from(arguments.order).into(),
        as_of_time: arguments.as_of.map(client::to_wire),
        statuses: arguments.status.into_iter().map(|status| pb::ConnectionStatus::from(status).into()).collect(),
        channels: arguments.channel,
        topics: arguments.topic,
        minimum_score: arguments.minimum_score,
        page_size: arguments.limit,
        at_least_as_fresh_as: arguments.at_least_as_fresh_as,
        ..pb::RankConnectionsRequest::default()
    };
    let answer = server.told(server.client.rank(request.clone()).await).await?;
    if arguments.json {
        print_json(&answer);
    } else if answer.connections.is_empty() {
        print::line(nothing(&server, request).await?);
    } else {
        print_table(&answer);
        if let Some(note) = note(&server, request, &answer).await? {
            print::line(note);
        }
    }
    Ok(Finished::Well)
}

/// Why there is nothing to show: nobody is known, or no connection matches.
async fn nothing(server: &Server, request: pb::RankConnectionsRequest) -> Result<String, Failure> {
    let (person, filters) = (request.person.clone(), filters(&request));
    let up_to = request.as_of_time.map(|time| format!(" up to {time}")).unwrap_or_default();
    let tenant = server.tenant();
    if !filters.is_empty() {
        let all = pb::RankConnectionsRequest {
            page_size: 1,
            statuses: Vec::new(),
            channels: Vec::new(),
            topics: Vec::new(),
            minimum_score: 0.0,
            ..request
        };
        if !server.told(server.client.rank(all).await).await?.connections.is_empty() {
            let filters = filters.join(", ");
            return Ok(format!("No connection of {person} in {tenant} matches {filters}{up_to}."));
        }
    }
    let times = if up_to.is_empty() { "" } else { ", --as-of" };
    Ok(format!("Nobody with the id {person} is known in {tenant}{up_to}: check the id{times} and --tenant."))
}

/// The flags by which connections are left out.
fn filters(request: &pb::RankConnectionsRequest) -> Vec<&'static str> {
    let given = [
        ("--status", !request.statuses.is_empty()),
        ("--channel", !request.channels.is_empty()),
        ("--topic", !request.topics.is_empty()),
        ("--minimum-score", request.minimum_score > 0.0),
    ];
    given.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag)).collect()
}

/// A word on a ranking that shows only what has been: the data may end long before now.
async fn note(
    server: &Server,
    request: pb::RankConnectionsRequest,
    answer: &pb::RankConnectionsResponse,
) -> Result<Option<String>, Failure> {
    let asks_for_now = request.as_of_time.is_none() && request.statuses.is_empty();
    if !asks_for_now || !is_past(&answer.connections) {
        return Ok(None);
    }
    let latest = pb::RankConnectionsRequest {
        order_by: pb::RankOrder::LastInteraction.into(),
        minimum_score: 0.0,
        page_size: 1,
        ..request
    };
    let latest = server.told(server.client.rank(latest).await).await?;
    let latest = latest.connections.first().and_then(|connection| connection.last_interaction_time);
    Ok(latest.zip(answer.as_of_time).filter(|(latest, now)| now.seconds - latest.seconds > LONG).map(|(latest, _)| {
        let next_day = prost_types::Timestamp { seconds: (latest.seconds.div_euclid(DAY) + 1) * DAY, nanos: 0 };
        let [latest, next_day] = [latest, next_day].map(|time| print::date(Some(time)));
        format!("All of these fade, as the latest interaction was on {latest}; --as-of {next_day} asks as of then.")
    }))
}

/// True when connections fade, and none is alive.
fn is_past(connections: &[pb::Connection]) -> bool {
    use pb::ConnectionStatus::{Fading, Unknown};
    connections.iter().any(|connection| connection.status() == Fading)
        && connections.iter().all(|connection| matches!(connection.status(), Fading | Unknown))
}

fn print_json(answer: &pb::RankConnectionsResponse) {
    print::json(&json!({
        "connections": answer.connections.iter().map(print::connection).collect::<Vec<_>>(),
        "nextPageToken": answer.next_page_token,
        "asOfTime": answer.as_of_time.map(|time| time.to_string()),
        "policyVersion": answer.policy_version,
        "consistencyToken": answer.consistency_token,
    }));
}

fn print_table(answer: &pb::RankConnectionsResponse) {
    let row = |connection: &pb::Connection| {
        vec![
            print::status(connection),
            print::willingness(connection.they_would_help),
            print::willingness(connection.you_would_help),
            print::willingness(connection.mutual),
            print::date(connection.last_interaction_time),
            connection.peer.clone(),
        ]
    };
    let heading = ["status", "they would help", "you would help", "mutual", "last", "peer"];
    print::table(&heading, 1..4, answer.connections.iter().map(row).collect());
    if !answer.next_page_token.is_empty() {
        print::line("There are more; --limit shows up to 1000.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_is_past_when_connections_fade_and_none_is_alive() {
        use pb::ConnectionStatus::{Budding, Fading, Unknown};
        let is_past = |statuses: &[pb::ConnectionStatus]| {
            let connection =
                |status: &pb::ConnectionStatus| pb::Connection { status: (*status).into(), ..Default::default() };
            is_past(&statuses.iter().map(connection).collect::<Vec<_>>())
        };
        assert!(is_past(&[Fading]) && is_past(&[Fading, Unknown]));
        assert!(!is_past(&[]) && !is_past(&[Unknown]) && !is_past(&[Fading, Budding]));
    }
}
