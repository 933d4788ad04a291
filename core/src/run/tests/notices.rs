//! Who is owed what, in which order, and what becomes of notices that cannot be delivered.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ladders::broken;
use super::setup::{Script, Setup, Tables, at, contact, plan, secs};
use super::world::World;
use crate::notice::{Notice, NoticeEvent};
use crate::plan::Severity;
use crate::run::decide::decide;
use crate::run::event::{DueOpening, Event};
use crate::run::pending::{Effect, pending};
use crate::run::record::{Entry, Record};
use crate::run::state::State;

#[test]
fn every_contact_is_told_what_it_wants_to_hear() {
    let mut setup = Setup { script: Script::Lies, ..broken() };
    setup.plan.contacts.push(contact("DB on call"));
    setup.plan.contacts[1].severity = Severity::Critical;
    let world = World::run(setup);
    let critical = "breach.detected rollback.started rung.failed rollback.recovered";
    assert_eq!(world.told("Operations"), format!("window.opened {critical}"));
    assert_eq!(world.told("DB on call"), critical);
}

#[test]
fn a_channel_gets_its_notices_in_order() {
    let mut setup = Setup { script: Script::Lies, ..broken() };
    setup.plan.contacts[0].channels.push("webhook 1".to_owned());
    let world = World::run(setup);
    let owed: Vec<String> = world.notices().map(|one| one.id.clone()).collect();
    for label in ["Operations/email 1", "Operations/webhook 1"] {
        let got: Vec<String> =
            world.mailbox.iter().filter(|(to, _)| to == label).map(|(_, notice)| notice.clone()).collect();
        assert_eq!(got, owed, "{label}");
    }
    let sequences: Vec<u64> = world.notices().map(|one| one.message.sequence).collect();
    assert_eq!(sequences, (1..=5).collect::<Vec<_>>());
}

#[test]
fn the_other_channels_are_told_of_what_did_not_arrive() {
    let mut setup = Setup { dead: vec!["Operations/email 1"], ..Setup::default() };
    setup.plan.contacts[0].channels.push("webhook 1".to_owned());
    setup.plan.contacts.push(contact("DB on call"));
    let world = World::run(setup);
    let told = "window.opened notice.undeliverable window.passed notice.undeliverable";
    assert_eq!(world.told("DB on call"), "window.opened window.passed", "Operations was reached");
    assert_eq!(world.told("Operations"), told);
    let lost = world.notices().filter(|one| one.message.event == NoticeEvent::NoticeUndeliverable);
    for notice in lost {
        assert_eq!(notice.channels, ["webhook 1"], "not on the channel that is dead");
        assert!(notice.message.summary.contains("did not reach Operations on email 1: no such mailbox"));
    }
}

#[test]
fn two_dead_channels_do_not_complain_about_each_other() {
    let mut setup = Setup { dead: vec!["Operations/email 1", "DB on call/email 1"], ..Setup::default() };
    setup.plan.contacts.push(contact("DB on call"));
    let world = World::run(setup);
    assert!(world.mailbox.is_empty());
    let complaints = world.notices().filter(|one| one.message.event == NoticeEvent::NoticeUndeliverable).count();
    assert_eq!(complaints, 4, "one for each notice that was lost");
    assert!(world.state.owed.is_empty());
    assert_eq!(world.state.counts.dead_lettered, 8);
}

#[test]
fn a_dead_channel_does_not_hold_up_another() {
    let mut setup = Setup { ..Setup::default() };
    setup.plan.contacts[0].channels.push("webhook 1".to_owned());
    let (state, now) = opened(&setup.plan.into());
    let due = pending(&state, now).effects;
    let channels: Vec<&str> = due
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver { channel, .. } => Some(channel.as_str()),
            Effect::Perform { .. } => None,
        })
        .collect();
    assert_eq!(channels, ["email 1", "webhook 1"]);
}

/// The state after an opening.
fn opened(plan: &Arc<crate::plan::Plan>) -> (State, jiff::Timestamp) {
    let due = vec![DueOpening { at: at(0), missed: false }];
    let entries = decide(&State::default(), plan, at(0), Event::Pulse { due }).expect("a pulse is never refused");
    (State::replay(&entries), at(0))
}

#[test]
fn a_notice_that_is_held_back_wakes_the_driver() {
    let mut setup = broken();
    setup.plan.contacts[0].after = secs(300);
    let plan = Arc::new(setup.plan);
    let (mut state, now) = opened(&plan);
    assert!(
        pending(&state, now).effects.iter().any(|effect| matches!(effect, Effect::Deliver { .. })),
        "what is not critical is not held back"
    );
    let mut notice = state.owed[0].notice.clone();
    notice.not_before = at(5);
    state.owed = vec![crate::run::state::Owed::new(notice)];
    let held = pending(&state, now);
    assert!(held.effects.iter().all(|effect| matches!(effect, Effect::Perform { .. })));
    assert_eq!(held.wake_at, Some(at(5)));
}

#[test]
fn what_becomes_of_a_notice_belongs_to_its_window() {
    let world = World::run(Setup::default());
    let id = &world.state.history[0].id;
    for entry in &world.journal {
        if matches!(entry.record, Record::NoticeDelivered { .. }) {
            assert_eq!(entry.window.as_ref(), Some(id), "{entry:?}");
        }
    }
    let dead = World::run(Setup { dead: vec!["Operations/email 1"], ..Setup::default() });
    assert!(dead.journal.iter().all(|entry| {
        let notice = matches!(entry.record, Record::NoticeDead { .. } | Record::NoticeOwed { .. });
        !notice || entry.window.as_ref() == Some(id)
    }));
}

#[test]
fn a_late_notice_of_an_earlier_window_does_not_count_in_the_next() {
    // The first window is settled with its last notice on the way; then the second opens.
    let world = World::run(Setup { preflight: false, dead: vec!["Operations/email 1"], ..two_contacts() });
    let plan = Arc::new(world.setup.plan.clone());
    let settled = world.journal.iter().position(|entry| matches!(entry.record, Record::WindowSettled { .. }));
    let told_at = world.journal.iter().rposition(|entry| {
        matches!(&entry.record, Record::NoticeOwed { notice } if notice.message.event == NoticeEvent::WindowRefused)
    });
    let mut entries: Vec<Entry> = world.journal[..=told_at.expect("it is told")].to_vec();
    assert!(settled.expect("it is settled") < entries.len());
    let mut state = State::replay(&entries);
    let lost: Notice = state.owed.last().expect("it is owed").notice.clone();
    let due = vec![DueOpening { at: at(604_800), missed: false }];
    let opened = decide(&state, &plan, at(604_800), Event::Pulse { due }).expect("a pulse");
    for entry in &opened {
        state.apply(entry);
    }
    entries.extend(opened);
    let told = state.window.as_ref().expect("open").messages;
    let settled =
        Event::NoticeSettled { notice: lost.id, channel: lost.channels[0].clone(), result: Err("gone".to_owned()) };
    let late = decide(&state, &plan, at(604_801), settled).expect("never refused");
    assert_eq!(late.len(), 2, "dead, and one other is told: {late:?}");
    for entry in &late {
        state.apply(entry);
        assert_eq!(entry.window, lost.message.window, "{entry:?}");
    }
    assert_eq!(state.window.expect("open").messages, told);
}

fn two_contacts() -> Setup {
    let mut setup = Setup { plan: plan(), ..Setup::default() };
    setup.plan.contacts.push(contact("DB on call"));
    setup
}

#[test]
fn notices_of_openings_that_were_missed_are_told_apart() {
    let plan = Arc::new(plan());
    let due = |day: i64| DueOpening { at: at(86_400 * day), missed: true };
    let event = Event::Pulse { due: vec![due(0), due(1), due(2)] };
    let entries = decide(&State::default(), &plan, at(86_400 * 3), event).expect("a pulse is never refused");
    let ids: BTreeSet<&str> = entries
        .iter()
        .filter_map(
            |entry| if let Record::NoticeOwed { notice } = &entry.record { Some(notice.id.as_str()) } else { None },
        )
        .collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[test]
fn a_breach_carries_its_numbers_and_what_comes_next() {
    let mut setup = broken();
    setup.plan.links.base = Some("http://127.0.0.1:9187".to_owned());
    let world = World::run(setup);
    let find = |event| world.notices().map(|one| &one.message).find(|one| one.event == event).expect("it is owed");
    let breach = find(NoticeEvent::BreachDetected);
    let reason = breach.reason.as_ref().expect("the rule is named");
    assert_eq!((reason.rule.as_str(), reason.signal.as_str(), reason.samples), ("down", "api", 3));
    assert!(breach.summary.contains("ule \"down\": 3 bad samples"), "{}", breach.summary);
    let id = "shop-20261122T020000Z";
    assert_eq!(breach.links.report, Some(format!("http://127.0.0.1:9187/api/v1/windows/{id}/report")));
    assert_eq!((breach.incident_id.as_str(), breach.window.as_deref()), (id, Some(id)));
    let started = find(NoticeEvent::RollbackStarted).details.join("\n");
    for told in ["1 gate", "1. script: node scripts/rollback-emergency.js", "2. tables: every added table", "15m"] {
        assert!(started.contains(told), "{told} is missing: {started}");
    }
    let recovered = find(NoticeEvent::RollbackRecovered);
    assert_eq!(recovered.state, "recovered");
    let details = recovered.details.join("\n");
    for told in ["Why: rule \"down\"", "ok: sign in", "Done: the script exited with 0", "backups/pre-migration-1"] {
        assert!(details.contains(told), "{told} is missing: {details}");
    }
}

#[test]
fn an_operator_is_told_the_commands() {
    let world = World::run(Setup { script: Script::Lies, tables: Tables::Locked, limit: 600, ..broken() });
    let told = world.notices().last().expect("a notice");
    assert_eq!(told.message.event, NoticeEvent::RollbackNeedsOperator);
    assert_eq!(told.message.severity, Severity::Critical);
    for line in world.manual().lines() {
        assert!(told.message.details.iter().any(|detail| detail == line), "{line} is missing");
    }
}
