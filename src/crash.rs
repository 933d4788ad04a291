//! Named points at which a development build can be made to end as by SIGKILL.
//!
//! `ROLLBACKD_CRASH_AT=after_append:12` ends the program right after its twelfth append to the journal. Tests go through
//! all of them with the real program. A release build has none of it.

/// A point that the program passes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Records are about to be appended to the journal.
    BeforeAppend,
    /// Records are durable, and nothing has followed from them yet.
    AfterAppend,
    /// A step is about to act; its start is durable.
    BeforeEffect,
    /// A step has acted; nobody knows yet.
    AfterEffect,
    /// A notice is about to be sent.
    BeforeDelivery,
    /// A notice was taken by its receiver; nobody knows yet.
    AfterDelivery,
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    impl Point {
        const fn name(self) -> &'static str {
            match self {
                Self::BeforeAppend => "before_append",
                Self::AfterAppend => "after_append",
                Self::BeforeEffect => "before_effect",
                Self::AfterEffect => "after_effect",
                Self::BeforeDelivery => "before_delivery",
                Self::AfterDelivery => "after_delivery",
            }
        }
    }

    static PASSED: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();

    fn wanted() -> Option<&'static (String, u64)> {
        let read = || {
            let text = std::env::var("ROLLBACKD_CRASH_AT").ok()?;
            let (name, turn) = text.split_once(':')?;
            Some((name.to_owned(), turn.parse().ok()?))
        };
        WANTED.get_or_init(read).as_ref()
    }

    pub(super) fn point(point: Point) {
        let Some((name, turn)) = wanted() else { return };
        let passed = PASSED.get(point as usize).map_or(0, |passed| passed.fetch_add(1, Ordering::SeqCst) + 1);
        if point.name() == name && passed == *turn {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
            // The signal is on its way; nothing more may happen here.
            loop {
                std::thread::park();
            }
        }
    }
}

/// The program has come to a point.
#[inline]
pub fn point(point: Point) {
    #[cfg(debug_assertions)]
    armed::point(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}
