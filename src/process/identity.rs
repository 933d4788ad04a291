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
            start_ticks: field(22)?.parse().ok()?,
        })
    }

    /// A zombie does nothing any more; it only waits to be counted.
    const fn is_running(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
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

/// The leader of a group that was started with these variables in its environment.
pub fn started_with(variables: &[(&str, &str)]) -> Option<Process> {
    let wanted: Vec<Vec<u8>> = variables.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
    let has_all = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        wanted.iter().all(|wanted| environment.split(|byte| *byte == 0).any(|variable| variable == wanted))
    };
    let pids = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| Stat::read(*pid).is_some_and(|stat| stat.group == *pid && stat.is_running()))
        .find(|pid| has_all(*pid))
        .and_then(of)
}

/// The numbers and names of the processes that run in a group.
pub(super) async fn members(group: i32) -> Vec<(i32, String)> {
    // Hundreds of small files: quick, but no work for the threads that carry the probes.
    tokio::task::spawn_blocking(move || scan(group)).await.unwrap_or_default()
}

fn scan(group: i32) -> Vec<(i32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let stat = Stat::read(pid)?;
            (stat.group == group && stat.is_running()).then_some((pid, stat.name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "77 (a) b (c) S 1 42 42 0 -1 4194304 120 0 0 0 0 0 0 0 20 0 1 0 189592 3133440 413";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.group, stat.start_ticks), ("a) b (c", 'S', 42, 189_592));
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
        assert_eq!(started_with(&[("IDENTITY_MARK", &mark), ("IDENTITY_STEP", "3")]), of(pid));
        assert_eq!(started_with(&[("IDENTITY_MARK", &mark), ("IDENTITY_STEP", "33")]), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(started_with(&[("IDENTITY_MARK", &mark), ("IDENTITY_STEP", "3")]), None);
    }
}
