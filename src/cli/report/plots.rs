//! The plots of a report.

use crate::evaluation::{
    number,
    report::{Cut, CutUse, ModelReliability, ModelScores, Report},
};

use super::svg::{Drawing, Scale, spread};

/// Which of the page's colours a model has.
pub(super) fn class(report: &Report, model: &str) -> &'static str {
    if model == report.subject {
        "subject"
    } else if model == report.reference {
        "reference"
    } else {
        "other"
    }
}

/// A cut's date.
pub(super) fn date(cut: &Cut) -> &str {
    cut.cut_time.get(..10).unwrap_or(&cut.cut_time)
}

/// A model's NDCG at a cut.
fn at_cut(cut: &Cut, model: &str) -> Option<f64> {
    cut.models.iter().find(|scores| scores.name == model).map(|scores| scores.ndcg10).filter(|value| value.is_finite())
}

/// The models over all report cuts, best first.
fn by_rank(report: &Report) -> Vec<&ModelScores> {
    let mut models: Vec<&ModelScores> = report.overall.iter().collect();
    models.sort_by(|a, b| b.ndcg10.total_cmp(&a.ndcg10));
    models
}

/// All models' NDCG, best first, as a sentence for those who do not see a plot.
fn told(report: &Report) -> String {
    let models: Vec<String> =
        by_rank(report).iter().map(|model| format!("{} {:.3}", model.name, model.ndcg10)).collect();
    format!("{}.", models.join("; "))
}

/// Each model's NDCG: a large dot over all report cuts, a faint one for each of them.
pub(super) fn dots(report: &Report) -> String {
    const ROW: f64 = 34.0;
    const TOP: f64 = 26.0;
    let models = by_rank(report);
    let reported: Vec<&Cut> = report.cuts.iter().filter(|cut| cut.used_for == CutUse::Report).collect();
    let singles = reported.iter().flat_map(|cut| cut.models.iter());
    let scale = Scale::new(singles.chain(models.iter().copied()).map(|model| model.ndcg10), 215.0, 720.0);
    let bottom = TOP + ROW * number(models.len());
    let mut drawing = Drawing::new(800.0, bottom + 26.0);
    for (value, text) in scale.ticks() {
        drawing.line("faint", (scale.at(value), TOP), (scale.at(value), bottom));
        drawing.text("soft middle number", (scale.at(value), bottom + 14.0), &text);
    }
    if let Some(reference) = models.iter().find(|model| model.name == report.reference) {
        let x = scale.at(reference.ndcg10);
        drawing.line("dashed", (x, TOP - 4.0), (x, bottom));
        drawing.text("reference middle", (x, TOP - 14.0), &report.reference);
    }
    for (place, model) in models.iter().enumerate() {
        let y = TOP + ROW * (number(place) + 0.5);
        let class = class(report, &model.name);
        drawing.text(&format!("{class} end"), (200.0, y), &model.name);
        for cut in &reported {
            if let Some(value) = at_cut(cut, &model.name) {
                drawing.dot(&format!("{class} cut"), (scale.at(value), y), 3.5, &format!("{}: {value:.3}", date(cut)));
            }
        }
        let note = format!("{}: {:.3}", model.name, model.ndcg10);
        drawing.dot(class, (scale.at(model.ndcg10), y), 7.0, &note);
        drawing.text(&format!("{class} end number"), (790.0, y), &format!("{:.3}", model.ndcg10));
    }
    drawing.finish("dots", "NDCG@10 per model over all report cuts", &told(report))
}

/// The area of the lines' plot.
const LINES: [(f64, f64); 2] = [(46.0, 24.0), (590.0, 304.0)];

/// Each model's NDCG from cut to cut, fit cuts on a tinted ground.
pub(super) fn lines(report: &Report) -> String {
    let [(left, top), (right, bottom)] = LINES;
    let all = report.cuts.iter().flat_map(|cut| cut.models.iter()).map(|model| model.ndcg10);
    let scale = Scale::new(all, bottom, top);
    let apart = (right - left) / number(report.cuts.len().max(1));
    let across = |place: usize| left + apart * (number(place) + 0.5);
    let mut drawing = Drawing::new(800.0, bottom + 30.0);
    ground(&mut drawing, report, apart);
    for (value, text) in scale.ticks() {
        drawing.line("", (left, scale.at(value)), (right, scale.at(value)));
        drawing.text("soft end number", (left - 8.0, scale.at(value)), &text);
    }
    let every = report.cuts.len().div_ceil(7).max(1);
    for (place, cut) in report.cuts.iter().enumerate().step_by(every) {
        drawing.text("soft middle number", (across(place), bottom + 16.0), date(cut));
    }
    // Better ones lie above worse ones, the reference above those, and the subject above all.
    let mut models: Vec<&str> = by_rank(report).into_iter().rev().map(|model| model.name.as_str()).collect();
    models.sort_by_key(|model| (*model == report.subject, *model == report.reference));
    let mut ends = Vec::new();
    for model in models {
        let cuts = report.cuts.iter().enumerate();
        let points: Vec<(f64, f64)> =
            cuts.filter_map(|(place, cut)| Some((across(place), scale.at(at_cut(cut, model)?)))).collect();
        drawing.path(class(report, model), &points);
        for point in &points {
            drawing.dot(class(report, model), *point, 2.5, model);
        }
        ends.extend(points.last().map(|end| (model, *end)));
    }
    label(&mut drawing, report, &ends);
    drawing.finish("lines", "NDCG@10 per model at each cut", &format!("Over all report cuts: {}", told(report)))
}

/// Tints the ground behind cuts that parameters were chosen at.
fn ground(drawing: &mut Drawing, report: &Report, apart: f64) {
    let [(left, top), (_, bottom)] = LINES;
    let mut named = false;
    for (place, _) in report.cuts.iter().enumerate().filter(|(_, cut)| cut.used_for == CutUse::Fit) {
        let start = left + apart * number(place);
        drawing.rectangle("fit", (start, top), (start + apart, bottom));
        if !named {
            drawing.text("soft", (start + 6.0, top - 11.0), "fit");
        }
        named = true;
    }
}

/// Names lines at their ends.
fn label(drawing: &mut Drawing, report: &Report, ends: &[(&str, (f64, f64))]) {
    let [_, (right, _)] = LINES;
    let heights: Vec<f64> = ends.iter().map(|(_, (_, y))| *y).collect();
    for ((model, (x, y)), place) in ends.iter().zip(spread(&heights, 16.0)) {
        drawing.line("leader", (x + 5.0, *y), (right + 8.0, place));
        drawing.text(class(report, model), (right + 12.0, place), model);
    }
}

/// The predicted and the observed rates of a model's bins; `scale` holds those of all models.
pub(super) fn reliability(report: &Report, place: usize, model: &ModelReliability, scale: Scale) -> String {
    let (across, up) = (scale.between(34.0, 250.0), scale.between(226.0, 10.0));
    let mut drawing = Drawing::new(260.0, 262.0);
    for (value, text) in scale.ticks() {
        drawing.line("faint", (across.at(value), 10.0), (across.at(value), 226.0));
        drawing.line("faint", (34.0, up.at(value)), (250.0, up.at(value)));
        drawing.text("soft middle number", (across.at(value), 238.0), &text);
        drawing.text("soft end number", (28.0, up.at(value)), &text);
    }
    drawing.line("ideal", (34.0, 226.0), (250.0, 10.0));
    drawing.text("soft middle", (142.0, 254.0), "predicted");
    let largest = model.bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1);
    let mut told = Vec::new();
    for bin in &model.bins {
        let radius = 8.0 * (number(bin.count) / number(largest)).sqrt();
        let note =
            format!("predicted {:.3}, observed {:.3}, {} pairs", bin.mean_predicted, bin.observed_rate, bin.count);
        let at = (across.at(bin.mean_predicted), up.at(bin.observed_rate));
        drawing.dot(&format!("{} bin", class(report, &model.name)), at, radius.max(2.0), &note);
        told.push(note);
    }
    let title = format!("Calibration of {}", model.name);
    drawing.finish(&format!("reliability-{place}"), &title, &format!("{}.", told.join("; ")))
}

/// One scale, from 0, for all models' bins.
pub(super) fn reliability_scale(report: &Report) -> Scale {
    let bins = report.reliability.iter().flat_map(|model| &model.bins);
    let rates = bins.flat_map(|bin| [bin.mean_predicted, bin.observed_rate]);
    Scale::new(std::iter::once(0.0).chain(rates), 0.0, 1.0)
}
