//! Charts drawn with classes instead of colours, so that the page's theme paints them: light,
//! dark and print from one drawing.
//!
//! Coordinates are those of a 640×320 view box; the page scales it to the width of the screen.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// How an axis maps values to length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By decades; values must be positive.
    Log,
    /// Quantiles by their nines: 0.9, 0.99, 0.999 are evenly spaced.
    Nines,
}

/// What the numbers of an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, shown as ns, µs, ms, s.
    Nanoseconds,
    /// Bytes, shown in binary units.
    Bytes,
    /// Shares, shown as percent.
    Share,
    /// Plain numbers.
    Plain,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    /// What it shows.
    pub label: &'a str,
    /// How values map to length.
    pub scale: Scale,
    /// What the numbers are.
    pub unit: Unit,
}

/// A line of a chart. Its colour is that of its place in the list.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points, by x.
    pub points: Vec<(f64, f64)>,
}

/// Where a value lies along a scale, in scale units.
fn position(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        Scale::Nines => -(1.0 - value).max(1e-7).log10(),
    }
}

/// The lines of `series` over two axes; `None` where there is nothing to draw.
#[must_use]
pub fn lines(title: &str, x: Axis<'_>, y: Axis<'_>, series: &[Series]) -> Option<String> {
    let drawable = |(a, b): &&(f64, f64)| {
        a.is_finite() && b.is_finite() && (y.scale != Scale::Log || *b > 0.0)
    };
    let points: Vec<&(f64, f64)> = series.iter().flat_map(|s| &s.points).filter(drawable).collect();
    if points.is_empty() {
        return None;
    }
    let x_range = range(x.scale, points.iter().map(|p| p.0));
    let y_range = range(y.scale, points.iter().map(|p| p.1));
    let place_x = |v: f64| LEFT + fraction(x.scale, x_range, v) * (WIDTH - LEFT - RIGHT);
    let place_y =
        |v: f64| HEIGHT - BOTTOM - fraction(y.scale, y_range, v) * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(title, HEIGHT);
    for (value, text) in ticks(y, y_range) {
        let at = place_y(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            escape(&text)
        );
    }
    for (value, text) in ticks(x, x_range) {
        let at = place_x(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"tick middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            escape(&text)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"label middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
         <text class=\"label middle\" transform=\"translate(13 {:.1}) rotate(-90)\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        escape(x.label),
        f64::midpoint(TOP, HEIGHT - BOTTOM),
        escape(y.label)
    );
    for (i, s) in series.iter().enumerate() {
        let path: Vec<String> = s
            .points
            .iter()
            .filter(drawable)
            .map(|(a, b)| format!("{:.1},{:.1}", place_x(*a), place_y(*b)))
            .collect();
        let _ = write!(
            svg,
            "<polyline class=\"line c{}\" points=\"{}\"><title>{}</title></polyline>",
            i % COLOURS,
            path.join(" "),
            escape(&s.name)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// How many colours the page has.
pub const COLOURS: usize = 8;

/// One row of an interval chart.
#[derive(Clone, Debug)]
pub struct IntervalRow {
    /// Its name.
    pub name: String,
    /// Class that paints it: `pass`, `fail`, `inconclusive`, `fault`.
    pub class: String,
    /// Estimate, as a share.
    pub estimate: f64,
    /// Ends of the interval, as shares.
    pub interval: Option<(f64, f64)>,
}

/// Intervals about zero, one row each, with the margin (where there is one) as a line; `None` where
/// there is nothing to draw.
#[must_use]
pub fn intervals(
    title: &str,
    label: &str,
    margin: Option<f64>,
    rows: &[IntervalRow],
) -> Option<String> {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 190.0;
    if rows.is_empty() {
        return None;
    }
    let ends = rows.iter().flat_map(|r| {
        let (low, high) = r.interval.unwrap_or((r.estimate, r.estimate));
        [low, high, r.estimate]
    });
    let (low, high) = ends
        .chain(margin.map(|m| m * 1.2))
        .filter(|e| e.is_finite())
        .fold((-0.01_f64, 0.01_f64), |(low, high), e| (low.min(e), high.max(e)));
    let pad = (high - low) * 0.04;
    let reach = (low - pad, high + pad);
    let place =
        |share: f64| NAMES + fraction(Scale::Linear, reach, share) * (WIDTH - NAMES - RIGHT - 24.0);
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let bottom = height - BOTTOM;
    let mut svg = open(title, height);
    let axis = Axis { label, scale: Scale::Linear, unit: Unit::Share };
    let marks = ticks(axis, reach);
    // Whole per cent, unless marks lie closer.
    let digits = usize::from(marks.windows(2).any(|pair| pair[1].0 - pair[0].0 < 0.0099));
    for (share, _) in marks {
        let class = if share.abs() < 1e-9 { "axis" } else { "grid" };
        let at = place(share);
        let _ = write!(
            svg,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick middle\" x=\"{at:.1}\" y=\"{:.1}\">{:+.digits$}%</text>",
            bottom + 16.0,
            share * 100.0
        );
    }
    if let Some(margin) = margin {
        let at = place(margin);
        let _ = write!(
            svg,
            "<line class=\"margin\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>"
        );
    }
    let _ = write!(
        svg,
        "<text class=\"label middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        f64::midpoint(NAMES, WIDTH - RIGHT),
        height - 6.0,
        escape(label)
    );
    for (i, row) in rows.iter().enumerate() {
        let at = TOP + ROW * (i as f64 + 0.5);
        interval_row(&mut svg, row, at, NAMES - 10.0, &place);
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// One row: its name up to `names`, its interval and its estimate where `place` puts them.
fn interval_row(
    svg: &mut String,
    row: &IntervalRow,
    at: f64,
    names: f64,
    place: &dyn Fn(f64) -> f64,
) {
    let class = escape(&row.class);
    let _ = write!(
        svg,
        "<text class=\"tick end\" x=\"{names:.1}\" y=\"{:.1}\">{}<title>{}</title></text>",
        at + 4.0,
        escape(&shortened(&row.name)),
        escape(&row.name)
    );
    if let Some((low, high)) = row.interval {
        let _ = write!(
            svg,
            "<line class=\"bar {class}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            place(low),
            place(high)
        );
    }
    let _ = write!(
        svg,
        "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{at:.1}\" r=\"4\"><title>{}: {:+.1} %</title></circle>",
        place(row.estimate),
        escape(&row.name),
        row.estimate * 100.0
    );
}

/// A name that fits beside a chart, in the larger letters of a phone too; the whole of it is in the drawing's title.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 20;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

pub(super) fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\
         <title>{title}</title>"
    )
}

/// The range of a scale in scale units, with zero for linear ones; never empty.
fn range(scale: Scale, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        let at = position(scale, value);
        low = low.min(at);
        high = high.max(at);
    }
    match scale {
        Scale::Linear => low = low.min(0.0),
        Scale::Log => (low, high) = (low.floor(), high.ceil()),
        Scale::Nines => low = 0.0,
    }
    if high - low < 1e-12 { (low, low + 1.0) } else { (low, high) }
}

fn fraction(scale: Scale, (low, high): (f64, f64), value: f64) -> f64 {
    ((position(scale, value) - low) / (high - low)).clamp(0.0, 1.0)
}

/// Values worth a mark, with their texts.
fn ticks(axis: Axis<'_>, (low, high): (f64, f64)) -> Vec<(f64, String)> {
    match axis.scale {
        Scale::Linear => {
            // Bytes are round in powers of two.
            let base: f64 = if axis.unit == Unit::Bytes { 2.0 } else { 10.0 };
            let raw = (high - low) / 5.0;
            let power = base.powf(raw.log(base).floor());
            let step = [1.0, 2.0, 5.0, 10.0]
                .into_iter()
                .map(|m| m * power)
                .find(|step| *step >= raw)
                .unwrap_or(power * 10.0);
            let first = (low / step).ceil() as i64;
            let last = (high / step + 1e-9).floor() as i64;
            (first..=last).map(|i| i as f64 * step).map(|v| (v, show(axis.unit, v))).collect()
        }
        Scale::Log => {
            let every = ((high - low) / 8.0).ceil().max(1.0) as usize;
            (low as i32..=high as i32)
                .step_by(every)
                .map(|decade| 10.0_f64.powi(decade))
                .map(|v| (v, show(axis.unit, v)))
                .collect()
        }
        // No mark at 0: it would touch that of the median.
        Scale::Nines => [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999]
            .into_iter()
            .filter(|q| position(Scale::Nines, *q) <= high + 1e-9)
            .map(|q| (q, format!("{}%", (q * 1e6).round() / 1e4)))
            .collect(),
    }
}

/// A value with its unit.
#[must_use]
pub fn show(unit: Unit, value: f64) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (size, name) = steps
            .iter()
            .rev()
            .find(|(size, _)| value.abs() >= *size)
            .or(steps.first())
            .copied()
            .unwrap_or((1.0, ""));
        let number = value / size;
        let text = if number.abs() >= 100.0 || (number - number.round()).abs() < 0.05 {
            format!("{number:.0}")
        } else {
            format!("{number:.1}")
        };
        if name.is_empty() { text } else { format!("{text} {name}") }
    };
    match unit {
        Unit::Nanoseconds => scaled(&[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")]),
        Unit::Bytes => {
            scaled(&[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")])
        }
        Unit::Share => format!("{:.1} %", value * 100.0),
        Unit::Plain => scaled(&[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]),
    }
}

/// Text that starts no markup.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: Axis<'_> = Axis { label: "share", scale: Scale::Nines, unit: Unit::Share };
    const Y: Axis<'_> = Axis { label: "time", scale: Scale::Log, unit: Unit::Nanoseconds };

    #[test]
    fn every_coordinate_lies_inside_the_view_box() {
        let points = vec![(0.0, 10.0), (0.5, 20.0), (0.999, 5e6), (1.0, 9e9)];
        let series = [Series { name: "a".to_owned(), points }];
        let svg = lines("t", X, Y, &series).unwrap();
        let (_, rest) = svg.split_once("points=\"").unwrap();
        for pair in rest.split_once('"').unwrap().0.split(' ') {
            let (x, y) = pair.split_once(',').unwrap();
            assert!((LEFT..=WIDTH).contains(&x.parse().unwrap()), "{pair}");
            assert!((0.0..=HEIGHT).contains(&y.parse().unwrap()), "{pair}");
        }
    }

    #[test]
    fn names_start_no_markup() {
        let name = "</svg><script>alert(1)</script>\"'".to_owned();
        let series = [Series { name: name.clone(), points: vec![(0.5, 1.0)] }];
        assert!(!lines(&name, X, Y, &series).unwrap().contains("<script"));
        let row = IntervalRow {
            name: name.clone(),
            class: name,
            estimate: 0.1,
            interval: Some((0.0, 0.2)),
        };
        assert!(!intervals("t", "l", Some(0.05), &[row]).unwrap().contains("<script"));
    }

    #[test]
    fn marks_closer_than_a_per_cent_have_different_labels() {
        let chart = |reach: f64| {
            let (name, class) = ("w".to_owned(), "pass".to_owned());
            let row = IntervalRow { name, class, estimate: 0.0, interval: Some((-reach, reach)) };
            intervals("t", "l", None, &[row]).unwrap()
        };
        assert!(chart(0.01).contains(">-0.5%<") && chart(0.01).contains(">+0.5%<"));
        assert!(chart(0.1).contains(">+5%<"));
        for reach in [0.001, 0.01, 0.02, 0.03, 0.1, 3.0] {
            let svg = chart(reach);
            let mut labels: Vec<&str> = svg
                .split("<text class=\"tick middle\"")
                .skip(1)
                .filter_map(|text| text.split_once('>')?.1.split_once('<').map(|(label, _)| label))
                .collect();
            let all = labels.len();
            labels.dedup();
            assert!(all >= 3 && labels.len() == all, "{reach}: {labels:?}");
        }
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert!(lines("t", X, Y, &[]).is_none());
        let zero = [Series { name: "a".to_owned(), points: vec![(0.5, 0.0), (0.9, f64::NAN)] }];
        assert!(lines("t", X, Y, &zero).is_none());
        assert!(intervals("t", "l", None, &[]).is_none());
    }

    #[test]
    fn values_are_shown_in_the_unit_that_fits() {
        assert_eq!(show(Unit::Nanoseconds, 1500.0), "1.5 µs");
        assert_eq!(show(Unit::Bytes, 3.0 * 1_048_576.0), "3 MiB");
        assert_eq!(show(Unit::Share, 0.061), "6.1 %");
        assert_eq!(show(Unit::Plain, 1_200_000.0), "1.2 M");
    }

    #[test]
    fn ticks_are_few_and_within_the_range() {
        for (low, high) in [(0.0, 1.0), (0.0, 123_456.0), (-3.0, 7.0)] {
            let axis = Axis { label: "", scale: Scale::Linear, unit: Unit::Plain };
            let marks = ticks(axis, (low, high));
            assert!((2..=12).contains(&marks.len()), "{low}..{high}: {marks:?}");
            assert!(marks.iter().all(|(v, _)| *v >= low - 1e-9 && *v <= high + 1e-9));
        }
    }
}
