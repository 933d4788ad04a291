//! What the service manager is told.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::open;
use crate::stage::{Stage, eventually};

/// The service manager's end of the socket.
pub(super) struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    pub(super) fn listen(stage: &mut Stage) -> Self {
        let path = stage.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stage.set("NOTIFY_SOCKET", path.display().to_string());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::downgrade(&heard);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends when nobody wants to know any more.
            while let Some(kept) = kept.upgrade() {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    kept.lock().unwrap().extend(text.lines().map(str::to_owned));
                }
            }
        });
        Self { heard }
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    #[track_caller]
    pub(super) fn wait_for(&self, line: &str) {
        eventually(&format!("the service manager hears {line}"), || {
            let heard = self.heard();
            if heard.iter().any(|one| one.contains(line)) { Ok(()) } else { Err(heard) }
        });
    }
}

#[test]
fn it_hears_when_the_daemon_is_ready_alive_and_stopping() {
    let mut stage = Stage::new("systemd");
    let manager = Manager::listen(&mut stage);
    let daemon = stage.daemon();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=no window is open");
    let alive = || manager.heard().iter().filter(|line| *line == "WATCHDOG=1").count();
    let so_far = alive();
    eventually("signs of life keep coming", || if alive() > so_far + 3 { Ok(()) } else { Err(alive()) });
    open(&stage);
    stage.wait_for_state("watching");
    manager.wait_for(" is watching");
    assert!(!manager.heard().contains(&"STOPPING=1".to_owned()));
    daemon.term().expect(0);
    manager.wait_for("STOPPING=1");
    let heard = manager.heard();
    assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1, "{heard:?}");
    assert_eq!(heard[0], "READY=1");
}
