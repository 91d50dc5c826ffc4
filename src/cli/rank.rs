//! `rapport rank`: a person's connections, ranked.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{domain::Timestamp, rpc::pb};

use super::{Failure, Finished, client, client::ServerArguments, print};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Whose connections
    person: String,
    /// What to order by
    #[arg(long, value_enum, default_value_t = Order::Mutual)]
    order: Order,
    /// The time the answer is for, in RFC 3339 or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::parse_time)]
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
    let answer = server.client.rank(request).await.map_err(|error| server.failure(&error))?;
    let print = if arguments.json { print_json } else { print_table };
    print(&answer);
    Ok(Finished::Well)
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
