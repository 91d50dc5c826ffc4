//! Ranking an owner's connections, and showing one of them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tracing::Instrument as _;

use crate::{
    domain::{
        Channel, ConnectionStatus, Faults, InteractionId, Kind, PersonId, PolicyVersion, RankOrder, TenantId,
        Timestamp, Topic,
    },
    scoring::{Factor, Pair, Part, Policy, RankKey, Source, Standing, explain, heaviest, rank_key},
    store::{PairActs, PeerView, Seen, Store, StoreError, View, Viewed},
    telemetry::names,
};

use super::{
    Clock, Kept, Service, ServiceError,
    answers::Question,
    views::{Made, Views},
};

/// The most connections of one page.
pub const MAX_PAGE: usize = 1000;
/// The most connections of one page with reasons.
pub const MAX_EXPLAINED_PAGE: usize = 100;
/// The most channels, and the most topics, to filter by.
pub const MAX_FILTER_WORDS: usize = 16;
/// How many interactions a reason names.
const MOST_IDS: usize = 3;
/// Among how many of the latest acts of each kind they are chosen.
const LATEST_OF_A_KIND: i64 = 50;
/// After how many connections that were scored others go on.
const SCORED_AT_ONCE: usize = 1000;

/// Whose connections to rank, and how.
#[derive(Clone, Debug)]
pub struct RankQuery {
    /// The owner.
    pub person: PersonId,
    /// What to order by.
    pub order: RankOrder,
    /// The time the answer is for; now when `None`.
    pub as_of: Option<Timestamp>,
    /// Only these statuses; any when empty.
    pub statuses: Vec<ConnectionStatus>,
    /// Only connections with an interaction on one of these channels; any when empty.
    pub channels: Vec<Channel>,
    /// Only connections with an interaction about one of these topics; any when empty.
    pub topics: Vec<Topic>,
    /// Only scores from this one up.
    pub minimum_score: f64,
    /// How many connections to return.
    pub page_size: usize,
    /// The policy to go by; the one in use when `None`.
    pub policy: Option<PolicyVersion>,
    /// Only connections after this place.
    pub after: Option<RankKey>,
    /// Whether to give reasons.
    pub explain: bool,
    /// The revision of the tenant that the answer has to show, from whatever database; when `None`, it shows all that was
    /// acknowledged before.
    pub at_least: Option<i64>,
}

/// Which connection to show.
#[derive(Clone, Debug)]
pub struct ConnectionQuery {
    /// The owner.
    pub person: PersonId,
    /// The other person.
    pub peer: PersonId,
    /// The time the answer is for; now when `None`.
    pub as_of: Option<Timestamp>,
    /// The revision that the answer has to show, as for a ranking.
    pub at_least: Option<i64>,
}

/// One page of a ranking.
#[derive(Clone, Debug)]
pub struct RankPage {
    /// The connections, best first.
    pub connections: Vec<ConnectionView>,
    /// The place of the last one, when more come after it.
    pub next: Option<RankKey>,
    /// The time the answer is for.
    pub as_of: Timestamp,
    /// The policy that was used.
    pub policy: PolicyVersion,
    /// The revision of the tenant that it shows.
    pub revision: i64,
}

/// One connection, explained.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The connection.
    pub connection: ConnectionView,
    /// The time the answer is for.
    pub as_of: Timestamp,
    /// The policy that was used.
    pub policy: PolicyVersion,
    /// The revision of the tenant that it shows.
    pub revision: i64,
}

/// What an owner sees of a peer.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// The peer.
    pub peer: PersonId,
    /// How the two stand.
    pub standing: Standing,
    /// Their earliest interaction.
    pub first_time: Option<Timestamp>,
    /// Their latest interaction.
    pub last_time: Option<Timestamp>,
    /// How often the peer did what, in the order of [`Kind::ALL`].
    pub their_counts: [i32; Kind::COUNT],
    /// How often the owner did what, likewise.
    pub your_counts: [i32; Kind::COUNT],
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Whose willingness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The peer's, toward the owner.
    Theirs,
    /// The owner's, toward the peer.
    Yours,
}

/// One part of one willingness.
#[derive(Clone, Debug)]
pub struct Reason {
    /// Whose willingness.
    pub whose: Whose,
    /// The part.
    pub part: Part,
    /// The interactions that weigh most in it.
    pub interaction_ids: Vec<InteractionId>,
}

impl Service {
    /// One page of an owner's ranking.
    pub async fn rank(&self, tenant: TenantId, query: RankQuery) -> Result<RankPage, ServiceError> {
        let (kept, clock) = (self.kept.clone(), self.clock.clone());
        let (at_least, asked) = (query.at_least, Arc::new((tenant, query)));
        self.read(at_least, move |store| {
            let (kept, clock, asked) = (kept.clone(), clock.clone(), Arc::clone(&asked));
            async move { page(&store, &kept, &clock, &asked.0, &asked.1).await }
        })
        .await
    }

    /// One connection, explained.
    pub async fn connection(&self, tenant: TenantId, query: ConnectionQuery) -> Result<Shown, ServiceError> {
        let (views, clock) = (self.kept.views.clone(), self.clock.clone());
        let (at_least, asked) = (query.at_least, Arc::new((tenant, query)));
        self.read(at_least, move |store| {
            let (views, clock, asked) = (views.clone(), clock.clone(), Arc::clone(&asked));
            async move { shown(&store, &views, &clock, &asked.0, &asked.1).await }
        })
        .await
    }
}

/// A page of a ranking: one that was given before, as long as it holds, or a new one.
async fn page(
    store: &Store,
    kept: &Kept,
    clock: &Clock,
    tenant: &TenantId,
    query: &RankQuery,
) -> Result<RankPage, ServiceError> {
    let question = Question::about_now(store.role(), tenant, query);
    let built_in = &store.built_in_policy().version;
    let as_of = || query.as_of.unwrap_or_else(|| clock.now());
    let mut about_now = None;
    if let Some(question) = &question {
        let look = |seen: &Seen| (kept.answers.get(question, seen, built_in, as_of()), seen.now());
        let (given, seen) = store.changes(tenant, look).await?;
        store.metrics().answer_looked_up(given.is_some());
        if let Some(page) = given {
            return Ok(page);
        }
        about_now = Some(seen);
    }
    let viewed = async {
        if let Some(seen) = about_now {
            return kept.views.now(store, tenant, &query.person, seen, as_of).await;
        }
        let read = kept.views.read(store, tenant, (&query.person, None), as_of, query.policy.as_ref()).await?;
        let (viewed, turn) = read.ok_or_else(begun_by_a_policy_that_is_gone)?;
        Ok(Made::Passing { viewed, _turn: turn })
    };
    let viewed = viewed.instrument(tracing::debug_span!(names::RANK_READ_SPAN)).await?;
    if let (Some(question), Some(view)) = (&question, viewed.kept())
        && let Some(page) = kept.answers.from(question, view)
    {
        return Ok(page);
    }
    let as_of = viewed.as_of;
    let admitted = admitted(store, tenant, query, as_of).await?;
    let ranking = store.unwanted().run_until_cancelled_owned(ranked(&viewed, query, admitted.as_ref(), as_of));
    let ranked = ranking.instrument(tracing::debug_span!(names::RANK_SCORE_SPAN)).await;
    let (ranked, more) = ranked.ok_or(StoreError::Unwanted)?;
    let view = &viewed.view;
    let next = if more { ranked.last().map(|(key, _)| key.clone()) } else { None };
    let mut connections: Vec<_> = ranked
        .into_iter()
        .filter_map(|(key, standing)| Some(connection(&key.peer, view.peers.get(&key.peer)?, view, standing)))
        .collect();
    if query.explain {
        add_reasons(store, tenant, &query.person, &viewed, &mut connections, as_of).await?;
    }
    let revision = viewed.basis.revision;
    let page = RankPage { connections, next, as_of, policy: version(&viewed.policy)?, revision };
    if let (Some(question), Some(view)) = (question, viewed.kept()) {
        kept.answers.keep(question, view, &page);
    }
    Ok(page)
}

async fn shown(
    store: &Store,
    views: &Views,
    clock: &Clock,
    tenant: &TenantId,
    query: &ConnectionQuery,
) -> Result<Shown, ServiceError> {
    let as_of = || query.as_of.unwrap_or_else(|| clock.now());
    let read = views.read(store, tenant, (&query.person, Some(&query.peer)), as_of, None).await?;
    let (mut viewed, _turn) = read.ok_or(ServiceError::PolicyNotFound)?;
    let as_of = viewed.as_of;
    viewed.view.peers.entry(query.peer.clone()).or_default();
    let peer = &viewed.view.peers[&query.peer];
    let standing = viewed.view.pair(peer).standing(as_of, &viewed.policy);
    let mut connections = [connection(&query.peer, peer, &viewed.view, standing)];
    add_reasons(store, tenant, &query.person, &viewed, &mut connections, as_of).await?;
    let [connection] = connections;
    Ok(Shown { connection, as_of, policy: version(&viewed.policy)?, revision: viewed.basis.revision })
}

/// Only a page token pins a policy, and only the one built into another version of the program can be gone.
fn begun_by_a_policy_that_is_gone() -> ServiceError {
    let mut faults = Faults::default();
    faults.add("page_token", "must be of a ranking by a policy that is still there; begin again without it");
    ServiceError::Invalid(faults)
}

fn version(policy: &Policy) -> Result<PolicyVersion, ServiceError> {
    PolicyVersion::parse(&policy.version).map_err(|error| ServiceError::Internal(error.into()))
}

/// The peers that the word filters admit; all when `None`.
async fn admitted(
    store: &Store,
    tenant: &TenantId,
    query: &RankQuery,
    as_of: Timestamp,
) -> Result<Option<HashSet<PersonId>>, ServiceError> {
    if query.channels.is_empty() && query.topics.is_empty() {
        return Ok(None);
    }
    let channels: Vec<&str> = query.channels.iter().map(Channel::as_str).collect();
    let topics: Vec<&str> = query.topics.iter().map(Topic::as_str).collect();
    let peers = store.peers_with(tenant, &query.person, as_of, &channels, &topics).await?;
    Ok(Some(peers.into_iter().collect()))
}

/// The page of connections that the query asks for, in order, and whether more come after it.
async fn ranked(
    Viewed { view, policy, .. }: &Viewed,
    query: &RankQuery,
    admitted: Option<&HashSet<PersonId>>,
    as_of: Timestamp,
) -> (Vec<(RankKey, Standing)>, bool) {
    let mut ranked: BTreeMap<RankKey, Pair<'_>> = BTreeMap::new();
    let mut more = false;
    let has_status =
        |pair: &Pair<'_>| query.statuses.is_empty() || query.statuses.contains(&pair.standing(as_of, policy).status);
    for (number, (peer, peer_view)) in view.peers.iter().enumerate() {
        if number % SCORED_AT_ONCE == SCORED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        if admitted.is_some_and(|admitted| !admitted.contains(peer)) {
            continue;
        }
        let pair = view.pair(peer_view);
        let outlook = pair.outlook(as_of, policy);
        let key = rank_key(query.order, &outlook, pair.last_time(), peer);
        let comes_after = query.after.as_ref().is_none_or(|after| key > *after);
        if !comes_after || outlook.score(query.order) < query.minimum_score {
            continue;
        }
        // Only the best are kept: what one page holds, whatever the owner's connections number.
        let is_beyond = ranked.len() >= query.page_size && ranked.last_key_value().is_some_and(|(last, _)| key > *last);
        if (is_beyond && more) || !has_status(&pair) {
            continue;
        }
        more |= is_beyond;
        if !is_beyond {
            ranked.insert(key, pair);
        }
        if ranked.len() > query.page_size {
            ranked.pop_last();
            more = true;
        }
    }
    (ranked.into_iter().map(|(key, pair)| (key, pair.standing(as_of, policy))).collect(), more)
}

fn connection(peer: &PersonId, peer_view: &PeerView, view: &View, standing: Standing) -> ConnectionView {
    let pair = view.pair(peer_view);
    let counts = |tie: Option<&crate::scoring::Tie>| tie.map_or([0; Kind::COUNT], |tie| tie.counts);
    ConnectionView {
        peer: peer.clone(),
        standing,
        first_time: pair.first_time(),
        last_time: pair.last_time(),
        their_counts: counts(pair.theirs.tie),
        your_counts: counts(pair.yours.tie),
        reasons: Vec::new(),
    }
}

async fn add_reasons(
    store: &Store,
    tenant: &TenantId,
    owner: &PersonId,
    Viewed { view, policy, .. }: &Viewed,
    connections: &mut [ConnectionView],
    as_of: Timestamp,
) -> Result<(), ServiceError> {
    let peers: Vec<PersonId> = connections.iter().map(|connection| connection.peer.clone()).collect();
    let mut acts = store.pair_acts(tenant, owner, &peers, as_of, LATEST_OF_A_KIND).await?;
    for connection in connections {
        let acts = acts.remove(&connection.peer).unwrap_or_default();
        if let Some(peer) = view.peers.get(&connection.peer) {
            let [theirs, yours] = explain(&view.pair(peer), as_of, policy);
            let of = |whose: Whose, parts: Vec<Part>| {
                let acts = &acts;
                parts.into_iter().map(move |part| reason(whose, part, acts, as_of, policy))
            };
            connection.reasons = of(Whose::Theirs, theirs).chain(of(Whose::Yours, yours)).collect();
        }
    }
    Ok(())
}

fn reason(whose: Whose, part: Part, acts: &PairActs, as_of: Timestamp, policy: &Policy) -> Reason {
    let (own, other) = match whose {
        Whose::Theirs => (&acts.theirs, &acts.yours),
        Whose::Yours => (&acts.yours, &acts.theirs),
    };
    let weighed = own.iter().map(|act| (act, Source::Own)).chain(other.iter().map(|act| (act, Source::Other)));
    let interaction_ids = match part.factor {
        Factor::Prior | Factor::Around => Vec::new(),
        _ => heaviest(&part, weighed, as_of, policy, MOST_IDS),
    };
    Reason { whose, part, interaction_ids }
}
