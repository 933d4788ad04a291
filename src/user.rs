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
}
