//! What has to be said twice for a deployment is the same in both places, kept by reading the files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// What stands behind `mark` in the lines that begin with it, spaces aside.
fn marked<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(mark)).map(str::trim).collect()
}

/// The whole number in the one line with `mark`, behind it.
fn number(text: &str, mark: &str) -> u32 {
    let found: Vec<&str> = text.lines().filter_map(|line| line.split_once(mark)).map(|(_, rest)| rest).collect();
    let [found] = found[..] else { panic!("{mark} stands in {} lines", found.len()) };
    found.split(|sign: char| !sign.is_ascii_digit()).find(|digits| !digits.is_empty()).unwrap().parse().unwrap()
}

#[test]
fn the_operator_of_prometheus_is_given_the_same_rules() {
    let rule = read("deploy/observability/prometheus-rule.yaml");
    let (_, given) = rule.split_once("\nspec:\n").unwrap();
    let indented = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let rules: String = read("deploy/observability/alerts.yaml").lines().map(indented).collect();
    assert!(given == rules, "prometheus-rule.yaml is stale: it says how it is made");
}

#[test]
fn every_alert_names_its_heading_in_the_runbook_and_every_heading_is_an_alert() {
    let alerts = read("deploy/observability/alerts.yaml");
    let (names, runbooks) = (marked(&alerts, "- alert:"), marked(&alerts, "runbook:"));
    assert_eq!(names.len(), runbooks.len());
    for (name, runbook) in names.iter().zip(runbooks) {
        assert!(runbook.ends_with(&format!(" More: deploy/README.md, {name}.\"")), "{name}: {runbook}");
    }
    let guide = read("deploy/README.md");
    let (_, runbook) = guide.split_once("\n## Alerts\n").unwrap();
    let headings: BTreeSet<&str> = marked(runbook.split("\n## ").next().unwrap(), "### ").into_iter().collect();
    assert_eq!(headings, names.into_iter().collect());
}

/// gRPC's DNS resolver waits 30 s between two look-ups unless a caller sets `grpc.dns_min_time_between_resolutions_ms`.
#[test]
fn an_old_server_goes_only_once_callers_can_know_the_new_one() {
    assert!(number(&read("deploy/kubernetes/base/deployment.yaml"), "minReadySeconds:") > 30);
    for overlay in ["dev", "production"] {
        assert!(!read(&format!("deploy/kubernetes/overlays/{overlay}/kustomization.yaml")).contains("minReadySeconds"));
    }
}

#[test]
fn a_pod_is_given_longer_than_its_server_takes_to_end() {
    let deployment = read("deploy/kubernetes/base/deployment.yaml");
    let settings = read("deploy/kubernetes/base/kustomization.yaml");
    let app = read("src/app.rs");
    let takes = number(&deployment, " seconds:")
        + number(&settings, "RAPPORT_DRAIN_LIMIT_SECONDS=")
        + number(&app, "const FLUSH_LIMIT: Duration")
        + number(&app, "const CLOSE_LIMIT: Duration")
        + number(&read("src/telemetry/metrics.rs"), "const SHUTDOWN_LIMIT: Duration")
        + number(&read("src/telemetry/mod.rs"), "const FLUSH_LIMIT: Duration");
    assert!(number(&deployment, "terminationGracePeriodSeconds:") > takes, "it takes up to {takes} s");
}
