use lettre::message::Mailbox as Address;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::*;

async fn started() -> (Mailbox, TaskTracker, CancellationToken) {
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let mailbox = start(&tracker, &cancel).await.unwrap();
    (mailbox, tracker, cancel)
}

async fn ended(tracker: TaskTracker, cancel: CancellationToken) {
    cancel.cancel();
    tracker.close();
    timeout(Duration::from_secs(5), tracker.wait()).await.expect("the server ends when it is cancelled");
}

/// Sends lines, and gives back the first word of each line of the answer.
async fn say(address: SocketAddr, lines: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(lines.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.lines().map(|line| line.chars().take(3).collect()).collect()
}

#[tokio::test]
async fn a_real_client_delivers() {
    let (mut mailbox, tracker, cancel) = started().await;
    let client = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(mailbox.address.port())
        .timeout(Some(Duration::from_secs(5)))
        .build();
    let to: Address = "Operations <ops@shop.example>".parse().unwrap();
    let message = Message::builder()
        .from("rollbackd <rollbackd@shop.example>".parse().unwrap())
        .to(to)
        .subject(
            "[rollbackd][CRITICAL] shop: breach detected, and a subject that is long enough to be folded by the client",
        )
        .body(".a line that starts with a dot\r\nand one more".to_owned())
        .unwrap();
    timeout(Duration::from_secs(5), client.send(message)).await.unwrap().unwrap();
    let mails = timeout(Duration::from_secs(5), mailbox.mails.wait_for(|mails| !mails.is_empty()))
        .await
        .unwrap()
        .unwrap()
        .clone();
    let [mail] = mails.as_slice() else { panic!("{mails:?}") };
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("rollbackd@shop.example", ["ops@shop.example".to_owned()].as_slice())
    );
    assert_eq!(
        mail.header("subject"),
        "[rollbackd][CRITICAL] shop: breach detected, and a subject that is long enough to be folded by the client"
    );
    assert!(mail.text.contains("\r\n\r\n.a line that starts with a dot\r\nand one more"), "{}", mail.text);
    drop(client);
    ended(tracker, cancel).await;
}

#[tokio::test]
async fn commands_out_of_order_are_refused_and_nothing_is_kept() {
    let (mailbox, tracker, cancel) = started().await;
    let codes = say(
        mailbox.address,
        "HELO here\r\nRCPT TO:<a@b>\r\nDATA\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\nDATA\r\nRSET\r\nRCPT TO:<a@b>\r\nQUIT\r\n",
    )
    .await;
    assert_eq!(codes, ["220", "250", "503", "503", "502", "250", "503", "250", "503", "221"]);
    assert!(mailbox.mails.borrow().is_empty());
    ended(tracker, cancel).await;
}

#[tokio::test]
async fn a_message_cut_off_or_too_big_is_not_kept() {
    let (mailbox, tracker, cancel) = started().await;
    let head = "EHLO here\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n";
    let codes = say(mailbox.address, &format!("{head}Subject: half")).await;
    assert_eq!(codes.last().map(String::as_str), Some("354"));
    let big = "x".repeat(999) + "\r\n";
    let codes = say(mailbox.address, &format!("{head}{}.\r\nQUIT\r\n", big.repeat(MAX_MESSAGE / 1000 + 2))).await;
    assert_eq!(codes.iter().rev().take(2).collect::<Vec<_>>(), ["221", "552"]);
    assert!(mailbox.mails.borrow().is_empty());
    ended(tracker, cancel).await;
}

#[test]
fn a_header_is_found_whatever_its_case_and_folding() {
    let text =
        "Received: by x\r\nX-Subject: no\r\nsubject: one\r\n two\r\n\tthree\r\nTo: a\r\n\r\nSubject: in the body\r\n";
    let mail = Mail { from: String::new(), to: Vec::new(), text: text.to_owned() };
    assert_eq!(mail.header("Subject"), "one two three");
    assert_eq!(mail.header("To"), "a");
    assert_eq!(mail.header("Cc"), "");
}
