//! Drawing: shapes as inline SVG that take their colours from the page, and the scale of an axis.

use std::fmt::{self, Write as _};

use crate::evaluation;

/// A drawing that grows shape by shape; lengths are in pixels at full width.
pub(super) struct Drawing {
    width: f64,
    height: f64,
    shapes: String,
}

impl Drawing {
    /// An empty drawing.
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, shapes: String::new() }
    }

    fn push(&mut self, shape: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.shapes.write_fmt(shape);
    }

    /// A line from one point to another.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    /// A line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    /// A text that begins, or as its class says is centred or ends, at a point on its middle line.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        self.push(format_args!(r#"<text class="{class}" x="{x:.1}" y="{:.1}">{}</text>"#, y + 4.5, escape(text)));
    }

    /// A dot with a note for who points at it.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, note: &str) {
        let note = escape(note);
        self.push(format_args!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}"><title>{note}</title></circle>"#
        ));
    }

    /// A rectangle between two corners.
    pub(super) fn rectangle(&mut self, class: &str, (x, y): (f64, f64), to: (f64, f64)) {
        let (width, height) = (to.0 - x, to.1 - y);
        self.push(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    /// The SVG, with what it is called and what it shows for those who do not see it; `id` is unique in the page.
    pub(super) fn finish(self, id: &str, title: &str, description: &str) -> String {
        let Self { width, height, shapes } = self;
        let (title, description) = (escape(title), escape(description));
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-labelledby=\"{id}-title {id}-text\">\
             <title id=\"{id}-title\">{title}</title><desc id=\"{id}-text\">{description}</desc>{shapes}</svg>\n"
        )
    }
}

/// Text as it stands in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let escaped = |character| match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => String::from(other),
    };
    text.chars().map(escaped).collect()
}

/// From values within [0, 1] to pixels.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    from: f64,
    step: f64,
    steps: usize,
    start: f64,
    end: f64,
}

impl Scale {
    /// The scale of the fewest round steps, at most seven, that holds all values, from `start` to `end` in pixels.
    pub(super) fn new(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let values = values.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, 1.0));
        let (low, high) = values.fold((1.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let mut found = Self { from: 0.0, step: 0.2, steps: 5, start, end };
        for step in [0.2, 0.1, 0.05, 0.02, 0.01] {
            // A little more than the lowest value needs, so that no dot sits on the axis.
            let from = ((low / step - 0.2).floor() * step).max(0.0);
            let Some(steps) = (1..=7).find(|steps| from + step * evaluation::number(*steps) >= high - 1e-9) else {
                break;
            };
            found = Self { from, step, steps, start, end };
        }
        found
    }

    /// Where a value lies.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value - self.from) / (self.step * evaluation::number(self.steps));
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// The values to mark, with their texts.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let Self { from, step, steps, .. } = *self;
        let digits = if step < 0.1 { 2 } else { 1 };
        (0..=steps)
            .map(move |place| from + step * evaluation::number(place))
            .map(move |value| (value, format!("{value:.digits$}")))
    }

    /// The same scale between other pixels.
    pub(super) fn between(self, start: f64, end: f64) -> Self {
        Self { start, end, ..self }
    }
}

/// Places for labels that would like to be at `wanted`, highest first, none closer than `apart` to the next, in the order
/// given.
pub(super) fn spread(wanted: &[f64], apart: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut places = wanted.to_vec();
    // Push downwards, then take back half of what the last one was pushed.
    for pair in order.windows(2) {
        places[pair[1]] = places[pair[1]].max(places[pair[0]] + apart);
    }
    let pushed = order.last().map_or(0.0, |last| (places[*last] - wanted[*last]) / 2.0);
    places.iter().map(|place| place - pushed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_their_values_in_few_round_steps() {
        let scale = Scale::new([0.32, 0.52].into_iter(), 100.0, 200.0);
        let ticks: Vec<String> = scale.ticks().map(|(_, text)| text).collect();
        assert_eq!(ticks, ["0.30", "0.35", "0.40", "0.45", "0.50", "0.55"]);
        assert!((scale.at(0.425) - 150.0).abs() < 1e-9);
        assert!((scale.at(7.0) - 200.0).abs() < 1e-9);
        let whole: Vec<String> = Scale::new([0.0, 1.0].into_iter(), 0.0, 1.0).ticks().map(|(_, text)| text).collect();
        assert_eq!(whole.last().map(String::as_str), Some("1.0"));
    }

    #[test]
    fn scales_of_nothing_or_of_no_numbers_still_scale() {
        for values in [vec![], vec![f64::NAN]] {
            assert!(Scale::new(values.into_iter(), 0.0, 10.0).at(0.5).is_finite());
        }
    }

    #[test]
    fn labels_keep_apart_and_in_order() {
        assert_eq!(spread(&[30.0, 10.0, 12.0], 10.0), [30.0, 10.0, 20.0]);
        assert_eq!(spread(&[10.0, 10.0], 10.0), [5.0, 15.0]);
        assert!(spread(&[], 10.0).is_empty());
    }

    #[test]
    fn markup_in_texts_is_only_text() {
        assert_eq!(escape("<b a=\"1\">&'"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
    }
}
