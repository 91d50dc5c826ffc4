//! A certificate that ends soon, as operators see it.

use std::process::Stdio;

use crate::{
    harness::{database, eventually, unix_now},
    program::{Running, program},
};

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
