//! What rankings are made of, kept as long as there is room: of an owner who is asked about again, only what changed since is
//! read. Whoever asks about the same owner meanwhile waits for the answer, and finds it read. What is large is read one after
//! the other, as memory allows.

use std::{convert::Infallible, ops::Deref, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::{PersonId, PolicyVersion, TenantId, Timestamp},
    store::{Basis, Found, KeptView, MAX_ROWS, Store, StoreError, Viewed},
    telemetry::names::{DatabaseRole, ViewSource},
};

use super::{LAID_OUT_FOR, ServiceError};

/// Around how many bytes the place of an owner takes without a view.
const EMPTY_BYTES: u64 = 500;

/// Of how many rows, or acts that are not folded yet, a view may be made that is read whenever it is asked for.
const FEW_ROWS: usize = 5000;
/// About how many bytes the largest one takes.
const LARGEST_BYTES: u64 = 128 << 20;

/// Whose view, and from which database.
type Owner = (DatabaseRole, TenantId, PersonId);

/// A place for a view, and about how many bytes it takes.
#[derive(Clone, Debug)]
struct Place {
    kept: Arc<Mutex<Option<KeptView>>>,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Owner, Place> for Bytes {
    fn weight(&self, _: &Owner, place: &Place) -> u64 {
        place.bytes
    }
}

/// The views of a server. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Views {
    kept: Arc<Cache<Owner, Place, Bytes>>,
    /// For each large view that may be read and used beside others.
    turns: Arc<Semaphore>,
    /// For the one of whose tenant much is not folded yet: so it keeps no large one of another tenant waiting.
    lagging: Arc<Semaphore>,
}

/// What a ranking is made of.
pub(super) enum Made {
    /// What is kept for the next one.
    Kept { view: OwnedMappedMutexGuard<Option<KeptView>, KeptView>, _turn: Turn },
    /// What is good for this one only.
    Passing { viewed: Box<Viewed>, _turn: Turn },
}

/// What lets a large view be read and used; nothing for others.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

impl Views {
    /// Room for about that many bytes, none for 0. Beside what is kept, large views may take as much, but one always may.
    pub(super) fn new(bytes: u64) -> Self {
        let turns = usize::try_from(bytes / LARGEST_BYTES).unwrap_or(Semaphore::MAX_PERMITS).max(1);
        Self {
            kept: Arc::new(Cache::with_weighter(LAID_OUT_FOR, bytes, Bytes)),
            turns: Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS))),
            lagging: Arc::new(Semaphore::new(1)),
        }
    }

    /// Reads an owner's connections, or the one with `peer`, as [`Store::view`] tells; a large view when it is its turn.
    pub(super) async fn read(
        &self,
        store: &Store,
        tenant: &TenantId,
        (owner, peer): (&PersonId, Option<&PersonId>),
        as_of: impl Fn() -> Timestamp + Copy + Send,
        pinned: Option<&PolicyVersion>,
    ) -> Result<Option<(Box<Viewed>, Turn)>, ServiceError> {
        let few = store.view(tenant, owner, peer, as_of, pinned, FEW_ROWS).await?;
        let turns = match few {
            Found::Larger => &self.turns,
            Found::Lagging => &self.lagging,
            few => return Ok(few.view().map(|viewed| (viewed, None))),
        };
        let turn = store.unwanted().run_until_cancelled_owned(Arc::clone(turns).acquire_owned()).await;
        let turn = turn.and_then(Result::ok).ok_or(StoreError::Unwanted)?;
        let all = store.view(tenant, owner, peer, as_of, pinned, MAX_ROWS).await?;
        Ok(all.view().map(|viewed| (viewed, Some(turn))))
    }

    /// An owner's connections as of now, with all that had been recorded when the tenant was `seen`.
    pub(super) async fn now(
        &self,
        store: &Store,
        tenant: &TenantId,
        owner: &PersonId,
        seen: Basis,
        as_of: impl Fn() -> Timestamp + Copy + Send,
    ) -> Result<Made, ServiceError> {
        let key = (store.role(), tenant.clone(), owner.clone());
        let empty = || Ok::<_, Infallible>(Place { kept: Arc::default(), bytes: EMPTY_BYTES });
        let Ok(place) = self.kept.get_or_insert_with(&key, empty);
        let kept = Arc::clone(&place.kept).lock_owned();
        let mut kept = store.unwanted().run_until_cancelled_owned(kept).await.ok_or(StoreError::Unwanted)?;
        let source = up_to_date(store, &mut kept, seen, as_of).await?;
        store.metrics().view_made(source);
        if source != ViewSource::Read {
            kept = match OwnedMutexGuard::try_map(kept, Option::as_mut) {
                Ok(view) => return Ok(self.made(key, place, view, None)),
                Err(kept) => kept,
            };
        }
        // What is of no use any more makes room first.
        *kept = None;
        let read = self.read(store, tenant, (owner, None), as_of, None).await?;
        let (viewed, turn) = read.ok_or(ServiceError::PolicyNotFound)?;
        Ok(match KeptView::new(tenant, owner, viewed) {
            Ok(view) => self.made(key, place, OwnedMutexGuard::map(kept, |kept| kept.insert(view)), turn),
            Err(viewed) => Made::Passing { viewed, _turn: turn },
        })
    }

    /// Keeps a view for as much as it takes by now.
    fn made(
        &self,
        key: Owner,
        place: Place,
        view: OwnedMappedMutexGuard<Option<KeptView>, KeptView>,
        turn: Turn,
    ) -> Made {
        let bytes = EMPTY_BYTES + view.bytes();
        if bytes != place.bytes {
            self.kept.insert(key, Place { bytes, ..place });
        }
        Made::Kept { view, _turn: turn }
    }
}

/// Brings what is kept up to date, if it can be, and tells how.
async fn up_to_date(
    store: &Store,
    kept: &mut Option<KeptView>,
    seen: Basis,
    as_of: impl Fn() -> Timestamp + Copy + Send,
) -> Result<ViewSource, ServiceError> {
    let Some(view) = kept else { return Ok(ViewSource::Read) };
    if view.shows(seen) {
        return Ok(if view.advance(as_of()) { ViewSource::Kept } else { ViewSource::Read });
    }
    Ok(if store.refresh(view, as_of).await? { ViewSource::Refreshed } else { ViewSource::Read })
}

impl Made {
    /// What is kept of it.
    pub(super) fn kept(&self) -> Option<&KeptView> {
        match self {
            Self::Kept { view, .. } => Some(view),
            Self::Passing { .. } => None,
        }
    }
}

impl Deref for Made {
    type Target = Viewed;

    fn deref(&self) -> &Viewed {
        match self {
            Self::Kept { view, .. } => view,
            Self::Passing { viewed, .. } => viewed,
        }
    }
}
