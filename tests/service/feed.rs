//! A caller who streams, and takes the stream up again after every break; and what must hold after all of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use rapport::{domain::Kind, rpc::pb, scoring::DEFAULT, store::Store};
use sqlx::{Connection as _, PgConnection};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::harness::{Client, after, day, eventually};

/// What two persons of a small circle do, in the order of its sequence: always the same.
pub fn item(name: &str, sequence: i64) -> pb::Interaction {
    let kind = [Kind::Help, Kind::Message, Kind::Idea, Kind::Gratitude][sequence as usize % 4];
    pb::Interaction {
        interaction_id: id(name, sequence),
        actor: format!("person {}", sequence % 5),
        recipients: vec![format!("person {}", 5 + sequence % 3)],
        interaction_time: Some(after(day(sequence % 40), sequence)),
        kind: kind.number().into(),
        ..pb::Interaction::default()
    }
}

fn id(name: &str, sequence: i64) -> String {
    format!("{name} {sequence:08}")
}

/// A stream under way.
pub struct Feed {
    name: &'static str,
    progress: Arc<Progress>,
    running: JoinHandle<()>,
}

#[derive(Default)]
struct Progress {
    sent: AtomicI64,
    acknowledged: AtomicI64,
    is_last: AtomicBool,
    breaks: Mutex<Vec<Status>>,
}

impl Feed {
    /// Streams until told to finish.
    pub fn start(client: Client, name: &'static str) -> Self {
        let progress = Arc::new(Progress::default());
        Self { name, running: tokio::spawn(run(client, name, Arc::clone(&progress))), progress }
    }

    /// Up to where everything is acknowledged.
    pub fn acknowledged(&self) -> i64 {
        self.progress.acknowledged.load(SeqCst)
    }

    /// What ended its streams so far.
    pub fn breaks(&self) -> Vec<Status> {
        self.progress.breaks.lock().unwrap().clone()
    }

    /// Waits for so many more acknowledgements.
    pub async fn advance(&self, count: i64) {
        let goal = self.acknowledged() + count;
        eventually("the stream goes on", async || self.acknowledged() >= goal).await;
    }

    /// Waits until all that was sent is acknowledged, and returns the ids.
    pub async fn finish(self) -> Vec<String> {
        self.progress.is_last.store(true, SeqCst);
        tokio::time::timeout(Duration::from_secs(30), self.running).await.unwrap().unwrap();
        let sent = self.progress.sent.load(SeqCst);
        assert_eq!(self.progress.acknowledged.load(SeqCst), sent);
        (1..=sent).map(|sequence| id(self.name, sequence)).collect()
    }
}

async fn run(mut client: Client, name: &'static str, progress: Arc<Progress>) {
    loop {
        let ended = stream(&mut client, name, &progress).await;
        if progress.is_last.load(SeqCst) && progress.acknowledged.load(SeqCst) == progress.sent.load(SeqCst) {
            return;
        }
        progress.breaks.lock().unwrap().extend(ended.err());
        sleep(Duration::from_millis(50)).await;
    }
}

/// One stream, from the first item that is not acknowledged.
async fn stream(client: &mut Client, name: &'static str, progress: &Arc<Progress>) -> Result<(), Status> {
    let (items, requests) = mpsc::channel(16);
    let sending = Arc::clone(progress);
    tokio::spawn(async move {
        for sequence in sending.acknowledged.load(SeqCst) + 1.. {
            if sending.is_last.load(SeqCst) && sequence > sending.sent.load(SeqCst) {
                return;
            }
            let request = pb::RecordInteractionsRequest { sequence, interaction: Some(item(name, sequence)) };
            let Ok(place) = items.reserve().await else { return };
            sending.sent.fetch_max(sequence, SeqCst);
            place.send(request);
            sleep(Duration::from_millis(1)).await;
        }
    });
    let mut answers = client.record_interactions(ReceiverStream::new(requests)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        assert_eq!(answer.rejections, []);
        let before = progress.acknowledged.swap(answer.sequence, SeqCst);
        assert_eq!(answer.recorded_count + answer.replayed_count, answer.sequence - before);
    }
    Ok(())
}

/// The ledger holds these interactions and no others, and all that is derived from it agrees with it.
pub async fn assert_exactly(url: &str, tenant: &str, mut ids: Vec<String>) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut found: Vec<String> =
        sqlx::query_scalar("SELECT interaction_id FROM ledger WHERE tenant = $1 AND position = 0")
            .bind(tenant)
            .fetch_all(&mut connection)
            .await
            .unwrap();
    connection.close().await.unwrap();
    let count = found.len();
    println!("{count} interactions are in the ledger");
    found.sort_unstable();
    ids.sort_unstable();
    assert!(found == ids, "{count} interactions are in the ledger, and {} should be", ids.len());
    assert_derived(url).await;
}

/// All that is derived from the ledger agrees with it. What a busy server has not folded yet is not derived yet.
pub async fn assert_derived(url: &str) {
    let store = Store::new(url, 2, &DEFAULT).unwrap();
    eventually("something is derived", async || {
        let rebuilt = store.rebuild(false, |_| ()).await.unwrap();
        assert!(rebuilt.differences.is_empty(), "{rebuilt:?}");
        rebuilt.ties > 0
    })
    .await;
    store.close().await;
}
