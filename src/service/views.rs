//! What rankings are made of, kept as long as there is room: of an owner who is asked about again, only what changed since is
//! read. Whoever asks about the same owner meanwhile waits, and finds it read.

use std::{convert::Infallible, ops::Deref, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

use crate::{
    domain::{PersonId, TenantId, Timestamp},
    store::{Basis, KeptView, Store, Viewed},
    telemetry::names::{DatabaseRole, ViewSource},
};

use super::ServiceError;

/// Around how many bytes the place of an owner takes without a view.
const EMPTY_BYTES: u64 = 500;
/// For how many owners the cache is laid out; so few that it is not divided, and one large view may take what there is.
const OWNERS: usize = 32;

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
pub(super) struct Views(Arc<Cache<Owner, Place, Bytes>>);

/// What a ranking is made of.
pub(super) enum Made {
    /// What is kept for the next one.
    Kept(OwnedMappedMutexGuard<Option<KeptView>, KeptView>),
    /// What is good for this one only.
    Passing(Box<Viewed>),
}

impl Views {
    /// Room for about that many bytes; none for 0.
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(Cache::with_weighter(OWNERS, bytes, Bytes)))
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
        let Ok(place) = self.0.get_or_insert_with(&key, empty);
        let mut kept = Arc::clone(&place.kept).lock_owned().await;
        let source = up_to_date(store, &mut kept, seen, as_of).await?;
        store.metrics().view_made(source);
        if source != ViewSource::Read {
            kept = match OwnedMutexGuard::try_map(kept, Option::as_mut) {
                Ok(view) => return Ok(self.made(key, place, view)),
                Err(kept) => kept,
            };
        }
        // What is of no use any more makes room first.
        *kept = None;
        let viewed = store.view(tenant, owner, None, as_of, None).await?.ok_or(ServiceError::PolicyNotFound)?;
        Ok(match KeptView::new(tenant, owner, viewed) {
            Ok(view) => self.made(key, place, OwnedMutexGuard::map(kept, |kept| kept.insert(view))),
            Err(viewed) => Made::Passing(viewed),
        })
    }

    /// Keeps a view for as much as it takes by now.
    fn made(&self, key: Owner, place: Place, view: OwnedMappedMutexGuard<Option<KeptView>, KeptView>) -> Made {
        let bytes = EMPTY_BYTES + view.bytes();
        if bytes != place.bytes {
            self.0.insert(key, Place { bytes, ..place });
        }
        Made::Kept(view)
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
            Self::Kept(kept) => Some(kept),
            Self::Passing(_) => None,
        }
    }
}

impl Deref for Made {
    type Target = Viewed;

    fn deref(&self) -> &Viewed {
        match self {
            Self::Kept(kept) => kept,
            Self::Passing(viewed) => viewed,
        }
    }
}
