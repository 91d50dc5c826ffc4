//! What an owner's rankings are made of, as of a time: kept ties where they are from before it, else folded from the
//! ledger. All reads of one view see one moment of the database.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use sqlx::PgConnection;

use crate::{
    domain::{Kind, PersonId, TenantId, Timestamp},
    scoring::{Act, Commitment, Pair, Policy, Rhythm, Side, Tie, fold_rhythm, fold_tie},
};

use super::{
    Basis, StoreError, commitment, history, rhythm,
    rows::{CommitmentRowKey, KeyColumns, RhythmKey, TieKey},
    tie,
};

/// The most ties, the most commitments, and of the past the most acts and the most active days, that are read for one
/// answer.
pub const MAX_ROWS: usize = 200_000;

/// What one person of a pair has shown toward the other.
#[derive(Clone, Debug, Default)]
pub struct SideView {
    /// The tie, if they had acted toward the other by then.
    pub tie: Option<Tie>,
    /// What they have committed to toward the other.
    pub commitments: Vec<Commitment>,
}

/// One peer, as the owner's data shows them.
#[derive(Clone, Debug, Default)]
pub struct PeerView {
    /// What the peer has shown toward the owner.
    pub theirs: SideView,
    /// What the owner has shown toward the peer.
    pub yours: SideView,
    /// The peer's own rhythm.
    pub rhythm: Option<Rhythm>,
}

/// Everything about an owner's connections as of a time.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The owner's own rhythm.
    pub rhythm: Option<Rhythm>,
    /// The peers with at least one act either way by then, by id.
    pub peers: BTreeMap<PersonId, PeerView>,
    /// Whether more of it is recorded as of a later time.
    pub goes_on: bool,
}

/// A view, and the policy to score it by, from one moment of the database.
#[derive(Clone, Debug)]
pub struct Viewed {
    /// The view.
    pub view: View,
    /// As of what time it is.
    pub as_of: Timestamp,
    /// The policy.
    pub policy: Arc<Policy>,
    /// That moment.
    pub basis: Basis,
}

impl View {
    /// One peer's pair, ready for scoring.
    pub fn pair<'a>(&'a self, peer: &'a PeerView) -> Pair<'a> {
        let side = |side: &'a SideView, rhythm: &'a Option<Rhythm>| Side {
            tie: side.tie.as_ref(),
            rhythm: rhythm.as_ref(),
            commitments: &side.commitments,
        };
        Pair { theirs: side(&peer.theirs, &peer.rhythm), yours: side(&peer.yours, &self.rhythm) }
    }
}

/// Whose view: of all peers, or of one.
pub(super) struct Asked<'a> {
    pub tenant: &'a TenantId,
    pub owner: &'a PersonId,
    pub peer: Option<&'a PersonId>,
    pub as_of: Timestamp,
}

impl Asked<'_> {
    fn tie_of(&self, actor: &PersonId, recipient: &PersonId) -> TieKey {
        TieKey { tenant: self.tenant.clone(), actor: actor.clone(), recipient: recipient.clone() }
    }
}

pub(super) async fn view(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    policy: &Policy,
) -> Result<View, StoreError> {
    let (ties, goes_on) = ties(connection, asked, policy).await?;
    let commitments = commitments(connection, asked, &ties).await?;
    let mut view = View { goes_on, ..View::default() };
    for (key, tie) in ties {
        let side = SideView { tie: Some(tie), commitments: Vec::new() };
        *side_of(&mut view, asked.owner, &key) = side;
    }
    for ((key, _), commitment) in commitments {
        if commitment.made_time.is_some_and(|time| time <= asked.as_of) {
            side_of(&mut view, asked.owner, &key).commitments.push(commitment);
        }
    }
    add_rhythms(connection, asked, &mut view, policy).await?;
    Ok(view)
}

fn side_of<'a>(view: &'a mut View, owner: &PersonId, key: &TieKey) -> &'a mut SideView {
    if key.actor == *owner {
        &mut view.peers.entry(key.recipient.clone()).or_default().yours
    } else {
        &mut view.peers.entry(key.actor.clone()).or_default().theirs
    }
}

/// The ties by then, and whether there are acts of them, or of others, after that.
async fn ties(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    policy: &Policy,
) -> Result<(HashMap<TieKey, Tie>, bool), StoreError> {
    let kept = match asked.peer {
        None => tie::of_person(connection, asked.tenant, asked.owner, MAX_ROWS).await?,
        Some(peer) => {
            let keys = [asked.tie_of(asked.owner, peer), asked.tie_of(peer, asked.owner)];
            tie::get(connection, &keys.iter().collect()).await?
        }
    };
    let (mut ties, later): (HashMap<_, _>, HashMap<_, _>) =
        kept.into_iter().partition(|(_, tie)| tie.last_time <= asked.as_of);
    let begun: Vec<_> = later.iter().filter(|(_, tie)| tie.first_time <= asked.as_of).map(|(key, _)| key).collect();
    if !begun.is_empty() {
        let keys: KeyColumns<'_> = begun.into_iter().collect();
        let acts = history::acts_until(connection, &keys, asked.as_of, MAX_ROWS).await?;
        ties.extend(acts.into_iter().filter_map(|(key, acts)| Some((key, fold_tie(&acts, policy)?))));
    }
    Ok((ties, !later.is_empty()))
}

/// The commitments of the pairs that ever made one.
async fn commitments(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    ties: &HashMap<TieKey, Tie>,
) -> Result<HashMap<CommitmentRowKey, Commitment>, StoreError> {
    if !ties.values().any(|tie| tie.count(Kind::Promise) > 0 || tie.count(Kind::Ask) > 0) {
        return Ok(HashMap::new());
    }
    match asked.peer {
        None => commitment::of_person(connection, asked.tenant, asked.owner, MAX_ROWS).await,
        Some(peer) => {
            let keys = [asked.tie_of(asked.owner, peer), asked.tie_of(peer, asked.owner)];
            commitment::of_ties(connection, &keys.iter().collect()).await
        }
    }
}

async fn add_rhythms(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    view: &mut View,
    policy: &Policy,
) -> Result<(), StoreError> {
    let persons: BTreeSet<RhythmKey> =
        view.peers.keys().chain([asked.owner]).map(|person| (asked.tenant.clone(), person.clone())).collect();
    let (mut rhythms, later): (HashMap<_, _>, HashMap<_, _>) =
        rhythm::get(connection, &persons).await?.into_iter().partition(|(_, rhythm)| rhythm.last_time <= asked.as_of);
    view.goes_on |= !later.is_empty();
    if !later.is_empty() {
        let days = history::days_until(connection, later.keys(), asked.as_of, MAX_ROWS, policy).await?;
        rhythms.extend(days.into_iter().filter_map(|(key, days)| Some((key, fold_rhythm(days, policy)?))));
    }
    for ((_, person), rhythm) in rhythms {
        match view.peers.get_mut(&person) {
            Some(peer) => peer.rhythm = Some(rhythm),
            None => view.rhythm = Some(rhythm),
        }
    }
    Ok(())
}

/// What a pair did lately, for explanations: the peer's acts, then the owner's.
#[derive(Clone, Debug, Default)]
pub struct PairActs {
    /// By the peer, toward the owner.
    pub theirs: Vec<Act>,
    /// By the owner, toward the peer.
    pub yours: Vec<Act>,
}

/// The latest acts of each kind of an owner and each of these peers.
pub(super) async fn pair_acts(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    peers: &[PersonId],
    most_of_a_kind: i64,
) -> Result<HashMap<PersonId, PairActs>, StoreError> {
    let keys: Vec<TieKey> =
        peers.iter().flat_map(|peer| [asked.tie_of(peer, asked.owner), asked.tie_of(asked.owner, peer)]).collect();
    let mut acts = history::latest_acts(connection, &keys.iter().collect(), asked.as_of, most_of_a_kind).await?;
    Ok(keys
        .chunks_exact(2)
        .zip(peers)
        .map(|(keys, peer)| {
            let [theirs, yours] = [0, 1].map(|side| acts.remove(&keys[side]).unwrap_or_default());
            (peer.clone(), PairActs { theirs, yours })
        })
        .collect())
}
