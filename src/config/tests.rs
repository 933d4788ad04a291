//! Whole texts in, configurations or drawn problems out.

use super::*;

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let known: Vec<(String, String)> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let variable =
        move |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, value)| OsString::from(value));
    read(text.to_owned(), Path::new("/etc/rollbackd/shop.toml"), &variable, false)
}

#[test]
fn look() {
    let text = std::fs::read_to_string("/tmp/claude-cfg/bad.toml").unwrap();
    match with(&text, &[("PATH", "/usr/bin:/bin")]) {
        Ok(l) => println!("{:#?}\n{}", l.config, l.warnings),
        Err(p) => println!("{p}"),
    }
}
