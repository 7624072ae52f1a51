//! Curves over a common pair of axes, each named at its end.

use maud::{Markup, html};

use super::{Axis, line, px, svg, text, width};

const TOP: f64 = 26.0;
const LEFT: f64 = 76.0;
const FOOT: f64 = 40.0;
/// Between the axes, however long the names are.
const LEAST: f64 = 180.0;
/// Names at the ends of the curves are at least this far apart.
const NAME: f64 = 14.0;

/// One curve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) label: String,
    /// Colour class of the page.
    pub(crate) class: String,
    /// Ascending in x.
    pub(crate) points: Vec<(f64, f64)>,
    /// A dot at each point: for few points that were measured one by one.
    pub(crate) dots: bool,
}

/// A whole plot.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    /// Width of the whole plot, so that two stand side by side however long the names are; height between the axes.
    pub(crate) size: (f64, f64),
    pub(crate) series: Vec<Series>,
}

impl Lines {
    /// The SVG element.
    pub(crate) fn draw(&self) -> Markup {
        let (whole_width, plot_height) = self.size;
        let right = self.series.iter().map(|series| width(&series.label)).fold(40.0, f64::max) + 18.0;
        let plot_width = (whole_width - LEFT - right).max(LEAST);
        let bottom = TOP + plot_height;
        let place = |(x, y): (f64, f64)| (LEFT + self.x.at(x) * plot_width, bottom - self.y.at(y) * plot_height);
        let ends = self.series.iter().map(|series| series.points.last().map_or(bottom, |point| place(*point).1));
        let names = apart(&ends.collect::<Vec<_>>(), TOP + 4.0, bottom);
        let body = html! {
            (text("axis", (0.0, 12.0), "start", &self.y_label))
            @for (at, label) in self.x.ticks() {
                @let x = LEFT + at * plot_width;
                (line(if label.is_empty() { "grid minor" } else { "grid" }, (x, TOP), (x, bottom)))
                (text("tick", (x, bottom + 16.0), "middle", &label))
            }
            @for (at, label) in self.y.ticks() {
                @let y = bottom - at * plot_height;
                (line(if label.is_empty() { "grid minor" } else { "grid" }, (LEFT, y), (LEFT + plot_width, y)))
                (text("tick", (LEFT - 6.0, y + 4.0), "end", &label))
            }
            (text("axis", (LEFT + plot_width / 2.0, bottom + 34.0), "middle", &self.x_label))
            @for (series, name) in self.series.iter().zip(names) {
                @let points: Vec<(f64, f64)> = series.points.iter().map(|point| place(*point)).collect();
                polyline class={ "curve " (series.class) } points=(path(&points)) {}
                @if series.dots {
                    @for (x, y) in &points { circle class=(series.class) cx=(px(*x)) cy=(px(*y)) r="3.5" {} }
                }
                @if let Some((x, y)) = points.last() {
                    (line("leader", (*x, *y), (LEFT + plot_width + 8.0, name)))
                }
                (text(&format!("name {}", series.class), (LEFT + plot_width + 11.0, name + 4.0), "start", &series.label))
            }
        };
        svg(&self.title, (LEFT + plot_width + right, bottom + FOOT), &body)
    }
}

fn path(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{},{}", px(*x), px(*y))).collect::<Vec<_>>().join(" ")
}

/// Moves heights apart so that texts at them do not overlap, within a range where they fit; same order as given.
fn apart(wanted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = wanted.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut next = top;
    for (_, y) in &mut order {
        *y = y.max(next);
        next = *y + NAME;
    }
    // What was pushed out at the bottom pushes back.
    let mut limit = bottom;
    for (_, y) in order.iter_mut().rev() {
        *y = y.min(limit);
        limit = *y - NAME;
    }
    order.sort_by_key(|(index, _)| *index);
    order.into_iter().map(|(_, y)| y).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_their_distance() {
        let placed = apart(&[100.0, 99.0, 98.0, 10.0], 0.0, 110.0);
        assert!(placed[2] + NAME <= placed[1] && placed[1] + NAME <= placed[0], "{placed:?}");
        assert!(placed[0] <= 110.0 && placed[3] == 10.0, "{placed:?}");
    }
}
