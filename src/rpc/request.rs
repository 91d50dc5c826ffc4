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
/// The metadata key of a caller's deadline.
const TIMEOUT_KEY: &str = "grpc-timeout";
/// The most that is kept back of a deadline so that an answer can still be sent.
const ANSWER_TIME: Duration = Duration::from_millis(20);

/// What the metadata of a call asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CallHead {
    /// The tenant that the call names.
    pub tenant: Option<TenantId>,
    /// How long the call may still take by its caller's deadline, less what an answer needs to be sent before the transport
    /// gives up without saying why; `None` without a deadline.
    pub time_left: Option<Duration>,
}

/// What the metadata of a call asks for, or everything that is wrong with it.
pub(super) fn head(metadata: &MetadataMap) -> Result<CallHead, Faults> {
    let mut faults = Faults::default();
    let tenant = faults.take(TENANT_KEY, only(metadata, TENANT_KEY, parse_tenant));
    let time_left = faults.take(TIMEOUT_KEY, only(metadata, TIMEOUT_KEY, parse_timeout));
    let head = tenant.zip(time_left).map(|(tenant, time_left)| CallHead { tenant, time_left });
    faults.or(head)
}

/// The only value of a metadata key. A second value is refused: two readers could each believe another one.
fn only<T>(metadata: &MetadataMap, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    let mut values = metadata.get_all(key).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("must be given once".to_owned());
    }
    parse(value.to_str().map_err(|_| WordError::NotAscii.to_string())?).map(Some)
}

fn parse_tenant(text: &str) -> Result<TenantId, String> {
    TenantId::parse_metadata(text).map_err(|error| error.to_string())
}

/// The key or token that a call carries.
pub(super) fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let mut values = metadata.get_all("authorization").iter();
    // What cannot be read, or is one of two, proves nothing, and is not overlooked either.
    let text = values.next()?.to_str().ok().filter(|_| values.next().is_none());
    let (scheme, bearer) = text.and_then(|text| text.split_once(' ')).unwrap_or(("", ""));
    Some(if scheme.eq_ignore_ascii_case("bearer") { bearer.trim() } else { "" })
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let limit = timeout_in(text).ok_or("must be 1 to 8 digits and a unit: H, M, S, m, u or n")?;
    Ok(limit.saturating_sub((limit / 10).min(ANSWER_TIME)))
}

/// The duration in a text such as `2S` or `100m`, as gRPC writes deadlines.
fn timeout_in(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_plain = digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| is_plain)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
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

/// What a ranking is asked for, its page token aside. Words that earlier versions recorded can be asked for.
pub(super) fn rank_query(request: &pb::RankConnectionsRequest, tenant: &TenantId) -> (Option<RankQuery>, Faults) {
    let mut faults = Faults::default();
    let person = faults.take("person", PersonId::recorded(&request.person));
    let order = faults.take("order_by", order(request.order_by));
    let as_of = optional_time("as_of_time", request.as_of_time, &mut faults);
    let statuses = statuses(&request.statuses, &mut faults);
    let channels = words("channels", &request.channels, Channel::recorded, &mut faults);
    let topics = words("topics", &request.topics, Topic::recorded, &mut faults);
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
    let person = faults.take("person", PersonId::recorded(&request.person));
    let peer = faults.take("peer", PersonId::recorded(&request.peer));
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
        let left = |value: &str| parse_timeout(value).ok();
        assert_eq!(left("2S"), Some(Duration::from_millis(1980)));
        assert_eq!([left("100m"), left("0n")], [Some(Duration::from_millis(90)), Some(Duration::ZERO)]);
        assert!(left("99999999H") > Some(Duration::from_hours(99_999_998)));
        for malformed in ["", "S", "1", "1x", "123456789S", "-1S", "+1S", " 1S", "1 S", "1.5S", "1S ", "1µ"] {
            assert_eq!(left(malformed), None, "{malformed:?}");
        }
    }

    fn metadata(entries: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in entries {
            metadata.append(*key, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn every_fault_of_the_metadata_is_told_and_nothing_counts_that_is_there_twice() {
        let faulty = |entries: &[(&'static str, &str)]| {
            let faults = head(&metadata(entries)).unwrap_err();
            faults.list().iter().map(|fault| fault.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(head(&metadata(&[])), Ok(CallHead { tenant: None, time_left: None }));
        let sound = head(&metadata(&[(TENANT_KEY, "crm"), (TIMEOUT_KEY, "1S")])).unwrap();
        assert_eq!(sound.tenant, TenantId::parse("crm").ok());
        assert_eq!(faulty(&[(TENANT_KEY, "crm"), (TENANT_KEY, "crm")]), [TENANT_KEY]);
        assert_eq!(faulty(&[(TIMEOUT_KEY, "1S"), (TIMEOUT_KEY, "1S")]), [TIMEOUT_KEY]);
        assert_eq!(faulty(&[(TIMEOUT_KEY, "soon"), (TENANT_KEY, "")]), [TENANT_KEY, TIMEOUT_KEY]);
        let shown = |entries: &[(&'static str, &str)]| bearer(&metadata(entries)).map(str::to_owned);
        let (one, other) = (("authorization", "Bearer a"), ("authorization", "Bearer b"));
        assert_eq!([shown(&[]), shown(&[one])], [None, Some("a".to_owned())]);
        assert_eq!([shown(&[one, other]), shown(&[one, one])], [Some(String::new()), Some(String::new())]);
    }
}
