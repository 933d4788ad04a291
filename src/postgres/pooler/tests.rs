use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::config::model::Database;
use crate::postgres::session::{ConnectError, Passage, Session, first};
use crate::postgres::testing::{self, Fixture};

/// Debian's pgbouncer in front of the shared server.
struct Pgbouncer {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Pgbouncer {
    async fn start(fixture: &Fixture, settings: &str) -> Self {
        let directory = testing::own_directory();
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let server: url::Url = fixture.cluster.url("postgres").parse().expect("a url");
        let password = server.password().expect("a password");
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n{settings}\n",
            fixture.cluster.port()
        );
        let path = directory.path().join("pgbouncer.ini");
        std::fs::write(&path, config).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("rights");
        let child = command(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgbouncer is installed");
        let mut started = Self { child, port, _directory: directory };
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(started.child.try_wait().expect("a child").is_none(), "pgbouncer has ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answers).await.expect("pgbouncer listens");
        started
    }

    fn database(&self, name: &str) -> Database {
        let mut url: url::Url = "postgres://somebody@127.0.0.1".parse().expect("a url");
        url.set_port(Some(self.port)).expect("a port");
        url.set_path(name);
        testing::database(url.as_str())
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// It refuses to run as root.
fn command(config: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--", "setpriv"]);
    }
    command.args(["--pdeathsig", "KILL", "--", "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "pgbouncer"]).arg(config);
    command
}

#[tokio::test]
async fn the_server_itself_is_no_pooler() {
    let fixture = Fixture::new().await;
    let database = fixture.database();
    let session = Session::connect(&database).await.expect("connects");
    assert_eq!(session.passage(&database).await.expect("a look"), Passage::Direct);
    let key = super::key_pid(session.client()).await.expect("a key");
    assert_eq!(key, super::pid(session.client()).await.expect("a number"));
    assert!(key.is_some());
}

#[tokio::test]
async fn poolers_that_do_not_keep_sessions_are_refused_and_left_as_they_were() {
    let fixture = Fixture::new().await;
    fixture.sql("create database pooled").await;
    for settings in [
        // With one client they hand out the same session each time; so nothing shows in what is set.
        "pool_mode = transaction",
        "pool_mode = statement",
        "pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 3",
        "pool_mode = transaction\ndefault_pool_size = 1",
    ] {
        let pooler = Pgbouncer::start(&fixture, settings).await;
        let database = pooler.database("pooled");
        let refused = Session::connect(&database).await.expect_err(settings);
        assert!(matches!(refused, ConnectError::Mistake { .. }), "{settings}: {refused}");
        assert!(refused.reason().contains("transaction pooler"), "{settings}: {refused}");
        assert!(refused.reason().contains("session mode"), "{settings}: {refused}");

        // The next client gets the same server's session, and must find nothing of ours in it.
        let (url, tls) = (&database.url, &database.tls);
        let next = Session::connect_to(url, tls, database.connect_timeout, database.statement_timeout).await;
        let next = next.expect("the application connects");
        for (name, value) in [("search_path", "\"$user\", public"), ("statement_timeout", "0"), ("lock_timeout", "0")] {
            let shown = next.client().simple_query(&format!("show {name}")).await.expect("a setting");
            assert_eq!(first(&shown), Some(value), "{settings}");
        }
    }
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_taken() {
    let fixture = Fixture::new().await;
    fixture.sql("create database pooled_by_session").await;
    let pooler = Pgbouncer::start(&fixture, "pool_mode = session\nserver_round_robin = 1").await;
    let database = pooler.database("pooled_by_session");
    let session = Session::connect(&database).await.expect("connects");
    assert_eq!(session.passage(&database).await.expect("a look"), Passage::Session);
    let row = session.client().query_one("select current_setting('search_path')", &[]).await.expect("a setting");
    assert_eq!(row.get::<_, String>(0), "pg_catalog, pg_temp");
}

#[tokio::test]
async fn a_pooler_that_gives_one_connection_only_is_unclear() {
    let fixture = Fixture::new().await;
    fixture.sql("create database pooled_once").await;
    let pooler = Pgbouncer::start(&fixture, "pool_mode = session\ndefault_pool_size = 1").await;
    let mut database = pooler.database("pooled_once");
    database.connect_timeout = Duration::from_secs(1);
    let session =
        Session::connect_to(&database.url, &database.tls, Duration::from_secs(5), Duration::from_secs(5)).await;
    let passage = session.expect("connects").passage(&database).await.expect("a look");
    assert!(matches!(passage, Passage::Unclear { .. }), "{passage:?}");
}
