//! A report as one page that needs nothing else: no script, no font, no picture from elsewhere.

use crate::evaluation::report::{Cut, CutUse, ModelScores, Report};

use super::{
    plots,
    svg::escape,
    text::{days, grouped, percent, verdict},
};

const STYLE: &str = include_str!("page.css");

/// What the numbers are, in words.
const TERMS: [(&str, &str); 7] = [
    (
        "NDCG@10",
        "How much of what the best possible first ten would hold these hold, early places counting more. 1 is perfect.",
    ),
    (
        "MAP",
        "Going down the list, how many of those passed so far were relevant, on average at each relevant one. 1 is perfect.",
    ),
    ("AUC", "How often a relevant person stands above one who is not. 0.5 is a coin, 1 is perfect."),
    ("Brier", "The mean squared distance from the probability given to what happened. 0 is perfect."),
    (
        "Calibration error",
        "How far probabilities lie from the rates that followed, on average over ten bins. 0 is perfect.",
    ),
    ("Ratio", "NDCG@10 as a multiple of that of the tuned Interactions Rank."),
    ("Equal scores", "Count as all their orders do on average; nobody gains by luck."),
];

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let body = [
        header(report),
        section(
            "Who comes first",
            "How well each model puts the people who turn out relevant among the first ten.",
            &order(report),
        ),
        section(
            "From cut to cut",
            "The same at each point in time that was looked forward from. A lead that holds is worth more than a high one.",
            &stability(report),
        ),
        calibration(report),
        section("All numbers", "", &numbers(report)),
        section("How to read this", "", &reading(report)),
        footer(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        body.concat()
    )
}

fn each<T>(items: impl IntoIterator<Item = T>, write: impl FnMut(T) -> String) -> String {
    items.into_iter().map(write).collect()
}

fn section(title: &str, introduction: &str, content: &str) -> String {
    let introduction = if introduction.is_empty() { String::new() } else { format!("<p>{introduction}</p>\n") };
    format!("<section>\n<h2>{title}</h2>\n{introduction}{content}</section>\n")
}

fn header(report: &Report) -> String {
    let history = &report.history;
    let facts = [
        ("people", grouped(history.persons)),
        ("acts", grouped(history.acts)),
        ("pairs", grouped(history.pairs)),
        ("days of history", days(history.span_days)),
        ("days foretold", days(report.horizon_days)),
    ];
    let facts = each(facts, |(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n"));
    format!(
        "<header>\n<p class=\"eyebrow\">Rapport backtest</p>\n<h1>{}</h1>\n<p class=\"lede\">{}</p>\n\
         <p class=\"soft\">A candidate is relevant who {}.</p>\n<dl class=\"facts\">\n{facts}</dl>\n</header>\n",
        escape(&report.title),
        escape(&verdict(report)),
        escape(&report.relevance)
    )
}

fn order(report: &Report) -> String {
    let caption =
        "Large dots: NDCG@10 over all report cuts. Faint dots: each of these cuts. Mind where the axis begins.";
    figure(&plots::dots(report), caption)
}

fn stability(report: &Report) -> String {
    let caption = "Parameters were chosen at the cuts on tinted ground, and measured at the others.";
    figure(&plots::lines(report), caption)
}

fn figure(plot: &str, caption: &str) -> String {
    format!("<figure>\n<div class=\"scroll wide\">{plot}</div>\n<figcaption>{caption}</figcaption>\n</figure>\n")
}

fn calibration(report: &Report) -> String {
    if report.reliability.is_empty() {
        return String::new();
    }
    let scale = plots::reliability_scale(report);
    let panels = each(report.reliability.iter().enumerate(), |(place, model)| {
        let error =
            report.overall.iter().find(|scores| scores.name == model.name).and_then(|scores| scores.calibration_error);
        let error = error.map(|error| format!(" <span>calibration error {error:.3}</span>")).unwrap_or_default();
        let plot = plots::reliability(report, place, model, scale);
        format!("<figure>\n<figcaption>{}{error}</figcaption>\n{plot}</figure>\n", escape(&model.name))
    });
    let coverage = report.interval_coverage.map(|coverage| {
        let subject = escape(&report.subject);
        format!(
            "<p>For {} of the people, the share of relevant candidates lies within the intervals of {subject}.</p>\n",
            percent(coverage)
        )
    });
    let content = format!(
        "{}<div class=\"panels\">\n{panels}</div>\n<p class=\"soft\">Each dot is a bin of about as many pairs as the others, \
         its area their number; upwards is how often they turned out relevant. Equal predictions share a bin.</p>\n",
        coverage.unwrap_or_default()
    );
    section(
        "Does a probability mean what it says?",
        "On the dotted line, what is called 30 % happens 30 times in 100. Above it, more often.",
        &content,
    )
}

fn numbers(report: &Report) -> String {
    let reported = report.cuts.iter().filter(|cut| cut.used_for == CutUse::Report).count();
    let all = table(report, &format!("Over all {reported} report cuts. A dot marks the best."), &report.overall);
    let cuts = each(&report.cuts, |cut| cut_details(report, cut));
    format!("{all}{cuts}")
}

fn cut_details(report: &Report, cut: &Cut) -> String {
    let purpose = match cut.used_for {
        CutUse::Fit => "to choose parameters",
        CutUse::Report => "to measure",
    };
    let caption = format!(
        "{} persons, {} pairs, of which {} are relevant.",
        grouped(cut.persons),
        grouped(cut.pairs),
        percent(cut.base_rate)
    );
    let table = table(report, &caption, &cut.models);
    format!("<details>\n<summary>{} <span>{purpose}</span></summary>\n{table}</details>\n", escape(plots::date(cut)))
}

/// The columns of a table: name, value, and whether less is better.
type Column = (&'static str, fn(&ModelScores) -> Option<f64>, bool);

const COLUMNS: [Column; 6] = [
    ("NDCG@10", |model| Some(model.ndcg10), false),
    ("MAP", |model| Some(model.map), false),
    ("AUC", |model| Some(model.auc), false),
    ("Brier", |model| model.brier, true),
    ("Calibration<br>error", |model| model.calibration_error, true),
    ("Ratio", |model| model.ratio_to_tuned_interactions_rank, false),
];

fn table(report: &Report, caption: &str, models: &[ModelScores]) -> String {
    let heading = each(COLUMNS, |(name, ..)| format!("<th scope=\"col\">{name}</th>"));
    let rows = each(models, |model| {
        let cells = each(COLUMNS, |column| cell(column, model, models));
        let class = plots::class(report, &model.name);
        format!("<tr class=\"{class}\"><th scope=\"row\">{}</th>{cells}</tr>\n", escape(&model.name))
    });
    format!(
        "<div class=\"scroll\">\n<table>\n<caption>{caption}</caption>\n\
         <thead><tr><th scope=\"col\">Model</th>{heading}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

fn cell((_, value, less): Column, model: &ModelScores, models: &[ModelScores]) -> String {
    let Some(own) = value(model) else { return "<td>–</td>".to_owned() };
    let better = |other: f64| if less { other < own } else { other > own };
    let best = !models.iter().filter_map(value).any(better);
    format!("<td{}>{own:.3}</td>", if best { " class=\"best\"" } else { "" })
}

fn reading(report: &Report) -> String {
    let terms = each(TERMS, |(term, meaning)| format!("<dt>{term}</dt><dd>{meaning}</dd>\n"));
    let notes = each(&report.notes, |note| format!("<li>{}</li>\n", escape(note)));
    let notes = if notes.is_empty() { notes } else { format!("<ul>\n{notes}</ul>\n") };
    format!("<dl class=\"terms\">\n{terms}</dl>\n{notes}")
}

fn footer(report: &Report) -> String {
    format!("<footer>Policy {} · seed {}</footer>\n", escape(&report.policy_version), report.seed)
}
