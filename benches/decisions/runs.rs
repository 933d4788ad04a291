//! Runs: a world, its samples, and what each decider makes of them.

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rollbackd_core::plan::Plan;
use rollbackd_core::replay::{Replay, Seen};
use rollbackd_core::sample::{Reading, Sample};

use super::rivals::{self, Decider, PROBE, REQUESTS};
use super::world::{Event, FAULTS, HEALTHY, TRAFFIC, Traffic, WARM_UP, WATCHED, World};

/// What a decider made of all runs of one model.
#[derive(Debug, serde::Serialize)]
pub(super) struct Result {
    pub(super) decider: Decider,
    pub(super) traffic: Traffic,
    pub(super) event: Event,
    /// Healthy windows that were rolled back, and faults that were noticed before they began.
    pub(super) false_rollbacks: u64,
    /// Faults that were not noticed.
    pub(super) missed: u64,
    /// Seconds from each fault that was noticed to the decision.
    pub(super) delays: Vec<f64>,
}

/// All models, all deciders.
pub(super) fn all(shipped: &Plan, runs: u64, seed: u64) -> Vec<Result> {
    let models: Vec<(Traffic, Event)> = TRAFFIC
        .into_iter()
        .flat_map(|traffic| HEALTHY.into_iter().chain(FAULTS).map(move |event| (traffic, event)))
        .collect();
    let each = |(number, (traffic, event)): (usize, &(Traffic, Event))| {
        model(shipped, *traffic, *event, runs, seed ^ ((number as u64) << 32))
    };
    let (even, odd): (Vec<_>, Vec<_>) = models.iter().enumerate().partition(|(number, _)| number % 2 == 0);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| odd.into_iter().flat_map(each).collect::<Vec<_>>());
        let mut results: Vec<Result> = even.into_iter().flat_map(each).collect();
        results.extend(other.join().expect("the other half"));
        results
    })
}

fn model(shipped: &Plan, traffic: Traffic, event: Event, runs: u64, seed: u64) -> Vec<Result> {
    let mut results = rivals::ALL.map(|decider| Result {
        decider,
        traffic,
        event,
        false_rollbacks: 0,
        missed: 0,
        delays: Vec::new(),
    });
    for run in 0..runs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(run));
        let world = World::new(traffic, event, &mut rng);
        let samples = samples(shipped, &world, &mut rng);
        for result in &mut results {
            let decided = decided(shipped, result.decider, &samples);
            match (world.fault_at(), decided) {
                (None, None) => {}
                (None, Some(_)) => result.false_rollbacks += 1,
                (Some(_), None) => result.missed += 1,
                (Some(fault), Some(at)) if at < fault => result.false_rollbacks += 1,
                (Some(fault), Some(at)) => result.delays.push(at - fault),
            }
        }
    }
    results.into()
}

fn begin() -> Timestamp {
    Timestamp::from_second(1_795_312_800).expect("in range")
}

/// The samples of every signal, in order of time. A probe's sample is there when its answer is.
fn samples(plan: &Plan, world: &World, rng: &mut ChaCha8Rng) -> Vec<(usize, Sample)> {
    let mut all = Vec::new();
    for (place, signal) in plan.signals.iter().enumerate() {
        let every = signal.every.as_secs_f64();
        // Each signal has a phase of its own.
        let mut at = (place as f64 * 0.618) % every.min(1.0);
        let mut since = 0.0;
        while at < f64::from(WARM_UP + WATCHED) {
            let reading = match signal.name.as_str() {
                REQUESTS => {
                    let (mut good, mut bad) = (0, 0);
                    let mut second: f64 = since;
                    while second < at {
                        let (requests, failed) = world.second(second, rng);
                        bad += failed;
                        good += requests - failed;
                        second += 1.0;
                    }
                    since = second;
                    Reading::Events { good, bad, value: None, reason: None }
                }
                _ if world.is_cut_off(at) => Reading::unreadable("no witness answers"),
                PROBE if world.fails(at, rng) => Reading::bad("status 500"),
                // The database is never ill here.
                _ => Reading::good(),
            };
            let at_instant = begin() + SignedDuration::from_micros((at * 1e6) as i64);
            all.push((place, Sample { at: at_instant, took: SignedDuration::from_millis(20), reading }));
            at += every;
        }
    }
    all.sort_by_key(|(_, sample)| sample.at);
    all
}

/// When the decider would have rolled back, in seconds from the beginning.
fn decided(shipped: &Plan, decider: Decider, samples: &[(usize, Sample)]) -> Option<f64> {
    let plan = decider.plan(shipped);
    let seconds = |at: Timestamp| at.duration_since(begin()).as_secs_f64();
    let watched = |at: &Timestamp| seconds(*at) >= f64::from(WARM_UP);
    let seen = samples.iter().map(|(place, sample)| {
        let reading = match &sample.reading {
            Reading::Unreadable { reason } if !decider.knows_unreadable() => Reading::bad(reason.clone()),
            reading @ (Reading::Events { .. } | Reading::Unreadable { .. }) => reading.clone(),
        };
        (*place, Sample { reading, ..sample.clone() })
    });
    if decider == Decider::ThreeInTotal {
        let probe = plan.signals.iter().position(|signal| signal.name == PROBE)?;
        let failed = seen.filter(|(place, sample)| *place == probe && sample.reading.is_bad() && watched(&sample.at));
        return failed.map(|(_, sample)| seconds(sample.at)).nth(2);
    }
    let mut replay = Replay::new(&plan, begin(), true);
    for (place, sample) in seen {
        let at = sample.at;
        replay.take(Seen::Sample(place, sample), at);
        if let Some(decided) = replay.decided() {
            return Some(seconds(decided.at));
        }
    }
    None
}
