//! `rapport show`: one connection, and why it scores as it does.

use clap::Args;
use serde_json::json;

use crate::{domain::Timestamp, rpc::pb};

use super::{Failure, Finished, client, client::ServerArguments, print, time};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Whose connection
    person: String,
    /// With whom
    peer: String,
    /// The time the answer is for: a date for its start, such as 2018-09-02, or 2018-09-02T10:00, in UTC unless a zone follows,
    /// or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
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
    let person = request.person.clone();
    let up_to = request.as_of_time.map(|time| format!(" up to {time}")).unwrap_or_default();
    let answer = server.told(server.client.connection(request).await).await?;
    let connection = answer.connection.unwrap_or_default();
    if arguments.json {
        print::json(&json!({
            "connection": print::connection(&connection),
            "asOfTime": answer.as_of_time.map(|time| time.to_string()),
            "policyVersion": answer.policy_version,
            "consistencyToken": answer.consistency_token,
        }));
    } else {
        print_tables(&connection, || {
            let (peer, tenant) = (&connection.peer, server.tenant());
            format!(
                "no interaction of {person} and {peer} is known in {tenant}{up_to}; the figures are those of strangers"
            )
        });
    }
    Ok(Finished::Well)
}

/// Prints a connection; `strangers` says that there has been nothing between the two.
fn print_tables(connection: &pb::Connection, strangers: impl FnOnce() -> String) {
    let peer = &connection.peer;
    print::line(format_args!("{peer}: {}", print::status(connection)));
    print::line(format_args!("mutual {}", print::willingness(connection.mutual)));
    let between = [connection.first_interaction_time, connection.last_interaction_time].map(print::date);
    if connection.last_interaction_time.is_some() {
        print::line(format_args!("interactions from {} to {}", between[0], between[1]));
    } else {
        print::line(strangers());
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
            meaning(reason.factor(), reason.source()),
            reason.interaction_ids.join(", "),
        ]
    };
    let reasons = connection.reasons.iter().filter(|reason| reason.willingness() == direction);
    print::table(&["because of", "by", "adds", "meaning", "above all"], 2..3, reasons.map(row).collect());
}

/// Whose acts a reason rests on, as the API names it. A server may leave the source of the prior unset.
fn source(reason: &pb::Reason) -> String {
    match reason.source() {
        pb::EvidenceSource::Unspecified => "NOBODY".to_owned(),
        source => print::short(source.as_str_name(), "EVIDENCE_SOURCE_"),
    }
}

/// What a reason stands for, in a few words: `you` is the person who is asked about, `they` the peer.
fn meaning(factor: pb::ReasonFactor, source: pb::EvidenceSource) -> String {
    use pb::ReasonFactor as Factor;
    let (who, other) = match source {
        pb::EvidenceSource::Peer => ("they", "you"),
        pb::EvidenceSource::Owner => ("you", "them"),
        _ => ("both", "each other"),
    };
    match factor {
        Factor::Unspecified => String::new(),
        Factor::Prior => "belief about any stranger".to_owned(),
        Factor::Help => format!("{who} helped {other}"),
        Factor::Exchange => "attention, given and returned".to_owned(),
        Factor::Goodwill => format!("{who} did things for {other}"),
        Factor::Around => format!("{who} are around: active with anybody"),
        Factor::PromisesKept => format!("{who} kept promises"),
        Factor::AsksGranted => format!("{who} granted asks"),
        Factor::PromisesBroken => format!("{who} broke promises"),
        Factor::AsksDeclined => format!("{who} declined asks"),
        Factor::LeftOpen => format!("{who} left promises or asks open"),
        Factor::Promotions => format!("{who} pushed something at {other}"),
        Factor::Violations => format!("{who} reported {other} for harm"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_reasons_for_a_willingness_read_alike() {
        use pb::{EvidenceSource as Source, ReasonFactor as Factor};
        let both_ways = [Factor::Around, Factor::Promotions, Factor::Violations];
        for factor in both_ways {
            let [they, you] = [Source::Peer, Source::Owner].map(|source| meaning(factor, source));
            assert!(they.starts_with("they ") && you.starts_with("you "), "{they}, {you}");
        }
        assert_eq!(meaning(Factor::Help, Source::Owner), "you helped them");
        assert_eq!(meaning(Factor::Goodwill, Source::Peer), "they did things for you");
    }

    #[test]
    fn the_prior_is_nobodys_by_either_number() {
        let named = |source: i32| super::source(&pb::Reason { source, ..Default::default() });
        assert_eq!([0, 4].map(named), ["NOBODY", "NOBODY"]);
        assert_eq!([1, 2, 3].map(named), ["PEER", "OWNER", "BOTH"]);
    }
}
