//! Printing the report of a backtest: as a table for a terminal, as JSON, and as a page.

mod html;
#[cfg(test)]
mod made_up;
mod plots;
mod svg;
mod text;

pub(super) use text::compared;

use crate::evaluation::report::{ModelScores, Report};

use super::print;

/// Prints what came out and a table of all models.
pub(super) fn print_table(report: &Report) {
    let history = &report.history;
    print::line(format_args!("{}\n{}\n", report.title, text::verdict(report)));
    print::line(format_args!(
        "{} people, {} acts over {} days; within {} days, a candidate is relevant who {}\n",
        text::grouped(history.persons),
        text::grouped(history.acts),
        text::days(history.span_days),
        text::days(report.horizon_days),
        report.relevance
    ));
    print::table(&HEADING, 1..HEADING.len(), report.overall.iter().map(row).collect());
    if let Some(coverage) = report.interval_coverage {
        print::line(format_args!("\nintervals cover {} of people", text::percent(coverage)));
    }
    for note in &report.notes {
        print::line(format_args!("note: {note}"));
    }
}

const HEADING: [&str; 7] = ["model", "NDCG@10", "MAP", "AUC", "Brier", "calibration", "ratio"];

fn row(model: &ModelScores) -> Vec<String> {
    let known = |value: Option<f64>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
    vec![
        model.name.clone(),
        known(Some(model.ndcg10)),
        known(Some(model.map)),
        known(Some(model.auc)),
        known(model.brier),
        known(model.calibration_error),
        known(model.ratio_to_tuned_interactions_rank),
    ]
}

/// The report as JSON, indented, its fields in the order that they are declared in.
pub(super) fn to_json(report: &Report) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(report)
}

/// The report as one HTML page that needs nothing from elsewhere.
pub(super) fn to_html(report: &Report) -> String {
    html::page(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails unless every element that is opened is closed in turn.
    fn well_nested(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let body = page.split_once("<body>").unwrap().1.split_once("</body>").unwrap().0;
        for tag in body.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && name != "br" {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_says_it_all() {
        let page = to_html(&made_up::report());
        well_nested(&page);
        for foreign in ["<script", "<link", "<img", "http:", "https:", "url(", "@import", "NaN", "inf"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for said in ["0.512", "Interactions Rank, tuned", "2003-07-01", "&lt;odd&gt; model", "prefers-color-scheme"] {
            assert!(page.contains(said), "{said}");
        }
        assert_eq!(page.matches("role=\"img\"").count(), 2 + made_up::report().reliability.len());
        assert_eq!(page, to_html(&made_up::report()));
    }

    #[test]
    fn an_empty_report_is_a_page_all_the_same() {
        let mut report = made_up::report();
        (report.cuts, report.overall, report.reliability) = (Vec::new(), Vec::new(), Vec::new());
        let page = to_html(&report);
        well_nested(&page);
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn json_has_the_fields_in_order() {
        let json = to_json(&made_up::report()).unwrap();
        let places = ["\"title\"", "\"history\"", "\"cuts\"", "\"overall\"", "\"reliability\"", "\"notes\""]
            .map(|field| json.find(field).unwrap());
        assert!(places.is_sorted());
        assert!(json.contains("\"used_for\": \"fit\""));
    }

    #[test]
    fn every_model_has_a_row() {
        let row = row(&made_up::report().overall[2]);
        assert_eq!(row.len(), HEADING.len());
        assert_eq!(row[4..6], [String::new(), String::new()]);
    }
}
