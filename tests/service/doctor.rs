//! `rapport doctor` on databases that are well, and on damaged ones.

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
    let ran = examine(url, &["--json"]).expect(3);
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
    execute(&url, "DELETE FROM _sqlx_migrations WHERE version = 5".to_owned()).await;
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
    let advice = format!("GRANT INSERT on ledger TO {role}; GRANT UPDATE on tie TO {role};");
    assert_eq!(findings(&limited), [("privileges".to_owned(), advice.clone())]);
    execute(&url, advice).await;
    assert_eq!(findings(&limited), []);
    execute(&url, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_found() {
    let ran = examine("postgresql://nobody@localhost/nothing?host=/nonexistent/socket&sslmode=disable", &[]).expect(3);
    assert!(ran.out.contains("see that PostgreSQL runs") && ran.out.ends_with("1 finding.\n"), "{ran:?}");
}
