//! Processes that die, or are told to: nothing acknowledged is lost, nothing has its effect twice.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rapport::embedded::url_of_running;
use rustix::process::Signal;
use tokio::time::sleep;
use tonic::Code;

use crate::{
    feed::{Feed, assert_exactly, item},
    harness::{Client, client_of, database, eventually, ready, reason, try_record},
    process::{Process, free_address, random_pause, send},
};

#[tokio::test]
async fn a_server_killed_under_a_stream_loses_and_doubles_nothing() {
    let (url, address) = (database(true).await, free_address());
    let mut server = Process::on_database(&url, address).await;
    let feed = Feed::start(client_of(address, "kills"), "kills");
    for _ in 0..6 {
        feed.advance(100).await;
        sleep(random_pause(200)).await;
        server.kill();
        server = Process::on_database(&url, address).await;
    }
    feed.advance(1).await;
    assert!(feed.breaks().len() >= 6);
    assert_exactly(&url, "kills", feed.finish().await).await;
    server.terminate();
    assert_eq!(server.stopped().await.code(), Some(0));
}

#[tokio::test]
async fn a_private_postgresql_killed_under_a_stream_comes_back_with_everything() {
    let folder = tempfile::tempdir().unwrap();
    // The user that PostgreSQL runs as must be let in.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (data, address) = (folder.path().join("data"), free_address());
    let mut server = Process::on_folder(&data, address).await;
    let feed = Feed::start(client_of(address, "kills"), "kills");
    for _ in 0..3 {
        feed.advance(100).await;
        sleep(random_pause(200)).await;
        let killed = postmaster(&data).unwrap();
        send(killed, Signal::KILL);
        eventually("PostgreSQL is started again", async || postmaster(&data).is_some_and(|pid| pid != killed)).await;
        feed.advance(1).await;
        ready(address).await;
        assert!(server.is_running());
    }
    for status in feed.breaks() {
        // On a busy machine PostgreSQL may take longer to come back than acts wait for it.
        let told = [(Code::Unavailable, "DATABASE_UNAVAILABLE"), (Code::ResourceExhausted, "OVERLOADED")];
        assert!(told.contains(&(status.code(), reason(&status).as_str())), "{status:?}");
    }
    assert_exactly(&url_of_running(&data).unwrap(), "kills", feed.finish().await).await;
    server.terminate();
    assert_eq!(server.stopped().await.code(), Some(0));
}

fn postmaster(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("cluster/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

#[tokio::test]
async fn a_restart_under_load_fails_no_caller_who_tries_again() {
    let (url, address) = (database(true).await, free_address());
    let server = Process::on_database(&url, address).await;
    let is_enough = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> =
        (0..8).map(|number| tokio::spawn(work(client_of(address, "load"), number, Arc::clone(&is_enough)))).collect();
    let feed = Feed::start(client_of(address, "load"), "stream");
    feed.advance(200).await;

    let asked = Instant::now();
    server.terminate();
    assert_eq!(server.stopped().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let first = feed.breaks().into_iter().next().unwrap();
    assert_eq!((first.code(), reason(&first).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));

    let server = Process::on_database(&url, address).await;
    feed.advance(100).await;
    is_enough.store(true, SeqCst);
    let mut ids = feed.finish().await;
    for worker in workers {
        ids.extend(worker.await.unwrap());
    }
    assert_exactly(&url, "load", ids).await;
    server.terminate();
    assert_eq!(server.stopped().await.code(), Some(0));
}

/// Records one interaction after the other, each until it is acknowledged, and returns their ids.
async fn work(mut client: Client, number: i64, is_enough: Arc<AtomicBool>) -> Vec<String> {
    let mut ids = Vec::new();
    while !is_enough.load(SeqCst) {
        let help = item(&format!("unary {number}"), ids.len() as i64);
        while let Err(status) = try_record(&mut client, help.clone()).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            sleep(Duration::from_millis(50)).await;
        }
        ids.push(help.interaction_id);
        sleep(Duration::from_millis(2)).await;
    }
    ids
}
