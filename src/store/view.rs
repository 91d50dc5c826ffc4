//! What an owner's rankings are made of, as of a time: kept ties where they are from before it, else folded from the
//! ledger. All reads of one view see one moment of the database.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sqlx::PgConnection;

use crate::{
    domain::{Kind, PersonId, TenantId, Timestamp},
    scoring::{Act, Commitment, Pair, Policy, Rhythm, Side, Tie, fold_rhythm, fold_tie},
};

use super::{
    Basis, StoreError, commitment, history,
    overlay::Overlay,
    rhythm,
    rows::{CommitmentRowKey, KeyColumns, RhythmKey, TieKey},
    tie,
};

/// The most ties, the most commitments, and of the past the most acts and the most active days, that are read for one
/// answer.
pub const MAX_ROWS: usize = 200_000;

/// How many rhythms are read at once.
const RHYTHMS_AT_ONCE: usize = 5000;

/// What one person of a pair has shown toward the other.
#[derive(Clone, Debug, Default)]
pub struct SideView {
    /// The tie, if they had acted toward the other by then. Of many peers, most act one way only.
    pub tie: Option<Box<Tie>>,
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

/// What reading a view came to.
#[derive(Clone, Debug)]
pub enum Found {
    /// The view.
    View(Box<Viewed>),
    /// It is made of more rows than were to be read.
    Larger,
    /// More of its tenant is not folded yet than was to be read.
    Lagging,
    /// There is no policy of that name.
    NoPolicy,
}

impl Found {
    /// The view; `None` when there is none.
    pub fn view(self) -> Option<Box<Viewed>> {
        match self {
            Self::View(viewed) => Some(viewed),
            Self::Larger | Self::Lagging | Self::NoPolicy => None,
        }
    }
}

impl View {
    /// One peer's pair, ready for scoring.
    pub fn pair<'a>(&'a self, peer: &'a PeerView) -> Pair<'a> {
        let side = |side: &'a SideView, rhythm: &'a Option<Rhythm>| Side {
            tie: side.tie.as_deref(),
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

    /// The owner's toward a peer, and the peer's toward the owner.
    pub(super) fn both_ties(&self, peer: &PersonId) -> [TieKey; 2] {
        [self.tie_of(self.owner, peer), self.tie_of(peer, self.owner)]
    }

    /// Whether a tie of the tenant is part of it.
    fn is_asked_for(&self, tie: &TieKey) -> bool {
        let is_with =
            |one: &PersonId, other: &PersonId| one == self.owner && self.peer.is_none_or(|peer| peer == other);
        is_with(&tie.actor, &tie.recipient) || is_with(&tie.recipient, &tie.actor)
    }
}

/// Reads a view; an error when there are more than `most` of any kind of row.
pub(super) async fn view(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    overlay: &Overlay,
    policy: &Policy,
    most: usize,
) -> Result<View, StoreError> {
    let mut view = View::default();
    add_ties(connection, asked, overlay, &mut view, policy, most).await?;
    add_commitments(connection, asked, overlay, &mut view, most).await?;
    add_rhythms(connection, asked, overlay, &mut view, policy, most).await?;
    Ok(view)
}

impl View {
    /// What the actor of a tie has shown toward its recipient, one of them being the owner.
    pub(super) fn side_mut(&mut self, owner: &PersonId, actor: &PersonId, recipient: &PersonId) -> &mut SideView {
        if actor == owner {
            &mut self.peers.entry(recipient.clone()).or_default().yours
        } else {
            &mut self.peers.entry(actor.clone()).or_default().theirs
        }
    }

    /// The rhythm of a peer, or else the owner's.
    pub(super) fn rhythm_mut(&mut self, person: &PersonId) -> &mut Option<Rhythm> {
        self.peers.get_mut(person).map_or(&mut self.rhythm, |peer| &mut peer.rhythm)
    }

    /// All that was shown.
    fn sides(&self) -> impl Iterator<Item = &SideView> {
        self.peers.values().flat_map(|peer| [&peer.theirs, &peer.yours])
    }

    /// How many commitments it is made of.
    pub(super) fn commitments(&self) -> usize {
        self.sides().map(|side| side.commitments.len()).sum()
    }

    /// How many ties it is made of.
    pub(super) fn ties(&self) -> usize {
        self.sides().filter(|side| side.tie.is_some()).count()
    }

    /// Adds commitments that were made by then.
    pub(super) fn add_commitments(
        &mut self,
        owner: &PersonId,
        commitments: HashMap<CommitmentRowKey, Commitment>,
        as_of: Timestamp,
    ) {
        for ((key, _), commitment) in commitments {
            if commitment.made_time.is_some_and(|time| time <= as_of) {
                self.side_mut(owner, &key.actor, &key.recipient).commitments.push(commitment);
            }
        }
    }
}

/// Whether a commitment may have come of it, by either of the two.
pub(super) fn commits(tie: &Tie) -> bool {
    tie.count(Kind::Promise) > 0 || tie.count(Kind::Ask) > 0
}

/// Adds the ties by then, and notes whether there are acts of them, or of others, after that.
async fn add_ties(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    overlay: &Overlay,
    view: &mut View,
    policy: &Policy,
    most: usize,
) -> Result<(), StoreError> {
    let mut begun = Vec::new();
    let mut add = |key: TieKey, tie: Tie| {
        let tie = overlay.tie(&key, tie);
        if tie.last_time <= asked.as_of {
            view.side_mut(asked.owner, &key.actor, &key.recipient).tie = Some(Box::new(tie));
        } else {
            view.goes_on = true;
            if tie.first_time <= asked.as_of {
                begun.push(key);
            }
        }
    };
    match asked.peer {
        None => tie::each_of_person(connection, asked.tenant, asked.owner, most, &mut add).await?,
        Some(peer) => {
            let kept = tie::get(connection, &asked.both_ties(peer).iter().collect()).await?;
            for (key, tie) in kept {
                add(key, tie);
            }
        }
    }
    for (key, tie) in overlay.begun().filter(|(key, _)| asked.is_asked_for(key)) {
        add(key.clone(), tie.clone());
    }
    if !begun.is_empty() {
        let keys: KeyColumns<'_> = begun.iter().collect();
        for (key, acts) in history::acts_until(connection, &keys, asked.as_of, false, most).await? {
            if let Some(tie) = fold_tie(&acts, policy) {
                view.side_mut(asked.owner, &key.actor, &key.recipient).tie = Some(Box::new(tie));
            }
        }
    }
    Ok(())
}

/// Adds the commitments of the pairs that ever made one.
async fn add_commitments(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    overlay: &Overlay,
    view: &mut View,
    most: usize,
) -> Result<(), StoreError> {
    if !view.sides().filter_map(|side| side.tie.as_deref()).any(commits) {
        return Ok(());
    }
    let mut commitments = match asked.peer {
        None => commitment::of_person(connection, asked.tenant, asked.owner, most).await?,
        Some(peer) => commitment::of_ties(connection, &asked.both_ties(peer).iter().collect(), most).await?,
    };
    overlay.add_commitments(&mut commitments, |tie| asked.is_asked_for(tie));
    view.add_commitments(asked.owner, commitments, asked.as_of);
    Ok(())
}

/// Adds the rhythms by then, and notes whether there are acts after that.
async fn add_rhythms(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    overlay: &Overlay,
    view: &mut View,
    policy: &Policy,
    most: usize,
) -> Result<(), StoreError> {
    let persons = view.peers.keys().chain([asked.owner]);
    let persons: Vec<RhythmKey> = persons.map(|person| (asked.tenant.clone(), person.clone())).collect();
    let mut later = Vec::new();
    for persons in persons.chunks(RHYTHMS_AT_ONCE) {
        let mut rhythms = rhythm::get(connection, persons).await?;
        overlay.add_rhythms(&mut rhythms, persons, policy);
        for (key, rhythm) in rhythms {
            if rhythm.last_time <= asked.as_of {
                *view.rhythm_mut(&key.1) = Some(rhythm);
            } else {
                later.push(key);
            }
        }
    }
    if !later.is_empty() {
        view.goes_on = true;
        let begun: KeyColumns<'_> = overlay.begun().map(|(key, _)| key).collect();
        for (key, days) in history::days_until(connection, &later, asked.as_of, Some(&begun), most, policy).await? {
            if let Some(rhythm) = fold_rhythm(days, policy) {
                *view.rhythm_mut(&key.1) = Some(rhythm);
            }
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
