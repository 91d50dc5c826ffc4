//! How a report puts numbers and findings into words.

use crate::evaluation::report::{CutUse, Report};

/// What came out, in a sentence.
pub(super) fn verdict(report: &Report) -> String {
    let ndcg = |name: &str| report.overall.iter().find(|model| model.name == name).map(|model| model.ndcg10);
    let cuts = report.cuts.iter().filter(|cut| cut.used_for == CutUse::Report).count();
    let over = format!("over {cuts} {}", if cuts == 1 { "cut" } else { "cuts" });
    let (subject, reference) = (&report.subject, &report.reference);
    match (ndcg(subject), ndcg(reference)) {
        (Some(own), Some(other)) if other > 0.0 => {
            let compared = compared(own, other);
            format!("{subject} ranks {compared} {reference}: NDCG@10 of {own:.3} against {other:.3}, {over}.")
        }
        (Some(own), _) => format!("{subject} ranks with an NDCG@10 of {own:.3}, {over}."),
        _ => format!("{subject} was not measured."),
    }
}

/// How one NDCG compares with another, as words before a name: equal are those that would be told with no difference.
pub(in crate::cli) fn compared(own: f64, other: f64) -> String {
    let by = percent((own / other - 1.0).abs());
    match own.partial_cmp(&other) {
        _ if by == percent(0.0) => "as well as".to_owned(),
        Some(std::cmp::Ordering::Less) => format!("{by} worse than"),
        _ => format!("{by} better than"),
    }
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", share * 100.0)
}

/// A count with its thousands apart.
pub(super) fn grouped(count: usize) -> String {
    apart(&count.to_string())
}

/// Days, without their fraction.
pub(super) fn days(days: f64) -> String {
    apart(&format!("{days:.0}"))
}

fn apart(digits: &str) -> String {
    let places = digits.len();
    let spaced = |(place, digit): (usize, char)| {
        let gap = place > 0 && (places - place).is_multiple_of(3);
        gap.then_some('\u{202f}').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::made_up, *};

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(days(1095.6), "1\u{202f}096");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn a_tie_is_neither_better_nor_worse() {
        let words = [(0.5, 0.5), (0.499_8, 0.5), (0.500_2, 0.5), (0.499, 0.5), (0.501, 0.5)]
            .map(|(own, other)| compared(own, other));
        assert_eq!(words[..3], ["as well as", "as well as", "as well as"]);
        assert_eq!(words[3..], ["0.2\u{a0}% worse than", "0.2\u{a0}% better than"]);
        let mut report = made_up::report();
        report.reference.clone_from(&report.subject);
        assert!(verdict(&report).starts_with("Rapport ranks as well as Rapport: NDCG@10 of 0.512 against 0.512"));
    }

    #[test]
    fn the_verdict_says_better_or_worse() {
        let mut report = made_up::report();
        let better = "Rapport ranks 16.1\u{a0}% better than Interactions Rank, tuned: NDCG@10 of 0.512 against 0.441, over 4 cuts.";
        assert_eq!(verdict(&report), better);
        std::mem::swap(&mut report.subject, &mut report.reference);
        assert!(verdict(&report).starts_with("Interactions Rank, tuned ranks 13.9\u{a0}% worse than Rapport"));
        report.reference = "nobody".to_owned();
        assert_eq!(verdict(&report), "Interactions Rank, tuned ranks with an NDCG@10 of 0.441, over 4 cuts.");
        report.subject = "nobody".to_owned();
        assert_eq!(verdict(&report), "nobody was not measured.");
    }
}
