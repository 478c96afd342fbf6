//! Transactions of many kinds.

use crate::workspace::draft::{AttrRequest, DraftSet, NewContent, Piece, Source};
use crate::workspace::testbed::{Builder, World};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) prepare: fn(&World),
    pub(super) draft: fn(&mut Builder<'_>),
    pub(super) check: fn(&World),
}

fn gone(w: &World, path: &str) {
    assert!(fs::symlink_metadata(w.path(path)).is_err(), "{path}");
}

fn bytes(content: &[u8]) -> Source {
    Source::Bytes(content.into())
}

fn abc(w: &World) {
    for name in ["a", "b", "c"] {
        w.write(name, format!("old {name}").as_bytes());
    }
}

fn tree(w: &World) {
    w.write("a", b"old a");
    w.write("d/f", b"old f");
    w.write("d/sub/g", b"old g");
}

fn all_at_once(b: &mut Builder<'_>) {
    b.replace("r", b"new r");
    b.create("n", b"new n");
    b.remove("x");
    let (a, sa) = b.old("a");
    let (bb, sb) = b.old("b");
    b.put(sa, bb);
    b.put(sb, a);
    let d = b.rename("d", "e");
    b.moves("d", d);
    b.replace("d/f", b"new f");
    b.create("d/sub/h", b"new h");
    let (_, st) = b.old("t");
    let tf = b.rename("t/f", "saved");
    b.put(st, None);
    let new = b.dir();
    let at = b.free("new");
    b.put(at, new);
    let inside = b.within(new, "c");
    let (c, sc) = b.old("c");
    b.put(inside, c);
    let again = b.file(b"c again");
    b.put(sc, again);
    let link = b.make(NewContent::Link(tf), AttrRequest::default(), None);
    let at = b.free("saved2");
    b.put(at, link);
    let key = b.key("key");
    let value = b.file(b"value");
    b.put(key, value);
    let (m, _) = b.old("m");
    b.change(
        m,
        DraftSet::Attributes(AttrRequest {
            mode: Some(0o640),
            ..AttrRequest::default()
        }),
    );
}

#[allow(clippy::too_many_lines)] // A list.
pub(super) fn all() -> Vec<Scene> {
    vec![
        Scene {
            name: "replace",
            prepare: abc,
            draft: |b| b.replace("a", b"new a"),
            check: |w| assert_eq!(w.read("a"), b"new a"),
        },
        Scene {
            name: "replace by a long file",
            prepare: abc,
            draft: |b| b.replace("a", &[7; 20_000]),
            check: |w| assert_eq!(w.read("a"), [7; 20_000]),
        },
        Scene {
            name: "create",
            prepare: tree,
            draft: |b| b.create("d/new", b"new"),
            check: |w| assert_eq!(w.read("d/new"), b"new"),
        },
        Scene {
            name: "remove",
            prepare: abc,
            draft: |b| b.remove("a"),
            check: |w| gone(w, "a"),
        },
        Scene {
            name: "swap",
            prepare: abc,
            draft: |b| {
                let (a, sa) = b.old("a");
                let (bb, sb) = b.old("b");
                b.put(sa, bb);
                b.put(sb, a);
            },
            check: |w| {
                assert_eq!(
                    (w.read("a"), w.read("b")),
                    (b"old b".into(), b"old a".into())
                )
            },
        },
        Scene {
            name: "rotate",
            prepare: abc,
            draft: |b| {
                let (a, sa) = b.old("a");
                let (bb, sb) = b.old("b");
                let (c, sc) = b.old("c");
                b.put(sa, bb);
                b.put(sb, c);
                b.put(sc, a);
            },
            check: |w| {
                assert_eq!(w.read("a"), b"old b");
                assert_eq!(w.read("b"), b"old c");
                assert_eq!(w.read("c"), b"old a");
            },
        },
        Scene {
            name: "rename and write at the old name",
            prepare: abc,
            draft: |b| {
                let (a, sa) = b.old("a");
                let to = b.free("z");
                b.put(to, a);
                let new = b.file(b"new a");
                b.put(sa, new);
            },
            check: |w| {
                assert_eq!(
                    (w.read("a"), w.read("z")),
                    (b"new a".into(), b"old a".into())
                )
            },
        },
        Scene {
            name: "rename over",
            prepare: abc,
            draft: |b| {
                let (a, sa) = b.old("a");
                let (_, sb) = b.old("b");
                b.put(sa, None);
                b.put(sb, a);
            },
            check: |w| {
                gone(w, "a");
                assert_eq!(w.read("b"), b"old a");
            },
        },
        Scene {
            name: "rename a directory and write in it",
            prepare: tree,
            draft: |b| {
                let d = b.rename("d", "e");
                b.moves("d", d);
                b.replace("d/f", b"new f");
                b.replace("d/sub/g", b"new g");
                b.create("d/sub/h", b"new h");
            },
            check: |w| {
                gone(w, "d");
                assert_eq!(w.read("e/f"), b"new f");
                assert_eq!(w.read("e/sub/g"), b"new g");
                assert_eq!(w.read("e/sub/h"), b"new h");
            },
        },
        Scene {
            name: "a directory by a file, a file by a directory",
            prepare: tree,
            draft: |b| {
                let (_, sd) = b.old("d");
                let file = b.file(b"file now");
                b.put(sd, file);
                let (_, sa) = b.old("a");
                let dir = b.dir();
                b.put(sa, dir);
                let inside = b.within(dir, "in");
                let new = b.file(b"inside");
                b.put(inside, new);
            },
            check: |w| {
                assert_eq!(w.read("d"), b"file now");
                assert_eq!(w.read("a/in"), b"inside");
            },
        },
        Scene {
            name: "remove a tree, and save a file from it",
            prepare: tree,
            draft: |b| {
                let (_, sd) = b.old("d");
                b.put(sd, None);
                b.rename("d/sub/g", "saved");
            },
            check: |w| {
                gone(w, "d");
                assert_eq!(w.read("saved"), b"old g");
            },
        },
        Scene {
            name: "new directories with what was there",
            prepare: tree,
            draft: |b| {
                let (n, m) = (b.dir(), b.dir());
                let at = b.free("n");
                b.put(at, n);
                let at = b.within(n, "m");
                b.put(at, m);
                let at = b.within(m, "new");
                let new = b.file(b"new");
                b.put(at, new);
                let (a, sa) = b.old("a");
                b.put(sa, None);
                let at = b.within(n, "a");
                b.put(at, a);
                let (sub, ss) = b.old("d/sub");
                b.put(ss, None);
                let at = b.within(m, "sub");
                b.put(at, sub);
            },
            check: |w| {
                gone(w, "a");
                gone(w, "d/sub");
                assert_eq!(w.read("n/a"), b"old a");
                assert_eq!(w.read("n/m/new"), b"new");
                assert_eq!(w.read("n/m/sub/g"), b"old g");
            },
        },
        Scene {
            name: "hard links and symlinks",
            prepare: abc,
            draft: |b| {
                let (a, _) = b.old("a");
                let link = b.make(NewContent::Link(a), AttrRequest::default(), None);
                let (_, sb) = b.old("b");
                b.put(sb, link);
                let new = b.file(b"two names");
                for (name, object) in [("h1", None), ("h2", Some(new))] {
                    let at = b.free(name);
                    let object = match object {
                        None => new,
                        Some(to) => b.make(NewContent::Link(to), AttrRequest::default(), None),
                    };
                    b.put(at, object);
                }
                let text = NewContent::Symlink(b"a/../b".to_vec());
                let symlink = b.make(text, AttrRequest::default(), None);
                let (_, sc) = b.old("c");
                b.put(sc, symlink);
            },
            check: |w| {
                let ino = |p: &str| fs::metadata(w.path(p)).unwrap().ino();
                assert_eq!(ino("a"), ino("b"));
                assert_eq!(ino("h1"), ino("h2"));
                assert_eq!(w.read("h2"), b"two names");
                assert_eq!(fs::read_link(w.path("c")).unwrap().to_str(), Some("a/../b"));
            },
        },
        Scene {
            name: "names of one file",
            prepare: |w| {
                abc(w);
                fs::hard_link(w.path("a"), w.path("a2")).unwrap();
            },
            draft: |b| {
                // One name moves away, the other is replaced.
                b.rename("a", "z");
                b.replace("a2", b"new a2");
            },
            check: |w| {
                gone(w, "a");
                assert_eq!(
                    (w.read("z"), w.read("a2")),
                    (b"old a".into(), b"new a2".into())
                );
            },
        },
        Scene {
            name: "attributes",
            prepare: |w| {
                tree(w);
                fs::set_permissions(w.path("a"), fs::Permissions::from_mode(0o4755)).unwrap();
            },
            draft: |b| {
                let root = rustix::process::geteuid().is_root();
                let (a, _) = b.old("a");
                let (d, _) = b.old("d");
                b.change(
                    a,
                    DraftSet::Attributes(AttrRequest {
                        mode: Some(0o4711),
                        uid: root.then_some(12),
                        mtime: Some((1_000_000_000, 5)),
                        ..AttrRequest::default()
                    }),
                );
                b.change(
                    d,
                    DraftSet::Attributes(AttrRequest {
                        mode: Some(0o750),
                        ..AttrRequest::default()
                    }),
                );
                b.rename("d/f", "d/f2");
            },
            check: |w| {
                let meta = fs::metadata(w.path("a")).unwrap();
                assert_eq!(meta.mode() & 0o7777, 0o4711);
                assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 5));
                assert_eq!(fs::metadata(w.path("d")).unwrap().mode() & 0o777, 0o750);
            },
        },
        Scene {
            name: "in place",
            prepare: |w| {
                abc(w);
                w.write("long", &[1; 3000]);
            },
            draft: |b| {
                let (a, _) = b.old("a");
                b.change(a, DraftSet::Content(bytes(&[9; 1700])));
                let (long, _) = b.old("long");
                b.change(long, DraftSet::Content(bytes(b"short")));
            },
            check: |w| {
                assert_eq!(
                    (w.read("a"), w.read("long")),
                    (vec![9; 1700], b"short".into())
                )
            },
        },
        Scene {
            name: "in place, many",
            prepare: |w| (0..5).for_each(|n| w.write(&format!("f{n}"), &[n; 1300])),
            draft: |b| {
                for n in 0..5 {
                    let (f, _) = b.old(&format!("f{n}"));
                    b.change(f, DraftSet::Content(bytes(&[n + 5; 1300])));
                }
            },
            check: |w| (0..5).for_each(|n| assert_eq!(w.read(&format!("f{n}")), vec![n + 5; 1300])),
        },
        Scene {
            name: "append",
            prepare: abc,
            draft: |b| {
                let (a, sa) = b.old("a");
                let pieces = vec![Piece::Existing(a), Piece::Given(bytes(b" and more"))];
                let new = b.make(NewContent::File(pieces), AttrRequest::default(), Some(a));
                b.put(sa, new);
            },
            check: |w| assert_eq!(w.read("a"), b"old a and more"),
        },
        Scene {
            name: "a key",
            prepare: abc,
            draft: |b| {
                let key = b.key("k");
                let value = b.file(b"v");
                b.put(key, value);
            },
            check: |w| assert_eq!(w.read(".steadfast/keys/k"), b"v"),
        },
        Scene {
            name: "a child takes the place of its parent",
            prepare: tree,
            draft: |b| {
                let (d, sd) = b.old("d");
                b.moves("d", d);
                let (f, sf) = b.old("d/f");
                b.put(sd, f);
                b.put(sf, None);
            },
            check: |w| assert_eq!(w.read("d"), b"old f"),
        },
        Scene {
            name: "a directory moves into a new one of its name",
            prepare: tree,
            draft: |b| {
                let (d, sd) = b.old("d");
                b.moves("d", d);
                let new = b.dir();
                b.put(sd, new);
                let at = b.within(new, "inner");
                b.put(at, d);
            },
            check: |w| assert_eq!(w.read("d/inner/sub/g"), b"old g"),
        },
        Scene {
            name: "parent and child change places",
            prepare: tree,
            draft: |b| {
                let (d, sd) = b.old("d");
                b.moves("d", d);
                let (sub, ss) = b.old("d/sub");
                b.moves("d/sub", sub);
                b.put(sd, sub);
                b.put(ss, None);
                let at = b.free("d/sub/d");
                b.put(at, d);
            },
            check: |w| {
                assert_eq!(
                    (w.read("d/g"), w.read("d/d/f")),
                    (b"old g".into(), b"old f".into())
                )
            },
        },
        Scene {
            name: "a new directory that is closed to its owner",
            prepare: abc,
            draft: |b| {
                let attr = AttrRequest {
                    mode: Some(0o555),
                    ..AttrRequest::default()
                };
                let dir = b.make(NewContent::Dir, attr, None);
                let at = b.free("closed");
                b.put(at, dir);
                let at = b.within(dir, "in");
                let new = b.file(b"in");
                b.put(at, new);
            },
            check: |w| {
                assert_eq!(w.read("closed/in"), b"in");
                assert_eq!(
                    fs::metadata(w.path("closed")).unwrap().mode() & 0o777,
                    0o555
                );
            },
        },
        Scene {
            name: "all at once",
            prepare: |w| {
                tree(w);
                abc(w);
                for name in ["r", "x", "m", "t/f", "t/g"] {
                    w.write(name, name.as_bytes());
                }
                symlink("r", w.path("l")).unwrap();
            },
            draft: all_at_once,
            check: |w| {
                assert_eq!(w.read("r"), b"new r");
                assert_eq!(w.read("e/f"), b"new f");
                assert_eq!(w.read("e/sub/h"), b"new h");
                assert_eq!(w.read("saved2"), b"t/f");
                assert_eq!(
                    (w.read("c"), w.read("new/c")),
                    (b"c again".into(), b"old c".into())
                );
                gone(w, "t");
            },
        },
    ]
}
