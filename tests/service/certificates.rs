//! A certificate that ends soon, as operators see it.

use std::process::Stdio;

use rapport::rpc::pb;
use tonic::Code;

use crate::{
    authority::{Authority, tls_channel, write_tls},
    harness::{database, eventually, unix_now},
    program::{Running, program},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_callers_would_refuse_is_not_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (before, after) = (Authority::new(), Authority::new());
    write_tls(folder.path(), &before.server_within(-1, 30));
    let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    command.args(["--tls-certificate", &path("server.crt"), "--tls-key", &path("server.key")]);
    command.env("DATABASE_URL", database(true).await).stderr(std::fs::File::create(path("log")).unwrap());
    let (_server, address) = Running::serve(command);
    let is_believed = async |authority: &Authority| {
        let channel = tls_channel(address, authority, None);
        let mut client = pb::relationship_service_client::RelationshipServiceClient::new(channel);
        let answer = client.get_connection(pb::GetConnectionRequest::default()).await;
        answer.unwrap_err().code() == Code::InvalidArgument
    };
    eventually("the server is ready", async || is_believed(&before).await).await;
    for (begins, ends, fault) in [(-30, -1, "the certificate has expired"), (1, 30, "the certificate is not valid yet")]
    {
        write_tls(folder.path(), &after.server_within(begins, ends));
        eventually("the log tells what is wrong", async || {
            let log = std::fs::read_to_string(path("log")).unwrap();
            log.lines().any(|line| line.contains(fault) && line.contains("\"level\":\"ERROR\""))
        })
        .await;
        assert!(is_believed(&before).await && !is_believed(&after).await, "{fault}");
    }
    write_tls(folder.path(), &after.server_within(-1, 30));
    eventually("a good one is shown", async || is_believed(&after).await).await;
}

#[tokio::test]
async fn operators_are_told_when_a_certificate_ends() {
    const DAYS: i64 = 5;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(DAYS);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(path("crt"), parameters.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command.args(["--tls-certificate", &path("crt"), "--tls-key", &path("key"), "--log-format", "json"]);
    let log = path("log");
    command.env("DATABASE_URL", database(true).await).stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let mut server = Running::start(command);
    let metrics = server.line_with("Metrics are at ").trim().rsplit(' ').next().unwrap().to_owned();
    eventually("the end of the certificate is measured", async || {
        let url = metrics.clone();
        let text = tokio::task::spawn_blocking(move || ureq::get(&url).call().unwrap().body_mut().read_to_string());
        let text = text.await.unwrap().unwrap();
        let ends = text.lines().find_map(|line| line.strip_prefix("rapport_tls_certificate_end_time_seconds "));
        ends.is_some_and(|ends| {
            let left = ends.parse::<f64>().unwrap() as i64 - unix_now();
            (DAYS * 86_400 - 60..=DAYS * 86_400).contains(&left)
        })
    })
    .await;
    eventually("the end of the certificate is warned of", async || {
        std::fs::read_to_string(&log).unwrap().contains("the TLS certificate ends soon")
    })
    .await;
}
