//! Licences and sources of all dependencies, by the rules of deny.toml: for machines without
//! cargo-deny, which checks more.

use std::collections::BTreeSet;

use cargo_metadata::Metadata;

/// The texts of a list in a TOML file, such as `allow = [...]` in `[licenses]`.
pub fn listed<'a>(toml: &'a str, section: &str, key: &str) -> BTreeSet<&'a str> {
    let begins = format!("[{section}]");
    let lines = toml.lines().skip_while(|line| line.trim() != begins).skip(1);
    let own: Vec<&str> = lines.take_while(|line| !line.starts_with('[')).collect();
    let opens = format!("{key} = [");
    let items = own.iter().skip_while(|line| !line.starts_with(&opens)).skip(1);
    items
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.split('"').nth(1))
        .collect()
}

/// The packages whose licence, or source, is not allowed.
pub fn check(metadata: &Metadata, allowed: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        match &package.license {
            None => found.push(format!("{name}: says no licence")),
            Some(licence) if satisfied(licence, allowed) => {}
            Some(licence) => found.push(format!("{name}: {licence}")),
        }
        let source = package.source.as_ref().map(|source| source.repr.as_str());
        if source.is_some_and(|source| !source.starts_with("registry+")) {
            found.push(format!("{name}: comes from {source:?}"));
        }
    }
    found
}

/// Whether an SPDX expression (annex D of its specification 2.3) can be met with these licences.
/// `/` is the OR of old manifests.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut met = all(rest, allowed);
    while let ["OR", after @ ..] = rest {
        *rest = after;
        met |= all(rest, allowed);
    }
    met
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(rest, allowed);
    while let ["AND", after @ ..] = rest {
        *rest = after;
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let met = any(rest, allowed);
            let ["(" | ")", after @ ..] = *rest else { return false };
            *rest = after;
            met
        }
        [licence, "WITH", exception, after @ ..] => {
            *rest = after;
            allowed.contains(format!("{licence} WITH {exception}").as_str())
        }
        [licence, after @ ..] => {
            *rest = after;
            allowed.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"]);
    for met in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "GPL-3.0 OR (Zlib AND MIT)",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0 OR MIT AND Zlib",
    ] {
        assert!(satisfied(met, &allowed), "{met}");
    }
    for unmet in [
        "",
        "GPL-3.0",
        "Apache-2.0",
        "MIT AND GPL-3.0",
        "(MIT OR Zlib) AND GPL-3.0",
        "GPL-3.0 WITH LLVM-exception",
        "MIT Zlib",
        "(MIT",
    ] {
        assert!(!satisfied(unmet, &allowed), "{unmet}");
    }
}

#[test]
fn a_list_is_read_from_its_section() {
    let toml = "[a]\nallow = [\n    \"x\",\n]\n[b]\nallow = [\n    \"y\", # why\n    \"z\",\n]\n";
    assert_eq!(listed(toml, "a", "allow"), BTreeSet::from(["x"]));
    assert_eq!(listed(toml, "b", "allow"), BTreeSet::from(["y", "z"]));
    assert!(listed(toml, "c", "allow").is_empty());
}
