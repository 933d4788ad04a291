//! Mail to servers that do what no real one can be made to do: stall, die, mumble, in the middle of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::mail::{channel, smtp};
use super::{Attempts, deliver, living, sender};
use crate::clock::Stopwatch;
use crate::config::model::Smtp;
use crate::notify::samples;

/// What a server does to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Takes the mail, and says goodbye.
    Takes,
    /// Greets with these words.
    Greets(&'static str),
    /// Answers this command with these words, and goes on.
    Says(&'static str, &'static str),
    /// Has the whole mail, and says nothing more.
    StallsAfterData,
    /// Has the whole mail, and takes so many milliseconds to say that it takes it.
    ScansFor(u64),
    /// Takes the mail, and does not answer the goodbye.
    IgnoresQuit,
    /// Refuses the recipient for good, and does not answer the goodbye.
    RefusesAndIgnoresQuit,
    /// Is gone, with a reset, when this command comes.
    Dies(&'static str),
    /// Is gone, with a reset, when it has the whole mail and before it says so.
    DiesAfterData,
}

/// A server that does one thing a connection, and then takes what comes.
struct Server {
    port: u16,
    mails: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn that(does: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mails, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (got, count) = (Arc::clone(&mails), Arc::clone(&connections));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                let does = does.get(number).copied().unwrap_or(Does::Takes);
                let got = Arc::clone(&got);
                // A client that leaves in the middle is what some of these are about.
                open.spawn(async move { drop(talk(stream, does, got).await) });
            }
        });
        Self { port, mails, connections, _tasks: tasks }
    }

    fn smtp(&self, timeout: Duration) -> Smtp {
        Smtp { timeout, ..smtp("127.0.0.1", self.port) }
    }

    /// The mails whose contents it has, accepted or not.
    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn talk(stream: TcpStream, does: Does, got: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = if let Does::Greets(words) = does { words } else { "220 mail.test" };
    stream.write_all(format!("{greeting}\r\n").as_bytes()).await?;
    let mut line = String::new();
    while {
        line.clear();
        stream.read_line(&mut line).await? > 0
    } {
        let command = line.split([' ', '\r', ':']).next().unwrap_or_default().to_ascii_uppercase();
        if does
            == Does::Dies(match command.as_str() {
                "MAIL" => "MAIL",
                "RCPT" => "RCPT",
                "DATA" => "DATA",
                _ => "",
            })
        {
            return reset(&stream);
        }
        let mut answer = match command.as_str() {
            "DATA" => "354 go on",
            "QUIT" => "221 goodbye",
            _ => "250 fine",
        };
        if let Does::Says(to, words) = does
            && to == command
        {
            answer = words;
        } else if does == Does::RefusesAndIgnoresQuit && command == "RCPT" {
            answer = "550 no such user here";
        } else if matches!(does, Does::IgnoresQuit | Does::RefusesAndIgnoresQuit) && command == "QUIT" {
            return std::future::pending().await;
        }
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        if command == "DATA" && answer.starts_with('3') {
            contents(&mut stream, does, &got).await?;
        } else if command == "QUIT" {
            return Ok(());
        }
    }
    Ok(())
}

async fn contents(stream: &mut BufReader<TcpStream>, does: Does, got: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (mut mail, mut line) = (String::new(), String::new());
    while line != ".\r\n" {
        mail.push_str(&line);
        line.clear();
        stream.read_line(&mut line).await?;
    }
    got.lock().unwrap().push(mail);
    match does {
        Does::StallsAfterData => return std::future::pending().await,
        Does::DiesAfterData => return reset(stream),
        Does::ScansFor(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
        Does::Takes
        | Does::Greets(_)
        | Does::Says(..)
        | Does::IgnoresQuit
        | Does::RefusesAndIgnoresQuit
        | Does::Dies(_) => {}
    }
    stream.write_all(b"250 taken\r\n").await
}

/// Closed with a reset, as when the machine is gone.
fn reset(stream: &BufReader<TcpStream>) -> std::io::Result<()> {
    stream.get_ref().set_zero_linger()?;
    Err(std::io::ErrorKind::ConnectionReset.into())
}

fn message_id(mail: &str) -> &str {
    mail.lines().find(|line| line.starts_with("Message-ID: ")).expect("every mail has one")
}

/// Delivers to a server that does these things, and says what became of it and how the attempts failed.
async fn delivered(server: &Server, timeout: Duration) -> (Result<(), String>, Vec<String>) {
    let sender = sender(channel(), Some(server.smtp(timeout)));
    let attempts = Attempts::default();
    let result = deliver(&sender, &samples::fresh(samples::breach()), "email 1", &attempts).await;
    (result, attempts.failures())
}

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_server_that_stalls_after_the_mail_gets_the_same_mail_again() {
    let server = Server::that(&[Does::StallsAfterData]).await;
    assert_eq!(delivered(&server, SHORT).await, (Ok(()), vec!["timeout".to_owned()]));
    let mails = server.mails();
    assert_eq!(mails.len(), 2, "it may have taken the first");
    assert_eq!(mails[0], mails[1], "so that who gets both can tell");
    assert!(message_id(&mails[0]).contains("shop-20261122T020000Z.3.0"), "{}", message_id(&mails[0]));
}

#[tokio::test]
async fn a_server_that_scans_for_long_is_waited_for_and_gets_it_once() {
    // Longer than all commands before may take.
    let server = Server::that(&[Does::ScansFor(400)]).await;
    assert_eq!(delivered(&server, SHORT).await, (Ok(()), vec![]));
    assert_eq!((server.mails().len(), server.connections()), (1, 1));
}

#[tokio::test]
async fn what_was_taken_is_not_sent_again_because_of_the_goodbye() {
    let server = Server::that(&[Does::IgnoresQuit]).await;
    let watch = Stopwatch::start();
    assert_eq!(delivered(&server, LONG).await, (Ok(()), vec![]));
    assert!(watch.elapsed() < Duration::from_secs(4), "nobody waits for it: {:?}", watch.elapsed());
    assert_eq!((server.mails().len(), server.connections()), (1, 1));
}

#[tokio::test]
async fn what_was_refused_is_refused_whatever_comes_of_the_goodbye() {
    let server = Server::that(&[Does::RefusesAndIgnoresQuit]).await;
    let (result, failures) = delivered(&server, LONG).await;
    assert!(result.unwrap_err().contains("no such user here"));
    assert_eq!((failures, server.connections()), (vec!["smtp_5yz".to_owned()], 1));
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_gets_it_when_it_is_back() {
    let server = Server::that(&[Does::Dies("MAIL"), Does::Dies("RCPT"), Does::Dies("DATA"), Does::DiesAfterData]).await;
    let (result, failures) = delivered(&server, LONG).await;
    assert_eq!((result, failures), (Ok(()), vec!["connect".to_owned(); 4]));
    let mails = server.mails();
    assert_eq!((mails.len(), server.connections()), (2, 5));
    assert_eq!(mails[0], mails[1]);
}

#[tokio::test]
async fn what_a_server_says_decides_wherever_it_says_it() {
    let rows: [(Does, &str, bool); 9] = [
        (Does::Greets("421 too busy"), "smtp_4yz", true),
        (Does::Greets("554 no service here"), "smtp_5yz", false),
        (Does::Says("MAIL", "452 out of space"), "smtp_4yz", true),
        (Does::Says("RCPT", "450 greylisted"), "smtp_4yz", true),
        (Does::Says("RCPT", "553 not for me"), "smtp_5yz", false),
        (Does::Says("DATA", "421 going down"), "smtp_4yz", true),
        (Does::Says("DATA", "554 no"), "smtp_5yz", false),
        (Does::Says("MAIL", "what?"), "other", true),
        (Does::Greets("SSH-2.0-OpenSSH_9.2"), "other", true),
    ];
    for (does, label, again) in rows {
        let server = Server::that(Box::leak(Box::new([does]))).await;
        let (result, failures) = delivered(&server, LONG).await;
        assert_eq!(failures, [label], "{does:?}: {result:?}");
        assert_eq!(result.is_ok(), again, "{does:?}: {result:?}");
        assert_eq!(server.mails().len(), usize::from(again), "{does:?}");
    }
}

#[tokio::test]
async fn a_server_that_always_puts_off_lets_the_notice_expire() {
    let always: &'static [Does] = Box::leak(vec![Does::Says("RCPT", "450 greylisted"); 1000].into());
    let server = Server::that(always).await;
    let sender = sender(channel(), Some(server.smtp(LONG)));
    let attempts = Attempts::default();
    let error = deliver(&sender, &living(700), "email 1", &attempts).await.unwrap_err();
    assert!(attempts.count() > 2, "{}", attempts.count());
    let said = format!("expired after {} attempts; last: the mail server asks to try later: ", attempts.count());
    assert!(error.starts_with(&said), "{error}");
}
