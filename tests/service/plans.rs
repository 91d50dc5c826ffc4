//! Every hot statement finds its rows by an index. What is explained is the text that is served: that of the recorded
//! statements in `.sqlx`, with a plan for the values at hand and with the one for all values, since a server may use either.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::harness::database;

/// The text of the one recorded statement that has all of these words, and locks rows or not.
fn statement(words: &[&str]) -> (String, Vec<String>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx");
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let query = recorded["query"].as_str().unwrap();
        if words.iter().all(|word| match word.strip_prefix('!') {
            Some(without) => !query.contains(without),
            None => query.contains(word),
        }) {
            let types = recorded["describe"]["parameters"]["Left"].as_array().unwrap();
            let types = types.iter().map(|name| sql_type(name.as_str().unwrap())).collect();
            found.push((query.to_owned(), types));
        }
    }
    assert_eq!(found.len(), 1, "one recorded statement has {words:?}");
    found.remove(0)
}

fn sql_type(recorded: &str) -> String {
    match recorded.strip_suffix("Array") {
        Some(element) => format!("{element}[]"),
        None => recorded.to_owned(),
    }
}

/// A database as large as matters to the planner: 2,000 persons, 50,000 ties, 100,000 acts, 30,000 commitments, and for each
/// of 200 tenants 500 policies that took turns.
async fn filled() -> PgConnection {
    let mut connection = PgConnection::connect(&database(true).await).await.unwrap();
    let fill = "
        INSERT INTO ledger SELECT 'one', 'i' || n, 0, 'p' || n % 2000, 'p' || (n * 7 + n / 2000 % 25 + 1) % 2000,
            timestamptz '2024-01-01 00:00+00' + n % 730 * interval '1 day' + n * interval '1 second', n % 17 + 1, 1, NULL,
            false, NULL, NULL, (ARRAY['email', 'chat'])[n % 3], ARRAY['rust'], NULL, '\\x00', '2026-01-01 00:00+00'
            FROM generate_series(1, 100000) AS n;
        INSERT INTO tie SELECT 'one', 'p' || n / 25, 'p' || (n * 7 + 1) % 2000, '2024-01-01 00:00+00',
            '2026-01-01 00:00+00', array_fill(1, ARRAY[17]), array_fill(0.5, ARRAY[3]), array_fill(0.5, ARRAY[14])
            FROM generate_series(0, 49999) AS n ON CONFLICT DO NOTHING;
        INSERT INTO rhythm SELECT 'one', 'p' || n, '2026-01-01 00:00+00', array_fill(0.5, ARRAY[12]), 20454
            FROM generate_series(1, 20000) AS n;
        INSERT INTO commitment SELECT 'one', 'p' || n % 2000, 'p' || (n * 7 + 1) % 2000, 'i' || n,
            '2026-01-01 00:00+00', NULL, 1 FROM generate_series(1, 30000) AS n;
        INSERT INTO policy SELECT tenant, 'p' || n, n, '{}', '2026-01-01 00:00+00'
            FROM generate_series(1, 500) AS n, (SELECT 'one' UNION SELECT 't' || t FROM generate_series(2, 200) AS t) AS
            tenants (tenant);
        INSERT INTO policy_use SELECT tenant, place, version, place - 1, publish_time FROM policy;
        INSERT INTO tenant_revision SELECT 't' || n, 500 FROM generate_series(1, 5000) AS n;
        INSERT INTO change SELECT 't' || tenant, n, ARRAY[n] FROM generate_series(1, 500) AS n, generate_series(1, 100) AS tenant;
        INSERT INTO unfolded SELECT 't' || n, 500, ARRAY[n], ARRAY['i' || n], ARRAY['p1'], ARRAY['p2'], ARRAY[now()], ARRAY[1], ARRAY[1],
            ARRAY[NULL::bigint], ARRAY[false], ARRAY[false], ARRAY[now()], ARRAY['']
            FROM generate_series(1, 2000) AS n;
        ANALYZE";
    sqlx::raw_sql(fill).execute(&mut connection).await.unwrap();
    connection
}

/// A value of a type for parameters that name persons, times and the like.
fn value(sql_type: &str, place: usize) -> String {
    let one = |element: &str, number: usize| match element {
        "Text" if place == 0 => "'one'".to_owned(),
        "Text" => format!("'p{}'", number * 7 + place),
        "Timestamptz" => format!("timestamptz '2025-06-0{} 00:00+00'", place % 5 + 1),
        "Int2" | "Int4" | "Int8" => "10".to_owned(),
        "Float8" => "0.5".to_owned(),
        "Bool" => "true".to_owned(),
        "Bytea" => "'\\x00'".to_owned(),
        other => panic!("no value of type {other}"),
    };
    let Some(element) = sql_type.strip_suffix("[]") else { return one(sql_type, 0) };
    let values: Vec<_> = (0..10).map(|number| one(element, number)).collect();
    format!("ARRAY[{}]::{sql_type}", values.join(", "))
}

/// The plan of a statement, for values or for all values.
async fn plan(connection: &mut PgConnection, (query, types): &(String, Vec<String>), mode: &str) -> String {
    // The tenant that all rows are of is one that has many.
    let is_of_all = |place: usize| query.contains(&format!("${}::text IS NULL", place + 1));
    let value =
        |(place, name): (usize, &String)| if is_of_all(place) { "'one'".to_owned() } else { value(name, place) };
    let values: Vec<_> = types.iter().enumerate().map(value).collect();
    let script = format!("SET plan_cache_mode = {mode}; DEALLOCATE ALL; PREPARE hot ({}) AS {query}", types.join(", "));
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *connection).await.unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE hot ({})", values.join(", "));
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    rows.iter().fold(String::new(), |mut plan, row| {
        writeln!(plan, "{}", sqlx::Row::get::<&str, _>(row, 0)).unwrap();
        plan
    })
}

/// A tie is found by its whole key, in either of the two indexes that hold it.
const TIE: [&str; 3] = ["Index Scan using tie_", "(actor = ", "(recipient = "];

/// So is a commitment.
const COMMITMENT: [&str; 4] = ["Index Scan using commitment_", "(committed = ", "(counterpart = ", "(commitment_id = "];

/// All commitments of a pair are found by both persons.
const PAIR: [&str; 3] = ["Index Scan using commitment_", "(committed = ", "(counterpart = "];

/// The revision of a tenant is raised where it is.
const REVISION: &str = "Conflict Arbiter Indexes: tenant_revision_key";

/// Words of each hot statement, and what its plan shows.
const HOT: [(&[&str], &[&str]); 36] = [
    // Policies.
    (&["SELECT place, version FROM policy_use WHERE", "ORDER BY place DESC LIMIT 1"], &["policy_use_key"]),
    (&["FROM policy_use WHERE", "AND place = $2"], &["policy_use_key"]),
    (&["FROM policy WHERE", "AND version = $2"], &["policy_key"]),
    (&["FROM policy WHERE", "ORDER BY place DESC"], &["policy_place"]),
    (&["SELECT max(place) FROM policy"], &["policy_place"]),
    (&["INSERT INTO change", "INSERT INTO policy_use"], &[REVISION]),
    // Rankings: whether an answer still holds, and what it is made of.
    (&["AS later ON true"], &["tenant_revision_key", "policy_use_key", "change_key", "One-Time Filter"]),
    (&["SELECT revision FROM tenant_revision WHERE", "!change"], &["tenant_revision_key", "policy_use_key"]),
    (&["FROM change WHERE", "revision = ANY"], &["change_key", "(revision = ANY"]),
    (&["FROM tie WHERE", "evidence AS \"evidence!\""], &["tie_key", "tie_recipient"]),
    (&["JOIN tie USING", "!FOR UPDATE"], &TIE),
    (&["JOIN rhythm USING", "!FOR UPDATE"], &["rhythm_key"]),
    (&["FROM commitment WHERE tenant = $1 AND committed"], &["commitment_key", "commitment_by_counterpart"]),
    (&["JOIN commitment USING (tenant, committed, counterpart)", "!FOR UPDATE"], &PAIR),
    (&["commitment_id)\n         JOIN commitment", "!FOR UPDATE"], &COMMITMENT),
    (&["AS \"peer!\""], &["tie_key", "tie_recipient", "ledger_pair"]),
    // Past times and explanations.
    (&["JOIN ledger USING (tenant, actor, recipient)", "LIMIT $5"], &["ledger_pair", "interaction_time <="]),
    (&["max(ledger.interaction_time)"], &["ledger_pair", "tie_recipient", "interaction_time <="]),
    (&["row_number()"], &["ledger_pair", "interaction_time <="]),
    (&["kind = ANY ($4)"], &["ledger_pair"]),
    // Recording.
    (&["INSERT INTO ledger", "beside"], &["Conflict Arbiter Indexes: ledger_key", REVISION]),
    (&["INSERT INTO ledger", "!beside"], &[REVISION]),
    (&["INSERT INTO change", "touched", "!INSERT INTO ledger"], &[REVISION]),
    (&["DELETE FROM change"], &["change_key", "(revision <"]),
    (&["ledger.fingerprint, ledger.record_time", "JOIN ledger"], &["ledger_key", "tenant_revision_key"]),
    (&["JOIN tie USING", "FOR UPDATE OF tie"], &TIE),
    (&["INSERT INTO tie"], &[TIE[0], TIE[1], TIE[2]]),
    (&["ORDER BY commitment.tenant", "FOR UPDATE OF commitment"], &COMMITMENT),
    (&["UPDATE commitment SET"], &COMMITMENT),
    (&["INSERT INTO rhythm", "ON CONFLICT (tenant, person) DO UPDATE"], &["Conflict Arbiter Indexes: rhythm_key"]),
    (&["DELETE FROM unfolded"], &["unfolded_key", "LockRows"]),
    (&["UNNEST(actors)", "!DELETE"], &["unfolded_key"]),
    // Rebuilding.
    (&["JOIN rhythm USING", "FOR UPDATE OF rhythm"], &["rhythm_key", "LockRows"]),
    (&["UPDATE rhythm SET"], &["rhythm_key"]),
    // Late acts.
    (
        &["AS late (tenant, actor, recipient, day_start, day_end)"],
        &["ledger_pair", "interaction_time >=", "interaction_time <"],
    ),
    // All acts of a tenant, in their order.
    (&["position) > ($2, $3)"], &["ledger_key", "(interaction_id, \"position\") > ROW("]),
];

/// A plan that was made while the tables were empty is kept until they are analyzed, which takes a minute. Sessions of a server
/// are set like that.
#[tokio::test]
async fn rows_are_found_by_their_whole_keys_before_anything_is_known_of_them() {
    let mut connection = PgConnection::connect(&database(true).await).await.unwrap();
    let settings = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
    sqlx::raw_sql(settings).execute(&mut connection).await.unwrap();
    let early: [(&[&str], &[&str]); 6] = [
        (&["JOIN tie USING", "FOR UPDATE OF tie"], &TIE),
        (&["INSERT INTO tie", "UPDATE tie"], &TIE),
        (&["commitment_id)\n         JOIN commitment", "!FOR UPDATE"], &COMMITMENT),
        (&["ORDER BY commitment.tenant", "FOR UPDATE OF commitment"], &COMMITMENT),
        (&["UPDATE commitment SET"], &COMMITMENT),
        (&["DELETE FROM commitment"], &COMMITMENT),
    ];
    for (words, wanted) in early {
        let plan = plan(&mut connection, &statement(words), "force_generic_plan").await;
        let conditions: String = plan.lines().filter(|line| !line.trim().starts_with("Filter:")).collect();
        for wanted in wanted {
            assert!(conditions.contains(wanted), "{words:?} shows no {wanted}:\n{plan}");
        }
    }
}

#[tokio::test]
async fn every_hot_statement_finds_its_rows_by_an_index() {
    let mut connection = filled().await;
    for (words, wanted) in HOT {
        let statement = statement(words);
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let plan = plan(&mut connection, &statement, mode).await;
            println!("{words:?} {mode}\n{plan}");
            for table in ["ledger", "tie", "rhythm", "commitment", "policy", "change", "tenant_revision"] {
                assert!(!plan.contains(&format!("Seq Scan on {table}")), "{words:?} reads all, {mode}:\n{plan}");
            }
            for wanted in wanted {
                assert!(plan.contains(wanted), "{words:?} shows no {wanted}, {mode}:\n{plan}");
            }
            // A time belongs to the condition that the index is searched by, not to a filter of what it found.
            for line in plan.lines().filter(|line| line.trim().starts_with("Filter:")) {
                assert!(!line.contains("interaction_time") || words[0].contains("peer!"), "{words:?}, {mode}:\n{plan}");
            }
        }
    }
}
