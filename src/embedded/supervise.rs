//! Keeping the server up for as long as it is wanted, and the folder locked for as long as it is up.
//!
//! How a server is started and stopped is in `server`.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::error::EmbeddedError;
use super::folder::FolderLock;
use super::leftover;
use super::server::{Server, ServerPlan};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs until `stop` is sent or its sender is dropped, then stops the server and frees the folder.
pub(super) async fn supervise(plan: ServerPlan, server: Server, lock: FolderLock, stop: oneshot::Receiver<()>) {
    let mut current = Some(server);
    tokio::select! {
        never = keep_running(&plan, &mut current) => match never {},
        _ = stop => {}
    }
    if let Some(server) = current {
        server.shut_down().await;
    }
    plan.socket.tidy();
    drop(lock);
}

/// The server is always in `current` while it lives, so that dropping this future loses none.
async fn keep_running(plan: &ServerPlan, current: &mut Option<Server>) -> Infallible {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(server) = current {
            let status = server.ended().await;
            tracing::warn!(pid = server.pid(), status, log = %plan.log.display(), "PostgreSQL ended by itself and is started again");
        }
        current.take().into_iter().for_each(Server::bury);
        sleep(pause).await;
        pause = match start_again(plan, current).await {
            Ok(true) => FIRST_PAUSE,
            Ok(false) => longer(pause),
            Err(error) => {
                tracing::warn!(%error, "PostgreSQL could not be started again; another try follows");
                longer(pause)
            }
        };
    }
}

/// Whether the server became ready. There is no limit: recovery takes the time it takes, and
/// killing it would only make it begin anew.
async fn start_again(plan: &ServerPlan, current: &mut Option<Server>) -> Result<bool, EmbeddedError> {
    leftover::settle(&plan.cluster).await?;
    let server = current.insert(plan.spawn()?);
    let is_ready = server.ready(&plan.cluster).await.is_ok();
    if is_ready {
        tracing::info!(pid = server.pid(), "PostgreSQL is back");
    }
    Ok(is_ready)
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some(longer(*pause)));
        let millis: Vec<u128> = pauses.take(8).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
