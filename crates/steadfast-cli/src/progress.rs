//! Progress of long work on trees: a line on the terminal, and the point where a signal is heeded.

use crate::output::Ui;
use crate::signals;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use steadfast::tree::Progress;

/// Work shorter than this shows nothing.
const QUIET: Duration = Duration::from_millis(500);
/// Steps between two looks at the clock: one entry takes some microseconds.
const STRIDE: u32 = 64;

/// Watches one piece of long work.
#[derive(Debug)]
pub(crate) struct Watcher {
    verb: &'static str,
    wanted: bool,
    started: Instant,
    steps: u32,
    bar: Option<ProgressBar>,
}

impl Watcher {
    /// For work that `verb` names, such as `"copying"`.
    pub(crate) fn new(ui: &Ui, verb: &'static str) -> Self {
        Self {
            verb,
            wanted: ui.progress(),
            started: Instant::now(),
            steps: 0,
            bar: None,
        }
    }

    /// After each step; stops the work if a signal asks for it.
    pub(crate) fn step(&mut self, progress: &Progress) -> ControlFlow<()> {
        if signals::pending().is_some() {
            return ControlFlow::Break(());
        }
        self.steps = self.steps.wrapping_add(1);
        if self.wanted && self.steps.is_multiple_of(STRIDE) {
            self.draw(progress);
        }
        ControlFlow::Continue(())
    }

    /// Before each of `total` steps that may each be long; stops the work if a signal asks for it.
    pub(crate) fn before(&mut self, number: usize, total: usize) -> ControlFlow<()> {
        if signals::pending().is_some() {
            return ControlFlow::Break(());
        }
        if self.wanted {
            self.show(format!("{}: {number} of {total} operations", self.verb));
        }
        ControlFlow::Continue(())
    }

    fn draw(&mut self, progress: &Progress) {
        let mut line = format!(
            "{}: {} files, {} folders",
            self.verb,
            HumanCount(progress.files),
            HumanCount(progress.dirs)
        );
        if progress.bytes > 0 {
            line.push_str(&format!(", {}", HumanBytes(progress.bytes)));
        }
        self.show(line);
    }

    fn show(&mut self, line: String) {
        if self.bar.is_none() && self.started.elapsed() < QUIET {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(line);
        bar.tick();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
