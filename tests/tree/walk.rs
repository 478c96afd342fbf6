//! The order of events, and what others do meanwhile.

use crate::common;
use crate::support::{Random, build, is_root, name, skipped};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use steadfast::tree::{Event, Walk};
use steadfast::{ErrorKind, Root};

/// Every event as text: `+` enter, `-` leave, `.` other.
fn events<D: steadfast::sys::AsFd>(walk: &mut Walk<D>) -> Vec<String> {
    let mut out = Vec::new();
    while let Some(event) = walk.next().unwrap() {
        let (sign, entry) = match event {
            Event::Enter(e) => ('+', e),
            Event::Leave(e) => ('-', e),
            Event::Other(e) => ('.', e),
            other => panic!("{other:?}"),
        };
        out.push(format!("{sign}{}", entry.path().display()));
    }
    out
}

#[test]
fn directories_come_before_and_after_their_contents() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a/b")).unwrap();
    fs::write(dir.path().join("t/a/b/f"), "").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let want = ["+t", "+t/a", "+t/a/b", ".t/a/b/f", "-t/a/b", "-t/a", "-t"];
    assert_eq!(events(&mut root.walk("t").unwrap()), want);
    // Over a directory's contents alone.
    let want = ["+b", ".b/f", "-b"];
    assert_eq!(events(&mut root.walk("t/a/").unwrap()), want);
    assert_eq!(events(&mut root.walk("t/a/.").unwrap()), want);
    assert_eq!(events(&mut Walk::over(&root).unwrap()).len(), 7);
    // A single file, and what a symlink leads to is not looked at.
    assert_eq!(events(&mut root.walk("t/a/b/f").unwrap()), [".f"]);
    std::os::unix::fs::symlink("..", dir.path().join("t/a/b/up")).unwrap();
    assert_eq!(events(&mut root.walk("t/a/b/up").unwrap()), [".up"]);
    assert_eq!(events(&mut root.walk("t").unwrap()).len(), 8);
    let missing = root.walk("nope").unwrap().next().unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(missing.path(), Some(PathBuf::from("nope").as_path()));
}

#[test]
fn it_finds_what_is_there() {
    let dir = common::dir();
    for seed in 0..10 {
        let top = dir.path().join(format!("t{seed}"));
        build(&top, &mut Random::new(seed));
        let mut want = BTreeSet::new();
        let mut stack = vec![top.clone()];
        while let Some(path) = stack.pop() {
            if path.symlink_metadata().unwrap().is_dir() {
                stack.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
            want.insert(path);
        }
        let root = Root::open(dir.path()).unwrap();
        let mut walk = root.walk(format!("t{seed}")).unwrap();
        let (mut found, mut left) = (BTreeSet::new(), BTreeSet::new());
        while let Some(event) = walk.next().unwrap() {
            let is_leave = matches!(event, Event::Leave(_));
            let (Event::Enter(e) | Event::Leave(e) | Event::Other(e)) = event else {
                panic!("a mount");
            };
            let path = dir.path().join(e.path());
            let meta = e.metadata().unwrap().unwrap();
            assert_eq!(meta.kind(), e.kind());
            assert_eq!(meta.is_dir(), e.dir().is_some());
            let set = if is_leave { &mut left } else { &mut found };
            assert!(set.insert(path.clone()), "{path:?} twice");
        }
        assert_eq!(found, want);
        assert!(left.iter().all(|p| p.is_dir() && !p.is_symlink()));
        let dirs = want
            .iter()
            .filter(|p| p.is_dir() && !p.is_symlink())
            .count();
        assert_eq!(left.len(), dirs);
    }
}

#[test]
fn contents_can_be_left_out() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a/b")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut walk = root.walk("t").unwrap();
    let mut seen = Vec::new();
    loop {
        let skip = match walk.next().unwrap() {
            None => break,
            Some(Event::Enter(e)) => {
                seen.push(format!("+{}", e.path().display()));
                e.name() == &name("a")
            }
            Some(Event::Leave(e)) => {
                seen.push(format!("-{}", e.path().display()));
                false
            }
            Some(_) => false,
        };
        if skip {
            walk.skip_contents();
        }
    }
    assert_eq!(seen, ["+t", "+t/a", "-t/a", "-t"]);
}

#[test]
fn what_vanishes_is_passed_over() {
    let dir = common::dir();
    let top = dir.path().join("t");
    fs::create_dir_all(top.join("d")).unwrap();
    for n in 0..20 {
        fs::create_dir(top.join(format!("d/{n}"))).unwrap();
        fs::write(top.join(format!("d/f{n}")), "").unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let mut walk = root.walk("t").unwrap();
    let mut events = 0;
    while let Some(event) = walk.next().unwrap() {
        events += 1;
        if let Event::Enter(e) = event
            && e.depth() == 2
        {
            // Its listing was read before.
            fs::remove_dir_all(top.join("d")).unwrap();
        }
    }
    // At least t, d and one in it, each in and out; files before that may have been handed out.
    assert!((6..=26).contains(&events), "{events}");
}

/// A chain of `n` directories, each named `d`.
fn chain(dir: &std::path::Path, n: usize) -> PathBuf {
    let mut path = dir.to_owned();
    for _ in 0..n {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_directory_that_moves_away_and_its_parent_too_is_an_error() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/canary"), "").unwrap();
    chain(&dir.path().join("t"), 40);
    let at = |n: usize| {
        let mut path = dir.path().join("t");
        path.extend(std::iter::repeat_n("d", n));
        path
    };
    let root = Root::open(dir.path()).unwrap();
    let mut walk = root.walk("t").unwrap();
    let error = loop {
        match walk.next() {
            Ok(Some(Event::Enter(e))) if e.depth() == 40 => {
                fs::rename(at(15), dir.path().join("outside/d")).unwrap();
                fs::rename(at(14), dir.path().join("aside")).unwrap();
            }
            Ok(Some(Event::Other(e))) => panic!("{e:?}"),
            Ok(Some(_)) => {}
            Ok(None) => panic!("it came back from elsewhere"),
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert!(walk.next().unwrap().is_none());
}

#[test]
fn a_directory_that_moves_away_alone_is_left_again() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/canary"), "").unwrap();
    chain(&dir.path().join("t"), 40);
    let mut moved = dir.path().join("t");
    moved.extend(std::iter::repeat_n("d", 15));
    let root = Root::open(dir.path()).unwrap();
    let mut walk = root.walk("t").unwrap();
    let mut left = 0;
    while let Some(event) = walk.next().unwrap() {
        match event {
            Event::Enter(e) if e.depth() == 40 => {
                fs::rename(&moved, dir.path().join("outside/d")).unwrap();
            }
            Event::Leave(_) => left += 1,
            Event::Other(e) => panic!("{e:?}"),
            _ => {}
        }
    }
    assert_eq!(left, 41);
}

#[test]
fn a_directory_that_may_not_be_read_is_an_error_and_the_rest_comes() {
    if is_root() && !crate::support::as_nobody(|| true) {
        skipped("walk", "threads cannot change their user here");
        return;
    }
    let dir = common::dir();
    for sub in ["t/a", "t/closed", "t/z"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    crate::support::chmod(&dir.path().join("t/closed"), 0);
    let root = Root::open(dir.path()).unwrap();
    let (events, errors) = crate::support::as_nobody(|| {
        let mut walk = root.walk("t").unwrap();
        let (mut events, mut errors) = (0, Vec::new());
        loop {
            match walk.next() {
                Ok(None) => break (events, errors),
                Ok(Some(_)) => events += 1,
                Err(e) => errors.push(e),
            }
        }
    });
    assert_eq!(events, 6);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].kind(), ErrorKind::PermissionDenied);
    assert_eq!(errors[0].path(), Some(PathBuf::from("t/closed").as_path()));
    crate::support::chmod(&dir.path().join("t/closed"), 0o700);
}
