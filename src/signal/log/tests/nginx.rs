//! A real nginx writes its access log, which is moved away while it does.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};

use rollbackd_core::sample::Reading;

use super::*;
use crate::config;
use crate::config::model::SignalSource;
use crate::signal::testing::closed_port;

/// An nginx with two workers, which answers 200, and 500 below `/fail`.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(directory: &Path, address: SocketAddr) -> Self {
        let place = directory.display();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let text = format!(
            "{user}\ndaemon off;\nworker_processes 2;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\nevents {{}}\n\
             http {{\n{temporary}access_log {place}/logs/access.log;\nserver {{\nlisten {address};\n\
             location / {{ return 200; }}\nlocation /fail {{ return 500; }}\n}}\n}}\n"
        );
        fs::write(directory.join("nginx.conf"), text).unwrap();
        let debian = Path::new("/usr/sbin/nginx");
        let program = if debian.exists() { debian } else { Path::new("nginx") };
        let mut command = Command::new(program);
        command.arg("-e").arg(directory.join("error.log")).arg("-c").arg(directory.join("nginx.conf"));
        let child = command.spawn().expect("nginx: tools/install-deps test installs it");
        let nginx = Self { child, address };
        wait_until("nginx listens", || TcpStream::connect(address).is_ok());
        nginx
    }

    /// Makes requests, of which every fourth fails.
    fn ask(address: SocketAddr, count: usize) {
        for number in 0..count {
            let path = if number % 4 == 0 { "/fail?of=\"x\"" } else { "/works?status=\" 500 " };
            let mut stream = TcpStream::connect(address).unwrap();
            let path = path.replace(' ', "%20");
            write!(stream, "GET {path} HTTP/1.0\r\nUser-Agent: a \" 500 \" b\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        }
    }

    /// Tells it to open its logs anew.
    fn reopen(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // Its workers end with it.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "a bound for a wait in a test without a runtime's clock")]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_counted_once_while_the_log_is_rotated() {
    const CLIENTS: usize = 2;
    const REQUESTS: usize = 600;
    let directory = tempfile::Builder::new().prefix("rollbackd-").tempdir_in("/tmp").unwrap();
    fs::create_dir(directory.path().join("logs")).unwrap();
    let path = directory.path().join("logs/access.log");
    let nginx = Nginx::start(directory.path(), closed_port().await);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/nginx-access-log.toml");
    let example = config::load(&example).unwrap().config;
    let SignalSource::Log(source) = example.signals[0].source.clone() else { panic!("a log") };
    let log = Log::new("access-log", &LogSource { path: path.clone(), ..source }, directory.path());

    let (mut good, mut bad, mut tail) = (0, 0, Tail::default());
    let mut last = None;
    let mut take = async || {
        let mut came = None;
        match log.read(Duration::from_secs(10), &mut came).await {
            Ok(Reading::Events { good: more, bad: worse, reason, .. }) => {
                good += more;
                bad += worse;
                last = reason.or(last.take());
            }
            // Moved away, and not there again yet.
            Ok(Reading::Unreadable { .. }) => panic!("a fault is one"),
            Err(Fault::Unreadable(reason)) => assert!(reason.starts_with("there is no log"), "{reason}"),
            Err(fault) => panic!("{fault:?}"),
        }
        let came = came.unwrap_or_default();
        tail.rotations += came.rotations;
        tail.dropped_bytes += came.dropped_bytes;
        (good, bad)
    };
    take().await;
    let address = nginx.address;
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(move || Nginx::ask(address, REQUESTS))).collect();
    let mut moved = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        // Two at a time, so that some come and go between two turns.
        for _ in 0..2 {
            moved += 1;
            fs::rename(&path, path.with_file_name(format!("access.log.{moved}"))).unwrap();
            nginx.reopen();
            wait_until("the log is there again", || path.exists());
        }
        take().await;
    }
    for client in clients {
        client.join().unwrap();
    }
    let all = u64::try_from(CLIENTS * REQUESTS).unwrap();
    let mut counted = (0, 0);
    for _ in 0..500 {
        counted = take().await;
        if counted.0 + counted.1 >= all {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // And not more than that.
    let again = take().await;
    assert_eq!((counted, again), ((all * 3 / 4, all / 4), counted));
    assert_eq!((tail.rotations, tail.dropped_bytes), (moved, 0));
    assert!(moved >= 2);
    let last = last.unwrap();
    assert!(last.contains("\"GET /fail?of=\\x22x\\x22 HTTP/1.0\" 500 "), "{last}");
}
