use std::sync::Mutex;

use super::*;

fn shell(script: &str) -> Command {
    Command {
        program: "/bin/sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        shown: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        directory: PathBuf::from("/"),
    }
}

fn spec(command: &Command) -> Spec<'_> {
    Spec {
        command,
        environment: Vec::new(),
        timeout: Duration::from_secs(20),
        grace: Duration::from_secs(5),
        output: None,
    }
}

async fn run_it(spec: Spec<'_>) -> (Ended, Process) {
    let seen = Mutex::new(None);
    let ended = run(spec, &CancellationToken::new(), |process| *seen.lock().unwrap() = Some(process)).await.unwrap();
    (ended, seen.into_inner().unwrap().expect("a started process is reported"))
}

/// Waits until a file holds a number.
async fn number_in(path: &Path) -> i32 {
    for _ in 0..200 {
        if let Some(number) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
            return number;
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("{} never held a number", path.display());
}

#[tokio::test]
async fn output_code_and_environment() {
    let command = shell("echo out $GIVEN; echo err >&2; exit 3");
    let mut spec = spec(&command);
    spec.environment = vec![("GIVEN".to_owned(), Secret::new("it"))];
    let (ended, process) = run_it(spec).await;
    assert_eq!(ended.how, How::Exited(3));
    assert_eq!(ended.stdout, "out it\n");
    assert!(ended.output.contains("out it\n") && ended.output.contains("err\n"), "{:?}", ended.output);
    assert_eq!(ended.notes, Vec::<String>::new());
    assert!(!alive(&process));
    assert!(gone(&process, Duration::ZERO).await);
}

#[tokio::test]
async fn it_leads_a_group_of_its_own_and_has_nothing_to_read() {
    let command = shell("cat; cut -d' ' -f1,5 /proc/$$/stat; exit 0");
    let (ended, process) = run_it(spec(&command)).await;
    assert_eq!(ended.stdout.trim(), format!("{} {}", process.pid, process.pid));
}

#[tokio::test]
async fn a_signal_that_is_not_ours_is_named() {
    let command = shell("kill -9 $$");
    let (ended, _) = run_it(spec(&command)).await;
    assert_eq!(ended.how, How::Signalled(9));
    assert_eq!(ended.sentence(), "was ended by signal 9");
}

#[tokio::test]
async fn a_time_out_asks_first() {
    let command = shell("trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done");
    let mut spec = spec(&command);
    spec.timeout = Duration::from_secs(1);
    let (ended, process) = run_it(spec).await;
    assert_eq!(ended.how, How::TimedOut);
    assert_eq!(ended.stdout, "asked\n");
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert!(!alive(&process));
}

#[tokio::test]
async fn one_that_ignores_term_is_killed_after_the_grace() {
    let command = shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done");
    let mut spec = spec(&command);
    spec.timeout = Duration::from_secs(1);
    spec.grace = Duration::from_millis(300);
    let (ended, process) = run_it(spec).await;
    assert_eq!(ended.how, How::TimedOut);
    assert!(ended.took >= Duration::from_millis(1300), "{:?}", ended.took);
    assert!(!alive(&process));
}

#[tokio::test]
async fn the_token_ends_it_too_and_keeps_a_later_one_from_starting() {
    let command = shell("sleep 100");
    let stop = CancellationToken::new();
    let running = run(spec(&command), &stop, |_| stop.cancel());
    assert_eq!(running.await.unwrap().how, How::Stopped);
    let refused = run(spec(&command), &stop, |_| panic!("it must not start")).await;
    assert!(matches!(refused, Err(StartError::Stopped { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_the_leader_leaves_behind_is_killed_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let command = shell(&format!("sleep 1000 & echo $! > {}; echo done", file.display()));
    let (ended, _) = run_it(spec(&command)).await;
    assert_eq!(ended.how, How::Exited(0));
    assert_eq!(ended.stdout, "done\n");
    let grandchild = number_in(&file).await;
    // It may not have come to be `sleep` yet.
    let (start, end) = ("1 process left behind and killed: s", format!(" ({grandchild})"));
    assert!(matches!(&ended.notes[..], [note] if note.starts_with(start) && note.ends_with(&end)), "{:?}", ended.notes);
    assert!(identity::of(grandchild).is_none_or(|process| !alive(&process)));
    assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
}

#[tokio::test]
async fn a_flood_is_capped_in_memory_and_its_end_is_kept() {
    let command = shell("yes abcdefg | head -c 5000000; echo; echo the end");
    let (ended, _) = run_it(spec(&command)).await;
    assert_eq!(ended.how, How::Exited(0));
    assert!(ended.output.len() <= 16 * 1024);
    assert_eq!(ended.last_line().as_deref(), Some("the end"));
}

#[tokio::test]
async fn a_file_is_appended_private_and_read_back() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("made/on the way/output");
    let command = shell("echo one; echo two >&2");
    for _ in 0..2 {
        let mut spec = spec(&command);
        spec.output = Some(file.clone());
        let (ended, _) = run_it(spec).await;
        assert_eq!(ended.output_file.as_ref(), Some(&file));
        assert!(ended.output.ends_with("one\ntwo\n"));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\none\ntwo\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_flood_does_not_fill_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("output");
    let command = shell("yes abcdefg | head -c 150000000; sleep 0.6; echo the end");
    let mut spec = spec(&command);
    spec.output = Some(file.clone());
    let (ended, _) = run_it(spec).await;
    assert_eq!(ended.how, How::Exited(0));
    assert!(std::fs::metadata(&file).unwrap().len() <= output::FILE_CAP);
    assert!(ended.notes[0].starts_with("its output passed 64 MiB and was cut"), "{:?}", ended.notes);
    assert!(std::fs::read_to_string(&file).unwrap().contains("rollbackd emptied this file"));
    assert!(ended.output.contains("abcdefg\nabcdefg"), "the end of what was cut is kept");
    assert_eq!(ended.last_line().as_deref(), Some("the end"));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_does_not_keep_it_from_running() {
    let command = shell("echo ran");
    let mut spec = spec(&command);
    spec.output = Some(PathBuf::from("/proc/nowhere/output"));
    let (ended, _) = run_it(spec).await;
    assert_eq!((ended.how, ended.stdout.as_str()), (How::Exited(0), "ran\n"));
    assert_eq!(ended.output_file, None);
    assert!(ended.notes[0].contains("/proc/nowhere/output cannot be opened"), "{:?}", ended.notes);
}

#[tokio::test]
async fn secrets_that_it_prints_are_masked() {
    let mut command = shell("echo $TOKEN $0");
    command.arguments.push("hidden-argument".to_owned());
    command.shown.push("***".to_owned());
    let mut spec = spec(&command);
    spec.environment = vec![("TOKEN".to_owned(), Secret::new("hidden-value"))];
    assert!(!format!("{spec:?}").contains("hidden"), "{spec:?}");
    let (ended, _) = run_it(spec).await;
    assert_eq!(ended.output, "*** ***\n");
    assert_eq!(ended.stdout, "*** ***\n");
}

#[tokio::test]
async fn one_that_cannot_start_names_program_and_reason() {
    async fn reason(program: &str, directory: &Path) -> String {
        let command = Command {
            program: program.to_owned(),
            arguments: Vec::new(),
            shown: vec![program.to_owned()],
            directory: directory.to_owned(),
        };
        let started = |_| panic!("nothing starts");
        run(spec(&command), &CancellationToken::new(), started).await.unwrap_err().to_string()
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("plain"), "no program").unwrap();
    let here = directory.path();
    assert_eq!(
        reason("no-such-program", here).await,
        "`no-such-program` was not found; write its full path or put it into PATH"
    );
    assert!(reason("scripts/none.sh", here).await.contains(&format!("in {}", here.display())));
    assert_eq!(reason("./plain", here).await, "`./plain` cannot be started: Permission denied (os error 13)");
    assert_eq!(
        reason("true", Path::new("/no/such/directory")).await,
        "`true` cannot be started: its directory /no/such/directory is not there"
    );
}

#[tokio::test]
async fn a_relative_program_is_looked_for_in_the_commands_directory() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.sh");
    std::fs::write(&script, "#!/bin/sh\npwd\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let command = Command {
        program: "./script.sh".to_owned(),
        arguments: Vec::new(),
        shown: vec!["./script.sh".to_owned()],
        directory: directory.path().to_owned(),
    };
    let (ended, _) = run_it(spec(&command)).await;
    assert_eq!(ended.stdout.trim(), directory.path().canonicalize().unwrap().display().to_string());
}

#[tokio::test]
async fn one_without_a_file_does_not_outlive_its_asker() {
    let command = shell("sleep 1000 & wait");
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    let process = tokio::select! {
        ended = run(spec(&command), &stop, |process| sender.send(process).unwrap()) => panic!("{ended:?}"),
        process = receiver => process.unwrap(),
    };
    assert!(gone(&process, Duration::from_secs(5)).await);
    for _ in 0..100 {
        if identity::members(process.pid).await.is_empty() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("its group is still there");
}

#[tokio::test]
async fn an_orphan_is_ended_with_its_group_and_a_stranger_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("output");
    let command = shell("trap '' TERM; (trap '' TERM; sleep 1000) & echo $!; wait");
    let mut spec = spec(&command);
    spec.output = Some(file.clone());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    // Dropped while it runs, as by a crash: with a file it goes on.
    let process = tokio::select! {
        ended = run(spec, &stop, |process| sender.send(process).unwrap()) => panic!("{ended:?}"),
        process = receiver => process.unwrap(),
    };
    number_in(&file).await;
    let marks = || Marks::new(&[("NOT", "there")]);
    let stranger = Process { start_ticks: process.start_ticks + 1, ..process.clone() };
    let stranger = Orphan { process: &stranger, marks: marks() };
    stranger.end(Duration::from_millis(100)).await.unwrap();
    assert!(stranger.gone(Duration::ZERO).await);
    assert!(alive(&process));
    let orphan = Orphan { process: &process, marks: marks() };
    assert!(orphan.runs().await && !orphan.gone(Duration::from_millis(100)).await);

    orphan.end(Duration::from_millis(200)).await.unwrap();
    assert!(!alive(&process));
    assert!(identity::members(process.pid).await.is_empty());
    orphan.end(Duration::ZERO).await.unwrap();
}

/// Starts a script that outlives whoever asked for it, marked with a variable, and waits until its file holds a line.
async fn abandoned(script: &str, file: &Path, mark: &str) -> Process {
    let command = shell(script);
    let mut spec = spec(&command);
    spec.environment = vec![("TEST_MARK".to_owned(), Secret::new(mark))];
    spec.output = Some(file.to_owned());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    tokio::select! {
        ended = run(spec, &stop, |process| sender.send(process).unwrap()) => panic!("{ended:?}"),
        process = receiver => process.unwrap(),
    }
}

#[tokio::test]
async fn what_a_leader_left_in_its_group_is_found_by_what_it_was_started_with() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("output");
    let mark = directory.path().display().to_string();
    // The leader ends while nobody looks; one child goes on in its group, and one left it for good, as daemons do.
    let script = "setsid sh -c 'echo $$ > daemon; exec sleep 1000' & \
                  (trap '' TERM; while :; do sleep 0.05; done) & echo $!; while [ ! -s daemon ]; do sleep 0.02; done";
    let script = format!("cd {mark}; {script}");
    let process = abandoned(&script, &file, &mark).await;
    let follower = number_in(&file).await;
    let daemon = identity::of(number_in(&directory.path().join("daemon")).await).unwrap();
    assert!(gone(&process, Duration::from_secs(20)).await);

    let marks = || Marks::new(&[("TEST_MARK", &mark)]);
    let found = marks().find().expect("the group is found, though its leader was never recorded");
    assert_eq!((found.pid, alive(&found)), (process.pid, false));
    let other = Orphan { process: &process, marks: Marks::new(&[("TEST_MARK", "another")]) };
    assert!(!other.runs().await, "without the marks nothing proves that the group is ours");
    other.end(Duration::ZERO).await.unwrap();
    let orphan = Orphan { process: &process, marks: marks() };
    assert!(!orphan.gone(Duration::from_millis(300)).await, "what it left is waited for");
    assert!(identity::of(follower).is_some());

    orphan.end(Duration::from_millis(200)).await.unwrap();
    assert!(orphan.gone(Duration::ZERO).await);
    assert!(identity::members(process.pid).await.is_empty());
    assert!(alive(&daemon), "what has left the group is meant to stay");
    assert_eq!(marks().find(), None);
    signal_group(daemon.pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn what_an_orphan_prints_does_not_fill_the_disk_while_it_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("output");
    let mark = directory.path().display().to_string();
    let script = "while [ ! -e go ]; do sleep 0.02; done; yes abcdefg | head -c 150000000; sleep 1; echo the end";
    let process = abandoned(&format!("cd {mark}; {script}"), &file, &mark).await;
    let orphan = Orphan { process: &process, marks: Marks::new(&[("TEST_MARK", &mark)]) };
    std::fs::write(directory.path().join("go"), "").unwrap();
    assert!(orphan.gone_while_kept(&file, Duration::from_secs(60)).await);
    assert!(std::fs::metadata(&file).unwrap().len() <= output::FILE_CAP);
    let text = std::fs::read_to_string(&file).unwrap();
    // The child may print between the cut and the note of it.
    assert!(text.contains("[rollbackd emptied this file") && text.ends_with("the end\n"), "{} bytes", text.len());
}

#[tokio::test]
async fn whatever_ends_is_reaped() {
    let command = shell("exit 0");
    let mut ended = Vec::new();
    for _ in 0..20 {
        ended.push(run_it(spec(&command)).await.1.pid);
    }
    let forgotten = shell("sleep 1000");
    for _ in 0..20 {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let stop = CancellationToken::new();
        // Nobody waits for it any more.
        tokio::select! {
            ended = run(spec(&forgotten), &stop, |process| sender.send(process).unwrap()) => panic!("{ended:?}"),
            process = receiver => ended.push(process.unwrap().pid),
        }
    }
    let ours = std::process::id().to_string();
    let children = || {
        let stat = |pid: &&i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of_ours = |pid: &&i32| {
            let stat = stat(pid);
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(ours.as_str()))
        };
        ended.iter().filter(of_ours).copied().collect::<Vec<_>>()
    };
    for _ in 0..400 {
        if children().is_empty() {
            return;
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("not reaped: {:?}", children());
}
