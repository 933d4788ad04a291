//! The database fails in the middle of the ladder: between a first rung that does not help and a second one that would.
//!
//! Whatever happens to the server, the rollback ends in *recovered* or in *needs operator* with the reason said, the
//! originals are whole, and once the server is well again a person can settle what is left.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rollbackd::demo::cluster::Stop;
use rollbackd_core::run::record::{Entry, Record};
use rollbackd_core::run::step::{Moment, Step};

use crate::endings::BREAKING;
use crate::life::assert_recovered;
use crate::stage::{Daemon, QUARANTINE, Stage, eventually, runtime, script, until};

/// A stage that stands between the rungs: the first one waits for `go`, then fails.
fn between_the_rungs(mut stage: Stage) -> (Stage, Daemon) {
    let migration = stage.migration(BREAKING);
    stage.plan.command(&migration);
    let waits = stage.script("waits.sh", "touch reached; while [ ! -e go ]; do sleep 0.05; done; exit 3");
    stage.plan.rungs = script(&waits).replace("\"10s\"", "\"30s\"") + &QUARANTINE.replace("\"10s\"", "\"25s\"");
    let daemon = stage.daemon();
    stage.cli(&["window", "open"]).expect(0);
    until("the first rung is reached", || stage.path("reached").exists());
    // The tests' server does not wait for its disk, and a crash would take the migration back.
    stage.database.superuser().sql("checkpoint");
    (stage, daemon)
}

fn go_on(stage: &Stage) {
    std::fs::write(stage.path("go"), "").unwrap();
}

/// Waits until somebody looks what the first rung has done.
#[track_caller]
fn wait_for_the_look(stage: &Stage) {
    eventually("the catalog is looked at after the first rung", || {
        let looks = |entry: &Entry| {
            matches!(entry.record, Record::StepStarted { step: Step::Inspect { rung: 0, moment: Moment::After }, .. })
        };
        let records = stage.records();
        if records.iter().any(looks) { Ok(()) } else { Err(format!("{:?}", records.last())) }
    });
}

/// Waits until a person is needed, for a reason in which this is said.
#[track_caller]
fn assert_needs_operator(stage: &Stage, why: &str) {
    stage.wait_for_state("needs_operator");
    assert!(stage.path("maintenance").exists(), "traffic stays stopped");
    let said = stage.cli(&["report"]).expect(0).stdout;
    assert!(said.contains(why), "{why}: {said}");
    stage.hooks.wait_for("rollback.needs_operator");
}

fn server(stage: &mut Stage, run: bool) {
    let work = async {
        let server = stage.own_server();
        if run { server.start_again().await } else { server.stop(Stop::Immediate).await }
    };
    runtime().block_on(work).unwrap();
}

#[test]
fn the_server_crashes_and_comes_back() {
    let (mut stage, daemon) = between_the_rungs(Stage::alone("comesback"));
    server(&mut stage, false);
    go_on(&stage);
    wait_for_the_look(&stage);
    server(&mut stage, true);
    stage.come_back();
    assert_recovered(&stage, daemon);
}

#[test]
fn the_server_crashes_right_after_the_tables_are_out() {
    let (mut stage, daemon) = between_the_rungs(Stage::alone("rightafter"));
    go_on(&stage);
    until("the tables are out", || stage.database.value("select to_regclass('public.pages') is null") == "t");
    server(&mut stage, false);
    server(&mut stage, true);
    stage.come_back();
    assert_recovered(&stage, daemon);
}

#[test]
fn the_server_crashes_and_stays_away() {
    let mut stage = Stage::alone("staysaway");
    stage.plan.change("budget = \"1m\"", "budget = \"20s\"");
    let (mut stage, daemon) = between_the_rungs(stage);
    server(&mut stage, false);
    go_on(&stage);
    assert_needs_operator(&stage, "refused");
    server(&mut stage, true);
    stage.come_back();
    stage.assert_originals_whole();
    stage.run_manual();
    stage.cli(&["window", "resolved", "--reason", "by hand"]).expect(0);
    assert_recovered(&stage, daemon);
}

#[test]
fn every_session_is_ended_again_and_again() {
    let (stage, daemon) = between_the_rungs(Stage::alone("ended"));
    let superuser = stage.database.superuser();
    let ends = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'rollbackd'";
    go_on(&stage);
    let mut ended: u64 = 0;
    eventually("ten sessions are ended", || {
        ended += superuser.sql(ends)[0].parse::<u64>().unwrap();
        if ended >= 10 { Ok(()) } else { Err(ended) }
    });
    assert_recovered(&stage, daemon);
}

#[test]
fn the_server_turns_read_only() {
    let (stage, daemon) = between_the_rungs(Stage::alone("readonly"));
    let superuser = stage.database.superuser();
    superuser.sql("alter system set default_transaction_read_only = on");
    superuser.sql("select pg_reload_conf()");
    until("it is read-only", || stage.database.value("show default_transaction_read_only") == "on");
    go_on(&stage);
    // Somebody may have meant it: nothing is written against that.
    assert_needs_operator(&stage, "read-only transaction");
    stage.assert_originals_whole();
    superuser.sql("alter system reset default_transaction_read_only");
    superuser.sql("select pg_reload_conf()");
    until("it can be written", || stage.database.value("show default_transaction_read_only") == "off");
    stage.run_manual();
    stage.cli(&["window", "resolved", "--reason", "it may be written again"]).expect(0);
    assert_recovered(&stage, daemon);
}

#[test]
fn the_server_comes_back_as_a_standby() {
    let (mut stage, daemon) = between_the_rungs(Stage::alone("standby"));
    server(&mut stage, false);
    std::fs::write(stage.own_server().directory().join("data/standby.signal"), "").unwrap();
    server(&mut stage, true);
    stage.come_back();
    assert_eq!(stage.database.value("select pg_is_in_recovery()"), "t");
    go_on(&stage);
    assert_needs_operator(&stage, "during");
    stage.assert_originals_whole();
    stage.database.superuser().sql("select pg_promote()");
    stage.run_manual();
    stage.cli(&["window", "resolved", "--reason", "promoted"]).expect(0);
    assert_recovered(&stage, daemon);
}

#[test]
fn the_servers_disk_is_full() {
    let Some(stage) = Stage::alone_on_small_disk("serverfull", 200) else {
        eprintln!("left out: this process may not mount a small disk");
        return;
    };
    let (mut stage, daemon) = between_the_rungs(stage);
    let ballast = stage.own_server().directory().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 8192]).is_ok() {}
    drop(file);
    // Without room for its log the server ends itself, and cannot start again.
    let superuser = stage.database.superuser();
    until("the server gives up", || superuser.ask("select pg_switch_wal(); create table pg_temp.x (y int)").is_err());
    go_on(&stage);
    wait_for_the_look(&stage);
    std::fs::remove_file(&ballast).unwrap();
    server(&mut stage, true);
    stage.come_back();
    assert_recovered(&stage, daemon);
}

/// A way to the server that can be made to swallow everything.
struct Way {
    address: SocketAddr,
    black: Arc<AtomicBool>,
    kept: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let way = Self { address, black: Arc::default(), kept: Arc::default() };
        let (black, kept) = (Arc::clone(&way.black), Arc::clone(&way.kept));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                kept.lock().unwrap().push(client.try_clone().unwrap());
                if black.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, black) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&black));
                    std::thread::spawn(move || carry(from, to, &black));
                }
            }
        });
        way
    }

    /// From now on nothing comes through, of old connections nor of new ones, and nobody is told.
    fn swallow(&self, everything: bool) {
        self.black.store(everything, Ordering::SeqCst);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        for stream in self.kept.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// A connection that was black once stays so: what was swallowed is missing for ever.
fn carry(mut from: TcpStream, mut to: TcpStream, black: &AtomicBool) {
    let mut buffer = [0; 8192];
    let mut swallowed = false;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        swallowed |= black.load(Ordering::SeqCst);
        if !swallowed && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    if !swallowed {
        drop(to.shutdown(Shutdown::Write));
    }
}

/// A stage whose database is reached over a way.
fn over_a_way(name: &str) -> (Stage, Way) {
    let mut stage = Stage::alone(name);
    let url = url::Url::parse(stage.database.url()).unwrap();
    let way = Way::to(url.port().unwrap());
    let mut over = url;
    over.set_port(Some(way.address.port())).unwrap();
    stage.set("STAGE_DATABASE_URL", over.to_string());
    stage.plan.change("statement_timeout = \"20s\"", "statement_timeout = \"5s\"");
    stage.plan.change("connect_timeout = \"5s\"", "connect_timeout = \"2s\"");
    (stage, way)
}

#[test]
fn the_network_is_a_black_hole_for_a_while() {
    let (stage, way) = over_a_way("blackwhile");
    let (stage, daemon) = between_the_rungs(stage);
    way.swallow(true);
    go_on(&stage);
    wait_for_the_look(&stage);
    way.swallow(false);
    assert_recovered(&stage, daemon);
}

#[test]
fn the_network_stays_a_black_hole() {
    let (mut stage, way) = over_a_way("blackhole");
    stage.plan.change("budget = \"1m\"", "budget = \"20s\"");
    let (stage, daemon) = between_the_rungs(stage);
    way.swallow(true);
    go_on(&stage);
    assert_needs_operator(&stage, "time");
    way.swallow(false);
    stage.assert_originals_whole();
    stage.run_manual();
    stage.cli(&["window", "resolved", "--reason", "the network is back"]).expect(0);
    assert_recovered(&stage, daemon);
}
