//! Processes that outlive a daemon: found again by what they are, and nobody else taken for them. Children that have
//! ended, and a daemon that stands still while one works.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rollbackd::journal::Journal as _;
use rollbackd::journal::redb::RedbJournal;
use rollbackd_core::run::record::{Process, Record};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    assert_everybody_was_told, assert_recovered, count, open, rollbacks, steps, touch, wait_for_file, wait_for_step,
};
use crate::endings::{BREAKING, HARMLESS};
use crate::stage::{QUARANTINE, Stage, alive_in_group, eventually, script, until};

/// What `/proc/<pid>/stat` says after the name: state, parent, group, session, …
fn stat(pid: i32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').map(str::to_owned).collect());
    rest.unwrap_or_default()
}

/// The number that a file holds.
#[track_caller]
fn number(stage: &Stage, file: &str) -> i32 {
    eventually(&format!("{file} holds a number"), || {
        stage.lines(file).first().and_then(|line| line.parse().ok()).ok_or("not yet")
    })
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    until("it is gone", || stat(pid).first().is_none_or(|state| state == "Z"));
}

/// Somebody else's process, which says when it is signalled.
struct Bystander(Child, std::path::PathBuf);

impl Bystander {
    fn stand(stage: &Stage) -> Self {
        let (ready, signalled) = (stage.path("bystander.ready"), stage.path("bystander.signalled"));
        let script = "trap 'touch $1' TERM INT HUP; touch $0; while :; do sleep 0.05; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).args([&ready, &signalled]).process_group(0);
        let child = command.spawn().unwrap();
        until("the bystander stands there", || ready.exists());
        Self(child, signalled)
    }

    fn process(&self) -> Process {
        let pid = i32::try_from(self.0.id()).unwrap();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
        Process { pid, start_ticks: stat(pid)[19].parse().unwrap(), boot_id }
    }

    #[track_caller]
    fn assert_unharmed(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the bystander was killed");
        assert!(!self.1.exists(), "the bystander was signalled");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The journal, as it would be had the step's process had this identity.
fn record_as(stage: &Stage, identity: &Process) {
    let (_, entries) = RedbJournal::open_existing(&stage.state()).unwrap();
    for entry in std::fs::read_dir(stage.state()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("journal") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut rewritten = entries;
    let process = rewritten.iter_mut().rev().find_map(|entry| match &mut entry.record {
        Record::ProcessStarted { process, .. } => Some(process),
        _ => None,
    });
    *process.expect("a recorded process") = identity.clone();
    let (journal, nothing) = RedbJournal::open(&stage.state()).unwrap();
    assert_eq!(nothing, []);
    journal.append(&rewritten).unwrap();
}

#[test]
fn a_script_whose_number_belongs_to_somebody_else_by_now_is_gone_and_nobody_is_signalled() {
    let mut stage = Stage::new("reuse");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let name = stage.script("emergency.sh", "echo $$ > script.pid\nwhile :; do sleep 0.05; done");
    stage.plan.rungs = script(&name) + QUARANTINE;
    let daemon = stage.daemon();
    open(&stage);
    let pid = number(&stage, "script.pid");
    wait_for_step(&stage, "act");
    until("its process is recorded", || {
        let last = stage.records().into_iter().rev().find_map(|entry| match entry.record {
            Record::ProcessStarted { process, .. } => Some(process.pid),
            _ => None,
        });
        last == Some(pid)
    });
    daemon.kill();
    kill(pid);
    let bystander = Bystander::stand(&stage);
    let theirs = bystander.process();
    record_as(&stage, &Process { start_ticks: theirs.start_ticks - 1, ..theirs });

    let daemon = stage.daemon();
    stage.wait_for_state("recovered");
    let records = stage.records();
    assert_eq!((rollbacks(&records), count(&records, "end_process")), (1, 1), "{:?}", steps(&records));
    assert_eq!(stage.lines("script.pid").len(), 1, "it is not run again");
    bystander.assert_unharmed();
    assert_recovered(&stage, daemon);
}

#[test]
fn a_migration_of_an_earlier_boot_is_gone_whoever_has_its_number_now() {
    let mut stage = Stage::new("reboot");
    let name = stage.script("migrate.sh", "echo $$ > migration.pid\nwhile :; do sleep 0.05; done");
    stage.plan.command(&[name]);
    let daemon = stage.daemon();
    open(&stage);
    let pid = number(&stage, "migration.pid");
    wait_for_step(&stage, "migrate");
    until("its process is recorded", || {
        stage.records().iter().any(|entry| matches!(entry.record, Record::ProcessStarted { .. }))
    });
    daemon.kill();
    kill(pid);
    let bystander = Bystander::stand(&stage);
    let theirs = bystander.process();
    record_as(&stage, &Process { boot_id: "00000000-0000-4000-8000-000000000000".to_owned(), ..theirs });

    let daemon = stage.daemon();
    stage.wait_for_state("passed");
    bystander.assert_unharmed();
    assert_everybody_was_told(&stage);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

/// A command whose first process starts the work in its group and waits; it is killed while no daemon is there to see.
fn leader(work: &str) -> String {
    format!(
        "echo $$ > leader.pid\n(trap '' TERM; echo > working; while [ ! -e go ]; do sleep 0.05; done; {work}) &\nwait"
    )
}

#[test]
fn what_a_dead_migration_left_in_its_group_is_waited_for() {
    let mut stage = Stage::new("remains");
    let work = stage.migration(HARMLESS).join(" ");
    let name = stage.script("migrate.sh", &leader(&work));
    stage.plan.command(&[name]);
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "working");
    let pid = number(&stage, "leader.pid");
    daemon.kill();
    kill(pid);
    assert_ne!(alive_in_group(pid), Vec::<i32>::new(), "its work goes on");

    let daemon = stage.daemon();
    wait_for_step(&stage, "await_process");
    touch(&stage, "go");
    stage.wait_for_state("passed");
    assert_eq!(stage.new_tables(), ["public.invoices"], "it was waited for to the end of its work");
    assert_eq!(alive_in_group(pid), Vec::<i32>::new());
    assert_everybody_was_told(&stage);
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

#[test]
fn what_a_dead_script_left_in_its_group_is_ended_before_the_next_rung() {
    let mut stage = Stage::new("remains2");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let name = stage.script("emergency.sh", &leader("touch raced"));
    stage.plan.rungs = script(&name) + QUARANTINE;
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "working");
    let pid = number(&stage, "leader.pid");
    daemon.kill();
    kill(pid);
    assert_ne!(alive_in_group(pid), Vec::<i32>::new(), "its work goes on");

    let daemon = stage.daemon();
    stage.wait_for_state("recovered");
    assert_eq!(alive_in_group(pid), Vec::<i32>::new(), "nothing of it goes on");
    let records = stage.records();
    let step = |wanted: &str| steps(&records).iter().rposition(|name| *name == wanted).unwrap();
    assert!(step("end_process") < step("act"), "{:?}", steps(&records));
    assert!(!stage.path("raced").exists());
    assert_recovered(&stage, daemon);
}

#[test]
fn children_that_have_ended_are_reaped() {
    let mut stage = Stage::new("zombies");
    let look = stage.script("look.sh", "(sleep 0.01 &)\necho looked >> looks");
    stage.plan.signals.push_str(&format!(
        "[[signal]]\nname = \"script\"\nevery = \"100ms\"\ntimeout = \"3s\"\n[signal.command]\nrun = [{look:?}]\n"
    ));
    let stop = stage.script("stop.sh", "(sleep 0.01 &)\necho stop >> gates");
    stage.plan.gates.push_str(&format!(
        "\n[[rollback.gate]]\nname = \"proxy\"\n[rollback.gate.command]\nstop = [{stop:?}]\nstart = [{stop:?}]\n"
    ));
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    until("many commands have run", || stage.lines("looks").len() >= 60);
    assert!(stage.lines("gates").len() >= 2);
    let ours: Vec<i32> = stage.left_running().iter().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    let daemon_pid = ours.iter().copied().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with("\0run\0"))
    });
    let daemon_pid = daemon_pid.expect("the daemon").to_string();
    let zombies = || {
        let pids = std::fs::read_dir("/proc").unwrap();
        let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.map(stat).filter(|stat| stat.len() > 2 && stat[0] == "Z" && stat[1] == daemon_pid).count()
    };
    // One that has ended a moment ago may still be there; sixty would be.
    eventually("nothing that has ended is left", || if zombies() == 0 { Ok(()) } else { Err(zombies()) });
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}

/// A machine that is suspended, or so busy that we do not run: the script goes on, its time runs out, nobody looks.
#[test]
fn a_daemon_that_stands_still_in_a_rollback_goes_on_with_it() {
    let mut stage = Stage::new("still");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let work = "while [ ! -e go ]; do sleep 0.05; done\npsql -X -q -c 'drop table media_files, pages'";
    let name = stage.script("emergency.sh", &format!("echo ran >> runs\n{work}\ntouch done"));
    stage.plan.rungs = script(&name).replace("\"10s\"", "\"2s\"") + QUARANTINE;
    let daemon = stage.daemon();
    open(&stage);
    wait_for_file(&stage, "runs");
    daemon.signal(Signal::STOP);
    touch(&stage, "go");
    wait_for_file(&stage, "done");
    // Past the rung's time.
    std::thread::sleep(std::time::Duration::from_secs(3));
    daemon.signal(Signal::CONT);
    stage.wait_for_state("recovered");
    let records = stage.records();
    assert_eq!((rollbacks(&records), count(&records, "act")), (1, 1), "{:?}", steps(&records));
    assert!(!records.iter().any(|entry| matches!(entry.record, Record::RungFailed { .. })), "what was done counts");
    assert_eq!(stage.lines("runs").len(), 1);
    assert_recovered(&stage, daemon);
}

/// The example of a command with rights of its own, `config/scripts/run-unit.sh`. The service manager is a stand-in: like
/// the real one it runs the unit outside of the script's process group, and returns from `stop` when nothing of it runs.
#[test]
fn a_unit_that_a_rung_started_is_stopped_with_the_rung() {
    let mut stage = Stage::new("unit");
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    std::fs::create_dir(stage.path("bin")).unwrap();
    stage.script(
        "bin/systemctl",
        "echo \"$@\" >> asked
        case $1 in
        start) setsid sh -c 'echo $$ > unit.pid; while :; do sleep 0.05; done' &
            while [ ! -s unit.pid ]; do sleep 0.05; done
            while [ -e /proc/$(cat unit.pid) ]; do sleep 0.05; done; exit 1;;
        stop) kill $(cat unit.pid); while [ -e /proc/$(cat unit.pid) ]; do sleep 0.05; done; touch unit.stopped;;
        esac",
    );
    let path = format!("{}:{}", stage.path("bin").display(), stage.variables()["PATH"]);
    stage.set("PATH", path);
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/config/scripts/run-unit.sh");
    let rung = script(wrapper).replace("run-unit.sh\"]", "run-unit.sh\", \"rollbackd-run@shop.service\"]");
    stage.plan.rungs = rung.replace("\"10s\"", "\"2s\"") + QUARANTINE;
    stage.plan.change("grace = \"300ms\"", "grace = \"20s\"");
    let daemon = stage.daemon();
    open(&stage);
    stage.wait_for_state("recovered");
    assert_eq!(stage.lines("asked"), ["start rollbackd-run@shop.service", "stop rollbackd-run@shop.service"]);
    assert!(stage.path("unit.stopped").exists());
    assert_eq!(stat(number(&stage, "unit.pid")), Vec::<String>::new(), "the unit does not go on");
    let records = stage.records();
    assert_eq!((rollbacks(&records), count(&records, "act")), (1, 2), "{:?}", steps(&records));
    stage.assert_originals_whole();
    daemon.term().expect(0);
    stage.assert_nothing_runs();
}
