//! The schema and its life: made once, made twice, made at once by many, not yet made.

use rapport::{
    domain::Kind,
    rpc::pb,
    scoring::DEFAULT,
    service::Clock,
    store::{Store, StoreError},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::{
    harness::{
        act, all_folded, channel, client_of, config, connection, database, day, document, policies_of, rank, ready,
        reason, record, start, try_record,
    },
    oracle::assert_same,
};

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    record(&mut client, act(Kind::Help, "bob", "ada", day(0))).await;
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    let (before, key) = (rank(&mut client, "ada", day(1)).await, store.page_token_key().await.unwrap());
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    assert_eq!(rank(&mut client, "ada", day(1)).await, before);
    assert_eq!((store.page_token_key().await.unwrap(), key.len()), (key, 32));
}

#[tokio::test]
async fn many_can_migrate_at_once() {
    let url = database(false).await;
    let migrate = async || {
        let store = Store::new(&url, 2, &DEFAULT).unwrap();
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        store.page_token_key().await.unwrap()
    };
    let (one, two, three, four) = tokio::join!(migrate(), migrate(), migrate(), migrate());
    let mut keys = vec![one, two, three, four];
    keys.dedup();
    assert_eq!(keys.len(), 1, "all servers share one key");
}

/// A database as version 2 of the schema left it, with the ledger of another one.
async fn of_version_2(other: &str) -> (String, PgConnection) {
    let url = database(false).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut migrations = sqlx::migrate!("src/store/migrations");
    migrations.migrations.to_mut().retain(|migration| migration.version <= 2);
    migrations.run(&mut connection).await.unwrap();
    let mut other = PgConnection::connect(other).await.unwrap();
    let rows: Vec<String> = sqlx::query_scalar("SELECT ledger::text FROM ledger").fetch_all(&mut other).await.unwrap();
    sqlx::query("INSERT INTO ledger SELECT (row).* FROM (SELECT UNNEST($1::text[])::ledger AS row) AS rows")
        .bind(rows)
        .execute(&mut connection)
        .await
        .unwrap();
    let old = "INSERT INTO rhythm VALUES ('one', 'bob', '2026-01-01 00:00+00', true, true, array_fill(1.0, ARRAY[6]))";
    sqlx::raw_sql(old).execute(&mut connection).await.unwrap();
    (url, connection)
}

#[tokio::test]
async fn what_an_older_schema_kept_is_derived_again_also_after_an_interruption() {
    let new = database(true).await;
    let app = start(config(new.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    for (number, peer) in [(0, "bob"), (1, "cleo"), (1, "bob"), (9, "dan")] {
        record(&mut client, act(Kind::Help, peer, "ada", day(number))).await;
        record(&mut client, act(Kind::Ask, "ada", peer, day(number))).await;
    }
    let (url, mut connection) = of_version_2(&new).await;
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    assert!(matches!(store.check_schema().await, Err(StoreError::Schema { found: 2, .. })));
    let interrupt = "CREATE FUNCTION interrupt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END';
                     CREATE TRIGGER interrupt BEFORE INSERT ON rhythm EXECUTE FUNCTION interrupt()";
    sqlx::raw_sql(interrupt).execute(&mut connection).await.unwrap();
    let waiting = rapport::app::App::start(config(url.clone()), Clock::system()).await.unwrap();
    for _ in 0..2 {
        store.migrate().await.unwrap_err();
        assert!(
            matches!(store.check_schema().await, Err(StoreError::Underived)),
            "nobody serves what is not all there"
        );
    }
    sqlx::raw_sql("DROP TRIGGER interrupt ON rhythm").execute(&mut connection).await.unwrap();
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    ready(waiting.address()).await;
    let mut migrated = client_of(waiting.address(), "one");
    let (found, wanted) = (rank(&mut migrated, "ada", day(10)).await, rank(&mut client, "ada", day(10)).await);
    assert_eq!((found.len(), wanted.len()), (3, 3));
    found.iter().zip(&wanted).for_each(|(found, wanted)| assert_same(found, wanted, "derived again"));
    assert_eq!(store.rebuild(false, |_| {}).await.unwrap().differences, [].into());
}

#[tokio::test]
async fn what_is_recorded_with_characters_that_show_nothing_stays_readable() {
    const INVISIBLE: &str = "bob\u{200b}\u{3164}";
    let url = database(true).await;
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    for kind in [Kind::Help, Kind::Promise] {
        let interaction_id = format!("{kind:?}");
        record(&mut client, pb::Interaction { interaction_id, ..act(kind, "bob", "ada", day(0)) }).await;
    }
    all_folded(&url).await;
    drop(app);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for (table, column) in [
        ("ledger", "actor"),
        ("tie", "actor"),
        ("tie", "recipient"),
        ("rhythm", "person"),
        ("commitment", "committed"),
        ("commitment", "counterpart"),
    ] {
        let renamed = format!("UPDATE {table} SET {column} = $1 WHERE {column} = 'bob'");
        sqlx::query(AssertSqlSafe(renamed)).bind(INVISIBLE).execute(&mut connection).await.unwrap();
    }
    for (table, column) in [("ledger", "interaction_id"), ("commitment", "commitment_id")] {
        let renamed = format!("UPDATE {table} SET {column} = {column} || $1");
        sqlx::query(AssertSqlSafe(renamed)).bind("\u{200d}").execute(&mut connection).await.unwrap();
    }
    let app = start(config(url.clone()), Clock::system()).await;
    let mut client = client_of(app.address(), "one");
    for (person, peer) in [("ada", INVISIBLE), (INVISIBLE, "ada")] {
        for as_of in [day(0), day(1)] {
            let found = rank(&mut client, person, as_of).await;
            assert_eq!(found.iter().map(|found| &*found.peer).collect::<Vec<_>>(), [peer]);
            assert_eq!(super::harness::connection(&mut client, person, peer, as_of).await.peer, peer);
        }
    }
    // Recording is what takes no more of them.
    assert!(try_record(&mut client, act(Kind::Help, INVISIBLE, "ada", day(1))).await.is_err());
    record(&mut client, act(Kind::Help, "ada", "cleo", day(1))).await;
    let store = Store::new(&url, 2, &DEFAULT).unwrap();
    assert_eq!(store.rebuild(false, |_| {}).await.unwrap().differences.len(), 0);
}

#[tokio::test]
async fn a_server_on_an_empty_database_is_alive_says_so_and_waits() {
    let url = database(false).await;
    let app = rapport::app::App::start(config(url.clone()), Clock::system()).await.unwrap();
    let mut health = HealthClient::new(channel(app.address()));
    let mut status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.unwrap().into_inner().status()
    };
    assert_eq!(status("liveness").await, ServingStatus::Serving);
    for service in ["", "readiness", "rapport.v1.RelationshipService"] {
        assert_eq!(status(service).await, ServingStatus::NotServing, "{service:?}");
    }
    let mut client = client_of(app.address(), "one");
    let help = act(Kind::Help, "bob", "ada", day(0));
    let (person, peer) = ("ada".to_owned(), "bob".to_owned());
    let asked = pb::GetConnectionRequest { person: person.clone(), peer, as_of_time: None, ..Default::default() };
    let validate = pb::RecordInteractionRequest { interaction: Some(help.clone()), validate_only: true };
    let item = pb::RecordInteractionsRequest { sequence: 1, interaction: Some(help.clone()) };
    let streamed = match client.record_interactions(tokio_stream::iter([item])).await {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    let rank_all = pb::RankConnectionsRequest { person, ..Default::default() };
    let mut policies = policies_of(app.address(), "one");
    let policy = Some(pb::Policy { document: document("fitted-1"), ..Default::default() });
    let publish = pb::PublishPolicyRequest { policy, ..Default::default() };
    let refusals = [
        policies.publish_policy(publish).await.map(drop),
        policies.list_policies(pb::ListPoliciesRequest::default()).await.map(drop),
        policies.get_policy(pb::GetPolicyRequest::default()).await.map(drop),
        policies.rollback_policy(pb::RollbackPolicyRequest::default()).await.map(drop),
        try_record(&mut client, help.clone()).await.map(drop),
        client.record_interaction(validate).await.map(drop),
        client.rank_connections(rank_all).await.map(drop),
        client.get_connection(asked).await.map(drop),
        streamed,
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.code(), &*reason(&refusal)), (Code::Unavailable, "DATABASE_UNAVAILABLE"), "{refusal:?}");
        assert!(refusal.get_error_details().retry_info().is_some());
    }
    Store::new(&url, 2, &DEFAULT).unwrap().migrate().await.unwrap();
    ready(app.address()).await;
    assert!(!record(&mut client, help).await.replayed, "nothing was recorded before");
    assert_eq!(connection(&mut client, "ada", "bob", day(1)).await.their_interaction_counts[0].count, 1);
}

#[tokio::test]
async fn every_key_leads_with_the_tenant() {
    let mut connection = PgConnection::connect(&database(true).await).await.unwrap();
    let indexes: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT owner.relname::text, index.relname::text, attname::text, indisprimary
         FROM pg_index
         JOIN pg_class AS index ON index.oid = indexrelid
         JOIN pg_class AS owner ON owner.oid = indrelid
         JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
         WHERE owner.relnamespace = 'public'::regnamespace AND owner.relname <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> '_sqlx_migrations'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(["ledger", "tie", "rhythm", "commitment"].iter().all(|table| tables.iter().any(|known| known == table)));
    for table in tables {
        assert!(indexes.iter().any(|(owner, .., primary)| *owner == table && *primary), "{table} has a primary key");
    }
    for (table, index, first, _) in indexes {
        assert!(first == "tenant" || table == "server_key", "{index} on {table} leads with {first}");
    }
}

#[tokio::test]
async fn every_reference_is_within_a_tenant() {
    let mut connection = PgConnection::connect(&database(true).await).await.unwrap();
    let references: Vec<(String, bool)> = sqlx::query_as(
        "SELECT conname::text, EXISTS (
             SELECT FROM UNNEST(conkey, confkey) AS pair (own, other)
             JOIN pg_attribute AS own ON own.attrelid = conrelid AND own.attnum = pair.own
             JOIN pg_attribute AS other ON other.attrelid = confrelid AND other.attnum = pair.other
             WHERE own.attname = 'tenant' AND other.attname = 'tenant'
         ) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(references.iter().any(|(name, _)| name == "policy_use_version"));
    for (name, has_tenant) in references {
        assert!(has_tenant, "{name} leads out of the tenant");
    }
}

/// Every copy of a row would have its own.
#[test]
fn no_statement_that_changes_data_asks_for_the_time_or_for_chance() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx");
    let mut changing = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let query = recorded["query"].as_str().unwrap().to_lowercase();
        if ["insert into", "update ", "delete from"].iter().any(|words| query.contains(words)) {
            changing += 1;
            for word in ["now()", "current_", "localtime", "_timestamp()", "timeofday", "random", "nextval"] {
                assert!(!query.contains(word), "{word} in {query}");
            }
        }
    }
    assert!(changing > 10, "the statements are elsewhere");
}

#[tokio::test]
async fn text_is_ordered_by_its_bytes() {
    // Else keys would be locked in another order than this program sorts them in.
    let mut connection = PgConnection::connect(&database(true).await).await.unwrap();
    let others: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s.%s', relname, attname) FROM pg_attribute
         JOIN pg_class ON pg_class.oid = attrelid JOIN pg_collation ON pg_collation.oid = attcollation
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND collname <> 'C'
             AND relname NOT IN ('_sqlx_migrations', 'server_key')",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(others, [""; 0]);
}
