//! docs/metrics.md and the code tell the same.

use crate::metrics::table::{self, Metric};

const PAGE: &str = include_str!("../../../../docs/metrics.md");

fn row(metric: &Metric) -> String {
    let Metric { name, kind, unit, labels, help } = metric;
    let kind = format!("{kind:?}").to_lowercase();
    format!("| `{name}` | {kind} | {} | {} | {help} |", unit.as_str(), labels.join(", "))
}

#[test]
fn the_page_lists_every_metric_as_it_is() {
    let listed: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| `circuit_breaker_")).collect();
    let expected: Vec<_> = table::ALL.into_iter().map(row).collect();
    assert_eq!(listed, expected, "docs/metrics.md should have:\n{}\n", expected.join("\n"));
}

#[test]
fn names_say_their_units() {
    for Metric { name, kind, unit, .. } in table::ALL {
        let ending = match kind {
            table::MetricKind::Counter => "_total",
            table::MetricKind::Histogram => "_seconds",
            table::MetricKind::Gauge => "",
        };
        assert!(name.starts_with("circuit_breaker_") && name.ends_with(ending), "{name}");
        assert_eq!(*unit == metrics::Unit::Seconds, *kind == table::MetricKind::Histogram, "{name}");
    }
}
