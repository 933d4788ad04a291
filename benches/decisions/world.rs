//! Traffic and faults, seeded.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution as _, Poisson};

/// How long a run is watched, in seconds, from the end of the warm-up.
pub(super) const WATCHED: u32 = 1_800;
/// The warm-up before it.
pub(super) const WARM_UP: u32 = 30;
/// The share of requests that fail on any day.
const EVERYDAY: f64 = 0.002;

/// How much traffic there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Traffic {
    /// 40 requests a second.
    Steady,
    /// From 10 to 70 requests a second and back.
    Diurnal,
    /// 20 requests a second, and tenfold for some seconds now and then.
    Bursty,
    /// Two requests a second.
    Modest,
    /// One request in five seconds.
    Low,
}

/// What happens beside the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// Nothing.
    Nothing,
    /// All requests fail for 1 to 2 s, six times.
    Blips,
    /// The application is restarted twice: everything fails for 3 to 8 s.
    Restarts,
    /// The watcher is cut off from everything for 1 to 5 minutes.
    CutOff,
    /// From some moment on this share of the requests fails.
    Partial(u8),
    /// The share of failing requests rises to a half within ten minutes.
    SlowLeak,
    /// Four of ten requests fail, in waves.
    BrownOut,
    /// Everything fails.
    TotalLoss,
}

pub(super) const TRAFFIC: [Traffic; 5] =
    [Traffic::Steady, Traffic::Diurnal, Traffic::Bursty, Traffic::Modest, Traffic::Low];
pub(super) const HEALTHY: [Event; 4] = [Event::Nothing, Event::Blips, Event::Restarts, Event::CutOff];
pub(super) const FAULTS: [Event; 6] =
    [Event::Partial(10), Event::Partial(30), Event::Partial(60), Event::SlowLeak, Event::BrownOut, Event::TotalLoss];

impl Event {
    /// In words.
    pub(super) fn words(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Blips => "blips of 1 to 2 s".to_owned(),
            Self::Restarts => "deploy restarts".to_owned(),
            Self::CutOff => "watcher cut off".to_owned(),
            Self::Partial(percent) => format!("{percent} % fail"),
            Self::SlowLeak => "slow leak".to_owned(),
            Self::BrownOut => "brown-out".to_owned(),
            Self::TotalLoss => "total loss".to_owned(),
        }
    }

    /// Whether only a part of the requests fails.
    pub(super) const fn is_partial(self) -> bool {
        matches!(self, Self::Partial(_) | Self::SlowLeak | Self::BrownOut)
    }
}

/// One run: when what happens.
pub(super) struct World {
    traffic: Traffic,
    event: Event,
    /// Seconds, counted from the beginning of the warm-up.
    spans: Vec<(f64, f64)>,
    bursts: Vec<(f64, f64)>,
}

impl World {
    pub(super) fn new(traffic: Traffic, event: Event, rng: &mut ChaCha8Rng) -> Self {
        let (first, last) = (f64::from(WARM_UP) + 30.0, f64::from(WARM_UP + WATCHED));
        let mut spans = |count: usize, least: f64, most: f64| -> Vec<(f64, f64)> {
            let one = |_| {
                let length = rng.random_range(least..most);
                let from = rng.random_range(first..last - length);
                (from, from + length)
            };
            (0..count).map(one).collect()
        };
        let happens = match event {
            Event::Nothing => Vec::new(),
            Event::Blips => spans(6, 1.0, 2.0),
            Event::Restarts => spans(2, 3.0, 8.0),
            Event::CutOff => spans(1, 60.0, 300.0),
            Event::Partial(_) | Event::SlowLeak | Event::BrownOut | Event::TotalLoss => {
                // In the first third, so that there is time to notice it.
                let from = rng.random_range(first..first + f64::from(WATCHED) / 3.0);
                vec![(from, f64::INFINITY)]
            }
        };
        let bursts =
            if traffic == Traffic::Bursty { (0..8).map(|_| burst(first, last, rng)).collect() } else { Vec::new() };
        Self { traffic, event, spans: happens, bursts }
    }

    /// When the fault begins, if there is one.
    pub(super) fn fault_at(&self) -> Option<f64> {
        if HEALTHY.contains(&self.event) { None } else { self.spans.first().map(|(from, _)| *from) }
    }

    pub(super) fn is_cut_off(&self, at: f64) -> bool {
        self.event == Event::CutOff && self.inside(at).is_some()
    }

    /// Since when something happens.
    fn inside(&self, at: f64) -> Option<f64> {
        self.spans.iter().find(|(from, to)| (*from..*to).contains(&at)).map(|(from, _)| at - from)
    }

    /// The share of requests that fail.
    pub(super) fn failing(&self, at: f64) -> f64 {
        let Some(since) = self.inside(at) else { return EVERYDAY };
        match self.event {
            Event::Nothing | Event::CutOff => EVERYDAY,
            Event::Blips | Event::Restarts | Event::TotalLoss => 1.0,
            Event::Partial(percent) => f64::from(percent) / 100.0,
            Event::SlowLeak => EVERYDAY.max(0.5 * (since / 600.0).min(1.0)),
            // 20 s of each minute are worse than the rest.
            Event::BrownOut => {
                if since % 60.0 < 20.0 {
                    0.8
                } else {
                    0.2
                }
            }
        }
    }

    /// Requests in a second, and how many of them fail.
    pub(super) fn second(&self, at: f64, rng: &mut ChaCha8Rng) -> (u64, u64) {
        let rate = match self.traffic {
            Traffic::Steady => 40.0,
            Traffic::Diurnal => 30.0f64.mul_add((at / f64::from(WATCHED) * std::f64::consts::TAU).sin(), 40.0),
            Traffic::Bursty => {
                if self.bursts.iter().any(|(from, to)| (*from..*to).contains(&at)) {
                    200.0
                } else {
                    20.0
                }
            }
            Traffic::Modest => 2.0,
            Traffic::Low => 0.2,
        };
        let requests = Poisson::new(rate).expect("a rate").sample(rng) as u64;
        let failed = Binomial::new(requests, self.failing(at)).expect("a share").sample(rng);
        (requests, failed)
    }

    /// Whether one request fails.
    pub(super) fn fails(&self, at: f64, rng: &mut ChaCha8Rng) -> bool {
        rng.random_bool(self.failing(at))
    }
}

fn burst(first: f64, last: f64, rng: &mut ChaCha8Rng) -> (f64, f64) {
    let from = rng.random_range(first..last);
    (from, from + rng.random_range(2.0..15.0))
}
