//! The outbox: nothing is lost, nothing is overtaken, and who was not reached is escalated.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::ladders::broken;
use super::setup::{Crash, Script, Setup, Tables, When, at, contact, secs};
use super::world::{World, request};
use crate::notice::{Notice, NoticeEvent};
use crate::plan::{Contact, Plan, Severity};
use crate::run::decide::decide;
use crate::run::event::{Ask, DueOpening, Event};
use crate::run::pending::{Effect, Pending, pending};
use crate::run::record::{Entry, Record};
use crate::run::state::{Owed, State, StateName};

const HOUR: i64 = 3600;

fn on(name: &str, channels: &[&str]) -> Contact {
    Contact { channels: channels.iter().map(|&one| one.to_owned()).collect(), ..contact(name) }
}

fn with(contacts: Vec<Contact>, setup: Setup) -> Setup {
    Setup { plan: Plan { contacts, ..setup.plan }, ..setup }
}

/// Whom the loss of a notice was told to, as `contact/channel`, in order.
fn told_of_losses(world: &World, lost: NoticeEvent) -> Vec<String> {
    let title = format!("\"{}\" did not reach", lost.title());
    let told = world.notices().filter(|one| one.message.summary.starts_with(&title));
    told.flat_map(|one| one.channels.iter().map(move |channel| format!("{}/{channel}", one.contact))).collect()
}

#[test]
fn a_loss_is_told_to_the_contacts_other_channels_and_then_to_other_contacts() {
    let rows: [(&[&str], &[&str]); 5] = [
        // What is dead, and who is told that `window.opened` was lost.
        (&[], &[]),
        (&["Operations/email 1"], &["Operations/webhook 1", "Operations/webhook 2"]),
        (
            &["Operations/email 1", "Operations/webhook 1"],
            &["Operations/webhook 1", "Operations/webhook 2", "Operations/webhook 2"],
        ),
        (
            &["Operations/email 1", "Operations/webhook 1", "Operations/webhook 2"],
            &[
                "Operations/webhook 1",
                "Operations/webhook 2",
                "Operations/webhook 2",
                "DB on call/email 1",
                "DB on call/webhook 1",
            ],
        ),
        (
            &["DB on call/webhook 1", "DB on call/email 1"],
            &["DB on call/webhook 1", "Operations/email 1", "Operations/webhook 1", "Operations/webhook 2"],
        ),
    ];
    for (dead, told) in rows {
        let contacts = vec![
            on("Operations", &["email 1", "webhook 1", "webhook 2"]),
            on("DB on call", &["email 1", "webhook 1"]),
            // Asked to hear of nothing less than what is critical, and what was lost was less.
            Contact { severity: Severity::Critical, ..contact("Emergency") },
        ];
        let world = World::run(with(contacts, Setup { dead: dead.to_vec(), ..Setup::default() }));
        assert_eq!(told_of_losses(&world, NoticeEvent::WindowOpened), told, "dead: {dead:?}");
    }
}

#[test]
fn a_loss_that_is_critical_is_told_to_those_who_hear_of_nothing_less() {
    let contacts = vec![contact("Operations"), Contact { severity: Severity::Critical, ..contact("Emergency") }];
    let world = World::run(with(contacts, Setup { dead: vec!["Operations/email 1"], ..broken() }));
    assert_eq!(told_of_losses(&world, NoticeEvent::WindowOpened), Vec::<String>::new());
    assert_eq!(told_of_losses(&world, NoticeEvent::BreachDetected), ["Emergency/email 1"]);
    let told = world.notices().find(|one| one.message.event == NoticeEvent::NoticeUndeliverable).expect("it is told");
    assert_eq!(told.message.severity, Severity::Warning, "as the interface says");
    assert_eq!(told.message.summary, "\"breach detected\" did not reach Operations on email 1: no such mailbox.");
    let lost = world.notices().find(|one| one.message.event == NoticeEvent::BreachDetected).expect("it was owed");
    assert_eq!(told.message.details[1..], lost.message.details, "what was lost is told whole");
}

#[test]
fn the_last_channel_that_fails_names_all_of_them() {
    let contacts = vec![on("Operations", &["email 1", "webhook 1"]), contact("DB on call")];
    let dead = vec!["Operations/email 1", "Operations/webhook 1"];
    let world = World::run(with(contacts, Setup { dead, ..Setup::default() }));
    let told = world.notices().find(|one| one.contact == "DB on call" && one.id.contains("undeliverable"));
    assert_eq!(
        told.expect("the other is told").message.summary,
        "\"window opened\" did not reach Operations on email 1 and webhook 1, the last: no such mailbox."
    );
}

/// A ladder that comes to its end without success.
fn helpless() -> Setup {
    Setup { script: Script::Fails, tables: Tables::Locked, limit: 8000, ..broken() }
}

/// Operations at once, Emergency ten minutes later.
fn escalating(setup: Setup) -> Setup {
    let late = Contact { severity: Severity::Critical, after: secs(600), ..contact("Emergency") };
    with(vec![contact("Operations"), late], setup)
}

#[test]
fn who_waits_is_told_at_once_when_the_first_cannot_be_reached() {
    let waited = |world: &World| {
        let owed = world.notices().find(|one| one.contact == "Emergency").expect("it is owed").clone();
        let delivered = world
            .journal
            .iter()
            .find(|entry| matches!(&entry.record, Record::NoticeDelivered { notice, .. } if *notice == owed.id));
        delivered.expect("it is delivered").at.duration_since(owed.at)
    };
    let reached = World::run(escalating(helpless()));
    assert!(waited(&reached) >= secs(600), "{}", waited(&reached));
    let lost = World::run(escalating(Setup { dead: vec!["Operations/email 1"], ..helpless() }));
    assert!(waited(&lost) <= secs(30), "{}", waited(&lost));
}

#[test]
fn what_waits_does_not_expire_meanwhile() {
    let days = SignedDuration::from_hours(72);
    let mut setup = escalating(broken());
    setup.plan.contacts[1].after = days;
    let world = World::run(Setup { limit: 2000, ..setup });
    assert!(world.notices().any(|one| one.contact == "Emergency"));
    for notice in world.notices() {
        let waits = if notice.contact == "Emergency" { days } else { SignedDuration::ZERO };
        assert_eq!(notice.not_before.duration_since(notice.at), waits, "{}", notice.id);
        assert_eq!(
            notice.expires_at.duration_since(notice.not_before),
            SignedDuration::from_hours(24),
            "{}",
            notice.id
        );
    }
}

#[test]
fn nobody_is_told_of_a_loss_once_somebody_has_taken_charge() {
    let deeds = vec![(When::State(StateName::NeedsOperator), Ask::Acknowledge)];
    let mut setup = Setup { dead: vec!["DB on call/email 1"], deeds, ..helpless() };
    setup.plan.contacts.push(contact("DB on call"));
    let world = World::run(setup);
    let acknowledged = world.journal.iter().position(|entry| matches!(entry.record, Record::Acknowledged { .. }));
    let after = &world.journal[acknowledged.expect("it is acknowledged")..];
    let owed = |entry: &&Entry| matches!(&entry.record, Record::NoticeOwed { .. });
    assert_eq!(after.iter().filter(owed).count(), 0, "{after:?}");
    assert!(after.iter().any(|entry| matches!(entry.record, Record::NoticeDead { .. })), "{after:?}");
}

#[test]
fn an_escalation_is_ended_after_the_window_too() {
    let waiting = |world: &World| world.state.owed.iter().filter(|owed| owed.notice.contact == "Emergency").count();
    let mut setup = escalating(Setup { limit: 2000, ..broken() });
    setup.plan.contacts[1].after = secs(2 * HOUR);
    let world = World::run(setup);
    assert_eq!(world.outcome(), StateName::Recovered, "{}", world.story());
    assert!(world.state.window.is_none() && waiting(&world) >= 3, "breach, rollback, recovered: {}", waiting(&world));
    let incident = world.state.history[0].id.clone();
    let plan = Arc::new(world.setup.plan.clone());
    let acknowledge = |state: &State, now| decide(state, &plan, now, request(Ask::Acknowledge));

    let entries = acknowledge(&world.state, world.now).expect("there is something to take charge of");
    assert!(matches!(entries[0].record, Record::Acknowledged { .. }), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.window.as_ref() == Some(&incident)), "{entries:?}");
    assert_eq!(entries.len(), 1 + waiting(&world));
    let mut state = world.state.clone();
    for entry in &entries {
        state.apply(entry);
    }
    assert!(state.owed.iter().all(|owed| owed.notice.contact != "Emergency"));
    let refused = acknowledge(&state, world.now).expect_err("there is nothing left");
    assert!(refused.message.starts_with("no window is open"), "{refused}");

    // The same while the next window is open, which is not what is acknowledged.
    let mut state = world.state.clone();
    let due = vec![DueOpening { at: world.now, missed: false }];
    let opened = decide(&state, &plan, world.now, Event::Pulse { due }).expect("never refused");
    for entry in &opened {
        state.apply(entry);
    }
    let entries = acknowledge(&state, world.now).expect("the incident before");
    assert!(entries.iter().all(|entry| entry.window.as_ref() == Some(&incident)), "{entries:?}");
    for entry in &entries {
        state.apply(entry);
    }
    assert_eq!(state.window.as_ref().expect("open").acknowledged, None);
    let refused = acknowledge(&state, world.now).expect_err("the open one has none");
    assert!(refused.message.ends_with("has no incident"), "{refused}");
}

/// What is to be delivered of a state that only owes.
fn due(owed: &[Owed], now: Timestamp) -> (Vec<(String, String)>, Option<Timestamp>) {
    let state = State { owed: owed.to_vec(), ..State::default() };
    let Pending { effects, wake_at } = pending(&state, now);
    let named = effects.into_iter().filter_map(|effect| match effect {
        Effect::Deliver { notice, channel, .. } => Some((notice, channel)),
        Effect::Perform { .. } => None,
    });
    (named.collect(), wake_at)
}

fn owed(id: &str, contact: &str, not_before: Timestamp) -> Owed {
    let world = World::run(Setup { limit: 1, ..Setup::default() });
    let first = world.notices().next().expect("the opening is told").clone();
    Owed::new(Notice {
        id: id.to_owned(),
        contact: contact.to_owned(),
        channels: vec!["email 1".to_owned()],
        at: at(0),
        not_before,
        ..first
    })
}

#[test]
fn what_is_held_back_is_not_overtaken() {
    let line = [owed("a", "Operations", at(600)), owed("b", "Operations", at(0)), owed("c", "Other", at(0))];
    assert_eq!(due(&line, at(10)), (vec![("c".to_owned(), "email 1".to_owned())], Some(at(600))));
    let (effects, _) = due(&line, at(600));
    assert_eq!(effects.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let (effects, _) = due(&line[1..], at(600));
    assert_eq!(effects.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn a_clock_that_was_set_holds_nothing_back_for_long() {
    for (hold, now, sent) in [
        (0, 0, true),
        (0, -1, true),
        (0, -HOUR, true),
        (600, 0, false),
        (600, 599, false),
        (600, 600, true),
        (600, HOUR, true),
        // Set back by less than it waits, and by more.
        (600, -600, false),
        (600, -601, true),
        (600, -HOUR, true),
    ] {
        let (effects, _) = due(&[owed("a", "Operations", at(hold))], at(now));
        assert_eq!(!effects.is_empty(), sent, "held back for {hold} s, {now} s after it was owed");
    }
}

const LABELS: [&str; 6] = [
    "Operations/email 1",
    "Operations/webhook 1",
    "DB on call/email 1",
    "DB on call/webhook 1",
    "Emergency/email 1",
    "Emergency/webhook 1",
];

/// Up to three contacts, each with one or two channels, some of which are dead.
fn setups() -> impl Strategy<Value = Setup> {
    let severity = prop_oneof![Just(Severity::Info), Just(Severity::Warning), Just(Severity::Critical)];
    let after = prop_oneof![2 => Just(0_i64), 1 => Just(30), 1 => Just(900)];
    let person = (severity, after, any::<bool>());
    let people = prop::collection::vec(person, 1..4);
    let dead = prop::collection::vec(any::<bool>(), LABELS.len());
    let story = prop_oneof![Just(Script::Heals), Just(Script::Lies), Just(Script::Fails)];
    let acknowledged = prop::option::weighted(0.3, 300_i64..3000);
    let crashes = prop::collection::vec((0_u8..5, 1_usize..60), 0..4);
    (people, dead, story, acknowledged, crashes).prop_map(|(people, dead, script, acknowledged, crashes)| {
        let named = ["Operations", "DB on call", "Emergency"].into_iter().zip(people);
        let contacts = named.map(|(name, (severity, after, two))| Contact {
            severity,
            after: secs(after),
            ..on(name, if two { &["email 1", "webhook 1"] } else { &["email 1"] })
        });
        let crash = |(kind, at): (u8, usize)| match kind {
            0 => Crash::BeforeAppend(at),
            1 => Crash::AfterAppend(at),
            2 => Crash::BeforeEffect(at),
            3 => Crash::HalfEffect(at),
            _ => Crash::AfterEffect(at),
        };
        let contacts: Vec<Contact> = contacts.collect();
        let setup = Setup {
            script,
            tables: if script == Script::Fails { Tables::Locked } else { Tables::Works },
            dead: LABELS.into_iter().zip(dead).filter_map(|(label, dead)| dead.then_some(label)).collect(),
            deeds: acknowledged.map(|second| (When::At(second), Ask::Acknowledge)).into_iter().collect(),
            crashes: crashes.into_iter().map(crash).collect(),
            limit: 6000,
            ..broken()
        };
        with(contacts, setup)
    })
}

/// What was escalated, and what was not: of each notice that has an end on all channels.
fn check_escalation(world: &World) {
    let is_dead = |contact: &str, channel: &str| world.setup.dead.contains(&format!("{contact}/{channel}").as_str());
    let ended = world.journal.iter().filter_map(|entry| {
        if let Record::NoticeDelivered { notice, channel } | Record::NoticeDead { notice, channel, .. } = &entry.record
        {
            Some((notice.as_str(), channel.as_str()))
        } else {
            None
        }
    });
    let ended: BTreeSet<(&str, &str)> = ended.collect();
    let acknowledged = world.count(|record| matches!(record, Record::Acknowledged { .. })) > 0;
    let lost = world.notices().filter(|one| one.message.event != NoticeEvent::NoticeUndeliverable);
    for one in lost.filter(|one| one.channels.iter().all(|channel| ended.contains(&(&one.id, channel)))) {
        let prefix = format!("{}.undeliverable.", one.id);
        let told: Vec<&Notice> = world.notices().filter(|notice| notice.id.starts_with(&prefix)).collect();
        let reached = one.channels.iter().any(|channel| !is_dead(&one.contact, channel));
        for other in &world.setup.plan.contacts {
            let count = told.iter().filter(|notice| notice.contact == other.name).count();
            let wants = other.severity <= one.message.severity.max(Severity::Warning);
            if other.name == one.contact {
                let dead = one.channels.iter().filter(|channel| is_dead(&one.contact, channel)).count();
                let wanted = if reached { dead } else { dead.saturating_sub(1) };
                assert_eq!(count, wanted, "{}: told itself: {}", one.id, world.story());
            } else if reached || !wants {
                assert_eq!(count, 0, "{}: {} need not know: {}", one.id, other.name, world.story());
            } else if !acknowledged {
                assert_eq!(count, 1, "{}: {} does not know: {}", one.id, other.name, world.story());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    // That nothing is lost, and nothing overtaken, is looked at by the world itself.
    #[test]
    fn whatever_is_dead_and_whenever_it_crashes(setup in setups()) {
        let world = World::run(setup);
        check_escalation(&world);
        for entry in &world.journal {
            if let Record::NoticeCancelled { notice } = &entry.record {
                let held = world.notices().find(|one| one.id == *notice).expect("it was owed");
                prop_assert!(held.not_before > held.at, "only what was held back is cancelled: {held:?}");
                prop_assert!(world.delivered.keys().all(|(one, _)| one != notice), "it was sent");
            }
        }
    }
}
