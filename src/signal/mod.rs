//! Reading the signals, one file a kind; → [`Sample`].
//!
//! Bad means that the application answered wrongly or not at all, unreadable that we could not find out. Where
//! the domain's table leaves room, what is our own side's fault is unreadable: no route, no free descriptor, no
//! permission, a name that does not resolve in time, a body too large to be looked through, a probe command that
//! was killed.
//!
//! An answer that did not come (refused, reset, time-out) may be ours to blame as well: then the
//! witnesses are asked, and when none of them answers the reading is unreadable.
//!
//! And what was timed while our own side stood still is unreadable, whatever it was (`stall`).
//!
//! Not here: what samples mean (the judge), and when a signal is read ([`schedule`]).

mod command;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod net;
mod postgres;
mod prometheus;
pub mod schedule;
mod stall;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rollbackd_core::sample::{Reading, Sample};
use tokio_util::sync::CancellationToken;

use self::http::Client;
use self::http::certificate::Told;
use self::http::phases::Phases;
use self::net::{Deadline, Fault};
use self::stall::Pulse;
use self::witness::Witnesses;
use crate::clock::{self, Stopwatch};
use crate::config::model::{Config, Signal, SignalSource};

/// One reading of a signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// What rules look at.
    pub sample: Sample,
    /// What is only shown.
    pub aside: Aside,
}

/// What comes with a reading and is only shown: no rule looks at it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aside {
    /// How long each part of an HTTP reading took, in order.
    pub phases: Vec<(&'static str, Duration)>,
    /// When the certificate that the server showed expires.
    pub certificate_expires: Option<Timestamp>,
    /// What following a log came to.
    pub tail: Option<Tail>,
}

/// What following a log came to in one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    /// Lines that were read, whether they count or not.
    pub lines: u64,
    /// Files that were moved away and read to their end.
    pub rotations: u64,
    /// Files that were cut, and begun anew.
    pub truncations: u64,
    /// Bytes that were written and not looked at.
    pub dropped_bytes: u64,
    /// Bytes that are still to be read.
    pub lag_bytes: u64,
}

/// Reads the signals of one configuration. What connects is made once, not for every reading.
#[derive(Debug)]
pub struct Reader {
    config: Arc<Config>,
    client: Client,
    witnesses: Witnesses,
    told: Told,
    pulse: Pulse,
    /// One for each signal; only those of kind `postgres` ever hold a session.
    connections: Vec<postgres::Connection>,
    /// One for each signal of kind `log`, at the signal's place.
    logs: Vec<Option<log::Log>>,
}

impl Reader {
    /// Prepares everything that readings need.
    ///
    /// # Errors
    /// A sentence, when TLS cannot be set up.
    pub fn new(config: Arc<Config>) -> Result<Self, String> {
        let client = Client::new()?;
        let witnesses = Witnesses::new(config.decision.witnesses.clone());
        let connections = config.signals.iter().map(|_| postgres::Connection::default()).collect();
        let followed = |signal: &Signal| match &signal.source {
            SignalSource::Log(source) => Some(log::Log::new(&signal.name, source, &config.state_dir)),
            SignalSource::Http(_)
            | SignalSource::Tcp { .. }
            | SignalSource::Postgres { .. }
            | SignalSource::Prometheus(_)
            | SignalSource::Command { .. } => None,
        };
        let logs = config.signals.iter().map(followed).collect();
        Ok(Self { config, client, witnesses, told: Told::default(), pulse: Pulse::new(), connections, logs })
    }

    /// Reads the signal at this place of the configuration. Takes no longer than the signal's `timeout` and, after
    /// a failure, the short time that witnesses or a command's end may need.
    pub async fn read(&self, index: usize) -> Read {
        let (watch, begun) = (Stopwatch::start(), self.pulse.begin());
        let mut aside = Aside::default();
        let probed = match (self.config.signals.get(index), self.connections.get(index)) {
            (Some(signal), Some(connection)) => self.probe(index, signal, connection, &mut aside).await,
            (None, _) | (_, None) => Err(Fault::Unreadable(format!("there is no signal number {index}"))),
        };
        // The witnesses' time is not the application's; recordings keep microseconds.
        let took = i64::try_from(watch.elapsed().as_micros()).map_or(SignedDuration::MAX, SignedDuration::from_micros);
        let reading = match probed {
            Ok(Reading::Events { good, bad, value, reason }) => {
                // Covered before it is shortened: half a secret would not be recognised.
                let reason = reason.map(|line| log::shown(&self.config.veil.cover(line)));
                Reading::Events { good, bad, value, reason }
            }
            Err(Fault::Wrong(reason)) => Reading::bad(self.config.veil.cover(reason)),
            Ok(Reading::Unreadable { reason }) | Err(Fault::Unreadable(reason)) => {
                Reading::unreadable(self.config.veil.cover(reason))
            }
            Err(Fault::Unanswered(reason)) => {
                let reason = self.config.veil.cover(reason);
                if self.witnesses.vouch(&self.client).await {
                    Reading::bad(reason)
                } else {
                    Reading::unreadable(format!("{reason}; no witness answers: the watcher itself seems cut off"))
                }
            }
        };
        if let (Some(expires), Some(signal)) = (aside.certificate_expires, self.config.signals.get(index)) {
            self.told.look(index, &signal.name, expires, clock::now());
        }
        let timed = self.config.signals.get(index).is_some_and(|signal| signal.source.is_timed());
        let fault = if timed { self.pulse.fault_since(&begun) } else { None };
        let reading = fault.map_or(reading, Reading::unreadable);
        Read { sample: Sample { at: clock::now(), took, reading }, aside }
    }

    /// Shows that our side runs, until it is cancelled: without that a stall is not noticed.
    pub async fn beat(&self, cancel: CancellationToken) {
        self.pulse.go_on(cancel).await;
    }

    async fn probe(
        &self,
        index: usize,
        signal: &Signal,
        connection: &postgres::Connection,
        aside: &mut Aside,
    ) -> Result<Reading, Fault> {
        let value = match &signal.source {
            SignalSource::Http(probe) => {
                let phases = Phases::default();
                let probed = self.client.probe_in(probe, signal.timeout, &phases).await;
                aside.phases = phases.took();
                aside.certificate_expires = phases.certificate_expires();
                probed.map(|_| None)
            }
            SignalSource::Prometheus(query) => return prometheus::read(&self.client, query, signal.timeout).await,
            SignalSource::Tcp { address } => {
                let deadline = Deadline::after(signal.timeout);
                let addresses = net::resolve_address(address, &deadline).await?;
                net::connect(&addresses, &deadline).await.map(|()| None)
            }
            SignalSource::Postgres { url, query } => {
                connection.read(&self.config.database, url.as_ref(), query, signal.timeout).await
            }
            SignalSource::Command { run } => command::read(run, signal.timeout).await,
            SignalSource::Log(_) => {
                return match self.logs.get(index) {
                    Some(Some(log)) => log.read(signal.timeout, &mut aside.tail).await,
                    Some(None) | None => Err(Fault::Unreadable(format!("there is no log of signal number {index}"))),
                };
            }
        };
        Ok(value?.map_or_else(Reading::good, Reading::good_with))
    }
}

#[cfg(test)]
mod examples;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
