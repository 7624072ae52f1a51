//! Horizontal bars with whiskers from the lower to the upper quartile, in groups.

use maud::{Markup, html};

use super::super::figure::Unit;
use super::{Axis, bold_width, line, px, svg, text, width};

const ROW: f64 = 24.0;
const HEADING: f64 = 26.0;
/// Of the whole plot, as wide as the page.
const WIDTH: f64 = 1036.0;
/// Of the bars, however long the texts beside them.
const LEAST: f64 = 260.0;
const FOOT: f64 = 34.0;

/// One bar.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bar {
    pub(crate) label: String,
    /// Colour class of the page.
    pub(crate) class: String,
    pub(crate) value: f64,
    /// Ends of the whisker; drawn where both are known.
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    /// A second figure on the bar, drawn as a tick.
    pub(crate) mark: Option<f64>,
    /// Behind the value: the ratio to a rival.
    pub(crate) note: String,
}

/// Bars under one heading; an empty heading takes no room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) heading: String,
    pub(crate) bars: Vec<Bar>,
}

/// A whole plot.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) axis_label: String,
    pub(crate) unit: Unit,
    /// By decades, from `least` on.
    pub(crate) log: bool,
    /// Where a logarithmic axis begins; smaller values end there.
    pub(crate) least: f64,
    pub(crate) groups: Vec<Group>,
}

impl Bars {
    /// The SVG element.
    pub(crate) fn draw(&self) -> Markup {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let values = bars().flat_map(|bar| [Some(bar.value), bar.low, bar.high, bar.mark]).flatten();
        let axis = if self.log {
            // What is around zero ends at the start of the axis, not at minus infinity.
            Axis::log(values.filter(|value| *value >= self.least).chain([self.least]), self.unit)
        } else {
            Axis::linear(values, self.unit)
        };
        let left = bars().map(|bar| width(&bar.label)).fold(60.0, f64::max) + 14.0;
        let tail = |bar: &Bar| bold_width(&self.unit.show(bar.value)) + width(&bar.note) + 24.0;
        let right = bars().map(tail).fold(60.0, f64::max);
        let plot = (WIDTH - left - right).max(LEAST);
        let top = 8.0;
        let mut rows = Vec::new();
        let mut y = top;
        for group in &self.groups {
            if !group.heading.is_empty() {
                rows.push(text("heading", (0.0, y + 18.0), "start", &group.heading));
                y += HEADING;
            }
            for bar in &group.bars {
                rows.push(self.row(bar, axis, (left, plot), y));
                y += ROW;
            }
        }
        let height = y + FOOT;
        let ticks = axis.ticks();
        let body = html! {
            @for (at, label) in &ticks {
                (line(if label.is_empty() { "grid minor" } else { "grid" }, (left + at * plot, top), (left + at * plot, y)))
                (text("tick", (left + at * plot, y + 15.0), "middle", label))
            }
            @for row in &rows { (row) }
            (text("axis", (left + plot / 2.0, y + 30.0), "middle", &self.axis_label))
        };
        svg(&self.title, (left + plot + right, height), &body)
    }

    fn row(&self, bar: &Bar, axis: Axis, (left, plot): (f64, f64), y: f64) -> Markup {
        let x = |value: f64| left + axis.at(value) * plot;
        let middle = y + ROW / 2.0;
        let whisker = bar.low.zip(bar.high);
        let end = x(bar.value).max(whisker.map_or(0.0, |(_, high)| x(high))).max(bar.mark.map_or(0.0, x));
        let value = self.unit.show(bar.value);
        html! {
            (text("label", (left - 8.0, middle + 4.0), "end", &bar.label))
            rect class=(bar.class) x=(px(left)) y=(px(y + 4.0)) height=(px(ROW - 8.0)) width=(px((x(bar.value) - left).max(1.5))) {}
            @if let Some((low, high)) = whisker {
                (line("whisker", (x(low), middle), (x(high), middle)))
                (line("whisker", (x(low), middle - 4.0), (x(low), middle + 4.0)))
                (line("whisker", (x(high), middle - 4.0), (x(high), middle + 4.0)))
            }
            @if let Some(mark) = bar.mark {
                (line("mark", (x(mark), y + 2.0), (x(mark), y + ROW - 2.0)))
            }
            (text("value", (end + 8.0, middle + 4.0), "start", &value))
            (text("note", (end + 16.0 + bold_width(&value), middle + 4.0), "start", &bar.note))
        }
    }
}
