//! Redirects, followed by hand and only as many as were asked for.
//!
//! What is secret stays with the host that it was meant for: headers go to no other, nor does a body, and a request
//! that began encrypted does not go on in the clear.

use std::collections::BTreeMap;

use url::Url;

use super::super::net::Fault;
use super::Ask;
use crate::config::model::Secret;

/// The next request.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) url: Url,
    /// What is sent along.
    pub(super) headers: BTreeMap<String, Secret>,
    /// Whether the body is.
    pub(super) whole: bool,
    /// Whether the method stays.
    pub(super) same_method: bool,
}

/// Whether a status asks to look elsewhere.
pub(super) const fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Where an answer leads.
pub(super) fn follow(asked: &Ask<'_>, status: u16, location: Option<&str>) -> Result<Next, Fault> {
    let wrong = |what: &str| Fault::Wrong(format!("status {status} {what}"));
    let mut url = location
        .and_then(|location| asked.url.join(location).ok())
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| wrong("without a Location that can be followed"))?;
    if asked.url.scheme() == "https" && url.scheme() == "http" {
        return Err(wrong("leads from https to http: not followed"));
    }
    let whole = matches!(status, 307 | 308);
    let same_host = same_host(asked.url, &url);
    if whole && !same_host && asked.body.is_some() {
        return Err(wrong("leads to another host, which is not sent the body"));
    }
    if same_host && url.username().is_empty() && url.password().is_none() {
        // Who asks is a part of the URL, and stays too. URLs with a host refuse none of it.
        url.set_username(asked.url.username()).and_then(|()| url.set_password(asked.url.password())).ok();
    }
    let mut headers = if same_host { asked.headers.clone() } else { BTreeMap::new() };
    if !whole {
        // Those that tell of a body go with it.
        headers.retain(|name, _| !name.to_ascii_lowercase().starts_with("content-"));
    }
    Ok(Next { url, headers, whole, same_method: whole || asked.method == "HEAD" })
}

/// Whether both are served by the same one: the same port too, but for the step from http to https.
fn same_host(from: &Url, to: &Url) -> bool {
    let upgraded = (from.scheme(), to.scheme()) == ("http", "https") && from.port().is_none() && to.port().is_none();
    from.host() == to.host() && (upgraded || from.port_or_known_default() == to.port_or_known_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(method: &'a str, url: &'a Url, headers: &'a BTreeMap<String, Secret>, body: &'a Secret) -> Ask<'a> {
        Ask { method, url, headers, body: Some(body) }
    }

    fn headers() -> BTreeMap<String, Secret> {
        BTreeMap::from(["apikey", "Content-Type"].map(|name| (name.to_owned(), Secret::new("x"))))
    }

    /// Where a redirect leads, and whether the headers go along.
    fn to(from: &str, location: &str) -> Result<(String, bool), String> {
        let (url, headers, body) = (from.parse().unwrap(), headers(), Secret::new("x"));
        let next = follow(&asked("POST", &url, &headers, &body), 302, Some(location)).map_err(Fault::into_reason)?;
        Ok((next.url.to_string(), !next.headers.is_empty()))
    }

    #[test]
    fn where_an_answer_leads_and_whether_secrets_may_go_along() {
        let kept = |url: &str| Ok((url.to_owned(), true));
        let bare = |url: &str| Ok((url.to_owned(), false));
        assert_eq!(to("http://a/x/y?q=1", "../z"), kept("http://a/z"));
        assert_eq!(to("http://a/x", "//b/z"), bare("http://b/z"));
        assert_eq!(to("http://u:p@a/x", "http://a/z"), kept("http://u:p@a/z"));
        assert_eq!(to("http://u:p@a/x", "http://b/z"), bare("http://b/z"));
        assert_eq!(to("http://a:8080/", "http://a:8081/"), bare("http://a:8081/"));
        assert_eq!(to("http://a/", "https://a/"), kept("https://a/"));
        assert_eq!(to("http://a:8080/", "https://a/"), bare("https://a/"));
        let clear = Err("status 302 leads from https to http: not followed".to_owned());
        assert_eq!(to("https://a/", "http://a/"), clear);
        let nowhere = Err("status 302 without a Location that can be followed".to_owned());
        assert_eq!(to("http://a/", "ftp://a/"), nowhere);
        assert_eq!(to("http://a/", "http://"), nowhere);
    }

    #[test]
    fn what_is_kept_of_a_request() {
        let (url, headers, body) = ("http://a/".parse().unwrap(), headers(), Secret::new("x"));
        let kept = |method, status, location| {
            let next = follow(&asked(method, &url, &headers, &body), status, Some(location)).unwrap();
            (next.same_method, next.whole, next.headers.into_keys().collect::<Vec<_>>())
        };
        let all = || vec!["Content-Type".to_owned(), "apikey".to_owned()];
        assert_eq!(kept("PUT", 307, "/b"), (true, true, all()));
        assert_eq!(kept("PUT", 308, "/b"), (true, true, all()));
        assert_eq!(kept("PUT", 303, "/b"), (false, false, vec!["apikey".to_owned()]));
        assert_eq!(kept("PUT", 301, "http://b/"), (false, false, vec![]));
        assert_eq!(kept("HEAD", 302, "/b"), (true, false, vec!["apikey".to_owned()]));
        let refused = follow(&asked("PUT", &url, &headers, &body), 308, Some("http://b/")).unwrap_err().into_reason();
        assert_eq!(refused, "status 308 leads to another host, which is not sent the body");
    }
}
