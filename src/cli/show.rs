//! `rapport show`: one connection, and why it scores as it does.

use clap::Args;
use serde_json::json;

use crate::{domain::Timestamp, rpc::pb};

use super::{Failure, Finished, client, client::ServerArguments, print};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Whose connection
    person: String,
    /// With whom
    peer: String,
    /// The time the answer is for, in RFC 3339 or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::parse_time)]
    as_of: Option<Timestamp>,
    /// The answer shows at least what this consistency token stands for, and may come from a replica
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    at_least_as_fresh_as: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let server = arguments.server.server()?;
    let request = pb::GetConnectionRequest {
        person: arguments.person,
        peer: arguments.peer,
        as_of_time: arguments.as_of.map(client::to_wire),
        at_least_as_fresh_as: arguments.at_least_as_fresh_as,
    };
    let answer = server.client.connection(request).await.map_err(|error| server.failure(&error))?;
    let connection = answer.connection.unwrap_or_default();
    if arguments.json {
        print::json(&json!({
            "connection": print::connection(&connection),
            "asOfTime": answer.as_of_time.map(|time| time.to_string()),
            "policyVersion": answer.policy_version,
            "consistencyToken": answer.consistency_token,
        }));
    } else {
        print_tables(&connection);
    }
    Ok(Finished::Well)
}

fn print_tables(connection: &pb::Connection) {
    let peer = &connection.peer;
    print::line(format_args!("{peer}: {}", print::status(connection)));
    print::line(format_args!("mutual {}", print::willingness(connection.mutual)));
    let between = [connection.first_interaction_time, connection.last_interaction_time].map(print::date);
    if connection.last_interaction_time.is_some() {
        print::line(format_args!("interactions from {} to {}", between[0], between[1]));
    }
    let they = pb::WillingnessDirection::TheyWouldHelp;
    let you = pb::WillingnessDirection::YouWouldHelp;
    print_reasons(&format!("they would help: {}", print::willingness(connection.they_would_help)), connection, they);
    print_reasons(&format!("you would help: {}", print::willingness(connection.you_would_help)), connection, you);
}

fn print_reasons(title: &str, connection: &pb::Connection, direction: pb::WillingnessDirection) {
    print::line(format_args!("\n{title}"));
    let row = |reason: &pb::Reason| {
        vec![
            print::short(reason.factor().as_str_name(), "REASON_FACTOR_"),
            source(reason),
            format!("{:+.3}", reason.contribution),
            reason.interaction_ids.join(", "),
        ]
    };
    let reasons = connection.reasons.iter().filter(|reason| reason.willingness() == direction);
    print::table(&["because of", "by", "adds", "above all"], 2..3, reasons.map(row).collect());
}

/// Whose acts a reason rests on: nobody's for the prior, whose source a server may also leave unset.
fn source(reason: &pb::Reason) -> String {
    match reason.source() {
        pb::EvidenceSource::Unspecified | pb::EvidenceSource::Nobody => String::new(),
        source => print::short(source.as_str_name(), "EVIDENCE_SOURCE_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prior_is_nobodys_whether_a_server_says_so_or_not() {
        let shown = |source: i32| super::source(&pb::Reason { source, ..pb::Reason::default() });
        assert_eq!([0, 1, 2, 3, 4].map(shown), ["", "PEER", "OWNER", "BOTH", ""]);
    }
}
