//! `rapport doctor` on databases, settings and files that are well, and on damaged ones.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{database, unique},
    program::{Ran, program},
};

/// What the tests' own PostgreSQL is set to, to be quick.
const QUICK: [&str; 2] = ["fsync", "full_page_writes"];

async fn execute(url: &str, statements: String) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The name of the database at a URL.
fn name_of(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1.split('?').next().unwrap()
}

fn examine(url: &str, arguments: &[&str]) -> Ran {
    let mut command = program(&[&["doctor"], arguments].concat());
    command.env("DATABASE_URL", url).output().unwrap().into()
}

/// What it finds, with its advice, besides what is set to be quick.
fn findings(url: &str) -> Vec<(String, String)> {
    findings_with(url, &[])
}

/// Likewise, with these flags.
fn findings_with(url: &str, arguments: &[&str]) -> Vec<(String, String)> {
    let ran = examine(url, &[&["--json"], arguments].concat()).expect(3);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let found = report["checks"].as_array().unwrap().iter().filter(|check| check["fine"] == false);
    let found: Vec<_> = found.map(|check| (text(check, "name"), text(check, "advice"))).collect();
    assert_eq!(report["findings"].as_u64().unwrap(), found.len() as u64);
    found.into_iter().filter(|(name, _)| !QUICK.contains(&name.as_str())).collect()
}

#[tokio::test]
async fn a_sound_database_has_nothing_to_be_found() {
    let url = database(true).await;
    assert_eq!(findings(&url), []);
    let table = examine(&url, &[]).expect(3).out;
    assert!(table.contains("a primary") && table.contains("LOOK") && table.ends_with("2 findings.\n"), "{table}");
}

#[tokio::test]
async fn a_schema_that_is_not_there_or_not_whole_is_found() {
    let found = findings(&database(false).await);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["schema", "privileges"]);
    assert!(found.iter().all(|(_, advice)| advice == "run `rapport migrate`"), "{found:?}");
    let url = database(true).await;
    execute(
        &url,
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)".to_owned(),
    )
    .await;
    assert_eq!(findings(&url), [("schema".to_owned(), "run `rapport migrate`".to_owned())]);
    execute(&url, "INSERT INTO _sqlx_migrations VALUES (99, 'later', now(), true, '', 0)".to_owned()).await;
    assert_eq!(findings(&url), [], "a later version that only added to it");
}

#[tokio::test]
async fn settings_of_a_database_that_do_harm_are_found() {
    let url = database(true).await;
    let name = name_of(&url);
    let settings = [
        ("synchronous_commit", "off", "synchronous_commit"),
        ("default_transaction_isolation", "'repeatable read'", "default_transaction_isolation"),
        ("default_transaction_read_only", "on", "role of the server"),
    ];
    for (setting, value, expected) in settings {
        execute(&url, format!("ALTER DATABASE {name} SET {setting} = {value}")).await;
        let found = findings(&url);
        assert!(found.len() == 1 && found[0].0 == expected, "{setting}: {found:?}");
        let quiet = format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET {setting}; COMMIT");
        execute(&url, quiet).await;
    }
}

#[tokio::test]
async fn privileges_that_a_role_lacks_are_found() {
    let url = database(true).await;
    let role = format!("limited_{}", unique());
    let granted = format!(
        "CREATE ROLE {role} LOGIN;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE INSERT ON ledger FROM {role}; REVOKE UPDATE ON tie FROM {role}"
    );
    execute(&url, granted).await;
    let limited = url.replacen("//rapport@", &format!("//{role}@"), 1);
    assert_ne!(limited, url);
    let advice = format!("run `rapport migrate --grant-to {role}` as the role that owns the tables");
    assert_eq!(findings(&limited), [("privileges".to_owned(), advice)]);
    let granted = program(&["migrate", "--grant-to", &role]).env("DATABASE_URL", &url).output().unwrap();
    Ran::from(granted).expect(0);
    assert_eq!(findings(&limited), []);
    execute(&url, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_found() {
    let ran = examine("postgresql://nobody@localhost/nothing?host=/nonexistent/socket&sslmode=disable", &[]).expect(3);
    assert!(ran.out.contains("see that PostgreSQL runs") && ran.out.ends_with("1 finding.\n"), "{ran:?}");
}

#[tokio::test]
async fn settings_that_keep_a_server_from_starting_are_found() {
    let (url, folder) = (database(true).await, tempfile::tempdir().unwrap());
    let file = folder.path().join("rapport.toml");
    std::fs::write(&file, "max_calls = 1\nmax_cals = 1\n").unwrap();
    let path = file.to_str().unwrap();
    let ran = examine(&url, &["--settings", path, "--listen", "0.0.0.0:1", "--drain-limit-seconds", "-1"]).expect(3);
    let words = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [":2: max_cals is no setting", "must be a loopback address", "--drain-limit-seconds must be"] {
        assert!(ran.out.contains(part) || words.contains(part), "{part} in {}", ran.out);
    }
    assert!(ran.out.ends_with("3 findings.\n"), "which database the file means cannot be told: {}", ran.out);
    std::fs::write(&file, "max_calls = 1\n").unwrap();
    let named = findings_with(&url, &["--settings", path, "--max-calls", "0"]);
    assert!(named.len() == 1 && named[0].0 == "settings", "{named:?}");
    let ran = examine(&url, &["--max-calls", "0"]).expect(3);
    assert!(ran.out.contains("a primary") && ran.out.ends_with("3 findings.\n"), "it is looked at all the same");
    assert_eq!(findings_with(&url, &["--settings", path]), []);
}

#[tokio::test]
async fn certificates_that_callers_would_refuse_are_found() {
    let (url, folder) = (database(true).await, tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("crt"), path("key"));
    let examined = |names: &[&str], days: std::ops::Range<i64>| {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        let after = |days| time::OffsetDateTime::now_utc() + time::Duration::days(days);
        (parameters.not_before, parameters.not_after) = (after(days.start), after(days.end));
        let pair = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&certificate, parameters.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        findings_with(&url, &["--tls-certificate", &certificate, "--tls-key", &key])
    };
    let finding = |advice: &str| [("TLS".to_owned(), advice.to_owned())];
    assert_eq!(examined(&["a.example.org"], -1..30), []);
    assert_eq!(examined(&["a.example.org"], -1..3), finding("renew it; a server shows the new one without a restart"));
    assert_eq!(examined(&["a.example.org"], -9..-3), finding("renew it; a server shows the new one without a restart"));
    assert_eq!(examined(&["a.example.org"], 1..30), finding("it does not hold yet: wait, or look at the clock"));
    assert_eq!(examined(&[], -1..30), finding("give it the names by which callers reach the server"));
    std::fs::write(&key, "nothing").unwrap();
    let found = findings_with(&url, &["--tls-certificate", &certificate, "--tls-key", &key]);
    assert_eq!(found, finding("put it right: `rapport serve` would not start"));
}

#[tokio::test]
async fn an_access_file_that_lets_nobody_in_is_found() {
    let (url, folder) = (database(true).await, tempfile::tempdir().unwrap());
    let file = folder.path().join("access.json");
    let examined = |document: &str| {
        std::fs::write(&file, document).unwrap();
        findings_with(&url, &["--access-file", file.to_str().unwrap()])
    };
    let names = |found: Vec<(String, String)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let principal = r#"{"name": "crm", "certificates": ["crm.example.org"], "grants": []}"#;
    let tokens =
        r#""tokens": {"issuer": "i", "audience": "a", "algorithms": ["ES256"], "keys_url": "http://127.0.0.1:1"}"#;
    assert_eq!(examined(&format!(r#"{{"principals": [{principal}]}}"#)), []);
    assert_eq!(names(examined(r#"{"principals": []}"#)), ["access file"]);
    assert_eq!(names(examined("{")), ["access file"]);
    assert_eq!(names(examined(&format!(r#"{{"principals": [{principal}], {tokens}}}"#))), ["token issuer"]);
}
