//! Plots as SVG, drawn here so that they look the same wherever they are made.

use std::fmt::Write as _;

use crate::record::{Line, Plot};
use crate::stats::short;

/// Size of the picture, and of the margins around the axes.
const SIZE: (f64, f64) = (820.0, 460.0);
const MARGIN: (f64, f64, f64, f64) = (70.0, 230.0, 46.0, 56.0); // left, right, top, bottom
/// Colours of the lines, told apart by people who see no red or green (Okabe and Ito 2008).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5f5f5f", "#8c6d00"];

/// One axis: from where to where, and its marks.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    marks: Vec<f64>,
}

impl Axis {
    /// An axis that shows all `values`; a linear one begins at 0.
    fn of(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let values: Vec<f64> = values.filter(|value| value.is_finite() && (!log || *value > 0.0)).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if values.is_empty() {
            return Self { low: 1.0, high: 10.0, log, marks: Vec::new() };
        }
        if log {
            let (low, high) = (least.log10().floor(), most.log10().ceil());
            let high = if high <= low { low + 1.0 } else { high };
            let marks = (low as i32..=high as i32).map(|power| 10f64.powi(power)).collect();
            return Self { low: 10f64.powf(low), high: 10f64.powf(high), log, marks };
        }
        let most = if most > 0.0 { most } else { 1.0 };
        // steps of 1, 2 or 5 times a power of ten, at most 8 of them
        let raw = most / 8.0;
        let power = 10f64.powf(raw.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= raw).unwrap_or(raw);
        let count = (most / step).ceil() as u32;
        let marks = (0..=count).map(|n| f64::from(n) * step).collect();
        Self { low: 0.0, high: f64::from(count) * step, log, marks }
    }

    /// Where a value is, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log { value.max(self.low).log10() } else { value };
        (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
    }
}

/// The picture.
pub fn svg(plot: &Plot) -> String {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let x = Axis::of(points().map(|(x, _)| *x), plot.log_x);
    let y = Axis::of(points().map(|(_, y)| *y), plot.log_y);
    let (left, right, top, bottom) = MARGIN;
    let (width, height) = (SIZE.0 - left - right, SIZE.1 - top - bottom);
    let at_x = |value: f64| left + width * x.place(value);
    let at_y = |value: f64| top + height * (1.0 - y.place(value));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"white\"/>\n",
        w = SIZE.0,
        h = SIZE.1
    );
    let mut put = |line: String| {
        text += &line;
        text.push('\n');
    };
    put(format!(
        "<text x=\"{left}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        escaped(&plot.title)
    ));
    for mark in &x.marks {
        let at = at_x(*mark);
        put(format!("<path d=\"M{at:.1} {top}V{:.1}\" stroke=\"#e4e4e4\"/>", top + height));
        put(format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top + height + 18.0,
            short(*mark)
        ));
    }
    for mark in &y.marks {
        let at = at_y(*mark);
        put(format!("<path d=\"M{left} {at:.1}H{:.1}\" stroke=\"#e4e4e4\"/>", left + width));
        put(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            short(*mark)
        ));
    }
    put(format!(
        "<path d=\"M{left} {top}V{0:.1}H{1:.1}\" fill=\"none\" stroke=\"black\"/>",
        top + height,
        left + width
    ));
    let middle = left + width / 2.0;
    put(format!(
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        SIZE.1 - 14.0,
        escaped(&plot.x)
    ));
    let middle = top + height / 2.0;
    put(format!(
        "<text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escaped(&plot.y)
    ));
    for (n, line) in plot.lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        put(drawn(line, colour, &at_x, &at_y));
        let (key, row) = (left + width + 16.0, top + 10.0 + 20.0 * n as f64);
        put(format!("<path d=\"M{key} {row}h22\" stroke=\"{colour}\" stroke-width=\"2\"{}/>", dashes(line)));
        put(format!("<text x=\"{}\" y=\"{}\">{}</text>", key + 28.0, row + 4.0, escaped(&line.name)));
    }
    text + "</svg>\n"
}

/// A line and its points.
fn drawn(line: &Line, colour: &str, at_x: &dyn Fn(f64) -> f64, at_y: &dyn Fn(f64) -> f64) -> String {
    let finite = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    let (mut path, mut dots) = (String::new(), String::new());
    for (n, (x, y)) in finite.enumerate() {
        let (px, py) = (at_x(*x), at_y(*y));
        // writing into a string cannot fail
        let _ = write!(path, "{}{px:.1} {py:.1}", if n == 0 { 'M' } else { 'L' });
        let _ = write!(
            dots,
            "\n<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {} at {}</title></circle>",
            escaped(&line.name),
            short(*y),
            short(*x)
        );
    }
    format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{}/>{dots}", dashes(line))
}

fn dashes(line: &Line) -> &'static str {
    if line.published { " stroke-dasharray=\"6 4\"" } else { "" }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_a_logarithmic_one_at_a_power_of_ten() {
        let linear = Axis::of([30.0, 92.0].into_iter(), false);
        assert_eq!((linear.low, linear.high, linear.place(50.0)), (0.0, 100.0, 0.5));
        let log = Axis::of([1_000.0, 1_000_000.0].into_iter(), true);
        assert_eq!((log.low, log.high), (1_000.0, 1_000_000.0));
        assert!((log.place(31_622.776_6) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn lines_are_drawn_and_what_is_published_is_dashed() {
        let mut plot = Plot::new("p", "a < b", "connections", "ns");
        plot.line("Sluice", [(1e3, 15.0), (1e6, 25.0)]);
        plot.published("Katran", [(1e3, 92.0), (1e6, 431.0)]);
        let text = svg(&plot);
        assert_eq!(text.matches("<circle").count(), 4);
        assert_eq!(text.matches("stroke-dasharray").count(), 2);
        assert!(text.contains("a &lt; b") && text.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_to_show_is_still_a_picture() {
        let mut plot = Plot::new("p", "", "", "");
        plot.line("none", []);
        plot.line("odd", [(f64::NAN, 1.0), (0.0, 0.0)]);
        assert!(!svg(&plot).contains("NaN"));
    }
}
