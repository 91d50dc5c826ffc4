//! `rapport policy`: what it prints, and how it fails.

use std::fs;

use rapport::scoring::DEFAULT;
use serde_json::Value;

use crate::{
    harness::{document, unique},
    program::{Ran, ask, asking, fed, folder},
};

fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.expect(0).out).unwrap()
}

fn publish(tenant: &str, version: &str, flags: &[&str]) -> Ran {
    fed(asking(tenant, &[&["policy", "publish", "-"], flags].concat()), document(version).as_bytes())
}

#[test]
fn a_policy_is_published_listed_shown_and_taken_back() {
    let tenant = unique();
    let built_in = &*DEFAULT.version;
    let shown = ask(&tenant, &["policy", "show"]).expect(0).out;
    assert_eq!(shown.trim_end(), DEFAULT.document().trim_end());
    // Changed in a file, as its user would.
    let folder = folder();
    let file = folder.path().join("fitted.json");
    fs::write(&file, shown.replace(built_in, "fitted-1")).unwrap();
    let file = file.to_str().unwrap();
    let checked = ask(&tenant, &["policy", "publish", file, "--validate-only"]).expect(0).out;
    assert_eq!(checked, "fitted-1 would be published, and would be in use.\n");
    for expected in ["fitted-1 published, and is in use.\n", "fitted-1 was published before, and is in use.\n"] {
        assert_eq!(ask(&tenant, &["policy", "publish", file]).expect(0).out, expected);
    }
    let aside = publish(&tenant, "fitted-2", &["--keep-aside"]).expect(0).out;
    assert_eq!(aside, "fitted-2 published, and is not in use.\n");
    let listed = ask(&tenant, &["policy", "list"]).expect(0).out;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines.len(), &*lines[0]), (5, &["published", "version"][..]), "{listed}");
    assert_eq!((lines[2][1], lines[2].len()), ("fitted-2", 2), "{listed}");
    assert_eq!((lines[3][0], lines[3][2]), ("*", "fitted-1"), "{listed}");
    assert_eq!(lines[4], ["built", "in", built_in], "{listed}");
    let ranked = json(ask(&tenant, &["rank", "ada", "--json"]));
    assert_eq!(ranked["policyVersion"], "fitted-1");
    assert_eq!(ask(&tenant, &["policy", "rollback", "fitted-2"]).expect(0).out, "fitted-2 is in use.\n");
    assert_eq!(ask(&tenant, &["policy", "rollback"]).expect(0).out, "fitted-1 is in use.\n");
    assert_eq!(ask(&tenant, &["policy", "rollback"]).expect(0).out, format!("{built_in} is in use.\n"));
    assert_eq!(
        ask(&tenant, &["policy", "rollback"]).expect(1).err,
        "rapport: the server refused: no other version of the scoring policy was in use before; `rapport policy list` lists \
         the versions there are\n"
    );
}

#[test]
fn json_is_what_the_api_says() {
    let tenant = unique();
    let published = json(publish(&tenant, "fitted-1", &["--json"]));
    assert_eq!((&published["policy"]["version"], &published["replayed"]), (&"fitted-1".into(), &false.into()));
    let shown = json(ask(&tenant, &["policy", "show", "fitted-1", "--json"]));
    assert_eq!(shown["policy"], published["policy"]);
    assert!(shown["policy"]["publishTime"].is_string());
    let listed = json(ask(&tenant, &["policy", "list", "--json"]));
    assert_eq!(listed["policies"][0]["inUse"], true);
    assert_eq!((&listed["policies"][1]["builtIn"], &listed["policies"][2]), (&true.into(), &Value::Null));
    let used = json(ask(&tenant, &["policy", "rollback", "--json"]));
    assert_eq!((&used["policy"]["version"], &used["policy"]["inUse"]), (&(*DEFAULT.version).into(), &true.into()));
}

#[test]
fn failures_are_one_clear_sentence() {
    let tenant = unique();
    let told = |ran: Ran| ran.expect(1).err;
    let refused = told(publish(&tenant, "fitted 1", &[]));
    assert!(refused.starts_with("rapport: the server refused: policy.document.version must consist of"), "{refused}");
    let unknown = told(ask(&tenant, &["policy", "show", "nope"]));
    let list = "`rapport policy list` lists the versions there are";
    assert_eq!(
        unknown,
        format!("rapport: the server refused: there is no such version of the scoring policy; {list}\n")
    );
    let missing = told(ask(&tenant, &["policy", "publish", "/nowhere/policy.json"]));
    assert!(missing.starts_with("rapport: cannot read /nowhere/policy.json: No such file"), "{missing}");
    let long = told(fed(asking(&tenant, &["policy", "publish", "-"]), &vec![b' '; 65_537]));
    assert_eq!(long, "rapport: - is longer than 65536 bytes\n");
    let no_text = told(fed(asking(&tenant, &["policy", "publish", "-"]), &[0xff]));
    assert_eq!(no_text, "rapport: - is not in UTF-8\n");
    for arguments in [&["policy"][..], &["policy", "nope"], &["policy", "publish"], &["policy", "list", "x"]] {
        assert!(!ask(&tenant, arguments).expect(2).err.is_empty());
    }
}
