//! Curves as SVG.

use std::fmt::Write;

use super::measurement::Chart;
use super::target::short;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 220.0;
/// Margins for the axes' numbers.
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 14.0;

/// A chart as an `svg` element with the page's classes (`line-0` and so on). Empty if there are no points.
pub(super) fn svg(chart: &Chart) -> String {
    let points = || chart.lines.iter().flat_map(|line| &line.points).filter(|(x, y)| (x + y).is_finite());
    let max = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (x_max, y_max) = (max(|point| point.0), round_up(max(|point| point.1)));
    if points().count() == 0 || x_max <= 0.0 {
        return String::new();
    }
    let x_of = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - RIGHT);
    let y_of = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - BOTTOM - TOP);
    let mut svg =
        format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{}</title>"#, text(&chart.title));
    for step in 0..=4 {
        let value = y_max * f64::from(step) / 4.0;
        let y = y_of(value);
        // Writing to a String can't fail, neither here nor below.
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 3.5,
            label(value)
        );
    }
    for value in ticks(chart, x_max) {
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
            x_of(value),
            HEIGHT - BOTTOM + 14.0,
            label(value)
        );
    }
    for (index, line) in chart.lines.iter().enumerate() {
        let mut path = String::new();
        for (x, y) in line.points.iter().filter(|(x, y)| (x + y).is_finite()) {
            let _ = write!(path, "{:.1},{:.1} ", x_of(*x), y_of(*y));
        }
        let _ = write!(svg, r#"<polyline class="line line-{}" points="{}"/>"#, index % 4, path.trim_end());
        if line.points.len() <= 16 {
            for (x, y) in &line.points {
                let _ = write!(
                    svg,
                    r#"<circle class="dot dot-{}" cx="{:.1}" cy="{:.1}" r="3"/>"#,
                    index % 4,
                    x_of(*x),
                    y_of(*y)
                );
            }
        }
    }
    let _ = write!(
        svg,
        r#"<text class="axis" x="{}" y="{}" text-anchor="end">{}</text></svg>"#,
        WIDTH - RIGHT,
        HEIGHT - 4.0,
        text(&chart.x)
    );
    svg
}

/// The numbers on the horizontal axis: at the first line's points if they are few, without crowding.
fn ticks(chart: &Chart, max: f64) -> Vec<f64> {
    let points = chart.lines.first().map_or(&[][..], |line| &line.points[..]);
    if points.len() > 8 {
        return (0..=4).map(|step| max * f64::from(step) / 4.0).collect();
    }
    let mut ticks: Vec<f64> = Vec::new();
    for (x, _) in points.iter().rev() {
        if ticks.last().is_none_or(|last| last - x > max / 20.0) {
            ticks.push(*x);
        }
    }
    ticks
}

/// The next round number that is at least `value`; 1 for 0.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let size = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * size).find(|step| *step >= value).unwrap_or(10.0 * size)
}

fn label(value: f64) -> String {
    let label = short(value);
    match label.contains('.') {
        true => label.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => label,
    }
}

/// Text escaped for XML.
fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::measurement::Line;
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let lines = vec![Line { name: "a".to_owned(), points }];
        Chart { title: "T < U".to_owned(), x: "x".to_owned(), y: "y".to_owned(), lines }
    }

    #[test]
    fn points_lie_within_the_frame() {
        let svg = svg(&chart(vec![(1.0, 100.0), (16.0, 620.0)]));
        assert!(svg.contains("T &lt; U") && svg.contains(r#"points="84.1"#), "{svg}");
        assert!(svg.contains(">800<"), "the axis goes to a round number: {svg}");
    }

    #[test]
    fn nothing_is_drawn_without_points() {
        assert_eq!(svg(&chart(Vec::new())), "");
        assert_eq!(svg(&chart(vec![(f64::NAN, 1.0)])), "");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, round) in [(0.0, 1.0), (0.7, 0.8), (17.0, 20.0), (99.0, 100.0), (101.0, 120.0)] {
            assert!((round_up(value) - round).abs() < 1e-9, "{value}");
        }
    }
}
