//! What of the loop is recorded for `rollbackd replay`: all that the judge sees while a window is open, and when.

use jiff::Timestamp;
use rollbackd_core::run::record::{Entry, Record};
use rollbackd_core::sample::Sample;

use super::Driver;
use crate::samples::line::Line;

impl Driver {
    /// Records a sample that the judge looks at now.
    pub(super) fn record_sample(&mut self, signal: usize, sample: &Sample, now: Timestamp) {
        if !self.parts.recorder.is_open() {
            return;
        }
        if let Some(signal) = self.judge.plan().signals.get(signal) {
            self.parts.recorder.write(Line::sample(&signal.name, sample, now));
        }
    }

    /// Tells the judge what it has to know of these records, and begins or ends the recording with the window. A recording
    /// begins with what the judge remembers.
    pub(super) fn follow_recording(&mut self, entries: &[Entry]) {
        let window = self.state.window.as_ref().map(|window| window.id.clone());
        if self.parts.recorder.follow(window.as_deref())
            && let (Some(window), Some(first)) = (window, entries.first())
        {
            self.parts.recorder.write(Line::head(&window, first.at));
            for (signal, sample) in self.judge.remembered() {
                if let Some(signal) = self.judge.plan().signals.get(signal) {
                    self.parts.recorder.write(Line::sample(&signal.name, &sample, first.at).from_before());
                }
            }
            let known = self.state.window.as_ref().map(|window| window.levels.clone()).unwrap_or_default();
            self.record_levels(&known, first.at);
        }
        for entry in entries {
            if let Record::WarmedUp { levels, .. } = &entry.record {
                self.judge.learn(levels);
                self.record_levels(levels, entry.at);
            }
        }
    }

    fn record_levels(&mut self, levels: &[rollbackd_core::judge::Level], at: Timestamp) {
        if !levels.is_empty() {
            let names = self.judge.plan().signals.iter().map(|signal| signal.name.as_str());
            self.parts.recorder.write(Line::levels(names, levels, at));
        }
    }
}
