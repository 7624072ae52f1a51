//! `--tui`: a run as it goes, on a terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use pktgen::progress::{Line, Progress, Snapshot};
use pktgen::report::Quantiles;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};

/// Between two samples.
const SAMPLE: Duration = Duration::from_millis(500);
/// Samples that are remembered for the sparklines.
const SAMPLES: usize = 240;

/// There is nothing to draw on.
#[derive(Debug, thiserror::Error)]
#[error("--tui needs a terminal: standard output is none (use --json-lines to follow a run from a program)")]
pub(crate) struct NoTerminal;

/// Checks that there is a terminal, before anything is sent.
pub(crate) fn require_terminal() -> Result<(), NoTerminal> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() { Ok(()) } else { Err(NoTerminal) }
}

/// Shows the run until `ended` says so; `q` ends it. The terminal is restored whatever happens.
pub(crate) fn watch(title: &str, progress: &Progress, ended: impl Fn() -> bool) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let outcome = draw_until(&mut terminal, title, progress, ended);
    ratatui::try_restore()?;
    outcome
}

fn draw_until(
    terminal: &mut DefaultTerminal,
    title: &str,
    progress: &Progress,
    ended: impl Fn() -> bool,
) -> io::Result<()> {
    let mut view = View::new(title);
    let mut sampled = Instant::now();
    while !ended() {
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            view.sample(progress.snapshot());
        }
        view.stopping = progress.stopped();
        terminal.draw(|frame| view.draw(frame))?;
        if event::poll(Duration::from_millis(100))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                progress.stop();
            }
        }
    }
    Ok(())
}

/// What is on the screen.
struct View {
    title: String,
    now: Snapshot,
    line: Line,
    sent: VecDeque<u64>,
    delivered: VecDeque<u64>,
    /// The last latencies that were measured.
    latency: Option<Quantiles>,
    /// Packets a second by stream.
    stream_rates: Vec<f64>,
    stopping: bool,
}

impl View {
    fn new(title: &str) -> Self {
        let now = Snapshot::default();
        Self {
            title: title.to_owned(),
            line: Line::between(&now, &now),
            now,
            sent: VecDeque::new(),
            delivered: VecDeque::new(),
            latency: None,
            stream_rates: Vec::new(),
            stopping: false,
        }
    }

    fn sample(&mut self, now: Snapshot) {
        self.line = Line::between(&self.now, &now);
        for (history, rate) in
            [(&mut self.sent, self.line.sent.rate_pps), (&mut self.delivered, self.line.delivered.rate_pps)]
        {
            if history.len() == SAMPLES {
                history.pop_front();
            }
            history.push_back(rate.round() as u64);
        }
        self.latency = self.line.latency.or(self.latency);
        let seconds = now.elapsed_ns.saturating_sub(self.now.elapsed_ns).max(1) as f64 / 1e9;
        let before = self.now.streams.iter().map(|(_, packets)| *packets).chain(std::iter::repeat(0));
        let streams = now.streams.iter().zip(before);
        self.stream_rates =
            streams.map(|((_, packets), before)| packets.saturating_sub(before) as f64 / seconds).collect();
        self.now = now;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let streams = u16::try_from(self.now.streams.len()).unwrap_or(u16::MAX);
        let rows = [
            Constraint::Length(1),
            Constraint::Length(6),
            Constraint::Min(4),
            Constraint::Length(3),
            Constraint::Length(3),
            Constraint::Length(if streams > 1 { streams.min(10) + 3 } else { 0 }),
            Constraint::Length(1),
        ];
        let [title, totals, graphs, faults, latency, by_stream, keys] = Layout::vertical(rows).areas(frame.area());
        let elapsed = format!("{}  {:.1} s", self.title, self.line.seconds);
        frame.render_widget(Paragraph::new(elapsed).bold(), title);
        self.draw_totals(frame, totals);
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(graphs);
        draw_history(frame, left, "sent", &self.sent, Color::Cyan);
        draw_history(frame, right, "delivered", &self.delivered, Color::Green);
        self.draw_faults(frame, faults);
        self.draw_latency(frame, latency);
        if streams > 1 {
            self.draw_streams(frame, by_stream);
        }
        let help = if self.stopping {
            "ending: waiting for what is under way"
        } else {
            "q ends the run and prints the report"
        };
        frame.render_widget(Paragraph::new(help).dim(), keys);
    }

    fn draw_totals(&self, frame: &mut Frame<'_>, area: Rect) {
        let flows = [("sent", self.line.sent), ("delivered", self.line.delivered), ("received", self.line.received)];
        let rows = flows.map(|(name, flow)| {
            let cells = [name.to_owned(), si(flow.rate_pps) + "pps", flow.packets.to_string(), flow.bytes.to_string()];
            Row::new(cells.map(Cell::from))
        });
        let widths = [10, 14, 20, 22].map(Constraint::Length);
        let header = Row::new(["", "rate", "packets", "bytes"]).style(Style::new().dim());
        frame.render_widget(Table::new(rows, widths).header(header).block(Block::bordered()), area);
    }

    fn draw_faults(&self, frame: &mut Frame<'_>, area: Rect) {
        // While packets are under way this is more than the loss, never less.
        let open = self.now.sent.0.saturating_sub(self.now.delivered.0);
        let missed = self.now.delivered.0.saturating_sub(self.now.received.0);
        let counts = [
            ("lost or under way", open),
            ("not yet received", missed),
            ("duplicate", self.now.duplicate),
            ("reordered", self.now.reordered),
            ("corrupt", self.now.corrupt),
            ("rewritten", self.now.rewritten),
        ];
        let spans = counts.into_iter().flat_map(|(name, count)| {
            let fault = !matches!(name, "lost or under way" | "not yet received") && count > 0;
            let count = if fault { count.to_string().red().bold() } else { count.to_string().into() };
            [format!("{name} ").dim(), count, "  ".into()]
        });
        let text = Text::from_iter(spans);
        frame.render_widget(Paragraph::new(text).block(Block::bordered().title("faults")), area);
    }

    fn draw_latency(&self, frame: &mut Frame<'_>, area: Rect) {
        let text = match &self.latency {
            None => "not measured (--latency)".to_owned(),
            Some(latency) => [
                ("min", latency.min),
                ("p50", latency.p50),
                ("p90", latency.p90),
                ("p99", latency.p99),
                ("p99.9", latency.p999),
                ("max", latency.max),
            ]
            .map(|(name, ns)| format!("{name} {}s", si(ns as f64 / 1e9)))
            .join("  "),
        };
        frame.render_widget(Paragraph::new(text).block(Block::bordered().title("latency")), area);
    }

    fn draw_streams(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.now.streams.iter().zip(&self.stream_rates).map(|((name, packets), rate)| {
            Row::new([name.clone(), packets.to_string(), si(*rate) + "pps"].map(Cell::from))
        });
        let widths = [Constraint::Fill(1), Constraint::Length(20), Constraint::Length(14)];
        let header = Row::new(["stream", "received", "rate"]).style(Style::new().dim());
        frame.render_widget(Table::new(rows, widths).header(header).block(Block::bordered()), area);
    }
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, name: &str, history: &VecDeque<u64>, color: Color) {
    let highest = history.iter().max().copied().unwrap_or(0);
    let block = Block::bordered().title(format!("{name}, at most {}pps", si(highest as f64)));
    let width = usize::from(area.width.saturating_sub(2));
    let shown = history.iter().skip(history.len().saturating_sub(width)).copied();
    frame.render_widget(Sparkline::default().data(shown).style(Style::new().fg(color)).block(block), area);
}

/// Three digits and a prefix: `1.23 M`, `45.6 µ`.
fn si(value: f64) -> String {
    const PREFIXES: [(f64, &str); 6] = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")];
    let (unit, prefix) = PREFIXES.into_iter().find(|(unit, _)| value >= *unit).unwrap_or(if value > 0.0 {
        (1e-9, "n")
    } else {
        (1.0, "")
    });
    let scaled = value / unit;
    let decimals = match scaled {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$} {prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_rates_faults_and_latencies() {
        let mut view = View::new("out to back");
        let before = screen(&view);
        assert!(before.contains("not measured") && !before.contains("stream"), "{before}");
        let latency =
            Quantiles { count: 9, min: 900, p50: 12_300, p90: 45_000, p99: 120_000, p999: 1_500_000, max: 2_000_000 };
        let mut now = Snapshot {
            elapsed_ns: 1_000_000_000,
            sent: (1_234_000, 74_040_000),
            delivered: (1_200_000, 72_000_000),
            received: (1_100_000, 66_000_000),
            corrupt: 17,
            latency: Some(latency),
            streams: vec![("web".to_owned(), 600_000), ("dns".to_owned(), 500_000)],
            ..Snapshot::default()
        };
        view.sample(now.clone());
        let shown = screen(&view);
        for text in [
            "out to back  1.0 s",
            "1.23 Mpps",
            "1234000",
            "lost or under way 34000",
            "not yet received 100000",
            "corrupt 17",
            "p50 12.3 µs",
            "p99.9 1.50 ms",
            "web",
            "600 kpps",
            "q ends the run",
        ] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        // Rates are those since the sample before; the last latencies stay.
        now.elapsed_ns = 2_000_000_000;
        now.latency = None;
        now.sent.0 += 500;
        view.sample(now);
        view.stopping = true;
        let shown = screen(&view);
        for text in ["500 pps", "at most 1.23 Mpps", "p50 12.3 µs", "ending: waiting"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }

    #[test]
    fn a_small_terminal_is_no_reason_to_fail() {
        let mut view = View::new("out");
        (0..500)
            .for_each(|at| view.sample(Snapshot { elapsed_ns: at * 1000, sent: (at * at, 0), ..Snapshot::default() }));
        assert_eq!(view.sent.len(), SAMPLES);
        for (width, height) in [(1, 1), (20, 5), (300, 100)] {
            Terminal::new(TestBackend::new(width, height)).unwrap().draw(|frame| view.draw(frame)).unwrap();
        }
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in
            [(0.0, "0.00 "), (1.0, "1.00 "), (45_600.0, "45.6 k"), (3.8e6, "3.80 M"), (1.2e-7, "120 n")]
        {
            assert_eq!(si(value), text);
        }
    }
}
