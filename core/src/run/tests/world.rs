//! A small world in memory, and the driver's loop around it in virtual time.
//!
//! The world holds what survives a crash: tables, gates, processes, the journal, what was delivered. The state and
//! what is under way are lost with a crash, and come back from the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::setup::{Crash, Door, Migration, ORIGINALS, Script, Setup, When, at, secs};
use crate::judge::{Assessment, Evidence, Verdict};
use crate::plan::{Consequence, Method, Plan};
use crate::run::decide::decide;
use crate::run::event::{Ask, DueOpening, Event, Request};
use crate::run::pending::{Effect, pending};
use crate::run::record::{Entry, Process, Record};
use crate::run::state::{GatePosition, Phase, State};
use crate::run::step::{Outcome, Step};

/// What a gate that nobody has touched is set to.
pub(super) const OPEN: &str = "as it was";
pub(super) const CLOSED: &str = "closed";

/// The program has ended without a warning.
struct Crashed;

#[derive(Debug, Clone)]
struct Running {
    effect: Effect,
    ends_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(super) struct Proc {
    pub(super) step: u64,
    pub(super) script: bool,
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
    pub(super) procs: Vec<Proc>,
    pub(super) closings: Vec<u32>,
    pub(super) openings_failed: Vec<u32>,
    pub(super) open_checks_failed: u32,
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
            let step = self.state.step(window, *number).map(|one| &one.step);
            if let Some(Step::AwaitProcess { of }) = step
                && self.procs.iter().all(|proc| proc.step != *of)
            {
                running.ends_at = self.now;
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
                Effect::Deliver { notice, contact, channel } => return self.deliver(notice, &contact, channel),
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
        let unseen = self.setup.unseen.is_some_and(|(from, to)| at(from) <= self.now && self.now < at(to));
        let sick = self.setup.sick || self.setup.sick_at.is_some_and(|from| at(from) <= self.now);
        let breached: Vec<Evidence> = match self.setup.breaks {
            _ if blind => vec![],
            Some(then) if broken => {
                vec![Evidence { implicates: self.setup.blames.clone(), ..evidence("down", then, self.now) }]
            }
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
            in_sight: !blind && !unseen,
            levels: vec![],
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

    fn feed(&mut self, event: Event) -> Result<(), Crashed> {
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
        for entry in &entries {
            self.state.apply(entry);
        }
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

    pub(super) fn is_script(&self, rung: usize) -> bool {
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
        self.feed(Event::StepEnded { step, outcome: Box::new(outcome) })
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

    fn deliver(&mut self, notice: String, contact: &str, channel: String) -> Result<(), Crashed> {
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
