//! Who a process is, as `/proc` says, so that a number that was given away again is not taken for the old one.

use std::sync::OnceLock;
use std::time::Duration;

use rollbackd_core::run::record::Process;
use tokio::time::{Instant, sleep};

/// How often a process that is not our child is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What `/proc/<pid>/stat` says of a process.
struct Stat {
    name: String,
    state: char,
    group: i32,
    session: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// The name stands in parentheses and may itself hold some; the fields after the last one are counted from 3.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
        Some(Self {
            name: name.to_owned(),
            state: field(3)?.chars().next()?,
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }

    /// A zombie does nothing any more; it only waits to be counted.
    const fn is_running(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it has left for good (`setsid`), as daemons do that a script starts: what we start stays in our session.
    const fn left(&self) -> bool {
        self.group == self.session
    }
}

/// The boot that we run in. It cannot change while we do.
fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned())
    })
    .as_deref()
}

/// The identity of a process that is there, running or not reaped yet.
pub(super) fn of(pid: i32) -> Option<Process> {
    let stat = Stat::read(pid)?;
    Some(Process { pid, start_ticks: stat.start_ticks, boot_id: boot_id()?.to_owned() })
}

/// Whether this very process still runs: same number, same start, same boot. A zombie does not.
pub fn alive(process: &Process) -> bool {
    boot_id() == Some(process.boot_id.as_str())
        && Stat::read(process.pid).is_some_and(|stat| stat.start_ticks == process.start_ticks && stat.is_running())
}

/// Waits until a process is gone. `false`: it is still there after `within`.
pub async fn gone(process: &Process, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while alive(process) {
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        sleep(LOOK.min(deadline - now)).await;
    }
    true
}

/// What a process was started with: variables of its environment, which it hands down. They prove that a process is ours
/// where its number no longer does.
#[derive(Debug, Clone)]
pub struct Marks(Vec<Vec<u8>>);

impl Marks {
    /// Marks of these variables and values.
    pub fn new(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect())
    }

    fn are_on(&self, pid: i32) -> bool {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        self.0.iter().all(|wanted| environment.split(|byte| *byte == 0).any(|variable| variable == wanted))
    }

    /// The process that leads what was started with these, or, when only others of its group are left, what stands for it.
    pub fn find(&self) -> Option<Process> {
        let mut followers = None;
        for (pid, stat) in running() {
            if stat.left() || !self.are_on(pid) {
                continue;
            }
            if stat.group == pid {
                return of(pid);
            }
            // Nobody has this start: the leader is gone, and its group is known by its number and the marks.
            followers = Some(Process { pid: stat.group, start_ticks: 0, boot_id: boot_id()?.to_owned() });
        }
        followers
    }

    /// Whether anything with these marks runs in a group. While it does, the group's number is nobody else's.
    pub(super) async fn in_group(&self, group: i32) -> bool {
        let marks = self.clone();
        let look = move || running().any(|(pid, stat)| stat.group == group && !stat.left() && marks.are_on(pid));
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// Every process that runs.
fn running() -> impl Iterator<Item = (i32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, Stat::read(pid)?))).filter(|(_, stat)| stat.is_running())
}

/// The numbers and names of the processes that run in a group.
pub(super) async fn members(group: i32) -> Vec<(i32, String)> {
    // Hundreds of small files: quick, but no work for the threads that carry the probes.
    tokio::task::spawn_blocking(move || scan(group)).await.unwrap_or_default()
}

fn scan(group: i32) -> Vec<(i32, String)> {
    running().filter(|(_, stat)| stat.group == group).map(|(pid, stat)| (pid, stat.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "77 (a) b (c) S 1 42 43 0 -1 4194304 120 0 0 0 0 0 0 0 20 0 1 0 189592 3133440 413";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.group, stat.start_ticks), ("a) b (c", 'S', 42, 189_592));
        assert!(!stat.left() && Stat::parse(&line.replace(" 43 ", " 42 ")).unwrap().left());
        assert!(stat.is_running());
        assert!(!Stat::parse(&line.replace(" S ", " Z ")).unwrap().is_running());
        assert!(Stat::parse("77 (short) S 1").is_none());
    }

    #[test]
    fn another_start_or_another_boot_is_another_process() {
        let us = of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(alive(&us));
        assert!(!alive(&Process { start_ticks: us.start_ticks + 1, ..us.clone() }));
        assert!(!alive(&Process { boot_id: "00000000-0000-0000-0000-000000000000".to_owned(), ..us }));
    }

    #[test]
    fn a_process_is_found_by_what_it_was_started_with() {
        use std::os::unix::process::CommandExt as _;

        let mark = format!("{}-found", std::process::id());
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .env("IDENTITY_MARK", &mark)
            .env("IDENTITY_STEP", "3")
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let marks = Marks::new(&[("IDENTITY_MARK", &mark), ("IDENTITY_STEP", "3")]);
        assert_eq!(marks.find(), of(pid));
        assert_eq!(Marks::new(&[("IDENTITY_MARK", &mark), ("IDENTITY_STEP", "33")]).find(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(marks.find(), None);
    }
}
