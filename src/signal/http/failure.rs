//! What a request's failure means. `reqwest` wraps the cause several times and shows the URL, so the chain is
//! walked and the cause told in our own words.

use std::error::Error;
use std::io;

use super::super::net::{self, Fault};

/// Why no answer came, or why what came was none.
pub(super) fn fault(error: &reqwest::Error) -> Fault {
    if error.is_builder() {
        return Fault::Unreadable("the request cannot be made: a header or the URL is malformed".to_owned());
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(fault) = known(cause) {
            return fault;
        }
        next = cause.source();
    }
    Fault::Unanswered("the request failed".to_owned())
}

fn known(cause: &(dyn Error + 'static)) -> Option<Fault> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        // Some certificate errors go on with a dump of their fields.
        let text = error.to_string();
        let brief = text.split_once(" {").map_or(text.as_str(), |(brief, _)| brief);
        return Some(Fault::Wrong(format!("TLS failure: {brief}")));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        if error.is_incomplete_message() {
            let closed = "the connection was closed before the answer was whole";
            return Some(Fault::Unanswered(closed.to_owned()));
        }
        if error.is_parse() {
            return Some(Fault::Wrong("what answered does not speak HTTP".to_owned()));
        }
    }
    let error = cause.downcast_ref::<io::Error>()?;
    // An I/O error's `source` is the source of what it holds, not what it holds.
    match error.get_ref() {
        Some(held) => known(held).or_else(|| error.source().is_none().then(|| net::fault(error))),
        None => Some(net::fault(error)),
    }
}
