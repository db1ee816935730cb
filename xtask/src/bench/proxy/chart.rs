//! The picture: CPU per request as bars, Envoy being 1.

use std::fmt::Write as _;

use super::report::{ratio, title};
use super::results::Results;
use super::scenario::SCENARIOS;

/// Peers with a bar of their own, and its colour; Envoy is the line at 1.
const BARS: [(&str, &str); 3] = [("lateen", "#1769aa"), ("nginx", "#8fb996"), ("haproxy", "#d4a373")];

const WIDTH: f64 = 760.0;
/// Where bars begin, and how long one of Envoy's length is.
const LEFT: f64 = 110.0;
const ONE: f64 = 420.0;
/// What is longer than this is cut, and its figure says how long it is.
const LONGEST: f64 = 1.35;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
const TOP: f64 = 74.0;

pub(crate) fn svg(results: &Results) -> String {
    let mut bars = String::new();
    let mut seen = Vec::new();
    let mut y = TOP;
    for scenario in SCENARIOS {
        let rows: Vec<(&str, &str, f64)> = BARS
            .iter()
            .filter_map(|(peer, colour)| Some((*peer, *colour, ratio(results, scenario.name, peer, "cpu_us_best")?)))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let middle = y + BAR * rows.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(bars, r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>"#, LEFT - 10.0, scenario.name);
        for (peer, colour, value) in rows {
            if !seen.contains(&peer) {
                seen.push(peer);
            }
            let length = value.min(LONGEST) * ONE;
            let _ = writeln!(
                bars,
                r#"<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{}" fill="{colour}"><title>{}: {value:.2}</title></rect>"#,
                BAR - 2.0,
                title(peer),
            );
            let weight = if peer == "lateen" { "bold" } else { "normal" };
            let (x, base) = (LEFT + length + 5.0, y + BAR - 3.5);
            let _ = writeln!(
                bars,
                r#"<text x="{x:.1}" y="{base}" font-size="11" font-weight="{weight}">{value:.2}</text>"#
            );
            y += BAR;
        }
        y += GAP;
    }
    frame(&bars, &seen, y)
}

/// Title, legend and the line at 1, around the bars; the ground is white in a dark page as well.
fn frame(bars: &str, seen: &[&str], bottom: f64) -> String {
    let height = bottom + 26.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <title>CPU per request as a ratio to Envoy's</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#fff\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"17\" font-weight=\"bold\">CPU per request, Envoy = 1 (shorter is better)</text>\n"
    );
    let mut x = LEFT;
    for (peer, colour) in BARS.into_iter().filter(|(peer, _)| seen.contains(peer)) {
        let _ = write!(
            out,
            "<rect x=\"{x}\" y=\"42\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"53\">{}</text>\n",
            x + 18.0,
            title(peer)
        );
        x += 95.0;
    }
    let one = LEFT + ONE;
    let _ = write!(
        out,
        "<line x1=\"{LEFT}\" y1=\"{y1}\" x2=\"{LEFT}\" y2=\"{bottom}\" stroke=\"#888\"/>\n\
         <line x1=\"{one}\" y1=\"{y1}\" x2=\"{one}\" y2=\"{bottom}\" stroke=\"#c1121f\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"{one}\" y=\"{label}\" text-anchor=\"middle\" fill=\"#c1121f\">Envoy</text>\n\
         {bars}\
         <text x=\"20\" y=\"{note}\" font-size=\"11\" fill=\"#555\">Lowest of all rounds; what each scenario is, and all figures: \
         docs/performance.md</text>\n</svg>\n",
        y1 = TOP - 6.0,
        label = TOP - 12.0,
        note = height - 10.0,
    );
    out
}
