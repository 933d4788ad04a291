//! What is said of a window's life, and to a real receiver.

use std::sync::Mutex;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, Uri};
use rollbackd_core::run::state::{Settled, Window};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::clock;
use crate::config::model::Address;
use crate::server::fixture;

const BOUND: Duration = Duration::from_secs(20);

fn phase(name: &str) -> Phase {
    let (reason, manual) = (String::new(), Vec::new());
    match name {
        "preparing" => Phase::Preparing,
        "watching" => Phase::Watching,
        "soaking" => Phase::Soaking { until: fixture::at("03:00:00") },
        "rolling back" => Phase::RollingBack,
        "needs operator" => Phase::NeedsOperator { reason, manual },
        "resolving" => {
            let proof = rollbackd_core::run::state::Proof::default();
            Phase::Resolving { reason, manual, who: String::new(), forced: false, proof }
        }
        other => panic!("{other}"),
    }
}

/// A state: the windows settled so far, and the phase of the one that is open.
fn state(settled: &[(&str, WindowOutcome)], open: Option<(&str, &str)>) -> State {
    let history = settled.iter().map(|(id, outcome)| Settled {
        id: (*id).to_owned(),
        outcome: *outcome,
        started_at: fixture::at("02:00:00"),
        ended_at: fixture::at("02:30:00"),
        first_seq: 1,
    });
    let window = open.map(|(id, name)| Window { id: id.to_owned(), phase: phase(name), ..fixture::window() });
    State { history: history.collect(), window, ..State::default() }
}

#[test]
fn a_window_is_followed_from_its_opening_to_its_end() {
    use WindowOutcome::{Abandoned, Cancelled, Passed, Recovered, Refused};
    use Word::{Fail, Start, Well};
    type Row<'a> = (&'a [(&'a str, WindowOutcome)], Option<(&'a str, &'a str)>, &'a [Word], &'a [Word]);
    let rows: [Row<'_>; 21] = [
        // What was settled, what is open; what is said, and what is said again.
        (&[], None, &[], &[]),
        (&[], Some(("a", "preparing")), &[Start], &[Well, Start]),
        (&[], Some(("a", "watching")), &[], &[Well, Start]),
        (&[], Some(("a", "soaking")), &[], &[Well, Start]),
        (&[("a", Passed)], None, &[Well], &[]),
        (&[("a", Passed)], None, &[], &[]),
        (&[("a", Passed)], Some(("b", "watching")), &[Start], &[Well, Start]),
        (&[("a", Passed)], Some(("b", "rolling back")), &[Fail], &[Fail]),
        (&[("a", Passed)], Some(("b", "rolling back")), &[], &[Fail]),
        (&[("a", Passed)], Some(("b", "needs operator")), &[Fail], &[Fail]),
        (&[("a", Passed)], Some(("b", "resolving")), &[], &[Fail]),
        (&[("a", Passed)], Some(("b", "needs operator")), &[Fail], &[Fail]),
        (&[("a", Passed), ("b", Recovered)], None, &[Well], &[]),
        // One that is gone before anybody looked, and one that follows at once.
        (&[("a", Passed), ("b", Recovered), ("c", Refused)], None, &[Well], &[]),
        (&[("a", Passed), ("b", Recovered), ("c", Refused)], Some(("d", "watching")), &[Start], &[Well, Start]),
        (
            &[("a", Passed), ("b", Recovered), ("c", Refused), ("d", Cancelled)],
            Some(("e", "preparing")),
            &[Well, Start],
            &[Well, Start],
        ),
        (
            &[("a", Passed), ("b", Recovered), ("c", Refused), ("d", Cancelled)],
            Some(("e", "needs operator")),
            &[Fail],
            &[Fail],
        ),
        // Settled by force: nobody knows whether all is well.
        (&[("a", Passed), ("b", Recovered), ("c", Refused), ("d", Cancelled), ("e", Abandoned)], None, &[Fail], &[]),
        (&[("a", Passed), ("b", Recovered), ("c", Refused), ("d", Cancelled), ("e", Abandoned)], None, &[], &[]),
        (
            &[("a", Passed), ("b", Recovered), ("c", Refused), ("d", Cancelled), ("e", Abandoned)],
            Some(("f", "resolving")),
            &[Fail],
            &[Fail],
        ),
        (
            &[("a", Passed), ("b", Recovered), ("c", Refused), ("d", Cancelled), ("e", Abandoned), ("f", Recovered)],
            None,
            &[Well],
            &[],
        ),
    ];
    let mut course = Course::new(0);
    for (number, (settled, open, said, again)) in rows.into_iter().enumerate() {
        assert_eq!(course.follow(&state(settled, open)), said, "row {number}: {open:?}");
        assert_eq!(course.again(), again, "row {number}: {open:?}");
    }
}

#[test]
fn after_a_restart_only_what_is_open_is_spoken_of() {
    let before = [("a", WindowOutcome::Recovered)];
    let mut course = Course::new(1);
    assert_eq!(course.follow(&state(&before, None)), []);
    for (name, said) in [("soaking", Word::Start), ("rolling back", Word::Fail), ("needs operator", Word::Fail)] {
        let mut course = Course::new(1);
        assert_eq!(course.follow(&state(&before, Some(("b", name)))), [said], "{name}");
    }
}

/// Old windows are let go just when one is settled: it has its last word all the same.
#[test]
fn a_window_at_whose_end_older_ones_are_let_go_has_its_last_word() {
    let five = ["a", "b", "c", "d", "e"].map(|id| (id, WindowOutcome::Passed));
    let mut course = Course::new(5);
    assert_eq!(course.follow(&state(&five, Some(("f", "soaking")))), [Word::Start]);
    let kept = [("e", WindowOutcome::Passed), ("f", WindowOutcome::Recovered)];
    let condensed = State { let_go: 4, ..state(&kept, None) };
    assert_eq!(course.follow(&condensed), [Word::Well]);
    assert_eq!(course.follow(&condensed), []);
}

#[test]
fn start_and_fail_are_behind_the_path() {
    for (url, start) in [
        ("https://hc.example/ping/5ecret", "https://hc.example/ping/5ecret/start"),
        ("https://hc.example/ping/5ecret/", "https://hc.example/ping/5ecret/start"),
        ("https://u:p@hc.example:8443/5ecret?k=v", "https://u:p@hc.example:8443/5ecret/start?k=v"),
        ("http://hc.example", "http://hc.example/start"),
    ] {
        let url = Url::parse(url).unwrap();
        assert_eq!(Word::Start.at(&url).as_str(), start);
        assert_eq!(Word::Fail.at(&url).as_str(), start.replace("/start", "/fail"));
        assert_eq!(Word::Well.at(&url), url);
    }
}

type Inside = Arc<(Mutex<Vec<String>>, Mutex<StatusCode>)>;

/// A receiver; dropped, it is gone.
struct Receiver {
    url: String,
    inside: Inside,
    _server: JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        let inside: Inside = Arc::new((Mutex::default(), Mutex::new(StatusCode::OK)));
        let take = |Shared(inside): Shared<Inside>, uri: Uri| async move {
            inside.0.lock().unwrap().push(uri.path().trim_start_matches("/5ecret").to_owned());
            *inside.1.lock().unwrap()
        };
        let router = Router::new().fallback(take).with_state(Arc::clone(&inside));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/5ecret", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inside, _server: server }
    }

    fn heard(&self) -> Vec<String> {
        self.inside.0.lock().unwrap().clone()
    }

    fn answer(&self, status: StatusCode) {
        *self.inside.1.lock().unwrap() = status;
    }

    /// Waits until what was heard since `from` is so.
    async fn until(&self, from: usize, what: &str, so: impl Fn(&[String]) -> bool) -> usize {
        let waiting = timeout(BOUND, async {
            while !so(&self.heard()[from..]) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waiting.await.is_ok(), "{what}: {:?}", &self.heard()[from..]);
        self.heard().len()
    }
}

/// A heartbeat that follows what is shown to it.
struct Beating {
    shown: watch::Sender<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Beating {
    fn start(url: &str) -> Self {
        let metrics = Arc::new(Metrics::new(&fixture::plan()).unwrap());
        let configured = model::Heartbeat { url: Address::new(url.parse().unwrap()), every: Duration::from_millis(40) };
        let heartbeat = Heartbeat::new(&configured, Arc::clone(&metrics)).unwrap();
        let (shown, seen) = watch::channel(Arc::new(fixture::quiet(clock::now())));
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(heartbeat.follow(seen, cancel.clone()));
        Self { shown, metrics, cancel, tasks }
    }

    fn show(&self, settled: &[(&str, WindowOutcome)], open: Option<(&str, &str)>) {
        let state = Arc::new(state(settled, open));
        self.shown.send_replace(Arc::new(Snapshot { state, ..fixture::quiet(clock::now()) }));
    }

    fn counted(&self, name: &str, signal: &str) -> u64 {
        let (series, label) = (format!("rollbackd_heartbeat_{name}_total{{"), format!("signal=\"{signal}\""));
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&series) && line.contains(&label));
        line.unwrap_or_else(|| panic!("no {series}{label}: {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    async fn end(mut self) {
        self.cancel.cancel();
        let ended = timeout(BOUND, async { while self.tasks.join_next().await.is_some() {} });
        assert!(ended.await.is_ok(), "it does not end");
    }
}

#[tokio::test]
async fn a_receiver_hears_start_pings_fail_and_then_silence() {
    let receiver = Receiver::start().await;
    let beating = Beating::start(&receiver.url);
    beating.show(&[], Some(("a", "preparing")));
    let pings = |heard: &[String]| heard.iter().filter(|one| one.is_empty()).count() >= 3;
    let from = receiver.until(0, "it is pinged while all is well", pings).await;
    assert_eq!(receiver.heard()[..3], ["/start", "", "/start"]);
    assert!(!receiver.heard().contains(&"/fail".to_owned()), "{:?}", receiver.heard());

    beating.show(&[], Some(("a", "rolling back")));
    let fails = |heard: &[String]| heard.iter().filter(|one| *one == "/fail").count() >= 3;
    let from = receiver.until(from, "it hears that it fails, again and again", fails).await;
    let last = receiver.heard()[from - 1].clone();
    assert_eq!(last, "/fail");

    beating.show(&[("a", WindowOutcome::Recovered)], None);
    let end = receiver.until(from, "the last word", |heard| heard.last().is_some_and(String::is_empty)).await;
    // Twenty turns later nothing more has come.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(receiver.heard().len(), end, "{:?}", &receiver.heard()[from..]);
    let counts = ["start", "well", "fail"].map(|signal| beating.counted("pings", signal));
    assert_eq!(usize::try_from(counts.iter().sum::<u64>()).unwrap(), end);
    assert_eq!(["start", "well", "fail"].map(|signal| beating.counted("failures", signal)), [0; 3]);
    beating.end().await;
}

#[tokio::test]
async fn the_last_word_is_said_again_until_it_is_heard() {
    let receiver = Receiver::start().await;
    let beating = Beating::start(&receiver.url);
    beating.show(&[], Some(("a", "watching")));
    let from = receiver.until(0, "it begins", |heard| !heard.is_empty()).await;
    receiver.answer(StatusCode::BAD_GATEWAY);
    beating.show(&[("a", WindowOutcome::Passed)], None);
    let refused = |heard: &[String]| heard.iter().filter(|one| one.is_empty()).count() >= 3;
    receiver.until(from, "it is said again", refused).await;
    receiver.answer(StatusCode::OK);
    let before = receiver.heard().len();
    let end = receiver.until(before, "and heard", |heard| !heard.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(receiver.heard().len() <= end + 1, "{:?}", receiver.heard());
    assert!(beating.counted("failures", "well") >= 2);
    beating.end().await;

    // One that never hears is left alone after a while.
    let beating = Beating::start(&receiver.url);
    let from = receiver.heard().len();
    receiver.answer(StatusCode::NOT_FOUND);
    beating.show(&[("a", WindowOutcome::Passed)], None);
    let said = |heard: &[String]| heard.len() >= LAST_WORDS as usize;
    receiver.until(from, "it is said so often", said).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(receiver.heard().len() - from, LAST_WORDS as usize);
    beating.end().await;
}

#[tokio::test]
async fn a_window_that_is_settled_as_the_program_ends_gets_its_last_word() {
    let receiver = Receiver::start().await;
    let beating = Beating::start(&receiver.url);
    beating.show(&[], Some(("a", "soaking")));
    let from = receiver.until(0, "it begins", |heard| !heard.is_empty()).await;
    beating.show(&[("a", WindowOutcome::Passed)], None);
    beating.end().await;
    assert_eq!(receiver.heard()[from..].last().map(String::as_str), Some(""), "{:?}", receiver.heard());
}

#[tokio::test]
async fn one_that_ends_in_the_middle_of_a_window_says_nothing() {
    let receiver = Receiver::start().await;
    let beating = Beating::start(&receiver.url);
    beating.show(&[], Some(("a", "rolling back")));
    receiver.until(0, "it begins", |heard| !heard.is_empty()).await;
    beating.end().await;
    assert!(receiver.heard().iter().all(|one| one == "/fail"), "not that all is well: {:?}", receiver.heard());
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_no_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let beating = Beating::start(&format!("http://{}/5ecret", listener.local_addr().unwrap()));
    beating.show(&[], Some(("a", "watching")));
    let (_connection, _) = timeout(BOUND, listener.accept()).await.expect("it is asked").unwrap();
    let watch = clock::Stopwatch::start();
    beating.end().await;
    assert!(watch.elapsed() < FAREWELL + Duration::from_secs(1), "{:?}", watch.elapsed());
}
