//! The names of users, as the system has them.

/// The name of a user, or its number when it has none.
pub async fn name(uid: u32) -> String {
    let known = tokio::fs::read_to_string("/etc/passwd").await.ok().and_then(|passwd| name_in(&passwd, uid));
    known.unwrap_or_else(|| format!("user {uid}"))
}

/// The name of whoever runs this program.
pub async fn own_name() -> String {
    name(rustix::process::getuid().as_raw()).await
}

/// The name of a user in the text of `/etc/passwd`.
fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_as_the_system_does() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nana:x:1000:1000::/home/ana:/bin/sh\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ana"));
        assert_eq!(name_in(passwd, 7), None);
    }

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, token.parse().expect("a header"));
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_limited_for_a_minute() {
        let authority = Authority::new(Some(Secret::new("s3cret")));
        let via = Via::Tcp([192, 0, 2, 1].into());
        authority.admit(via, &with("bearer s3cret")).expect("the right token");
        for _ in 0..TRIES {
            let problem = authority.admit(via, &with("Bearer guess")).expect_err("a wrong token");
            assert!(format!("{problem:?}").contains("401"));
        }
        let problem = authority.admit(via, &with("Bearer s3cret")).expect_err("limited");
        assert!(format!("{problem:?}").contains("429"));
        authority.admit(Via::Socket { uid: Some(0) }, &HeaderMap::new()).expect("the socket is not limited");
        tokio::time::advance(PERIOD).await;
        authority.admit(via, &with("Bearer s3cret")).expect("a minute later");
    }
}
