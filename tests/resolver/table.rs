//! The table `cases.txt`: each line a look-up in the fixed tree, and what openat2 answers.
//!
//! Columns: the directory that is the root; who asks (`root`, or `user`, an unprivileged one; `user*` where
//! the tree must have been made by root); scope and further resolve flags; open flags; mode; path (`{n*256}`
//! is 256 times n, `%` stands for nothing); and behind `=` the answer: an errno, or what was opened, `new:`
//! before what was made. `*` stands for whatever the kernel says: it depends on the file system or a setting.
//!
//! `STEADFAST_RECORD=1 cargo test --test resolver table` writes the answers that openat2 gives now into the
//! file (as root, on ext4 or tmpfs, with `fs.protected_*` at 0 or 1); what changed is for a person to judge.

use super::corpus::{Corpus, as_user, is_root, with_own_mounts};
use super::support::{Case, Who, has_openat2, kernel_answers, skipped};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use steadfast::root::bare;
use steadfast::sys::errno_name;

const TABLE: &str = include_str!("cases.txt");

/// As recorded: what the answer depends on.
const ANY: &str = "*";

struct Line {
    base: String,
    who: String,
    case: Case,
    /// All before the `=`.
    words: String,
    answer: String,
}

fn resolve_flags(words: &str) -> ResolveFlags {
    words.split('+').fold(ResolveFlags::empty(), |flags, word| {
        flags
            | match word {
                "beneath" => ResolveFlags::BENEATH,
                "in_root" => ResolveFlags::IN_ROOT,
                "no_symlinks" => ResolveFlags::NO_SYMLINKS,
                "no_magic" => ResolveFlags::NO_MAGICLINKS,
                "no_xdev" => ResolveFlags::NO_XDEV,
                "cached" => ResolveFlags::CACHED,
                "unknown" => ResolveFlags::from_bits_retain(1 << 20),
                _ => panic!("no resolve flag {word:?}"),
            }
    })
}

fn open_flags(words: &str) -> OFlags {
    words.split('+').fold(OFlags::empty(), |flags, word| {
        flags
            | match word {
                "rdonly" => OFlags::RDONLY,
                "wronly" => OFlags::WRONLY,
                "rdwr" => OFlags::RDWR,
                "path" => OFlags::PATH,
                "directory" => OFlags::DIRECTORY,
                "nofollow" => OFlags::NOFOLLOW,
                "creat" => OFlags::CREATE,
                "excl" => OFlags::EXCL,
                "trunc" => OFlags::TRUNC,
                "append" => OFlags::APPEND,
                "nonblock" => OFlags::NONBLOCK,
                "noatime" => OFlags::NOATIME,
                "sync" => OFlags::SYNC,
                "tmpfile" => OFlags::TMPFILE,
                "tmpfile_bit" => OFlags::TMPFILE.difference(OFlags::DIRECTORY),
                "unknown" => OFlags::from_bits_retain(1 << 30),
                _ => panic!("no open flag {word:?}"),
            }
    })
}

/// `{n*256}` written out, wherever it stands; `%` is an empty path.
fn path(word: &str) -> Vec<u8> {
    let mut out = String::new();
    let mut rest = if word == "%" { "" } else { word };
    while let Some((before, behind)) = rest.split_once('{') {
        let (times, after) = behind.split_once('}').unwrap();
        let (what, times) = times.rsplit_once('*').unwrap();
        out += before;
        out += &what.repeat(times.parse().unwrap());
        rest = after;
    }
    (out + rest).into_bytes()
}

fn parse(line: &str) -> Line {
    let (words, answer) = line.split_once(" = ").unwrap_or((line, ""));
    let w: Vec<&str> = words.split_whitespace().collect();
    let [base, who, resolve, flags, mode, name] = w[..] else {
        panic!("not six words: {line:?}");
    };
    Line {
        base: base.to_owned(),
        who: who.to_owned(),
        case: Case {
            path: path(name),
            flags: open_flags(flags),
            mode: Mode::from_bits_retain(u32::from_str_radix(mode, 8).unwrap()),
            resolve: resolve_flags(resolve),
        },
        words: words.trim_end().to_owned(),
        answer: answer.trim().to_owned(),
    }
}

/// The answer, as the table writes it; `None` where it cannot be asked here.
fn answer(corpus: &Corpus, line: &Line, who: Who) -> Option<String> {
    if !corpus.full && line.who != "user" {
        return None;
    }
    let root = corpus.base(&line.base)?;
    let opened = match line.who.as_str() {
        "root" => line.case.open(who, root),
        "user" | "user*" => as_user(|| line.case.open(who, root)),
        other => panic!("nobody is called {other:?}"),
    };
    let changing = OFlags::CREATE | OFlags::TRUNC | OFlags::TMPFILE.difference(OFlags::DIRECTORY);
    let changes = line.case.flags.intersects(changing);
    let answer = match opened {
        Ok(fd) => corpus.outcome(&fd, changes),
        Err(e) => errno_name(e).map_or_else(|| format!("{e:?}"), ToOwned::to_owned),
    };
    assert!(
        !answer.starts_with('!'),
        "{}: {who:?} opened {answer}",
        line.words
    );
    Some(answer)
}

/// What the walk calls the path is a path without links to the very same thing.
fn check_canonical(corpus: &Corpus, line: &Line, openat2: bool) {
    let Some(root) = corpus.base(&line.base) else {
        return;
    };
    let flags = line.case.flags;
    if line.base != "tree" || !flags.contains(OFlags::PATH) {
        return;
    }
    let ask = || bare::canonical(root, &line.case.path, flags, line.case.resolve);
    let found = if line.who == "root" {
        ask()
    } else {
        as_user(ask)
    };
    let Ok((fd, canonical)) = found else {
        return;
    };
    let again = Case {
        path: if canonical.is_empty() {
            b".".to_vec()
        } else {
            canonical.clone()
        },
        flags: OFlags::PATH | OFlags::NOFOLLOW,
        mode: Mode::empty(),
        resolve: ResolveFlags::BENEATH,
    };
    let odd = canonical
        .split(|b| *b == b'/')
        .any(|n| matches!(n, b"." | b".." | b""));
    assert!(
        canonical.is_empty() || !odd,
        "{}: {:?}",
        line.words,
        again.path
    );
    let who = if openat2 { Who::Raw } else { Who::Walk };
    let again = again.open(who, root).unwrap();
    assert_eq!(
        super::support::id(&fd),
        super::support::id(&again),
        "{}",
        line.words
    );
}

/// What is wrong with the answers to one line.
fn check(corpus: &Corpus, line: &Line, openat2: bool, wrong: &mut Vec<String>) {
    let tmpfile = OFlags::TMPFILE.difference(OFlags::DIRECTORY);
    let depends = line.answer == ANY || line.case.flags.intersects(tmpfile);
    let want = match (depends, openat2) {
        (false, _) => Some(line.answer.clone()),
        (true, true) => answer(corpus, line, Who::Raw),
        (true, false) => None,
    };
    let Some(want) = want else {
        return;
    };
    let mut askable = vec![Who::Walk, Who::Auto];
    if openat2 {
        askable.push(Who::Raw);
    }
    if kernel_answers() {
        askable.push(Who::Kernel);
    }
    for who in askable {
        let Some(mut got) = answer(corpus, line, who) else {
            return;
        };
        // While others rename, the kernel counts the links of a path twice at times.
        for _ in 0..5 {
            if matches!(who, Who::Raw | Who::Kernel) && got == "ELOOP" && got != want {
                got = answer(corpus, line, who).unwrap();
            }
        }
        // Without openat2 nobody knows what is cached.
        let cached = line.case.resolve.contains(ResolveFlags::CACHED);
        if got != want && !(cached && got == "EAGAIN" && matches!(who, Who::Walk | Who::Auto)) {
            wrong.push(format!("{}: {who:?} says {got}, not {want}", line.words));
        }
    }
}

/// Asks every line of the table in the tree that is built in `dir`; `openat2`: the kernel can be asked.
pub(crate) fn compare(dir: &std::path::Path, openat2: bool) {
    let (mut wrong, mut asked, mut left_out) = (Vec::new(), 0, 0);
    with_own_mounts(|| {
        let corpus = Corpus::build(dir);
        for line in TABLE
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let line = parse(line);
            // Without procfs the settings for sticky directories count as set.
            let unknown = corpus.proc.is_none() && line.case.path.starts_with(b"sticky/");
            if unknown || answer(&corpus, &line, Who::Walk).is_none() {
                left_out += 1;
                continue;
            }
            asked += 1;
            check(&corpus, &line, openat2, &mut wrong);
            check_canonical(&corpus, &line, openat2);
        }
    });
    // Where the test itself took procfs away, its cases are not missed.
    let expected = std::env::var(super::children::ROLE).is_ok_and(|role| role == "no-proc");
    if left_out > 0 && !expected {
        let why = if is_root() {
            "/proc is missing"
        } else {
            "they need root"
        };
        skipped(&format!("{left_out} cases of the table"), why);
    }
    assert!(
        wrong.is_empty(),
        "{} of {asked}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(asked >= 300, "{asked} cases only");
}

/// Writes the table anew, with the answers that openat2 gives now.
fn record(dir: &std::path::Path) {
    let mut new = String::new();
    with_own_mounts(|| {
        let corpus = Corpus::build(dir);
        for text in TABLE.lines() {
            new += text.split(" = ").next().unwrap();
            if !text.is_empty() && !text.starts_with('#') {
                let line = parse(text);
                let raw = answer(&corpus, &line, Who::Raw).expect("recording needs root and /proc");
                new += " = ";
                new += if line.answer == ANY { ANY } else { &raw };
            }
            new.push('\n');
        }
    });
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/resolver/cases.txt");
    std::fs::write(file, new).unwrap();
}

#[test]
fn table() {
    let dir = super::common::dir();
    if std::env::var_os("STEADFAST_RECORD").is_some() {
        return record(dir.path());
    }
    compare(dir.path(), has_openat2());
}
