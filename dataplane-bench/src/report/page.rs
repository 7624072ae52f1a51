//! The report as one HTML file: nothing is fetched, no script runs, every text is escaped.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{Bars, Lines};
use super::facts;
use super::headline::{Headline, headlines};
use super::palette::Palette;
use super::plots;
use super::table::{self, Table};
use crate::result::BenchResult;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(result: &BenchResult) -> String {
    let palette = Palette::of(result);
    let sections = sections(result, &palette);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "dataplane-bench: " (facts::title(result)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(result))
                nav { ul { @for section in &sections { li { a href={ "#" (section.id) } { (section.heading) } } } } }
                main { @for section in &sections { (section.body()) } }
                footer { p { "Written by dataplane-bench " (result.tool.version) "; every value behind this page is in the JSON result ("
                    code { (result.schema) } ")." } }
            }
        }
    };
    markup.into_string()
}

struct Section {
    id: &'static str,
    heading: &'static str,
    /// How to read it.
    lead: &'static str,
    plots: Vec<Markup>,
    tables: Vec<Table>,
    /// The tables are the section; elsewhere they are folded behind the plots.
    open: bool,
}

impl Section {
    fn body(&self) -> Markup {
        html! {
            section id=(self.id) {
                h2 { (self.heading) }
                p.lead { (self.lead) }
                @if !self.plots.is_empty() { div.plots { @for plot in &self.plots { figure { (plot) } } } }
                @for table in &self.tables {
                    @if self.open { (rows(table)) }
                    @else { details { summary { "Figures (" (table.rows.len()) " rows)" } (rows(table)) } }
                }
            }
        }
    }
}

fn head(result: &BenchResult) -> Markup {
    let cards = headlines(result);
    html! {
        header {
            p.kicker { "dataplane-bench" }
            h1 { (facts::title(result)) }
            p.machine { (result.machine.to_string()) }
            p.machine { (facts::when(result)) }
            @if let Some(warning) = facts::warning(result) { p.warning { (warning) } }
            @if !cards.is_empty() {
                h2 #headlines { "In short" }
                div.cards { @for card in &cards { (self::card(card)) } }
                p.fine { "Every ratio is between two things measured in this run on this machine. Of each area the dearest case stands here, \
                    not the best." }
            }
        }
    }
}

fn card(card: &Headline) -> Markup {
    let highest = card.pair.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let share = |value: f64| if highest > 0.0 { (value / highest * 100.0).clamp(0.5, 100.0) } else { 0.5 };
    html! {
        article.card.loses[!card.good] {
            p.figure { (card.figure) }
            p.meaning { (card.meaning) }
            p.subject { (card.subject) }
            @for ((name, value), class) in card.pair.iter().zip(["own1", "base"]) {
                div.duel {
                    span.who { (name) }
                    span.value { (card.unit.show(*value)) }
                    span class={ "meter " (class) } style={ "width:" (format!("{:.1}", share(*value))) "%" } {}
                }
            }
            @if !card.detail.is_empty() { p.fine { (card.detail) } }
        }
    }
}

/// Those that were measured, in the order in which the story is told.
fn sections(result: &BenchResult, palette: &Palette) -> Vec<Section> {
    let bars = |plot: Option<Bars>| plot.iter().map(Bars::draw).collect::<Vec<_>>();
    let lines = |plots: &[Lines]| plots.iter().map(Lines::draw).collect::<Vec<_>>();
    let folded =
        |id, heading, lead, plots, table: Table| Section { id, heading, lead, plots, tables: vec![table], open: false };
    let open = |id, heading, lead, table: Table| Section {
        id,
        heading,
        lead,
        plots: Vec::new(),
        tables: vec![table],
        open: true,
    };
    let mut sections = vec![
        folded("cost", "Cost per packet", COST, bars(plots::costs(result)), table::prog(result)),
        Section {
            id: "scale",
            heading: "Cost against scale",
            lead: SCALE,
            plots: lines(&plots::scales(result)),
            tables: Vec::new(),
            open: false,
        },
        folded("generators", "Generators", GENERATORS, bars(plots::rates(result, true)), table::rates(result, true)),
        folded("rates", "Rates", RATES, bars(plots::rates(result, false)), table::rates(result, false)),
        folded("ndr", "Drop-rate searches", NDR, bars(plots::bounds(result)), table::ndr(result)),
        folded(
            "loss",
            "Loss against load",
            LOSS,
            lines(plots::losses(result, palette).as_slice()),
            table::loss(result),
        ),
        open("bursts", "Back-to-back frames", BURSTS, table::back_to_back(result)),
        folded("latency", "Latency", LATENCY, lines(&plots::latencies(result, palette)), table::latency(result)),
        folded("reconf", "Reconfiguration at load", RECONF, bars(plots::blocked(result)), table::reconf(result)),
        open("routes", "Routes", ROUTES, table::routes(result)),
        open("soak", "Soak", SOAK, table::soak(result)),
        open("not-run", "Not run", NOT_RUN, table::not_run(result)),
        open("deviations", "Where the methods were not followed to the letter", DEVIATIONS, table::deviations(result)),
    ];
    sections.retain(|section| !section.plots.is_empty() || section.tables.iter().any(|table| !table.rows.is_empty()));
    sections.push(Section {
        id: "machine",
        heading: "Machine and runs",
        lead: MACHINE,
        plots: vec![machine(result)],
        tables: Vec::new(),
        open: true,
    });
    sections
}

fn rows(table: &Table) -> Markup {
    let headings = table.headings();
    html! {
        div.scroll {
            table {
                thead { tr { @for (heading, numeric) in &headings { th.number[*numeric] scope="col" { (heading) } } } }
                tbody {
                    @for row in &table.rows {
                        tr { @for (cell, (_, numeric)) in table.shown(row).zip(&headings) { td.number[*numeric] { (cell.shown()) } } }
                    }
                }
            }
        }
    }
}

fn machine(result: &BenchResult) -> Markup {
    html! {
        dl { @for (name, value) in facts::machine(result) { dt { (name) } dd { (value) } } }
        @if !result.tool.objects.is_empty() {
            h3 { "What was measured" }
            div.scroll { table {
                thead { tr { th scope="col" { "object" } th scope="col" { "SHA-256" } } }
                tbody { @for object in &result.tool.objects { tr { td { (object.name) } td { code { (object.sha256) } } } } }
            } }
        }
        h3 { "To measure again" }
        p { "The commands of this result, in their order; the standard set is " code { "scripts/bench" } "." }
        pre { @for run in &result.runs { (facts::command(run)) "\n" } }
        div.scroll { table {
            thead { tr { th scope="col" { "started, UTC" } th scope="col" { "command" } th.number scope="col" { "seconds" } th.number scope="col" { "load before" } th.number scope="col" { "seed" } th.number scope="col" { "stalls a second, longest" } } }
            tbody { @for run in &result.runs { tr {
                td { (run.started) } td { (facts::subcommand(run)) } td.number { (super::figure::number(run.seconds)) }
                td.number { (run.load.map(|load| format!("{load:.2}")).join(" ")) }
                td.number { (run.seed.map_or_else(|| "–".to_owned(), |seed| seed.to_string())) }
                td.number { (facts::run_stalls(run)) }
            } } }
        } }
    }
}

const COST: &str = "Nanoseconds of processor time that a program adds to a packet, by BPF_PROG_TEST_RUN, less what the harness around it costs. \
    Grey: what the kernel offers for the same work. Blue: margay. Each step of the grid is ten times the one before.";
const SCALE: &str = "What happens when there is more of it. A flat line is a cost that does not grow; a straight rise is a cost that grows with the number.";
const GENERATORS: &str = "Frames per second that arrive at the far end of a virtual cable, counted there in XDP, by generator. Grey: a plain sender over \
    AF_PACKET and the tools that Debian has.";
const RATES: &str = "Frames per second that come out of a device at the highest load that the generator offers. The path of a virtual cable is in all of them.";
const NDR: &str = "The highest load at which a device loses no more than the goal allows. The bar ends at the highest load known to meet the goal, its whisker \
    at the lowest known to miss it: the truth lies between.";
const LOSS: &str = "Frames lost at each offered load (RFC 2544, section 26.3).";
const BURSTS: &str =
    "The longest burst of back-to-back frames without loss, and the buffer that it implies (RFC 9004).";
const LATENCY: &str = "One-way latency by percentile. Read from the right: a curve at 99.9 is the latency that one packet of a thousand exceeds. The bias \
    in the figures is what the instrument measures without a device; it is not subtracted.";
const ROUTES: &str = "A full table is loaded from the RIB into the maps; single routes change while packets flow to two next hops; a next hop of every route is lost. Frames lost arrived at neither.";
const RECONF: &str = "Load is held while the configuration changes. Lost frames over load is the time for which the device was as good as blocked.";
const SOAK: &str = "The load at which the loss ratio is the target, estimated from many short trials (PLRsearch).";
const NOT_RUN: &str = "Asked for and not measured. What is missing here is missing above.";
const DEVIATIONS: &str = "Figures under these headings are comparable with others of the same deviation only.";
const MACHINE: &str =
    "A figure means nothing without its machine. Ratios of one run carry over to others; nanoseconds do not.";
