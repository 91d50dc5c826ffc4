//! What an access file grants, and what lets nobody in.

use super::*;

const NOW: Timestamp = Timestamp::MIN;

fn access(document: &str) -> Result<Access, AccessError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.json");
    std::fs::write(&path, document).unwrap();
    Access::guarded(&path)
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn bearer(text: &str) -> Credentials<'_> {
    Credentials { bearer: Some(text), ..Credentials::default() }
}

fn two_principals(first: &Key, second: &Key) -> Access {
    let entry = |key: &Key| serde_json::to_string(&key.entry()).unwrap();
    let document = format!(
        r#"{{"principals": [
            {{"name": "crm", "keys": [{}], "certificates": ["spiffe://example.org/crm"],
              "grants": [{{"tenants": ["crm"], "rights": ["record", "rank"]}}]}},
            {{"name": "operator", "keys": [{}], "grants": [{{"tenants": ["*"], "rights": ["admin"]}}]}}
        ]}}"#,
        entry(first),
        entry(second),
    );
    access(&document).unwrap()
}

#[test]
fn what_is_not_granted_is_denied() {
    let (crm, operator) = (Key::new().unwrap(), Key::new().unwrap());
    let access = two_principals(&crm, &operator);
    let admit = |key: &Key, name, right| access.admit(&bearer(key.as_str()), name, right, NOW).map(|it| it.tenant);
    assert_eq!(admit(&crm, Some(tenant("crm")), Right::Record), Ok(tenant("crm")));
    assert_eq!(admit(&crm, None, Right::Rank), Ok(tenant("crm")), "the only one need not be named");
    assert_eq!(admit(&crm, Some(tenant("crm")), Right::Admin), Err(Refusal::Denied));
    assert_eq!(admit(&crm, Some(tenant("other")), Right::Record), Err(Refusal::Denied));
    assert_eq!(admit(&operator, Some(tenant("any")), Right::Admin), Ok(tenant("any")));
    assert_eq!(admit(&operator, Some(tenant("any")), Right::Rank), Err(Refusal::Denied));
    assert_eq!(admit(&operator, None, Right::Admin), Err(Refusal::Denied), "one of all has to be named");
}

#[test]
fn only_what_proves_who_calls_lets_in() {
    let (crm, operator) = (Key::new().unwrap(), Key::new().unwrap());
    let access = two_principals(&crm, &operator);
    let mixed = format!("{}{}", crm.as_str().rsplit_once('_').unwrap().0, "_00");
    let unknown = Key::new().unwrap();
    for shown in ["", "rapport_", "rapport_x_y", mixed.as_str(), "a.b.c", unknown.as_str()] {
        assert_eq!(access.admit(&bearer(shown), None, Right::Rank, NOW), Err(Refusal::Unknown), "{shown}");
    }
    assert_eq!(access.admit(&Credentials::default(), None, Right::Rank, NOW), Err(Refusal::Unknown));
    let names = ["other.example.org".to_owned(), "spiffe://example.org/crm".to_owned()];
    let certificate = Credentials { bearer: None, certificate_names: &names };
    assert_eq!(&*access.principal(&certificate, NOW).unwrap(), "crm");
    let both = Credentials { bearer: Some("rapport_x_y"), ..certificate };
    assert!(access.principal(&both, NOW).is_none(), "a bad key is not made good by a certificate");
}

#[test]
fn every_fault_of_a_file_is_told_and_nothing_that_is_in_it() {
    let told = access(
        r#"{"principals": [
            {"name": "", "keys": [{"id": "a", "hash": "secret"}], "subjects": ["s"], "grants": []},
            {"name": "b", "certificates": ["x", "x"], "grants": [{"tenants": ["\t"], "rights": ["rank"]}]}
        ]}"#,
    );
    let told = told.unwrap_err().to_string();
    for part in [
        "principals[0].name",
        "principals[0].keys[0].hash",
        "subjects need tokens",
        "principals[1].certificates[1]",
        "principals[1].grants[0].tenants[0]",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("secret"));
    assert!(matches!(access("{"), Err(AccessError::Malformed { .. })));
    assert!(access(r#"{"principals": [], "more": 1}"#).is_err(), "what is not understood is not ignored");
}

#[test]
fn shared_secrets_sign_nothing() {
    let told = access(
        r#"{"principals": [], "tokens": {"issuer": "", "audience": "rapport", "algorithms": ["HS256"],
            "keys_url": "ftp://example.org"}}"#,
    );
    let told = told.unwrap_err().to_string();
    for part in ["tokens.issuer", "tokens.algorithms", "keys_url"] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn where_nobody_is_asked_everybody_may_do_everything() {
    let admitted = Access::open().admit(&Credentials::default(), None, Right::Admin, NOW).unwrap();
    assert_eq!(admitted, Admitted { principal: None, tenant: TenantId::unnamed() });
}
