//! Debian's pgbouncer in front of a real server.

use std::process::Stdio;

use tokio::process::{Child, Command};

use super::*;
use crate::config::model::TlsMode;
use crate::postgres::session::{ConnectError, Session};
use crate::postgres::testing::{Fixture, own_directory};

const PATIENCE: Duration = Duration::from_secs(10);

/// A pooler that serves `shop`, `other` and, through its `*` entry, every database by its own name.
struct Pooler {
    fixture: Fixture,
    port: u16,
    role: String,
    directory: tempfile::TempDir,
    child: Child,
}

impl Pooler {
    async fn start(role: &str, fallback: bool) -> Self {
        let fixture = Fixture::new().await;
        fixture.sql(&format!("create role {role} login password 'sesame'")).await;
        let directory = own_directory();
        let port = closed_port().await.port();
        let server = format!("host=127.0.0.1 port={}", fixture.cluster.port());
        let fallback = if fallback { format!("* = {server}\n") } else { String::new() };
        let place = directory.path().display();
        let settings = format!(
            "[databases]\nshop = {server} dbname='{}'\nother = {server} dbname=postgres\n{fallback}\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = {place}/users\nadmin_users = boss\nstats_users = looker\npool_mode = transaction\n",
            fixture.name
        );
        let users = ["boss", "looker", role].map(|user| format!("\"{user}\" \"sesame\"\n")).concat();
        std::fs::write(directory.path().join("pgbouncer.ini"), settings).unwrap();
        std::fs::write(directory.path().join("users"), users).unwrap();
        let child = spawn(directory.path());
        let pooler = Self { fixture, port, role: role.to_owned(), directory, child };
        pooler.wait().await;
        pooler
    }

    /// Until it answers.
    async fn wait(&self) {
        let up = async {
            while self.console("boss").await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let is_up = tokio::time::timeout(PATIENCE, up).await.is_ok();
        assert!(is_up, "{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap());
    }

    async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.child = spawn(self.directory.path());
        self.wait().await;
    }

    fn url(&self, user: &str, database: &str) -> String {
        let port = format!(":{}/", self.fixture.cluster.port());
        self.fixture.cluster.url_as(user, "sesame", database).replace(&port, &format!(":{}/", self.port))
    }

    async fn console(&self, user: &str) -> Result<Session, ConnectError> {
        let tls = self.fixture.database().tls;
        Session::connect_bare(&address(&self.url(user, "pgbouncer")), &tls, PATIENCE).await
    }

    /// What an admin does by hand.
    async fn admin(&self, command: &str) {
        self.console("boss").await.unwrap().client().simple_query(command).await.expect(command);
    }

    /// As the application connects.
    async fn client(&self, database: &str) -> Result<Session, ConnectError> {
        let tls = self.fixture.database().tls;
        Session::connect_bare(&address(&self.url(&self.role, database)), &tls, PATIENCE).await
    }

    async fn answers(&self, database: &str) -> bool {
        match self.client(database).await {
            Ok(session) => session.client().simple_query("select 1").await.is_ok(),
            Err(_) => false,
        }
    }

    /// What the pooler says of a database: paused and disabled.
    async fn state(&self, database: &str) -> Option<String> {
        let console = self.console("boss").await.unwrap();
        let messages = console.client().simple_query("show databases").await.unwrap();
        messages.iter().find_map(|message| {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
            let is_it = row.get("name") == Some(database);
            is_it.then(|| format!("paused {} disabled {}", row.get("paused").unwrap(), row.get("disabled").unwrap()))
        })
    }

    fn gate(&self, user: &str, database: &str) -> Gate {
        let url = address(&self.url(user, "pgbouncer"));
        let kind = GateKind::Pgbouncer { url, tls_mode: TlsMode::Disable, database: database.to_owned() };
        Gate { timeout: Duration::from_secs(10), ..gate(kind, None) }
    }

    async fn read(&self, gate: &Gate) -> Outcome {
        super::super::read(gate, &Pinned::new(&self.fixture.database()), LONG).await
    }

    async fn prior_of(&self, gate: &Gate) -> String {
        let outcome = self.read(gate).await;
        assert_succeeded(&outcome);
        let Finding::Gate { prior } = outcome.finding else { panic!("{outcome:?}") };
        prior
    }

    async fn close(&self, gate: &Gate, prior: &str) -> Outcome {
        super::super::close(gate, &Pinned::new(&self.fixture.database()), prior, LONG).await
    }

    async fn open(&self, gate: &Gate, prior: &str) -> Outcome {
        super::super::open(gate, &Pinned::new(&self.fixture.database()), prior, LONG).await
    }

    async fn rehearse(&self, gate: &Gate) -> Result<String, String> {
        rehearse(gate, &Pinned::new(&self.fixture.database()), LONG).await
    }

    /// The application's sessions on the server.
    async fn sessions(&self) -> i64 {
        self.fixture.number(&format!("select count(*) from pg_stat_activity where usename = '{}'", self.role)).await
    }
}

/// It does not run as root.
fn spawn(directory: &Path) -> Child {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
    let program = program.expect("pgbouncer: `tools/install-deps test` installs it");
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--", program]);
        command
    } else {
        Command::new(program)
    };
    let log = std::fs::File::create(directory.join("log")).unwrap();
    command.arg(directory.join("pgbouncer.ini")).current_dir(directory).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[tokio::test]
async fn clients_are_turned_away_and_come_back_however_often() {
    let pooler = Pooler::start("pooled", false).await;
    let gate = pooler.gate("boss", "shop");
    let idle = pooler.client("shop").await.unwrap();
    idle.client().simple_query("select 1").await.unwrap();
    let working = pooler.client("shop").await.unwrap();
    working.client().batch_execute("begin; create temp table t ()").await.unwrap();
    let other = pooler.client("other").await.unwrap();
    other.client().batch_execute("begin").await.unwrap();
    let said = pooler.rehearse(&gate).await.unwrap();
    assert!(said.contains("is open, with 2 clients now, and can be disabled"), "{said}");
    working.client().simple_query("select 1").await.expect("trying ends nobody");

    let prior = pooler.prior_of(&gate).await;
    for _ in 0..2 {
        let closed = pooler.close(&gate, &prior).await;
        assert_succeeded(&closed);
        assert!(closed.detail.contains("no client or server connection is left"), "{}", closed.detail);
        assert!(!closed.detail.contains("sesame"), "{}", closed.detail);
        assert!(!pooler.answers("shop").await);
    }
    for session in [&idle, &working] {
        assert!(session.client().simple_query("select 1").await.is_err());
    }
    other.client().batch_execute("commit").await.expect("another database's client");
    let gone = async {
        // One is the other database's.
        while pooler.sessions().await > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("no session of the application is left on the server");
    assert_eq!(pooler.state("shop").await.unwrap(), "paused 1 disabled 1");
    for _ in 0..2 {
        assert_succeeded(&pooler.open(&gate, &prior).await);
        assert!(pooler.answers("shop").await);
    }
    assert_eq!(pooler.state("shop").await.unwrap(), "paused 0 disabled 0");
}

#[tokio::test]
async fn what_was_found_is_put_back() {
    let pooler = Pooler::start("pooled_found", false).await;
    let gate = pooler.gate("boss", "shop");
    for (command, undo, found) in
        [("disable shop", "enable shop", "paused 0 disabled 1"), ("pause shop", "resume shop", "paused 1 disabled 0")]
    {
        pooler.admin(command).await;
        let refused = pooler.rehearse(&gate).await.unwrap_err();
        assert!(refused.contains("traffic is stopped now"), "{refused}");
        let prior = pooler.prior_of(&gate).await;
        assert!(is_left_closed(&gate, &prior));
        assert_succeeded(&pooler.close(&gate, &prior).await);
        assert_eq!(pooler.state("shop").await.unwrap(), "paused 1 disabled 1");
        assert_succeeded(&pooler.open(&gate, &prior).await);
        assert_eq!(pooler.state("shop").await, Some(found.to_owned()), "{command}");
        pooler.admin(undo).await;
    }
    // Half closed, by a crash between the two.
    let prior = pooler.prior_of(&gate).await;
    pooler.admin("disable shop").await;
    assert_succeeded(&pooler.open(&gate, &prior).await);
    assert!(pooler.answers("shop").await);
}

#[tokio::test]
async fn a_pooler_that_was_started_anew_is_closed_again_and_opened() {
    let mut pooler = Pooler::start("pooled_anew", false).await;
    let gate = pooler.gate("boss", "shop");
    let prior = pooler.prior_of(&gate).await;
    assert_succeeded(&pooler.close(&gate, &prior).await);
    pooler.restart().await;
    assert!(pooler.answers("shop").await, "it forgets");
    assert_succeeded(&pooler.close(&gate, &prior).await);
    assert!(!pooler.answers("shop").await);
    pooler.restart().await;
    assert_succeeded(&pooler.open(&gate, &prior).await);
    assert!(pooler.answers("shop").await);
}

#[tokio::test]
async fn databases_of_the_star_entry_and_names_that_need_quoting_work() {
    let pooler = Pooler::start("pooled_star", true).await;
    // `Test "1" 🚀`, which no line of the pooler's configuration could name.
    let name = pooler.fixture.name.clone();
    let gate = pooler.gate("boss", &name);
    assert_eq!(pooler.state(&name).await, None, "it is not in use");
    let prior = pooler.prior_of(&gate).await;
    let client = pooler.client(&name).await.unwrap();
    client.client().simple_query("select 1").await.unwrap();
    assert_succeeded(&pooler.close(&gate, &prior).await);
    assert!(client.client().simple_query("select 1").await.is_err());
    assert!(!pooler.answers(&name).await);
    assert!(pooler.answers("shop").await, "the same database under another name of the pooler");
    assert_succeeded(&pooler.close(&gate, &prior).await);
    assert_succeeded(&pooler.open(&gate, &prior).await);
    assert!(pooler.answers(&name).await);
    let injected = pooler.gate("boss", "x\"; shutdown; \"");
    assert_succeeded(&pooler.close(&injected, &prior).await);
    assert!(pooler.answers("shop").await, "a name is a name");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let pooler = Pooler::start("pooled_wrong", false).await;
    let prior = "{\"disabled\":false,\"paused\":false}";
    let looker = pooler.gate("looker", "shop");
    let refused = pooler.rehearse(&looker).await.unwrap_err();
    assert!(refused.contains("admin access needed") && refused.contains("admin_users"), "{refused}");
    let refused = pooler.close(&looker, prior).await;
    assert!(!refused.is_success() && refused.detail.contains("admin access needed"), "{refused:?}");
    let nowhere = pooler.gate("boss", "nowhere");
    for outcome in
        [pooler.read(&nowhere).await, pooler.close(&nowhere, prior).await, pooler.open(&nowhere, prior).await]
    {
        assert!(!outcome.is_success() && outcome.detail.contains("no such database: nowhere"), "{outcome:?}");
    }
    let stranger = pooler.gate("stranger", "shop");
    let refused = pooler.read(&stranger).await;
    assert!(!refused.is_success() && refused.detail.contains("pgbouncer at postgres://127.0.0.1:"), "{refused:?}");
    assert!(!refused.detail.contains("sesame") && !refused.detail.contains("stranger"), "{refused:?}");
    let odd = pooler.close(&pooler.gate("boss", "shop"), "present").await;
    assert!(!odd.is_success() && pooler.answers("shop").await, "nothing is changed that cannot be put back: {odd:?}");
    // Paused as a whole: the command is refused, and that is said.
    pooler.admin("pause").await;
    let refused = pooler.close(&pooler.gate("boss", "shop"), prior).await;
    assert!(!refused.is_success() && refused.detail.contains("already suspended/paused"), "{refused:?}");
}
