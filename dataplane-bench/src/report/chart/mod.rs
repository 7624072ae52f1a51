//! Plots as inline SVG, laid out by hand: no script, no style of their own (colours are classes of the page, so that a dark
//! page has dark plots), text that can be selected, a title for who cannot see them.

mod axis;
mod bars;
mod lines;

pub(super) use axis::Axis;
pub(super) use bars::{Bar, Bars, Group};
pub(super) use lines::{Lines, Series};

use maud::{Markup, html};

/// A coordinate or length, to a tenth of a pixel.
fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// Width of a text in the plots' 12-pixel sans serif, generously.
fn width(text: &str) -> f64 {
    text.chars().count() as f64 * 6.6
}

/// The same for bold text.
fn bold_width(text: &str) -> f64 {
    text.chars().count() as f64 * 7.6
}

/// Legible in any plot: the frame that every one has.
fn svg(title: &str, size: (f64, f64), body: &Markup) -> Markup {
    html! {
        svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label=(title)
            viewBox={ "0 0 " (px(size.0)) " " (px(size.1)) } width=(px(size.0)) height=(px(size.1)) {
            title { (title) }
            (body)
        }
    }
}

fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> Markup {
    html! { line class=(class) x1=(px(from.0)) y1=(px(from.1)) x2=(px(to.0)) y2=(px(to.1)) {} }
}

fn text(class: &str, at: (f64, f64), anchor: &str, content: &str) -> Markup {
    html! { text class=(class) x=(px(at.0)) y=(px(at.1)) text-anchor=(anchor) { (content) } }
}
