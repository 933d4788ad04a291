//! What is owed, in which order, and what follows when it cannot be delivered.
//!
//! The outbox is the part of the state that notices make: owed from the record that causes them on, until each channel
//! has an end. Who is told what is in [`notice`]; how often a delivery is tried is the shell's business.
//!
//! * On a channel a contact's notices go out one by one, in the order in which they became owed. One that is held back
//!   holds up those behind it.
//! * A channel that fails for good is told of on the contact's other channels. A contact that no channel reached is told
//!   of to the others, and they are not made to wait for what was held back for them any more.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::pending::Effect;
use super::record::Record;
use super::state::{Owed, State};
use crate::notice::{self, Notice};
use crate::plan::Plan;

impl Owed {
    pub(super) fn new(notice: Notice) -> Self {
        Self { open: notice.channels.clone(), dead: Vec::new(), reached: false, notice }
    }

    /// Whether it may be sent.
    ///
    /// What is not held back is due at once, whatever the clock says by now: it may have been set back since. Nor does
    /// a clock that was set back hold anything back for more than twice its time.
    fn is_due(&self, now: Timestamp) -> bool {
        let Notice { at, not_before, .. } = self.notice;
        let held = not_before.duration_since(at);
        !held.is_positive() || now >= not_before || now.duration_since(at) < -held
    }

    /// Whether its channels have all failed.
    fn is_lost(&self) -> bool {
        self.open.is_empty() && !self.reached
    }
}

/// The deliveries that must be under way, and when others become due: the oldest notice of each channel.
pub(super) fn deliveries(state: &State, now: Timestamp) -> (Vec<Effect>, Vec<Timestamp>) {
    let (mut due, mut wakes) = (Vec::new(), Vec::new());
    let mut busy: BTreeSet<(&str, &str)> = BTreeSet::new();
    for owed in &state.owed {
        for channel in &owed.open {
            if !busy.insert((&owed.notice.contact, channel)) {
                continue;
            }
            if owed.is_due(now) {
                due.push(Effect::Deliver {
                    notice: owed.notice.id.clone(),
                    contact: owed.notice.contact.clone(),
                    channel: channel.clone(),
                });
            } else {
                wakes.push(owed.notice.not_before);
            }
        }
    }
    (due, wakes)
}

/// What follows from the end of a delivery.
pub(super) fn settled(
    state: &State,
    plan: &Plan,
    now: Timestamp,
    notice: String,
    channel: String,
    result: Result<(), String>,
) -> Vec<Record> {
    let owed = state.owed.iter().find(|owed| owed.notice.id == notice && owed.open.contains(&channel));
    let Some(owed) = owed else { return Vec::new() };
    let Err(reason) = result else { return vec![Record::NoticeDelivered { notice, channel }] };
    let acknowledged = state.window.as_ref().is_some_and(|window| {
        window.acknowledged.is_some() && owed.notice.message.window.as_deref() == Some(window.id.as_str())
    });
    let loss = notice::compose::Loss {
        notice: &owed.notice,
        channel: &channel,
        why: &reason,
        dead: &owed.dead,
        nobody_reached: !owed.reached && owed.open.len() == 1,
        acknowledged,
    };
    let told = notice::compose::undeliverable(&loss, plan, now);
    let mut records = vec![Record::NoticeDead { notice, channel, reason }];
    records.extend(told.into_iter().map(|notice| Record::NoticeOwed { notice }));
    records
}

/// The incident whose escalations an acknowledgement would end although its window is not open any more: the newest.
pub(super) fn escalating(state: &State, now: Timestamp) -> Option<String> {
    state.owed.iter().rev().find(|owed| !owed.is_due(now)).and_then(|owed| owed.notice.message.window.clone())
}

/// Ends the escalations of an incident that somebody has taken charge of.
pub(super) fn end_escalations(state: &State, incident: &str, now: Timestamp) -> Vec<Record> {
    let held_back = state.owed.iter().filter(|owed| owed.notice.message.incident_id == incident && !owed.is_due(now));
    held_back.map(|owed| Record::NoticeCancelled { notice: owed.notice.id.clone() }).collect()
}

impl State {
    /// A notice is owed.
    pub(super) fn owe(&mut self, notice: &Notice) {
        if let Some(window) = &mut self.window
            && notice.message.window.as_ref() == Some(&window.id)
        {
            window.messages = window.messages.max(notice.message.sequence);
        }
        self.owed.push(Owed::new(notice.clone()));
    }

    /// A delivery has ended, well or for good.
    pub(super) fn delivery_ended(&mut self, notice: &str, channel: &str, delivered: bool, at: Timestamp) {
        let Some(owed) = self.owed.iter_mut().find(|owed| owed.notice.id == notice) else { return };
        owed.open.retain(|open| open != channel);
        owed.reached |= delivered;
        if !delivered {
            owed.dead.push(channel.to_owned());
        }
        if owed.is_lost() {
            let lost = owed.notice.message.clone();
            self.stop_waiting(&lost, at);
        }
        self.owed.retain(|owed| !owed.open.is_empty());
    }

    /// One of those who were to be told first cannot be: whoever was to be told later is told now.
    fn stop_waiting(&mut self, lost: &notice::Message, at: Timestamp) {
        let same = |other: &notice::Message| {
            (&other.incident_id, other.sequence, other.event) == (&lost.incident_id, lost.sequence, lost.event)
        };
        for owed in self.owed.iter_mut().filter(|owed| same(&owed.notice.message)) {
            owed.notice.not_before = owed.notice.not_before.min(at.max(owed.notice.at));
        }
    }
}
