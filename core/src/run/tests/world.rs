//! A small world in memory, and the driver's loop around it in virtual time.
//!
//! The world holds what survives a crash: tables, gates, processes, the journal, what was delivered. The state and
//! what is under way are lost with a crash, and come back from the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::decide::decide;
use super::super::event::{Ask, DueOpening, Event, Request};
use super::super::pending::{Effect, pending};
use super::super::record::{Entry, Process, Record};
use super::super::state::{GatePosition, Phase, State, StateName};
use super::super::step::{CheckResult, Finding, Outcome, RemovalFinding, RemovedTable, Step, StepResult};
use crate::baseline::{Baseline, Catalog, Difference, Object, ObjectId, ObjectKind, RowCount, TableName};
use crate::judge::{Assessment, Evidence, Verdict};
use crate::notice::Notice;
use crate::plan::{
    CheckPlan, Consequence, Contact, DatabasePlan, DecisionPlan, Dispose, GatePlan, Links, Method, Missed, OnBlocked,
    OnCommandFailure, Plan, Removal, RollbackPlan, Rung, Severity, SignalPlan, Stage, TableChoice, WindowPlan,
};

pub(super) const ORIGINALS: [&str; 2] = ["posts", "profiles"];
pub(super) const ADDED: [&str; 4] = ["content_blocks", "media \"files\"", "pages", "user_sessions"];
const OPEN: &str = "as it was";
const CLOSED: &str = "closed";

pub(super) const fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// So many seconds after the opening.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_312_800 + seconds).expect("in range")
}

/// The runbook's plan: a script, then the tables.
pub(super) fn plan() -> Plan {
    let check =
        |name: &str, stage| CheckPlan { name: name.to_owned(), kind: "sql".to_owned(), stage, within: secs(20) };
    Plan {
        name: "shop".to_owned(),
        host: "db1".to_owned(),
        config_sha256: "9f2c".to_owned(),
        window: WindowPlan {
            schedule: Some("0 2 * * SUN".to_owned()),
            timezone: "UTC".to_owned(),
            duration: secs(3600),
            soak: secs(600),
            missed: Missed::Skip,
            command: Some(vec!["supabase".to_owned(), "db".to_owned(), "push".to_owned()]),
            on_command_failure: OnCommandFailure::Rollback,
        },
        database: DatabasePlan {
            schema: "public".to_owned(),
            original_tables: ORIGINALS.map(str::to_owned).to_vec(),
            protected_schemas: vec!["auth".to_owned()],
        },
        healthy_for: secs(30),
        preflight_skipped: vec![],
        signals: vec![SignalPlan { name: "api".to_owned(), every: secs(5), timeout: secs(2), implicates: vec![] }],
        rules: vec![],
        decision: DecisionPlan { confirm: SignedDuration::ZERO, at_least: 1, blind_after: secs(60) },
        rollback: RollbackPlan {
            budget: secs(900),
            approve_always: false,
            repeat_page: secs(900),
            grace: secs(5),
            gates: vec![gate("edge")],
            rungs: vec![script_rung(), tables_rung()],
        },
        checks: vec![check("tables", Stage::Closed), check("sign in", Stage::Open)],
        contacts: vec![contact("Operations")],
        links: Links::default(),
    }
}

pub(super) fn gate(name: &str) -> GatePlan {
    GatePlan {
        name: name.to_owned(),
        required: false,
        manual_stop: format!("touch /run/{name}/stop"),
        manual_start: format!("rm /run/{name}/stop"),
    }
}

pub(super) fn script_rung() -> Rung {
    let command = vec!["node".to_owned(), "scripts/rollback-emergency.js".to_owned()];
    Rung { timeout: secs(120), needs_approval: false, method: Method::Script { command, idempotent: false } }
}

pub(super) fn tables_rung() -> Rung {
    let removal = Removal { tables: TableChoice::Added, dispose: Dispose::Quarantine, on_blocked: OnBlocked::Wait };
    Rung { timeout: secs(120), needs_approval: false, method: Method::Tables(removal) }
}

pub(super) fn contact(name: &str) -> Contact {
    Contact {
        role: "system administrator".to_owned(),
        name: name.to_owned(),
        severity: Severity::Info,
        after: SignedDuration::ZERO,
        channels: vec!["email 1".to_owned()],
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Migration {
    Passes,
    /// Adds its tables, then exits with 1.
    Fails,
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Heals,
    /// Exits with 0 and changes nothing.
    Lies,
    Fails,
    /// Exits with 1 when everything is done.
    FailsButHeals,
    TimesOut,
    /// Exits with 0 when half is done.
    Half,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    Works,
    Locked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// Passes when nothing added is left.
    WhenClean,
    Never,
    /// The open stage fails so often before it passes.
    OpenFails(u32),
    /// Does not pass before somebody has put something right, at this second.
    From(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Works,
    Unreadable,
    /// Cannot be closed.
    Jammed,
    /// Closes, and fails to open so often.
    Sticks(u32),
    /// Closes once, and opens, and cannot be closed again.
    ClosesOnce,
}

/// When somebody asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(i64),
    State(StateName),
    /// While a step of this name is under way.
    Step(&'static str),
    /// While a rung waits for an approval.
    Waiting,
}

/// Where the program ends without a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    BeforeAppend(usize),
    AfterAppend(usize),
    /// While an effect is under way: nothing done yet, processes live on.
    BeforeEffect(usize),
    /// Half done, where that is possible; processes die too.
    HalfEffect(usize),
    /// Done, and nobody has heard of it.
    AfterEffect(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) plan: Plan,
    pub(super) preflight: bool,
    pub(super) backup: bool,
    /// How long the backup takes.
    pub(super) backup_takes: i64,
    /// Whether the signals are bad before the migration.
    pub(super) sick: bool,
    /// When the signals turn bad by themselves.
    pub(super) sick_at: Option<i64>,
    pub(super) migration: Migration,
    /// How long the migration takes.
    pub(super) migration_takes: i64,
    /// What the rules say while the migration's tables are there.
    pub(super) breaks: Option<Consequence>,
    /// From when to when nothing can be read.
    pub(super) blind: Option<(i64, i64)>,
    pub(super) script: Script,
    pub(super) tables: Tables,
    pub(super) verification: Verification,
    pub(super) doors: Vec<Door>,
    /// Channels that never deliver, as `contact/channel`.
    pub(super) dead: Vec<&'static str>,
    /// Whether a process that outlived a crash cannot be ended.
    pub(super) unkillable: bool,
    pub(super) deeds: Vec<(When, Ask)>,
    pub(super) crashes: Vec<Crash>,
    /// How long a crash keeps the program down.
    pub(super) down: i64,
    /// When the world ends.
    pub(super) limit: i64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            plan: plan(),
            preflight: true,
            backup: true,
            backup_takes: 5,
            sick: false,
            sick_at: None,
            migration: Migration::Passes,
            migration_takes: 60,
            breaks: None,
            blind: None,
            script: Script::Heals,
            tables: Tables::Works,
            verification: Verification::WhenClean,
            doors: vec![Door::Works],
            dead: vec![],
            unkillable: false,
            deeds: vec![],
            crashes: vec![],
            down: 3,
            limit: 3 * 3600,
        }
    }
}

/// The program has ended without a warning.
struct Crashed;

#[derive(Debug, Clone)]
struct Running {
    effect: Effect,
    ends_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Proc {
    step: u64,
    script: bool,
    /// When it ends by itself; `None`: never.
    ends_at: Option<Timestamp>,
}

pub(super) struct World {
    pub(super) setup: Setup,
    plan: Arc<Plan>,
    pub(super) now: Timestamp,
    // What survives a crash.
    pub(super) journal: Vec<Entry>,
    pub(super) tables: BTreeSet<String>,
    pub(super) gates: Vec<String>,
    procs: Vec<Proc>,
    closings: Vec<u32>,
    openings_failed: Vec<u32>,
    open_checks_failed: u32,
    pub(super) delivered: BTreeMap<(String, String), u32>,
    /// In the order in which they came.
    pub(super) mailbox: Vec<(String, String)>,
    pub(super) refusals: Vec<String>,
    deed: usize,
    pub(super) appends: usize,
    pub(super) effects: usize,
    pub(super) crashed: usize,
    // What does not.
    pub(super) state: State,
    running: Vec<Running>,
    ticked_at: Timestamp,
}

impl World {
    /// The world of a setup, run to its end.
    pub(super) fn run(setup: Setup) -> Self {
        let plan = Arc::new(setup.plan.clone());
        let doors = setup.doors.len();
        let mut world = Self {
            plan,
            now: at(0),
            journal: vec![],
            tables: ORIGINALS.map(str::to_owned).into(),
            gates: vec![OPEN.to_owned(); doors],
            procs: vec![],
            closings: vec![0; doors],
            openings_failed: vec![0; doors],
            open_checks_failed: 0,
            delivered: BTreeMap::new(),
            mailbox: vec![],
            refusals: vec![],
            deed: 0,
            appends: 0,
            effects: 0,
            crashed: 0,
            state: State::default(),
            running: vec![],
            ticked_at: at(0),
            setup,
        };
        world.live();
        world.check();
        world
    }

    fn live(&mut self) {
        let mut turn = self.restarted();
        for turns in 0.. {
            assert!(turns < 20_000, "the world does not come to an end: {}", self.story());
            match turn {
                Ok(true) => turn = self.turn(),
                Ok(false) => return,
                Err(Crashed) => {
                    self.crashed += 1;
                    assert_eq!(State::replay(&self.journal).window.is_some(), self.open_in_journal());
                    self.running.clear();
                    self.now += secs(self.setup.down);
                    self.processes_go_on();
                    turn = self.restarted();
                }
            }
        }
    }

    fn open_in_journal(&self) -> bool {
        let count = |wanted: fn(&Record) -> bool| self.journal.iter().filter(|entry| wanted(&entry.record)).count();
        count(|record| matches!(record, Record::WindowOpened { .. }))
            > count(|record| matches!(record, Record::WindowSettled { .. }))
    }

    fn restarted(&mut self) -> Result<bool, Crashed> {
        self.state = State::replay(&self.journal);
        self.ticked_at = self.now;
        self.feed(Event::Restarted { version: "0.1.0".to_owned() })?;
        self.look()?;
        Ok(true)
    }

    /// One turn of the loop; `false` at the end.
    fn turn(&mut self) -> Result<bool, Crashed> {
        let due = pending(&self.state, self.now);
        self.running.retain(|running| due.effects.contains(&running.effect));
        let fresh = |effect: &&Effect| self.running.iter().all(|running| running.effect != **effect);
        if let Some(effect) = due.effects.iter().find(fresh).cloned() {
            self.begin(effect)?;
            return Ok(true);
        }
        if self.deed()? {
            return Ok(true);
        }
        let over = self.state.window.is_none() && self.state.owed.is_empty();
        if over || self.now >= at(self.setup.limit) {
            return Ok(false);
        }
        self.notice_the_gone();
        let tick = match self.state.window.as_ref().map(|window| &window.phase) {
            Some(Phase::Preparing | Phase::Watching | Phase::Soaking { .. }) => secs(10),
            Some(Phase::RollingBack | Phase::NeedsOperator { .. } | Phase::Resolving { .. }) => secs(120),
            None => secs(600),
        };
        let timed = match self.setup.deeds.get(self.deed) {
            Some((When::At(second), _)) => Some(at(*second)),
            Some((When::State(_) | When::Step(_) | When::Waiting, _)) | None => None,
        };
        let ends = self.running.iter().map(|running| running.ends_at);
        let procs = self.procs.iter().filter_map(|proc| proc.ends_at);
        let wakes = due.wake_at.into_iter().chain(timed).chain([self.ticked_at + tick]);
        let next = ends.chain(procs).chain(wakes).min().expect("there is always a tick");
        self.now = self.now.max(next);
        self.pass()?;
        Ok(true)
    }

    /// Who waits for a process sees that it is gone.
    fn notice_the_gone(&mut self) {
        for running in &mut self.running {
            let Effect::Perform { window, number } = &running.effect else { continue };
            if let Some(Step::AwaitProcess { of }) = self.state.step(window, *number).map(|one| &one.step) {
                if self.procs.iter().all(|proc| proc.step != *of) {
                    running.ends_at = self.now;
                }
            }
        }
    }

    /// Lets happen what is due now.
    fn pass(&mut self) -> Result<(), Crashed> {
        if let Some(place) = self.procs.iter().position(|proc| proc.ends_at.is_some_and(|end| end <= self.now)) {
            let proc = self.procs[place].clone();
            self.count_effect(|world| world.finish(&proc, true))?;
            self.finish(&proc, false);
            self.effect_done()?;
            if self.performs(proc.step) {
                let outcome = self.exit(&proc);
                return self.end(proc.step, outcome);
            }
            return Ok(());
        }
        if let Some(place) = self.running.iter().position(|running| running.ends_at <= self.now) {
            match self.running[place].effect.clone() {
                Effect::Perform { number, .. } => return self.perform(number),
                Effect::Deliver { notice, contact, channel } => return self.deliver(notice, contact, channel),
            }
        }
        self.look()
    }

    fn performs(&self, number: u64) -> bool {
        self.running
            .iter()
            .any(|running| matches!(&running.effect, Effect::Perform { number: one, .. } if *one == number))
    }

    /// Counts an effect that is about to be done; `half` does half of it.
    fn count_effect(&mut self, half: impl FnOnce(&mut Self)) -> Result<(), Crashed> {
        self.effects += 1;
        if self.setup.crashes.contains(&Crash::BeforeEffect(self.effects)) {
            return Err(Crashed);
        }
        if self.setup.crashes.contains(&Crash::HalfEffect(self.effects)) {
            half(self);
            self.procs.clear();
            return Err(Crashed);
        }
        Ok(())
    }

    fn effect_done(&self) -> Result<(), Crashed> {
        if self.setup.crashes.contains(&Crash::AfterEffect(self.effects)) { Err(Crashed) } else { Ok(()) }
    }

    /// Asks the judge, and looks at the time.
    fn look(&mut self) -> Result<(), Crashed> {
        self.ticked_at = self.now;
        if self.state.window.is_some() {
            let assessment = self.assessment();
            self.feed(Event::Assessed(assessment))?;
        }
        let due =
            if self.state.last_opening.is_none() { vec![DueOpening { at: at(0), missed: false }] } else { vec![] };
        self.feed(Event::Pulse { due })
    }

    fn assessment(&self) -> Assessment {
        let broken = self.tables.len() > ORIGINALS.len();
        let blind = self.setup.blind.is_some_and(|(from, to)| at(from) <= self.now && self.now < at(to));
        let sick = self.setup.sick || self.setup.sick_at.is_some_and(|from| at(from) <= self.now);
        let breached: Vec<Evidence> = match self.setup.breaks {
            _ if blind => vec![],
            Some(then) if broken => vec![evidence("down", then, self.now)],
            Some(_) | None if sick => vec![evidence("down", Consequence::Rollback, self.now)],
            Some(_) | None => vec![],
        };
        let verdict = match breached.first() {
            _ if blind => Verdict::Blind,
            Some(one) if one.then == Consequence::Rollback => Verdict::Breached,
            Some(_) | None => Verdict::Healthy,
        };
        Assessment {
            at: self.now,
            verdict,
            breached,
            blind: if blind { vec!["signal api could not be read".to_owned()] } else { vec![] },
            healthy_since: (!sick && !blind).then(|| at(-20)),
            unhealthy: if sick { vec!["signal api was bad".to_owned()] } else { vec![] },
        }
    }

    /// Lets people ask for what they want to ask for.
    fn deed(&mut self) -> Result<bool, Crashed> {
        let Some((when, ask)) = self.setup.deeds.get(self.deed).cloned() else { return Ok(false) };
        let window = self.state.window.as_ref();
        let ready = match when {
            When::At(second) => self.now >= at(second),
            When::State(name) => self.state.state_name() == Some(name),
            When::Step(name) => {
                window.is_some_and(|open| open.in_flight.iter().any(|running| running.step.name() == name))
            }
            When::Waiting => {
                window.and_then(|open| open.rollback.as_ref()).is_some_and(|rollback| rollback.waiting_since.is_some())
            }
        };
        if ready {
            self.feed(request(ask))?;
            self.deed += 1;
        }
        Ok(ready)
    }

    pub(super) fn feed(&mut self, event: Event) -> Result<(), Crashed> {
        let entries = match decide(&self.state, &self.plan, self.now, event) {
            Ok(entries) => entries,
            Err(refusal) => {
                self.refusals.push(refusal.message);
                return Ok(());
            }
        };
        if entries.is_empty() {
            return Ok(());
        }
        self.appends += 1;
        if self.setup.crashes.contains(&Crash::BeforeAppend(self.appends)) {
            return Err(Crashed);
        }
        self.journal.extend(entries.iter().cloned());
        if self.setup.crashes.contains(&Crash::AfterAppend(self.appends)) {
            return Err(Crashed);
        }
        entries.iter().for_each(|entry| self.state.apply(entry));
        Ok(())
    }

    fn begin(&mut self, effect: Effect) -> Result<(), Crashed> {
        let mut running = Running { effect, ends_at: self.now + secs(1) };
        let Effect::Perform { window, number } = &running.effect else {
            self.running.push(running);
            return Ok(());
        };
        let (number, in_flight) = (*number, self.state.step(window, *number).expect("an effect has a step").clone());
        let process = match in_flight.step {
            Step::Migrate => Some((false, self.setup.migration_takes, self.setup.migration == Migration::Hangs)),
            Step::Act { rung } if self.is_script(rung) => Some((true, 5, self.setup.script == Script::TimesOut)),
            Step::Backup => {
                running.ends_at = (self.now + secs(self.setup.backup_takes)).min(in_flight.deadline.max(self.now));
                None
            }
            Step::AwaitProcess { .. } => {
                running.ends_at = in_flight.deadline.max(self.now);
                None
            }
            Step::Act { .. }
            | Step::Preflight
            | Step::EndProcess { .. }
            | Step::ReadGate { .. }
            | Step::CloseGate { .. }
            | Step::OpenGate { .. }
            | Step::Inspect { .. }
            | Step::Verify { .. } => None,
        };
        if matches!(in_flight.step, Step::Act { .. }) {
            self.check_act();
        }
        if let Some((script, takes, hangs)) = process {
            running.ends_at = in_flight.deadline.max(self.now);
            let ends_at = (!hangs).then(|| self.now + secs(takes));
            assert!(self.procs.is_empty(), "two processes at once: {}", self.story());
            self.procs.push(Proc { step: number, script, ends_at });
            self.running.push(running);
            let pid = i32::try_from(number).expect("small");
            let process = Process { pid, start_ticks: 1, boot_id: "b".to_owned() };
            let told = self.feed(Event::ProcessStarted { step: number, process });
            if !matches!(self.journal.last().map(|entry| &entry.record), Some(Record::ProcessStarted { .. })) {
                // Nobody could ever find it again: in this world such a process dies with the program.
                self.procs.clear();
            }
            return told;
        }
        self.running.push(running);
        Ok(())
    }

    fn is_script(&self, rung: usize) -> bool {
        matches!(self.setup.plan.rollback.rungs[rung].method, Method::Script { .. })
    }

    /// Before anything is taken back, traffic is stopped as far as it can be, and nothing else is at work.
    fn check_act(&self) {
        let story = self.story();
        assert!(self.procs.is_empty(), "something still runs: {story}");
        let rollback = self.state.window.as_ref().and_then(|window| window.rollback.as_ref()).expect("a rollback");
        for (place, gate) in rollback.gates.iter().enumerate() {
            assert!(
                matches!(gate.position, GatePosition::Closed | GatePosition::CloseFailed | GatePosition::Unreadable),
                "gate {place} is {:?}: {story}",
                gate.position
            );
            if matches!(self.setup.doors[place], Door::Works | Door::Sticks(_)) {
                assert_eq!(self.gates[place], CLOSED, "{story}");
            }
        }
    }

    /// A process comes to its end and has done its work, or half of it.
    fn finish(&mut self, proc: &Proc, half: bool) {
        self.procs.retain(|one| one.step != proc.step);
        let most = if half { ADDED.len() / 2 } else { ADDED.len() };
        if !proc.script {
            self.tables.extend(ADDED[..most].iter().map(|name| (*name).to_owned()));
            return;
        }
        let taken = match self.setup.script {
            Script::Heals | Script::FailsButHeals => most,
            Script::Half => ADDED.len() / 2,
            Script::Lies | Script::Fails | Script::TimesOut => 0,
        };
        ADDED[..taken].iter().for_each(|name| {
            self.tables.remove(*name);
        });
    }

    fn exit(&self, proc: &Proc) -> Outcome {
        let good = if proc.script {
            matches!(self.setup.script, Script::Heals | Script::Lies | Script::Half)
        } else {
            self.setup.migration == Migration::Passes
        };
        let code = i32::from(!good);
        let detail = format!("the {} exited with {code}", if proc.script { "script" } else { "migration" });
        let outcome = if good { Outcome::succeeded(detail, Finding::Nothing) } else { Outcome::failed(detail) };
        outcome.with(Finding::Process { exit_code: Some(code), output: String::new(), output_file: None })
    }

    /// While the program was down, processes went on.
    fn processes_go_on(&mut self) {
        let done = self.procs.iter().filter(|proc| proc.ends_at.is_some_and(|end| end <= self.now));
        for proc in done.cloned().collect::<Vec<_>>() {
            self.finish(&proc, false);
        }
    }

    fn end(&mut self, step: u64, outcome: Outcome) -> Result<(), Crashed> {
        let ours = |effect: &Effect| matches!(effect, Effect::Perform { number, .. } if *number == step);
        self.running.retain(|running| !ours(&running.effect));
        self.feed(Event::StepEnded { step, outcome })
    }

    fn perform(&mut self, number: u64) -> Result<(), Crashed> {
        let window = self.state.window.as_ref().expect("a step has a window");
        let step = self.state.step(&window.id, number).expect("an effect has a step").step.clone();
        if let (Step::EndProcess { of }, true) = (&step, self.procs.iter().any(|proc| self.performs(proc.step))) {
            // Ours: its own task ends it, and tells of it first.
            self.procs.retain(|proc| proc.step != *of);
            self.end(*of, Outcome::failed("it was ended, because a rollback started"))?;
            if !self.performs(number) {
                return Ok(());
            }
        }
        let to_be_halved = step.clone();
        self.count_effect(|world| {
            if let Step::Act { .. } = to_be_halved {
                // One transaction: it is either done or not.
            } else if let Step::CloseGate { gate } = to_be_halved {
                world.gates[gate] = CLOSED.to_owned();
            }
        })?;
        let outcome = self.do_step(&step);
        self.effect_done()?;
        self.end(number, outcome)
    }

    fn do_step(&mut self, step: &Step) -> Outcome {
        let said = |good: bool, what: &str, finding| {
            if good {
                Outcome::succeeded(format!("{what} went well"), finding)
            } else {
                Outcome::failed(format!("{what} failed"))
            }
        };
        match step {
            Step::Preflight => said(self.setup.preflight, "the preflight", Finding::Nothing),
            Step::Backup => {
                let baseline = Arc::new(self.baseline());
                if self.state.window.as_ref().is_some_and(|window| self.now >= window.ends_at) {
                    return Outcome::timed_out("the backup was not done in its time");
                }
                let finding = Finding::Backup { directory: "backups/pre-migration-1".to_owned(), bytes: 9, baseline };
                said(self.setup.backup, "the backup", finding)
            }
            Step::Migrate => {
                self.procs.clear();
                Outcome::timed_out("the migration still ran at the hard end and was ended")
            }
            Step::EndProcess { of } if self.setup.unkillable && self.procs.iter().any(|proc| proc.step == *of) => {
                Outcome::failed("process 7 hangs in the kernel")
            }
            Step::EndProcess { of } => {
                self.procs.retain(|proc| proc.step != *of);
                said(true, "the end of the process", Finding::Nothing)
            }
            Step::AwaitProcess { of } => {
                if self.procs.iter().any(|proc| proc.step == *of) {
                    Outcome::timed_out("the process still ran at the hard end")
                } else {
                    said(true, "the wait for the process", Finding::Nothing)
                }
            }
            Step::ReadGate { gate } => {
                let finding = Finding::Gate { prior: self.gates[*gate].clone() };
                said(self.setup.doors[*gate] != Door::Unreadable, "reading the gate", finding)
            }
            Step::CloseGate { gate } => {
                self.closings[*gate] += 1;
                let reopened = self.gates[*gate] == OPEN && self.closings[*gate] > 1;
                let good = match self.setup.doors[*gate] {
                    Door::Works | Door::Sticks(_) => true,
                    Door::ClosesOnce => !reopened,
                    Door::Jammed | Door::Unreadable => false,
                };
                if good {
                    self.gates[*gate] = CLOSED.to_owned();
                }
                said(good, "closing the gate", Finding::Nothing)
            }
            Step::OpenGate { gate } => {
                let sticks = match self.setup.doors[*gate] {
                    Door::Sticks(times) => self.openings_failed[*gate] < times,
                    Door::Works | Door::Unreadable | Door::Jammed | Door::ClosesOnce => false,
                };
                if sticks {
                    self.openings_failed[*gate] += 1;
                } else {
                    let rollback = self.state.window.as_ref().and_then(|window| window.rollback.as_ref());
                    let prior = rollback.and_then(|rollback| rollback.gates[*gate].prior.clone());
                    self.gates[*gate] = prior.expect("what a gate was set to is known before it is put back");
                }
                said(!sticks, "opening the gate", Finding::Nothing)
            }
            Step::Inspect { .. } => {
                Outcome::succeeded("the catalog was read", Finding::Difference { difference: self.difference() })
            }
            Step::Act { rung } => self.act(*rung),
            Step::Verify { stage } => self.verify(*stage),
        }
    }

    fn act(&mut self, rung: usize) -> Outcome {
        if self.is_script(rung) {
            self.procs.clear();
            return Outcome::timed_out("the script did not end in its time");
        }
        match self.setup.tables {
            Tables::Works => {
                let added: Vec<String> = self.tables.iter().filter(|name| is_added(name)).cloned().collect();
                let tables =
                    added.iter().map(|name| RemovedTable { table: TableName::new("public", name), rows: None });
                let removal = RemovalFinding { tables: tables.collect(), attempts: 1, ..RemovalFinding::default() };
                self.tables.retain(|name| !is_added(name));
                Outcome::succeeded("the tables were moved", Finding::Removal(removal))
            }
            Tables::Locked => Outcome::failed("the tables are locked by session 7"),
        }
    }

    fn verify(&mut self, stage: Stage) -> Outcome {
        let clean = self.tables.len() == ORIGINALS.len();
        let passed = match (self.setup.verification, stage) {
            (Verification::Never, _) => false,
            (Verification::OpenFails(times), Stage::Open) if self.open_checks_failed < times => {
                self.open_checks_failed += 1;
                false
            }
            (Verification::From(second), _) => self.now >= at(second),
            (Verification::WhenClean | Verification::OpenFails(_), _) => clean,
        };
        let name = if stage == Stage::Closed { "tables" } else { "sign in" };
        let check = CheckResult {
            name: name.to_owned(),
            kind: "sql".to_owned(),
            passed,
            detail: "looked".to_owned(),
            took: secs(1),
        };
        let outcome = if passed {
            Outcome::succeeded("1 check passed", Finding::Nothing)
        } else {
            Outcome::failed(format!("{name}: wrong"))
        };
        outcome.with(Finding::Checks { checks: vec![check] })
    }

    fn deliver(&mut self, notice: String, contact: String, channel: String) -> Result<(), Crashed> {
        self.count_effect(|_| {})?;
        let label = format!("{contact}/{channel}");
        let dead = self.setup.dead.contains(&label.as_str());
        if !dead {
            *self.delivered.entry((notice.clone(), label.clone())).or_default() += 1;
            self.mailbox.push((label, notice.clone()));
        }
        self.effect_done()?;
        self.running.retain(|running| {
            !matches!(&running.effect, Effect::Deliver { notice: one, contact: to, channel: on }
                if *one == notice && *to == contact && *on == channel)
        });
        let result = if dead { Err("no such mailbox".to_owned()) } else { Ok(()) };
        self.feed(Event::NoticeSettled { notice, channel, result })
    }

    fn catalog(&self) -> Catalog {
        let object = |name: &String| Object {
            id: ObjectId { kind: ObjectKind::Table, schema: "public".to_owned(), of: None, name: name.clone() },
            definition: "table".to_owned(),
        };
        Catalog { objects: self.tables.iter().map(object).collect() }
    }

    fn baseline(&self) -> Baseline {
        let count = |name: &String| RowCount { table: TableName::new("public", name), rows: 7 };
        let counts = self.tables.iter().map(count).collect();
        Baseline {
            at: self.now,
            server_version: "17.2".to_owned(),
            catalog: self.catalog(),
            counts,
            identities: Vec::new(),
        }
    }

    fn difference(&self) -> Difference {
        let baseline = self.state.window.as_ref().and_then(|window| window.baseline.clone()).expect("a baseline");
        baseline.catalog.difference(&self.catalog(), &[])
    }

    /// What must hold at the end of every story.
    fn check(&self) {
        let story = self.story();
        assert_eq!(State::replay(&self.journal), self.state, "{story}");
        for name in ORIGINALS {
            assert!(self.tables.contains(name), "original table {name} is lost: {story}");
        }
        for (place, entry) in self.journal.iter().enumerate() {
            assert_eq!(entry.seq, place as u64 + 1, "{story}");
            let json = serde_json::to_string(entry).expect("an entry can be written");
            let back: Entry = serde_json::from_str(&json).expect("an entry can be read");
            assert_eq!(back, *entry);
        }
        self.check_notices();
        if self.procs.iter().any(|proc| self.state.window.is_none() || proc.script) {
            panic!("something runs on: {story}");
        }
    }

    /// Every notice that is owed and due was delivered, or is known to be dead, or is still under way.
    fn check_notices(&self) {
        let mut ids = BTreeSet::new();
        for notice in self.notices() {
            assert!(ids.insert(notice.id.clone()), "two notices are called {}", notice.id);
            for channel in &notice.channels {
                let label = format!("{}/{channel}", notice.contact);
                let open =
                    self.state.owed.iter().any(|owed| owed.notice.id == notice.id && owed.open.contains(channel));
                let cancelled = self
                    .journal
                    .iter()
                    .any(|entry| matches!(&entry.record, Record::NoticeCancelled { notice: one } if *one == notice.id));
                let dead = self.setup.dead.contains(&label.as_str());
                let delivered = self.delivered.contains_key(&(notice.id.clone(), label.clone()));
                assert!(
                    delivered || cancelled || dead || open,
                    "notice {} to {label} is lost: {}",
                    notice.id,
                    self.story()
                );
                assert!(!open || self.state.window.is_some(), "notice {} is never delivered", notice.id);
            }
        }
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.journal.iter().filter_map(|entry| match &entry.record {
            Record::NoticeOwed { notice } => Some(notice),
            _ => None,
        })
    }

    /// What a contact is told, in order, by the names of the events.
    pub(super) fn told(&self, contact: &str) -> String {
        let names: Vec<&str> =
            self.notices().filter(|one| one.contact == contact).map(|one| one.message.event.as_str()).collect();
        names.join(" ")
    }

    /// The journal in a few words: steps by how they ended (`+` well, `-` not, `!` out of time, `?` nobody knows).
    pub(super) fn story(&self) -> String {
        let mut steps = BTreeMap::new();
        let words = self.journal.iter().filter_map(|entry| word(&entry.record, &mut steps));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The story from the breach on.
    pub(super) fn ladder(&self) -> String {
        let story = self.story();
        let from = story.find("breach:").unwrap_or_else(|| panic!("there is no breach: {story}"));
        story[from..].to_owned()
    }

    /// How it ended: the last window's outcome, or where the window stands.
    pub(super) fn outcome(&self) -> StateName {
        let settled = self.state.history.last().map(|settled| settled.outcome.state_name());
        self.state.state_name().or(settled).expect("there was a window")
    }

    /// What a person is told to do.
    pub(super) fn manual(&self) -> String {
        let window = self.state.window.as_ref().expect("a window is open");
        window.phase.needs_operator().expect("an operator is needed").1.join("\n")
    }

    /// Why an operator is needed.
    pub(super) fn reason(&self) -> &str {
        let window = self.state.window.as_ref().expect("a window is open");
        window.phase.needs_operator().unwrap_or_else(|| panic!("no operator is needed: {}", self.story())).0
    }

    pub(super) fn all_closed(&self) -> bool {
        self.gates.iter().all(|gate| gate == CLOSED)
    }

    pub(super) fn all_as_found(&self) -> bool {
        self.gates.iter().all(|gate| gate == OPEN)
    }

    pub(super) fn left(&self) -> usize {
        self.tables.len() - ORIGINALS.len()
    }

    pub(super) fn count(&self, wanted: impl Fn(&Record) -> bool) -> usize {
        self.journal.iter().filter(|entry| wanted(&entry.record)).count()
    }
}

fn is_added(name: &str) -> bool {
    ADDED.contains(&name)
}

pub(super) fn request(ask: Ask) -> Event {
    Event::Requested(Request { who: "ana".to_owned(), reason: "because".to_owned(), ask })
}

pub(super) fn evidence(rule: &str, then: Consequence, now: Timestamp) -> Evidence {
    Evidence {
        rule: rule.to_owned(),
        signal: "api".to_owned(),
        then,
        observed: 3.0,
        threshold: 3.0,
        window: None,
        samples: 3,
        last_reason: Some("status 503".to_owned()),
        since: now,
        at: now,
        implicates: vec![],
        sentence: format!("rule \"{rule}\": 3 bad samples"),
    }
}

fn word(record: &Record, steps: &mut BTreeMap<u64, String>) -> Option<String> {
    Some(match record {
        Record::Started { .. } => "|".to_owned(),
        Record::OpeningMissed { .. } => "missed".to_owned(),
        Record::WindowOpened { .. } => "open".to_owned(),
        Record::StepStarted { number, step, .. } => {
            let place = match step {
                Step::ReadGate { gate } | Step::CloseGate { gate } | Step::OpenGate { gate } => gate.to_string(),
                Step::Inspect { .. }
                | Step::Act { .. }
                | Step::Preflight
                | Step::Backup
                | Step::Migrate
                | Step::EndProcess { .. }
                | Step::AwaitProcess { .. }
                | Step::Verify { .. } => String::new(),
            };
            steps.insert(*number, format!("{}{place}", step.name()));
            return None;
        }
        Record::StepEnded { number, outcome } => {
            let sign = match outcome.result {
                StepResult::Succeeded => '+',
                StepResult::Failed => '-',
                StepResult::TimedOut => '!',
                StepResult::Unknown => '?',
            };
            format!("{}{sign}", steps.get(number)?)
        }
        Record::WarmedUp { .. } => "warm".to_owned(),
        Record::MigrationFinished { how, .. } => format!("finished:{how:?}"),
        Record::VerdictChanged { to, .. } => format!("{to:?}").to_lowercase(),
        Record::RulePaged { .. } => "page".to_owned(),
        Record::RuleQuieted { .. } => "quiet".to_owned(),
        Record::HoldStarted { .. } => "hold".to_owned(),
        Record::HoldEnded { .. } => "resume".to_owned(),
        Record::BreachDetected { trigger } => format!("breach:{}", trigger.name()),
        Record::RungStarted { rung } => format!("rung{}", rung + 1),
        Record::ApprovalRequested { .. } => "ask".to_owned(),
        Record::ApprovalGiven { .. } => "yes".to_owned(),
        Record::RungFailed { rung, .. } => format!("failed{}", rung + 1),
        Record::OperatorNeeded { .. } => "operator".to_owned(),
        Record::ResolutionStarted { .. } => "resolving".to_owned(),
        Record::ResolutionFailed { .. } => "unresolved".to_owned(),
        Record::Acknowledged { .. } => "ack".to_owned(),
        Record::PageRepeated => "again".to_owned(),
        Record::WindowSettled { outcome, .. } => format!("{outcome:?}").to_lowercase(),
        Record::NoticeDead { .. } => "dead".to_owned(),
        Record::NoticeCancelled { .. } => "unneeded".to_owned(),
        Record::ProcessStarted { .. } | Record::NoticeOwed { .. } | Record::NoticeDelivered { .. } => return None,
    })
}
