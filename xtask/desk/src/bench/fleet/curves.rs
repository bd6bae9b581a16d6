//! Curves as SVG: a panel for each figure, the number of devices to the right. Written by hand, so that the same figures are
//! the same file; the colours follow whether the page is dark or light.

use std::fmt::Write;

/// One panel.
#[derive(Debug, Default)]
pub struct Panel {
    /// What is shown, with its unit.
    pub title: String,
    /// The lines in it.
    pub lines: Vec<Line>,
    /// What is not to be exceeded.
    pub limit: Option<f64>,
}

/// One line.
#[derive(Debug, Default)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Devices and figure, from left to right.
    pub points: Vec<(f64, f64)>,
}

const COLUMNS: usize = 3;
/// Of a panel.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 220.0;
/// Of the part with the lines, in the panel.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 280.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 176.0;

/// How wide a number is.
const NUMBER: f64 = 36.0;

const STYLE: &str = "\
text { font: 11px sans-serif; fill: #24292f; }
.title { font-weight: bold; }
.grid { stroke: #d0d7de; }
.limit { stroke: #cf222e; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 2; }
.c0 { stroke: #0969da; } .c1 { stroke: #bc4c00; } .c2 { stroke: #1a7f37; } .c3 { stroke: #8250df; }
.d0 { fill: #0969da; } .d1 { fill: #bc4c00; } .d2 { fill: #1a7f37; } .d3 { fill: #8250df; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.grid { stroke: #30363d; }
.limit { stroke: #ff7b72; }
.c0 { stroke: #58a6ff; } .c1 { stroke: #f0883e; } .c2 { stroke: #56d364; } .c3 { stroke: #bc8cff; }
.d0 { fill: #58a6ff; } .d1 { fill: #f0883e; } .d2 { fill: #56d364; } .d3 { fill: #bc8cff; }
}
";

/// All panels, three in a row.
pub fn svg(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<style>\n{STYLE}</style>\n"
    );
    // Every panel has the same devices, also one in which some were not measured.
    let points = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    let mut sizes: Vec<f64> = points.map(|(devices, _)| *devices).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for (at, panel) in panels.iter().enumerate() {
        let (x, y) = (WIDTH * (at % COLUMNS) as f64, HEIGHT * (at / COLUMNS) as f64);
        // Writing into a string does not fail.
        let _ = writeln!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
        draw(&mut svg, panel, &sizes);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel, sizes: &[f64]) {
    let all = || panel.lines.iter().flat_map(|line| line.points.iter().copied());
    let most_devices = sizes.last().copied().unwrap_or(1.0);
    let highest = all().map(|(_, figure)| figure).chain(panel.limit).fold(0.0, f64::max);
    let top = round_up(highest);
    let x = |devices: f64| LEFT + (RIGHT - LEFT) * devices / most_devices;
    let y = |figure: f64| BOTTOM - (BOTTOM - TOP) * figure / top;
    let _ = writeln!(svg, "<text class=\"title\" x=\"{LEFT:.0}\" y=\"16\">{}</text>", escaped(&panel.title));
    for part in 0..=4 {
        let figure = top * f64::from(part) / 4.0;
        let at = y(figure);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT:.0}\" x2=\"{RIGHT:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\n\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 5.0,
            at + 4.0,
            short(figure)
        );
    }
    let mut written = 0.0;
    for devices in sizes.iter().copied().filter(|devices| *devices > 0.0) {
        // Beside the one before it there is no room.
        if x(devices) - written < NUMBER {
            continue;
        }
        written = x(devices);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            x(devices),
            BOTTOM + 15.0,
            short(devices)
        );
    }
    if let Some(limit) = panel.limit {
        let at = y(limit);
        let _ = writeln!(
            svg,
            "<line class=\"limit\" x1=\"{LEFT:.0}\" x2=\"{RIGHT:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        );
    }
    let mut legend = LEFT;
    for (number, line) in panel.lines.iter().enumerate() {
        let colour = number % 4;
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(devices, figure)| format!("{:.1},{:.1}", x(*devices), y(*figure)))
            .collect();
        let _ = writeln!(svg, "<polyline class=\"line c{colour}\" points=\"{}\"/>", points.join(" "));
        for point in &points {
            if let Some((cx, cy)) = point.split_once(',') {
                let _ = writeln!(svg, "<circle class=\"d{colour}\" cx=\"{cx}\" cy=\"{cy}\" r=\"3\"/>");
            }
        }
        if !line.name.is_empty() {
            let _ = writeln!(
                svg,
                "<circle class=\"d{colour}\" cx=\"{:.1}\" cy=\"{:.0}\" r=\"3\"/>\n<text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
                legend + 3.0,
                BOTTOM + 31.0,
                legend + 10.0,
                BOTTOM + 35.0,
                escaped(&line.name)
            );
            legend += 24.0 + 6.4 * line.name.chars().count() as f64;
        }
    }
}

/// The end of the axis: 1, 2, 4, 5 or 8 times a power of ten.
fn round_up(figure: f64) -> f64 {
    if figure <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(figure.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|end| figure <= *end * 1.000_001).unwrap_or(10.0 * power)
}

/// A number with few digits: `1M`, `125k`, `0.25`.
fn short(number: f64) -> String {
    let trimmed = |number: f64| {
        let text = format!("{number:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if number >= 1e6 {
        format!("{}M", trimmed(number / 1e6))
    } else if number >= 1e4 {
        format!("{}k", trimmed(number / 1e3))
    } else {
        trimmed(number)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_above_the_figures() {
        for (figure, end) in [(0.0, 1.0), (0.9, 1.0), (1.0, 1.0), (3.0, 4.0), (256.0, 400.0), (81.0, 100.0)] {
            assert!((round_up(figure) - end).abs() < 1e-9, "{figure}: {}", round_up(figure));
        }
        assert_eq!([0.25, 125_000.0, 1e6, 1.5e6].map(short), ["0.25", "125k", "1M", "1.5M"]);
    }

    #[test]
    fn the_same_figures_are_the_same_file_with_all_points_inside() {
        let panel = || Panel {
            title: "a < b".into(),
            lines: vec![Line { name: "one".into(), points: vec![(500.0, 2.0), (1000.0, 4.0)] }],
            limit: Some(3.0),
        };
        let text = svg(&[panel(), panel(), panel(), panel()]);
        assert_eq!(text, svg(&[panel(), panel(), panel(), panel()]));
        assert!(text.contains("viewBox=\"0 0 900 440\"") && text.contains("a &lt; b"));
        // Half of the devices is in the middle, half of the figure as well.
        assert!(text.contains("points=\"166.0,105.0 280.0,34.0\""), "{text}");
    }
}
