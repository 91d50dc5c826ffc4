//! From requests to what use cases take, with every fault collected under the name of its field.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use crate::{
    domain::{
        Channel, ConnectionStatus, Draft, Faults, Interaction, InteractionId, Kind, PersonId, RankOrder, TenantId,
        Timestamp, Topic, WordError,
    },
    service::{ConnectionQuery, MAX_EXPLAINED_PAGE, MAX_FILTER_WORDS, MAX_PAGE, RankQuery},
};

use super::{TENANT_KEY, consistency, pb};

/// How much a page holds unless told otherwise.
const DEFAULT_PAGE: usize = 50;

/// The tenant that a call names.
pub(super) fn tenant(metadata: &MetadataMap) -> Result<Option<TenantId>, Faults> {
    let Some(value) = metadata.get(TENANT_KEY) else { return Ok(None) };
    let mut faults = Faults::default();
    let parsed = value.to_str().map_err(|_| WordError::NotAscii).and_then(TenantId::parse_metadata);
    let tenant = faults.take(TENANT_KEY, parsed);
    faults.or(tenant).map(Some)
}

/// The key or token that a call carries.
pub(super) fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?;
    // What cannot be read proves nothing, and is not overlooked either.
    let (scheme, bearer) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or(("", ""));
    Some(if scheme.eq_ignore_ascii_case("bearer") { bearer.trim() } else { "" })
}

/// How long a call may still take by its caller's deadline, less what an answer needs to be sent before the transport
/// gives up without saying why; `None` without a deadline.
pub(super) fn time_left(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let limit = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(limit.saturating_sub((limit / 10).min(Duration::from_millis(20))))
}

/// The interaction that a request holds, as far as the wire can tell, with the faults found so far.
pub(super) fn draft(interaction: Option<pb::Interaction>, faults: &mut Faults) -> Draft {
    let given = interaction.unwrap_or_default();
    Draft {
        interaction_id: Some(given.interaction_id).filter(|id| !id.is_empty()),
        actor: given.actor,
        recipients: given.recipients,
        interaction_time: given.interaction_time.and_then(time),
        kind: Kind::from_number(given.kind),
        effort: given.effort.and_then(|effort| duration("interaction.effort", effort, faults)),
        audience_count: given.audience_count,
        channel: given.channel,
        topics: given.topics,
        goal: given.goal,
        unprompted: given.unprompted,
        due_time: optional_time("interaction.due_time", given.due_time, faults),
        refers_to: given.refers_to,
    }
}

/// The interaction that a message stands for, whenever it happened, or all that is wrong with it.
pub fn interaction(given: pb::Interaction) -> Result<Interaction, Faults> {
    let mut faults = Faults::default();
    let draft = draft(Some(given), &mut faults);
    Interaction::parse(&draft, Timestamp::MAX, || InteractionId::parse("unnamed"), faults)
}

fn time(given: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::from_seconds(given.seconds, given.nanos)
}

fn optional_time(field: &str, given: Option<prost_types::Timestamp>, faults: &mut Faults) -> Option<Timestamp> {
    given.and_then(|given| faults.take(field, time(given).ok_or("must lie between 1970-01-01 and 9999-12-31")))
}

fn duration(field: &str, given: prost_types::Duration, faults: &mut Faults) -> Option<Duration> {
    // Converted by hand: the conversion of `prost_types` overflows on the least of all durations.
    let parts = (u64::try_from(given.seconds), u32::try_from(given.nanos));
    let sound = match parts {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err("must lie between 0 and 30 days"),
    };
    faults.take(field, sound)
}

/// What a ranking is asked for, its page token aside.
pub(super) fn rank_query(request: &pb::RankConnectionsRequest, tenant: &TenantId) -> (Option<RankQuery>, Faults) {
    let mut faults = Faults::default();
    let person = faults.take("person", PersonId::parse(&request.person));
    let order = faults.take("order_by", order(request.order_by));
    let as_of = optional_time("as_of_time", request.as_of_time, &mut faults);
    let statuses = statuses(&request.statuses, &mut faults);
    let channels = words("channels", &request.channels, Channel::parse, &mut faults);
    let topics = words("topics", &request.topics, Topic::parse, &mut faults);
    let minimum_score = minimum_score(request.minimum_score, &mut faults);
    let most = if request.explain { MAX_EXPLAINED_PAGE } else { MAX_PAGE };
    let page_size = page_size(request.page_size, most, &mut faults);
    let at_least = consistency::at_least(&request.at_least_as_fresh_as, tenant, &mut faults);
    let query = (|| {
        Some(RankQuery {
            person: person?,
            order: order?,
            as_of,
            statuses,
            channels,
            topics,
            minimum_score,
            page_size,
            policy: None,
            after: None,
            explain: request.explain,
            at_least,
        })
    })();
    (query, faults)
}

fn order(number: i32) -> Result<RankOrder, &'static str> {
    match pb::RankOrder::try_from(number) {
        Ok(pb::RankOrder::Unspecified | pb::RankOrder::Mutual) => Ok(RankOrder::Mutual),
        Ok(pb::RankOrder::TheyWouldHelp) => Ok(RankOrder::TheyWouldHelp),
        Ok(pb::RankOrder::YouWouldHelp) => Ok(RankOrder::YouWouldHelp),
        Ok(pb::RankOrder::LastInteraction) => Ok(RankOrder::LastInteraction),
        Err(_) => Err("must be one of the named orders"),
    }
}

fn status(number: i32) -> Result<ConnectionStatus, &'static str> {
    match pb::ConnectionStatus::try_from(number) {
        Ok(pb::ConnectionStatus::Unknown) => Ok(ConnectionStatus::Unknown),
        Ok(pb::ConnectionStatus::OneSided) => Ok(ConnectionStatus::OneSided),
        Ok(pb::ConnectionStatus::Budding) => Ok(ConnectionStatus::Budding),
        Ok(pb::ConnectionStatus::Real) => Ok(ConnectionStatus::Real),
        Ok(pb::ConnectionStatus::Fading) => Ok(ConnectionStatus::Fading),
        Ok(pb::ConnectionStatus::Broken) => Ok(ConnectionStatus::Broken),
        Ok(pb::ConnectionStatus::Unspecified) | Err(_) => Err("must be one of the named statuses"),
    }
}

fn statuses(numbers: &[i32], faults: &mut Faults) -> Vec<ConnectionStatus> {
    if numbers.len() > MAX_FILTER_WORDS {
        faults.add("statuses", format!("must name at most {MAX_FILTER_WORDS} statuses"));
        return Vec::new();
    }
    let parse = |(index, number): (usize, &i32)| faults.take(format_args!("statuses[{index}]"), status(*number));
    numbers.iter().enumerate().filter_map(parse).collect()
}

fn words<T>(
    field: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, WordError>,
    faults: &mut Faults,
) -> Vec<T> {
    if texts.len() > MAX_FILTER_WORDS {
        faults.add(field, format!("must name at most {MAX_FILTER_WORDS} {field}"));
        return Vec::new();
    }
    let parse = |(index, text): (usize, &String)| faults.take(format_args!("{field}[{index}]"), parse(text));
    texts.iter().enumerate().filter_map(parse).collect()
}

fn minimum_score(score: f64, faults: &mut Faults) -> f64 {
    let within = Some(score).filter(|score| (0.0..=1.0).contains(score));
    faults.take("minimum_score", within.ok_or("must lie between 0 and 1")).unwrap_or_default()
}

/// How much a page of at most `most` holds. Asking for more is no fault: a page may always hold less than was asked for.
pub(super) fn page_size(asked: i32, most: usize, faults: &mut Faults) -> usize {
    let size = faults.take("page_size", usize::try_from(asked).map_err(|_| "must not be negative"));
    size.filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE).min(most)
}

/// Which connection to show.
pub(super) fn connection_query(
    request: &pb::GetConnectionRequest,
    tenant: &TenantId,
) -> Result<ConnectionQuery, Faults> {
    let mut faults = Faults::default();
    let person = faults.take("person", PersonId::parse(&request.person));
    let peer = faults.take("peer", PersonId::parse(&request.peer));
    if person.is_some() && person == peer {
        faults.add("peer", "must not be the person itself");
    }
    let as_of = optional_time("as_of_time", request.as_of_time, &mut faults);
    let at_least = consistency::at_least(&request.at_least_as_fresh_as, tenant, &mut faults);
    let query = person.zip(peer).map(|(person, peer)| ConnectionQuery { person, peer, as_of, at_least });
    faults.or(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_time_for_an_answer_before_the_deadline() {
        let left = |value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", value.parse().unwrap());
            time_left(&metadata)
        };
        assert_eq!(left("2S"), Some(Duration::from_millis(1980)));
        assert_eq!(left("100m"), Some(Duration::from_millis(90)));
        assert!(left("99999999H") > Some(Duration::from_hours(99_999_998)));
        assert_eq!([left(""), left("S"), left("1"), left("1x"), left("123456789S"), left("-1S")], [None; 6]);
        assert_eq!(time_left(&MetadataMap::new()), None);
    }
}
