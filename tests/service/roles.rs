//! A role that may serve and nothing else.

use rapport::{domain::Kind, rpc::pb, service::Clock};
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{act, client_of, config, database, day, document, policies_of, rank, record, start, unique},
    program::{Ran, program},
};

async fn execute(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.map(drop)
}

#[tokio::test]
async fn a_role_that_may_serve_does_all_of_it_and_nothing_else() {
    let owner = database(false).await;
    let role = format!("serve \"{}", unique());
    let quoted = role.replace('"', "\"\"");
    execute(&owner, format!("CREATE ROLE \"{quoted}\" LOGIN")).await.unwrap();
    for _ in 0..2 {
        let mut migrate = program(&["migrate", "--grant-to", &role]);
        let ran = Ran::from(migrate.env("DATABASE_URL", &owner).output().unwrap()).expect(0);
        assert_eq!(ran.out, "The schema is up to date.\n");
        // Least of all about measuring, which nobody asked for. PostgreSQL may mention what is there already.
        assert!(ran.err.lines().all(|line| line.ends_with("already exists, skipping")), "{ran:?}");
    }
    let url = owner.replacen("//rapport@", &format!("//{}@", role.replace(' ', "%20").replace('"', "%22")), 1);
    assert_ne!(url, owner);
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "default");
    for kind in [Kind::Help, Kind::Promise, Kind::Ask] {
        record(&mut client, act(kind, "rosa", "zed", day(0))).await;
    }
    let again = act(Kind::Message, "zed", "rosa", day(1));
    record(&mut client, again.clone()).await;
    assert!(record(&mut client, again).await.replayed);
    assert_eq!(rank(&mut client, "zed", day(2)).await.len(), 1);
    let policy = Some(pb::Policy { document: document("ours-1"), ..pb::Policy::default() });
    let mut policies = policies_of(app.address(), "default");
    policies.publish_policy(pb::PublishPolicyRequest { policy, ..Default::default() }).await.unwrap();
    policies.rollback_policy(pb::RollbackPolicyRequest::default()).await.unwrap();
    // Enough for changes to be forgotten.
    for number in 0..520 {
        record(&mut client, act(Kind::Message, "zed", "rosa", day(number % 7))).await;
    }
    for statement in [
        "DELETE FROM ledger",
        "UPDATE ledger SET actor = 'me'",
        "TRUNCATE tie",
        "UPDATE policy SET document = '{}'",
        "DROP TABLE change",
        "CREATE TABLE more (one integer)",
    ] {
        let denied = execute(&url, statement.to_owned()).await.unwrap_err();
        let code =
            denied.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{statement}");
    }
}
