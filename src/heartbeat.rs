//! The dead-man's switch: somebody else who raises the alarm when nothing is heard from us any more.
//!
//! While a window is open `[heartbeat] url` is asked for again and again; `/start` and `/fail` are added to it as
//! healthchecks.io and what follows it have them. This sees the driver's [`Snapshot`]s, nothing else; nobody waits for it,
//! and nothing depends on whether it is heard.
//!
//! | when | what is asked for |
//! |---|---|
//! | a window opens, or is found open at a start | `/start` |
//! | every so often, while all is well | the URL itself, then `/start`: the next one is due |
//! | a rollback starts, an operator is needed, and every so often until that is over | `/fail` |
//! | the window is settled, and all is well | the URL itself, and then nothing more |
//! | the window was settled by force, unverified | `/fail`, and then nothing more |
//!
//! Such a service counts from `/start` on how long it has heard nothing, and after the bare URL it expects the next run:
//! between two openings it must be silent, and only between two openings. That is why both are said each time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rollbackd_core::run::record::WindowOutcome;
use rollbackd_core::run::state::{Phase, State};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::model::{self, Config};
use crate::driver::snapshot::Snapshot;
use crate::metrics::Metrics;
use crate::notify;

/// The longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that the last word may take when the program ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often the last word of a window is said when nobody hears it.
const LAST_WORDS: u32 = 5;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    /// A window is open; more will follow.
    Start,
    /// All is well.
    Well,
    /// Something is not.
    Fail,
}

impl Word {
    /// Every word.
    pub(crate) const ALL: [Self; 3] = [Self::Start, Self::Well, Self::Fail];

    /// The label `signal` of the metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Well => "well",
            Self::Fail => "fail",
        }
    }

    /// Where it is said.
    fn at(self, url: &Url) -> Url {
        let mut url = url.clone();
        let behind = match self {
            Self::Start => "start",
            Self::Well => return url,
            Self::Fail => "fail",
        };
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(behind);
        }
        url
    }
}

/// How an open window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Well,
    /// It is rolled back, or somebody says that it is dealt with.
    Broken,
    NeedsOperator,
}

/// What has been said of which window.
#[derive(Debug)]
struct Course {
    open: Option<(String, Standing)>,
    /// How many windows were settled since the journal began.
    settled: u64,
}

impl Course {
    /// Nothing was said yet, and of windows that were settled before nothing will be.
    const fn new(settled: u64) -> Self {
        Self { open: None, settled }
    }

    /// What is to be said now that the state is this one.
    fn follow(&mut self, state: &State) -> Vec<Word> {
        let mut words = Vec::new();
        // One that has come and gone between two looks gets its last word too.
        let unseen = state.history.last().filter(|_| state.settled() > self.settled);
        words.extend(unseen.map(|settled| last_word(settled.outcome)));
        self.settled = state.settled();
        let before = self.open.take();
        if let Some(window) = &state.window {
            let now = standing(&window.phase);
            let before = before.filter(|(id, _)| *id == window.id).map(|(_, before)| before);
            words.extend(change(before, now));
            self.open = Some((window.id.clone(), now));
        }
        words
    }

    /// What is to be said again.
    fn again(&self) -> &'static [Word] {
        match &self.open {
            None => &[],
            Some((_, Standing::Well)) => &[Word::Well, Word::Start],
            Some((_, Standing::Broken | Standing::NeedsOperator)) => &[Word::Fail],
        }
    }
}

/// What a window that stands so gives to say, after it stood otherwise or was not known.
const fn change(before: Option<Standing>, now: Standing) -> Option<Word> {
    match (before, now) {
        (Some(Standing::Well), Standing::Well)
        | (Some(Standing::Broken), Standing::Broken)
        | (Some(Standing::NeedsOperator), Standing::NeedsOperator | Standing::Broken) => None,
        (None | Some(Standing::Broken | Standing::NeedsOperator), Standing::Well) => Some(Word::Start),
        (None | Some(Standing::Well), Standing::Broken)
        | (None | Some(Standing::Well | Standing::Broken), Standing::NeedsOperator) => Some(Word::Fail),
    }
}

const fn standing(phase: &Phase) -> Standing {
    match phase {
        Phase::Preparing | Phase::Watching | Phase::Soaking { .. } => Standing::Well,
        Phase::RollingBack | Phase::Resolving { .. } => Standing::Broken,
        Phase::NeedsOperator { .. } => Standing::NeedsOperator,
    }
}

const fn last_word(outcome: WindowOutcome) -> Word {
    match outcome {
        WindowOutcome::Passed | WindowOutcome::Refused | WindowOutcome::Cancelled | WindowOutcome::Recovered => {
            Word::Well
        }
        WindowOutcome::Abandoned => Word::Fail,
    }
}

/// The switch, and whether it hears us.
pub struct Heartbeat {
    url: Url,
    every: Duration,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    unheard: BTreeSet<Word>,
}

impl Heartbeat {
    /// Prepares it; nothing is said.
    ///
    /// # Errors
    /// Why no request can be made.
    pub fn new(heartbeat: &model::Heartbeat, metrics: Arc<Metrics>) -> Result<Self, String> {
        let client = notify::plain_client(PATIENCE)?;
        let (url, every) = (heartbeat.url.expose().clone(), heartbeat.every);
        Ok(Self { url, every, client, metrics, unheard: BTreeSet::new() })
    }

    /// Says what is to be said until the driver or everything ends; then the last word of a window that was just settled.
    pub fn follow(
        self,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        let course = Course::new(snapshots.borrow().state.settled());
        self.run(course, snapshots, cancel)
    }

    async fn run(
        mut self,
        mut course: Course,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        cancel: CancellationToken,
    ) {
        let mut due: VecDeque<Word> = VecDeque::new();
        let mut last: Option<(Word, u32)> = None;
        let mut next = Instant::now() + self.every;
        loop {
            let state = Arc::clone(&snapshots.borrow_and_update().state);
            let words = course.follow(&state);
            if course.open.is_some() {
                last = None;
            } else if let Some(word) = words.last() {
                last = Some((*word, LAST_WORDS));
            }
            due.extend(words);
            if let Some(word) = due.front().copied() {
                let Some(heard) = cancel.run_until_cancelled(self.say(word)).await else { break };
                due.pop_front();
                next = Instant::now() + self.every;
                if let Some((_, left)) = last.filter(|_| due.is_empty()) {
                    last = (!heard && left > 1).then(|| (word, left - 1));
                }
                continue;
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = snapshots.changed() => if changed.is_err() { break },
                () = sleep_until(next), if course.open.is_some() || last.is_some() => {
                    due.extend(course.again());
                    due.extend(last.filter(|_| course.open.is_none()).map(|(word, _)| word));
                }
            }
        }
        due.extend(course.follow(&snapshots.borrow().state));
        let rest = async {
            for word in due {
                self.say(word).await;
            }
        };
        if timeout(FAREWELL, rest).await.is_err() {
            tracing::warn!(event = "heartbeat.failed", "the last heartbeat was not heard in time");
        }
    }

    /// Says one word, and whether it was heard. That it is not is logged once, until it is again.
    async fn say(&mut self, word: Word) -> bool {
        let heard = self.ask(word.at(&self.url)).await;
        self.metrics.heartbeat(word.as_str(), heard.is_ok());
        match &heard {
            Ok(()) => {
                if self.unheard.remove(&word) {
                    tracing::info!(event = "heartbeat.reached", signal = word.as_str(), "the heartbeat is heard again");
                }
            }
            Err(reason) => {
                if self.unheard.insert(word) {
                    let signal = word.as_str();
                    tracing::warn!(event = "heartbeat.failed", signal, error = reason, "the heartbeat is not heard");
                }
            }
        }
        heard.is_ok()
    }

    async fn ask(&self, url: Url) -> Result<(), String> {
        match self.client.get(url).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status().as_u16())),
            Err(error) if error.is_timeout() => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            // The address is the secret.
            Err(error) => Err(notify::innermost(&error.without_url())),
        }
    }
}

/// Whether the switch's server accepts connections; nothing is said to it, because every word means something.
pub async fn reach(config: &Config) -> Option<notify::Reached> {
    let url = config.heartbeat.as_ref()?.url.expose();
    let server = (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?);
    Some(notify::reach_server(server).await)
}

#[cfg(test)]
mod tests;
