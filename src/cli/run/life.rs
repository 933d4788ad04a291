//! Which configuration the daemon runs with, and which one comes after it.
//!
//! A daemon outlives its configurations. Each life has one: what the file says, or what a window that is open began with.
//! Another one is taken over when no window is open, and the next life begins: after a start that finds a window of an older
//! configuration, and when the daemon is asked to read its file again. Nothing is taken over that was not read whole and
//! found valid before; what cannot be started gives way to what was there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rollbackd_core::run::record::Entry;
use rollbackd_core::run::state::State;

use crate::cli::place::{Place, load, open_journal};
use crate::cli::{Exit, Stop};
use crate::config::model::Config;
use crate::driver::snapshot::{RefusedFile, Renewal};
use crate::journal::Journal;
use crate::journal::redb::RedbJournal;
use crate::runtime::{Runtime, Use, thaw};
use crate::{clock, config};

/// What the daemon runs with, until another configuration is taken over.
pub(super) struct Life {
    config: Arc<Config>,
    next: Next,
    refused: Option<RefusedFile>,
    /// What the life before ran with, to go back to.
    previous: Option<Arc<Config>>,
    /// Kept from life to life: in between nobody else can take it.
    journal: Arc<dyn Journal>,
    /// What it holds at the beginning.
    entries: Vec<Entry>,
}

/// What is taken over when no window is open.
enum Next {
    /// Nothing.
    Nothing,
    /// This configuration, which is valid.
    Accepted(Arc<Config>),
    /// What the file says by then: now it cannot be used.
    File,
}

impl Life {
    /// Reads configuration and journal. A configuration that has become wrong since a window opened does not keep that
    /// window from its end.
    pub(super) fn first(path: &Path) -> anyhow::Result<Self> {
        let current = match load(path) {
            Ok(config) => Arc::new(config),
            Err(wrong) => return Self::frozen(path, wrong),
        };
        let (journal, entries) = open_journal(&current.state_dir)?;
        Self::over(current, journal, entries)
    }

    /// The same where the configuration is wrong: only an open window is a reason to begin.
    fn frozen(path: &Path, wrong: Stop) -> anyhow::Result<Self> {
        let Ok(place) = Place::of(path) else { return Err(wrong.into()) };
        let Ok((journal, entries)) = RedbJournal::open_existing(&place.state_dir) else { return Err(wrong.into()) };
        let Some(open) = State::replay(&entries).window else { return Err(wrong.into()) };
        tracing::error!(event = "config.unusable", error = %wrong, "the current configuration cannot be used");
        let config = Arc::new(thaw(&place.state_dir, path, &open)?);
        let reason = config::load(path).err().map_or_else(|| wrong.to_string(), |problems| problems.brief());
        let refused = Some(RefusedFile { at: clock::now(), reason });
        Ok(Self { config, next: Next::File, refused, previous: None, journal: Arc::new(journal), entries })
    }

    /// A life with this configuration, or with the one that the open window began with.
    fn over(current: Arc<Config>, journal: Arc<dyn Journal>, entries: Vec<Entry>) -> anyhow::Result<Self> {
        let open = State::replay(&entries).window.filter(|open| open.plan.config_sha256 != current.sha256);
        let (config, next) = match open {
            Some(open) => (Arc::new(thaw(&current.state_dir, &current.path, &open)?), Next::Accepted(current)),
            None => (current, Next::Nothing),
        };
        Ok(Self { config, next, refused: None, previous: None, journal, entries })
    }

    /// Begins it. When it cannot be begun, and there was another before, that one goes on.
    pub(super) async fn begin(&mut self) -> Result<Runtime, Stop> {
        loop {
            let entries = std::mem::take(&mut self.entries);
            let (config, journal) = (Arc::clone(&self.config), Arc::clone(&self.journal));
            let error = match Runtime::start(config, journal, entries, Use::Daemon(self.renewal())).await {
                Ok(runtime) => return Ok(runtime),
                Err(error) => format!("{error:#}"),
            };
            let Some(previous) = self.previous.take() else { return Err(Stop::new(Exit::Unavailable, error)) };
            self.entries = read(self.journal.as_ref())?;
            self.config = previous;
            self.refuse(format!("it is valid, but cannot be started with: {error}"));
        }
    }

    /// The life that comes when no window is open any more.
    pub(super) fn next(self, path: &Path) -> anyhow::Result<Self> {
        let next = match self.next {
            Next::Nothing => Arc::clone(&self.config),
            Next::Accepted(config) => config,
            Next::File => {
                drop(self.journal);
                return Self::first(path);
            }
        };
        let entries = read(self.journal.as_ref())?;
        Ok(Self { previous: Some(self.config), ..Self::over(next, self.journal, entries)? })
    }

    /// Reads the file again. A valid one is what comes next; a wrong one is refused, and changes nothing.
    pub(super) async fn reload(&mut self, path: &Path) {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let config = match read {
            Ok(Ok(loaded)) => Arc::new(loaded.config),
            Ok(Err(problems)) => {
                tracing::error!(event = "config.problems", problems = %problems, "what is wrong with the file");
                return self.refuse(problems.brief());
            }
            Err(failure) => return self.refuse(format!("reading it failed: {failure}")),
        };
        if let Some(reason) = self.unchangeable(&config) {
            return self.refuse(reason);
        }
        tracing::info!(event = "config.accepted", sha256 = config.sha256, "valid; taken over when no window is open");
        self.refused = None;
        self.next = Next::Accepted(config);
    }

    fn refuse(&mut self, reason: String) {
        tracing::error!(
            event = "config.refused",
            error = reason,
            "the configuration's file is not taken over; the daemon goes on with what it has"
        );
        self.refused = Some(RefusedFile { at: clock::now(), reason });
    }

    /// Why a valid configuration cannot be taken over while the daemon runs.
    fn unchangeable(&self, fresh: &Config) -> Option<String> {
        let now = match &self.next {
            Next::Accepted(config) => config,
            Next::Nothing | Next::File => &self.config,
        };
        unchangeable(&Keys::of(now), &Keys::of(fresh))
    }

    /// What is shown of it.
    pub(super) fn renewal(&self) -> Renewal {
        let (due, next_sha256) = match &self.next {
            Next::Nothing => (false, None),
            Next::Accepted(config) => (true, Some(config.sha256.clone())),
            Next::File => (true, None),
        };
        Renewal { due, next_sha256, refused: self.refused.clone() }
    }

    /// The name of what is guarded.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }
}

fn read(journal: &dyn Journal) -> Result<Vec<Entry>, Stop> {
    journal.read_from(1).map_err(|error| Stop::new(Exit::Failed, error.to_string()))
}

/// The keys that hold for as long as the daemon runs.
#[derive(Debug, PartialEq, Eq)]
struct Keys {
    state_dir: PathBuf,
    listen: Option<SocketAddr>,
}

impl Keys {
    fn of(config: &Config) -> Self {
        Self { state_dir: config.state_dir.clone(), listen: config.http.as_ref().map(|http| http.listen) }
    }
}

fn unchangeable(now: &Keys, fresh: &Keys) -> Option<String> {
    let mut changed = Vec::new();
    if now.state_dir != fresh.state_dir {
        let (now, fresh) = (now.state_dir.display(), fresh.state_dir.display());
        changed.push(format!(
            "`state_dir` cannot change while rollbackd runs (it is {now}, the file says {fresh}): stop it, move the \
             directory, start it again"
        ));
    }
    if now.listen != fresh.listen {
        let shown = |listen: Option<SocketAddr>| listen.map_or_else(|| "none".to_owned(), |listen| listen.to_string());
        let (now, fresh) = (shown(now.listen), shown(fresh.listen));
        changed.push(format!(
            "`listen` in [http] cannot change while rollbackd runs (it is {now}, the file says {fresh}): restart it; a window \
             that is open goes on"
        ));
    }
    (!changed.is_empty()).then(|| changed.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(state_dir: &str, listen: Option<&str>) -> Keys {
        Keys { state_dir: state_dir.into(), listen: listen.map(|listen| listen.parse().unwrap()) }
    }

    #[test]
    fn keys_that_hold_for_a_daemons_life_are_named_with_the_way_out() {
        let now = keys("/var/lib/rollbackd/shop", Some("127.0.0.1:9187"));
        assert_eq!(unchangeable(&now, &now), None);
        let reason = unchangeable(&now, &keys("/srv/shop", None)).unwrap();
        for part in [
            "it is /var/lib/rollbackd/shop, the file says /srv/shop",
            "127.0.0.1:9187, the file says none",
            "restart it",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
        let reason = unchangeable(&keys("/s", None), &keys("/s", Some("[::1]:80"))).unwrap();
        assert!(reason.contains("(it is none, the file says [::1]:80)") && !reason.contains("state_dir"), "{reason}");
    }
}
