//! Window after window for as long as it is given (`make soak`), with parts that fail in all of them: does the daemon need
//! more and more of the machine?
//!
//! Every window must end, the originals must be whole after each, and every end must have been told. What one daemon needs
//! is looked at after each window and must not grow any more once it is warm.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rollbackd::clock::Stopwatch;
use rollbackd::demo::cluster::Stop;
use rollbackd::journal::redb::FILE;
use rustix::process::Signal;

use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{
    Behaviour, DROP, Daemon, Mail, Mood, QUARANTINE, Sitting, Stage, eventually, runtime, script, until,
};

/// The windows that the journal keeps, so that it is seen to let go of them.
const KEPT_WINDOWS: &str = "20";
/// So many windows are needed to tell growth from noise.
const ENOUGH: usize = 90;
/// How a window ends, and what people are told then.
const ENDS: [&str; 4] = ["passed", "refused", "cancelled", "recovered"];
const TOLD: [&str; 4] = ["window.passed", "window.refused", "window.cancelled", "rollback.recovered"];

/// What goes wrong in a window, beside the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    ApplicationBlips,
    ApplicationHangs,
    ApplicationCannotBeSeen,
    WebhooksAreRefused,
    MailServerIsGone,
    SessionsEnd,
    ServerRestarts,
    TableIsLocked,
    ReloadOfNonsense,
}

const FAULTS: [Fault; 10] = [
    Fault::Nothing,
    Fault::ApplicationBlips,
    Fault::ApplicationHangs,
    Fault::ApplicationCannotBeSeen,
    Fault::WebhooksAreRefused,
    Fault::MailServerIsGone,
    Fault::SessionsEnd,
    Fault::ServerRestarts,
    Fault::TableIsLocked,
    Fault::ReloadOfNonsense,
];

/// What the daemon needs of the machine.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    memory_kib: u64,
    descriptors: u64,
    threads: u64,
    tasks: u64,
    journal_kib: u64,
    state_kib: u64,
}

impl Need {
    fn of(daemon: &Daemon, stage: &Stage) -> Self {
        let proc = PathBuf::from(format!("/proc/{}", daemon.pid()));
        let count = |name: &str| std::fs::read_dir(proc.join(name)).unwrap().count() as u64;
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        // It does not listen for a moment while it takes another configuration over.
        let (_, metrics) = eventually("the daemon answers", || stage.get("/metrics").ok_or("nobody listens"));
        let tasks = metrics.lines().find(|line| line.starts_with("rollbackd_tasks{")).unwrap();
        Self {
            memory_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: count("fd"),
            threads: count("task"),
            tasks: tasks.rsplit_once(' ').unwrap().1.parse().unwrap(),
            journal_kib: stage.state().join(FILE).metadata().unwrap().len() / 1024,
            state_kib: size(&stage.state()) / 1024,
        }
    }

    fn parts(self) -> [(&'static str, u64, u64); 6] {
        // The name, what there is, and by how much it may differ without being growth.
        [
            ("memory, KiB", self.memory_kib, 2048),
            ("descriptors", self.descriptors, 2),
            ("threads", self.threads, 2),
            ("tasks", self.tasks, 2),
            ("journal, KiB", self.journal_kib, 1024),
            ("state_dir, KiB", self.state_kib, 2048),
        ]
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, descriptors, threads, tasks, journal_kib, state_kib } = self;
        write!(f, "{memory_kib:>10} {descriptors:>11} {threads:>7} {tasks:>5} {journal_kib:>11} {state_kib:>13}")
    }
}

/// The bytes of all files below a directory.
fn size(directory: &Path) -> u64 {
    let mut sum = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // What is gone by now has no size.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() { directories.push(entry.path()) } else { sum += metadata.len() }
        }
    }
    sum
}

/// The middle one of a part, over some windows.
fn median(needs: &[Need], part: usize) -> u64 {
    let mut values: Vec<u64> = needs.iter().map(|need| need.parts()[part].1).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// What is played on, and the faults that last.
struct Soak {
    stage: Stage,
    daemon: Daemon,
    mail: Option<Mail>,
    mail_port: u16,
    random: ChaCha8Rng,
}

impl Soak {
    fn start(seed: u64) -> Self {
        let mut stage = Stage::alone("soak");
        let mail = Mail::start(&stage, Behaviour::Greylists(3));
        stage.plan.mail(mail.port());
        let migration = stage.migration(HARMLESS);
        stage.plan.command(&migration);
        let no_use = stage.script("no_use.sh", "exit 3");
        stage.plan.rungs = script(&no_use) + QUARANTINE + DROP;
        stage.set("ROLLBACKD_KEPT_WINDOWS", KEPT_WINDOWS);
        // As systemd/rollbackd@.service has it.
        stage.set("MALLOC_ARENA_MAX", "2");
        let daemon = stage.daemon();
        let mail_port = mail.port();
        Self { stage, daemon, mail: Some(mail), mail_port, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// One window, from `window open` to its end; the end's name.
    fn window(&mut self, fault: Fault) -> String {
        let migration = *[HARMLESS, BREAKING, BREAKING, "select 1/0"].choose(&mut self.random).unwrap();
        self.stage.migration(migration);
        let before = self.newest();
        // Right after a reload the daemon asks for a moment, or is gone over with the request in its hands.
        eventually("a window opens", || {
            let asked = self.stage.cli(&["window", "open"]);
            if asked.code == 0 || self.newest() != before { Ok(()) } else { Err(asked) }
        });
        eventually("the window is past its preparations", || {
            let state = self.stage.window_state();
            if self.newest() == before || state.as_deref() == Some("preparing") { Err(state) } else { Ok(()) }
        });
        self.fails(fault);
        let end = self.ended();
        self.stage.assert_originals_whole();
        self.stage.database.sql("drop table if exists invoices, pages, media_files");
        end
    }

    /// The newest window's name; none before the first.
    fn newest(&self) -> Option<String> {
        let status = eventually("the status is shown", || self.stage.status().ok_or("nobody listens"));
        Some(status["window"]["id"].as_str()?.to_owned())
    }

    /// Something fails somewhere in the window, until the daemon has looked at the application again and again.
    fn fails(&mut self, fault: Fault) {
        self.wait_for_a_place();
        let in_the_way = self.begins(fault);
        // One that hangs is looked at until the reading's time is up.
        let looks = if fault == Fault::ApplicationHangs { 1.0 } else { 5.0 };
        let before = self.looks();
        until("it has been looked at", || self.is_over() || self.looks() >= before + looks);
        drop(in_the_way);
        self.mends(fault);
    }

    /// Waits until the window has come somewhere between the migration's start and the middle of a rollback.
    fn wait_for_a_place(&mut self) {
        let wanted = self.stage.records().len() + self.random.random_range(0..12);
        until("the window has come so far", || self.is_over() || self.stage.records().len() >= wanted);
    }

    /// Whether nothing more comes of the window by itself.
    fn is_over(&self) -> bool {
        self.stage.window_state().is_some_and(|state| state == "needs_operator" || ENDS.contains(&state.as_str()))
    }

    /// How often the application was looked at. A new life begins to count anew.
    fn looks(&self) -> f64 {
        let (_, metrics) = eventually("metrics are served", || self.stage.get("/metrics").ok_or("nobody listens"));
        let line = metrics.lines().find(|line| line.starts_with("rollbackd_probe_attempts_total{"));
        line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse().unwrap()
    }

    /// Something fails from now on; what is held is in the way for as long as it is.
    fn begins(&mut self, fault: Fault) -> Option<Sitting> {
        let Self { stage, daemon, mail, .. } = self;
        match fault {
            Fault::Nothing => {}
            Fault::ApplicationBlips => stage.app.fail_next(2),
            Fault::ApplicationHangs => stage.app.mood(Mood::Hanging),
            Fault::ApplicationCannotBeSeen => stage.app.mood(Mood::Limiting),
            Fault::WebhooksAreRefused => stage.hooks.answer(503),
            Fault::MailServerIsGone => *mail = None,
            Fault::SessionsEnd => {
                let ours = "from pg_stat_activity where application_name = 'rollbackd'";
                stage.database.superuser().sql(&format!("select pg_terminate_backend(pid) {ours}"));
            }
            Fault::ServerRestarts => runtime().block_on(stage.own_server().stop(Stop::Fast)).unwrap(),
            Fault::TableIsLocked => {
                let holder = stage.database.sit_down();
                // The table may not be there; then nothing is in the way.
                drop(holder.ask("begin; lock table pages in access share mode"));
                return Some(holder);
            }
            Fault::ReloadOfNonsense => {
                std::fs::write(stage.path("rollbackd.toml"), "name = 7").unwrap();
                daemon.signal(Signal::HUP);
            }
        }
        None
    }

    /// Everything works again.
    fn mends(&mut self, fault: Fault) {
        let Self { stage, daemon, mail, mail_port, .. } = self;
        stage.app.mood(Mood::Honest);
        stage.hooks.answer(204);
        if mail.is_none() {
            *mail = Some(Mail::start_on(stage, Behaviour::Takes, *mail_port));
        }
        if fault == Fault::ServerRestarts {
            runtime().block_on(stage.own_server().start_again()).unwrap();
            stage.come_back();
        }
        if fault == Fault::ReloadOfNonsense {
            stage.configuration();
            daemon.signal(Signal::HUP);
        }
    }

    /// Waits for the window's end, with a person's help where one is needed.
    fn ended(&self) -> String {
        let mut helped = false;
        let end = eventually("the window is settled", || match self.stage.window_state() {
            Some(state) if state == "needs_operator" => {
                helped = true;
                self.stage.cli(&["window", "resolved", "--reason", "everything works again"]);
                Err(state)
            }
            Some(state) if ENDS.contains(&state.as_str()) => Ok(state),
            state => Err(state.unwrap_or_default()),
        });
        if helped { format!("{end} with a person's help") } else { end }
    }

    /// Every window that was opened has been told of to its end.
    fn assert_all_told(&self, windows: usize) {
        until("nothing is owed any more", || {
            let (_, metrics) = self.stage.get("/metrics").unwrap_or_default();
            metrics.lines().any(|line| line.starts_with("rollbackd_notices_pending{") && line.ends_with(" 0"))
        });
        let told = self.stage.hooks.bodies();
        let mut ends: Vec<&str> = told
            .iter()
            .filter(|body| TOLD.contains(&body["type"].as_str().unwrap_or_default()))
            .map(|body| body["data"]["window"].as_str().unwrap_or_default())
            .collect();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(ends.len(), windows, "the ends that were told of: {ends:?}");
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
#[ignore = "as long as it is given: make soak"]
fn it_needs_no_more_of_the_machine_as_time_goes_on() {
    let minutes = setting("SOAK_MINUTES").unwrap_or(30);
    let seed = setting("SOAK_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("{minutes} min of windows, SEED={seed}\n");
    println!("  min windows memory/KiB descriptors threads tasks journal/KiB state_dir/KiB");
    let mut soak = Soak::start(seed);
    let watch = Stopwatch::start();
    let mut needs = Vec::new();
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    let mut shown = 0;
    while watch.elapsed() < Duration::from_secs(minutes * 60) {
        let fault = FAULTS[needs.len() % FAULTS.len()];
        *ends.entry(soak.window(fault)).or_default() += 1;
        if needs.len() % 10 == 9 {
            soak.stage.cli(&["purge", "--older-than", "1s", "--yes", "--no-archive"]).expect(0);
        }
        let need = Need::of(&soak.daemon, &soak.stage);
        needs.push(need);
        let part = watch.elapsed().as_secs() * 20 / (minutes * 60);
        if part >= shown {
            println!("{:>5} {:>7} {need}", watch.elapsed().as_secs() / 60, needs.len());
            shown = part + 1;
        }
    }
    println!("\n{} windows: {ends:?}", needs.len());
    soak.assert_all_told(needs.len());
    assert!(needs.len() >= ENOUGH, "{} windows are too few to see growth: give it more MINUTES", needs.len());
    let third = needs.len() / 3;
    let (middle, last) = (&needs[third..2 * third], &needs[2 * third..]);
    for (part, (name, _, slack)) in Need::default().parts().into_iter().enumerate() {
        let (before, after) = (median(middle, part), median(last, part));
        println!("{name}: {before} in the middle third, {after} in the last");
        assert!(after <= before + slack, "{name} grows");
    }
    let Soak { daemon, stage, .. } = soak;
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}
