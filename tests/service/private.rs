//! `rapport serve` with its private PostgreSQL: started, stopped, killed, shared with `rapport rebuild`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    harness::eventually,
    program::{Ran, Running, folder, nothing_runs_in, postmaster, program, run},
};

fn serve(data: &Path) -> Command {
    let mut command = program(&["serve", "--sample", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    command.stderr(Stdio::null());
    command
}

/// One folder through all of a server's life.
#[tokio::test]
async fn the_first_command_serves_a_sample_from_a_database_of_its_own() {
    let folder = folder();
    let data = folder.path().join("data");
    let rebuild = || run(&["rebuild", "--check", "--data-dir", data.to_str().unwrap()]).expect(0).out;

    let (mut server, address) = Running::serve(serve(&data));
    assert!(server.line_with("The sample is loaded").contains(": 5207 interactions recorded, 0 had been before."));
    let typed = server.line_with("rapport rank");
    assert_eq!(
        typed.trim(),
        format!("rapport rank user-1837 --server http://{address} --tenant sample --as-of 2018-09-02")
    );
    let typed: Vec<&str> = typed.split_whitespace().skip(1).collect();
    assert!(
        server.line_with("grpcurl -").contains(r#"-d '{"person": "user-1837", "as_of_time": "2018-09-02T00:00:00Z""#)
    );
    assert!(server.line_with("RankConnections").contains(&address.to_string()));
    assert!(run(&typed).expect(0).out.contains("user-26"));
    assert!(rebuild().ends_with("No difference.\n"));
    let second = Ran::from(serve(&data).stderr(Stdio::piped()).output().unwrap()).expect(1);
    assert!(second.err.contains("is in use by another rapport: stop that one"), "{second:?}");
    assert!(second.out.is_empty(), "{second:?}");

    // Killed: PostgreSQL does not outlive it, and the next one finds everything.
    drop(server);
    let (mut server, _) = Running::serve(serve(&data));
    assert!(server.line_with("The sample is loaded").contains(": 0 interactions recorded, 5207 had been before."));
    assert!(postmaster(&data).is_some());
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    assert!(postmaster(&data).is_none());
    nothing_runs_in(&data).await;

    assert!(rebuild().ends_with("No difference.\n"));
    assert!(run(&["migrate", "--data-dir", data.to_str().unwrap()]).expect(0).out.contains("up to date"));
    nothing_runs_in(&data).await;
}

#[tokio::test]
async fn an_interrupt_during_the_start_leaves_nothing_behind() {
    let folder = folder();
    let data = folder.path().join("data");
    let server = Running::start(serve(&data));
    // In the middle of making the cluster.
    eventually("initdb runs", async || data.join("cluster.partial/base").exists()).await;
    server.signal(Signal::INT);
    assert_eq!(server.end(), (Some(0), String::new()));
    nothing_runs_in(&data).await;
    assert!(!data.join("cluster").exists());
    assert!(fs::metadata(data.join("lock")).is_ok());
}

#[test]
fn commands_that_read_make_no_data_where_there_is_none() {
    let folder = folder();
    let typo = folder.path().join("typo");
    let at = typo.to_str().unwrap();
    for (command, code) in [
        (&["doctor"][..], 3),
        (&["rebuild", "--check"], 1),
        (&["backtest", "--tenant", "sample"], 1),
        (&["bench", "unary", "--baseline", "sql"], 1),
    ] {
        let ran = run(&[command, &["--data-dir", at]].concat()).expect(code);
        assert!(format!("{}{}", ran.out, ran.err).contains("holds no data of a Rapport server"), "{ran:?}");
        assert!(!typo.exists(), "{command:?}");
    }
}
