//! What the steps do to the world.

use std::sync::Arc;

use super::setup::{ADDED, Door, Migration, ORIGINALS, Script, Tables, Verification, at, secs};
use super::world::{CLOSED, OPEN, Proc, World};
use crate::baseline::{Baseline, Catalog, Difference, Object, ObjectId, ObjectKind, RowCount, TableName};
use crate::plan::Stage;
use crate::run::step::{CheckResult, Finding, Outcome, RemovalFinding, RemovedTable, Step};

impl World {
    /// A process comes to its end and has done its work, or half of it.
    pub(super) fn finish(&mut self, proc: &Proc, half: bool) {
        self.procs.retain(|one| one.step != proc.step);
        let most = if half { ADDED.len() / 2 } else { ADDED.len() };
        if !proc.script {
            self.tables.extend(ADDED[..most].iter().map(|name| (*name).to_owned()));
            if self.setup.destroys {
                self.tables.remove(ORIGINALS[0]);
            }
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
        if taken == ADDED.len() {
            // It knows how to bring back what the migration dropped.
            self.tables.extend(ORIGINALS.map(str::to_owned));
        }
    }

    pub(super) fn exit(&self, proc: &Proc) -> Outcome {
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

    pub(super) fn do_step(&mut self, step: &Step) -> Outcome {
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
            Step::Inspect { .. } => Outcome::succeeded(
                "the catalog was read",
                Finding::Difference {
                    difference: self.difference(),
                    rows: Vec::new(),
                    way_back: Vec::new(),
                    restore: Vec::new(),
                },
            ),
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
            Tables::Works | Tables::InGroups => {
                let mut added: Vec<String> = self.tables.iter().filter(|name| is_added(name)).cloned().collect();
                let more = self.setup.tables == Tables::InGroups && added.len() > 1;
                added.truncate(if more { 1 } else { added.len() });
                let tables =
                    added.iter().map(|name| RemovedTable { table: TableName::new("public", name), rows: None });
                let tables = tables.collect();
                let removal = RemovalFinding { tables, attempts: 1, more, ..RemovalFinding::default() };
                self.tables.retain(|name| !added.contains(name));
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

    fn catalog(&self) -> Catalog {
        let object = |name: &String| {
            let id = ObjectId { kind: ObjectKind::Table, schema: "public".to_owned(), of: None, name: name.clone() };
            Object::new(id, "table")
        };
        Catalog { objects: self.tables.iter().map(object).collect() }
    }

    fn baseline(&self) -> Baseline {
        let count = |name: &String| RowCount { table: TableName::new("public", name), rows: 7 };
        let counts = self.tables.iter().map(count).collect();
        Baseline {
            format: Baseline::FORMAT,
            at: self.now,
            server_version: "17.2".to_owned(),
            catalog: self.catalog(),
            counts,
            identities: Vec::new(),
            prints: Vec::new(),
        }
    }

    fn difference(&self) -> Difference {
        let baseline = self.state.window.as_ref().and_then(|window| window.baseline.clone()).expect("a baseline");
        baseline.catalog.difference(&self.catalog(), &[])
    }
}

fn is_added(name: &str) -> bool {
    ADDED.contains(&name)
}
