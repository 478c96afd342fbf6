//! The public interface as the source has it, compared with docs/interface.txt.
//!
//! The source tells all of it: no macro makes anything public, what is `pub` can be reached from outside
//! (clippy refuses the rest), and rustfmt puts each part of it where it is looked for here.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const LISTING: &str = "docs/interface.txt";
/// With this variable the test writes the listing instead.
const WRITE: &str = "STEADFAST_WRITE";
/// Not public, in spite of its words: the test seam.
const HIDDEN: &str = "src/sys/hook";
/// Attributes that are part of what a caller sees.
const SEEN: [&str; 6] = [
    "#[cfg(",
    "#[default]",
    "#[deprecated",
    "#[derive(",
    "#[must_use",
    "#[non_exhaustive]",
];

fn depth(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Lines of code divided into items: each begins at the depth of the first, and has what is deeper or
/// closes it.
fn items<'a>(lines: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut items: Vec<Vec<&str>> = Vec::new();
    let base = lines.first().map_or(0, |line| depth(line));
    for line in lines {
        let goes_on = depth(line) > base
            || line.trim_start().starts_with(['}', ')', ']', '{', '>'])
            || line.trim() == "where";
        match items.last_mut() {
            Some(item) if goes_on => item.push(line),
            _ => items.push(vec![line]),
        }
    }
    items
}

/// An item in two: what is before its body, on one line, and the lines of the body.
fn divided<'a, 'b>(item: &'b [&'a str]) -> (String, &'b [&'a str]) {
    let base = item.first().map_or(0, |line| depth(line));
    let opens = item
        .iter()
        .position(|line| depth(line) == base && line.ends_with('{'))
        .unwrap_or(item.len() - 1);
    let (head, body) = item.split_at(opens + 1);
    let head = head.iter().map(|line| line.trim()).collect::<Vec<_>>();
    let head = head
        .join(" ")
        .replace("( ", "(")
        .replace(", )", ")")
        .replace(" )", ")");
    // Not the caller's business.
    let head = head.replace("(mut ", "(").replace(", mut ", ", ");
    let head = head.trim_end_matches([',', ';']);
    let head = head
        .strip_suffix(" {")
        .or(head.strip_suffix(" {}"))
        .unwrap_or(head);
    let head = head.trim_end_matches(',').to_owned();
    (head, &body[..body.len().saturating_sub(1)])
}

/// Whether this is an attribute that a caller notices. With a feature it may derive something.
fn is_seen(attribute: &str) -> bool {
    let derives = attribute.starts_with("#[cfg_attr(") && attribute.contains(" derive(");
    derives || SEEN.iter().any(|seen| attribute.starts_with(seen))
}

fn is_pub(head: &str) -> bool {
    head.starts_with("pub ")
}

/// The name of a type that is declared, or that an `impl` is for.
fn type_name(head: &str) -> Option<&str> {
    let after = |word: &str| head.split_once(word).map(|(_, rest)| rest);
    let rest = if head.starts_with("impl") {
        after(" for ")
            .or_else(|| head.rsplit_once("> ").map(|(_, rest)| rest))
            .or(after("impl "))
    } else {
        after("struct ").or(after("enum "))
    };
    let name = rest?
        .trim_start_matches('&')
        .split(|c: char| !c.is_alphanumeric() && c != '_');
    name.into_iter().next()
}

/// What is public of these items, a line for each thing.
fn public(lines: &[&str], indent: &str, types: &BTreeSet<String>, out: &mut String) {
    let mut attributes: Vec<String> = Vec::new();
    for item in items(lines) {
        let (mut head, body) = divided(&item);
        if head.starts_with('#') {
            if is_seen(&head) {
                // Its text may change.
                let cut = head
                    .find(" = \"")
                    .filter(|_| head.starts_with("#[must_use"));
                attributes.push(cut.map_or(head.clone(), |at| format!("{}]", &head[..at])));
            }
            continue;
        }
        let attributes = std::mem::take(&mut attributes);
        if attributes.iter().any(|a| a == "#[cfg(test)]") {
            continue;
        }
        let mut inside = String::new();
        let deeper = format!("{indent}    ");
        if head.starts_with("impl") {
            if !type_name(&head).is_some_and(|name| types.contains(name)) {
                continue;
            }
            let is_of_trait = head.contains(" for ");
            if !is_of_trait {
                public(body, &deeper, types, &mut inside);
            }
            if !is_of_trait && inside.is_empty() {
                continue;
            }
        } else if !is_pub(&head) {
            continue;
        } else if head.starts_with("pub struct ") {
            // Of a tuple, whether all of it can be seen; of others, which part.
            if let Some(at) = head.find('(').filter(|_| !head.contains("(pub ")) {
                head.replace_range(at.., "(_)");
            }
            public(body, &deeper, types, &mut inside);
            let all = items(body).iter().all(|field| {
                let head = divided(field).0;
                head.starts_with('#') || is_pub(&head)
            });
            if !all {
                inside.push_str(&format!("{deeper}..\n"));
            }
        } else if head.starts_with("pub enum ") {
            for variant in items(body) {
                let (head, fields) = divided(&variant);
                if head.starts_with('#') && !is_seen(&head) {
                    continue;
                }
                let mut fields: Vec<_> = items(fields).iter().map(|f| divided(f).0).collect();
                fields.retain(|field| !field.starts_with('#'));
                let _ = match &fields[..] {
                    [] => writeln!(inside, "{deeper}{head}"),
                    _ => writeln!(inside, "{deeper}{head} {{ {} }}", fields.join(", ")),
                };
            }
        }
        for line in attributes.iter().chain([&head]) {
            let _ = writeln!(out, "{indent}{line}");
        }
        out.push_str(&inside);
    }
}

/// The code of a file: without comments, blank lines, and what it declares for tests.
fn code(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .collect()
}

/// The listing of these files, which are given by path and text.
fn listing(files: &[(String, String)]) -> String {
    let mut types = BTreeSet::new();
    for (_, text) in files {
        for item in items(&code(text)) {
            let head = divided(&item).0;
            if head.starts_with("pub struct ") || head.starts_with("pub enum ") {
                types.extend(type_name(&head).map(str::to_owned));
            }
        }
    }
    let mut out = String::new();
    for (path, text) in files {
        let mut part = String::new();
        public(&code(text), "", &types, &mut part);
        if !part.is_empty() {
            out.push_str(&format!("\n// {path}\n{part}"));
        }
    }
    out
}

fn sources(dir: &Path, out: &mut Vec<(String, String)>) {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(super::top()).unwrap().to_str().unwrap();
            out.push((name.to_owned(), text));
        }
    }
}

#[test]
fn the_interface_is_the_one_that_is_written_down() {
    let mut files = Vec::new();
    sources(&super::top().join("src"), &mut files);
    files.retain(|(path, _)| !path.starts_with(HIDDEN));
    let now = format!(
        "The public interface, from the source, written by `{WRITE}=1 cargo test --test tidy`.\n{}",
        listing(&files)
    );
    let path = super::top().join(LISTING);
    if std::env::var_os(WRITE).is_some() {
        fs::write(path, now).unwrap();
        return;
    }
    let kept = fs::read_to_string(path).unwrap();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (kept.lines().collect(), now.lines().collect());
    let mut changes: Vec<String> = old
        .difference(&new)
        .map(|line| format!("- {line}"))
        .collect();
    changes.extend(new.difference(&old).map(|line| format!("+ {line}")));
    assert!(
        kept == now,
        "the interface is not that of {LISTING}:\n{}\n\
         {WRITE}=1 writes it anew; lines that go are for a breaking release.",
        changes.join("\n")
    );
}

#[test]
fn what_is_public_is_listed_and_nothing_else() {
    let text = r#"//! Says what it is.
use std::fmt;

pub use a::{B, C};

/// A thing.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize)
)]
#[must_use = "or else"]
pub struct Thing {
    /// Seen.
    pub seen: u8,
    unseen: u8,
    pub(super) near: u8,
}

pub struct Number(u64);
struct Inner;

#[non_exhaustive]
pub enum Choice {
    /// First.
    #[default]
    One,
    Two {
        #[cfg_attr(feature = "serde", serde(skip))]
        a: u8,
        b: u8,
    },
    Three(u8),
}

impl<T> Thing {
    /// Does it.
    pub async fn long<P: AsRef<Path>>(
        &self,
        path: P,
    ) -> Result<()>
    where
        P: Clone,
    {
        if path.is() {
            pub_not(1);
        }
    }

    #[must_use]
    pub const fn short(mut self) -> u8 {
        1
    }

    pub(crate) fn near(&self) {}
}

impl Inner {
    fn f() {}
}

impl fmt::Debug for Inner {}

impl From<Thing> for Number {
    fn from(thing: Thing) -> Self {
        Self(1)
    }
}

#[cfg(test)]
mod tests {
    pub fn helper() {}
}
"#;
    let files = [("src/a.rs".to_owned(), text.to_owned())];
    let expected = r#"
// src/a.rs
pub use a::{B, C}
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use]
pub struct Thing
    pub seen: u8
    ..
pub struct Number(_)
#[non_exhaustive]
pub enum Choice
    #[default]
    One
    Two { a: u8, b: u8 }
    Three(u8)
impl<T> Thing
    pub async fn long<P: AsRef<Path>>(&self, path: P) -> Result<()> where P: Clone
    #[must_use]
    pub const fn short(self) -> u8
impl From<Thing> for Number
"#;
    assert_eq!(listing(&files), expected);
}
