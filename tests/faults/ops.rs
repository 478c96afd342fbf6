//! The operations under test: what is there before, what is done, and which names it is about.

use crate::op::{Done, EXCHANGE, FOLDER_NEW, Fault, KEEP, Op, Outcome, PARTIAL, PLAIN, Traits};
use crate::state::temp_name;
use sha2::Digest;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use steadfast::publish::{
    Batch, BatchStrategy, FileOptions, FolderOptions, FolderTarget, Note, Preserve, Receipt,
    Staging, SweepOptions, SymlinkPolicy, Target, Version, swap, sweep,
};
use steadfast::sys::{Mode, Timespec};
use steadfast::{DiskState, Durability, Root};

fn file(name: &'static str, run: fn(&Root) -> Outcome, targets: &'static [&'static str]) -> Op {
    Op {
        name,
        before: files,
        run,
        targets,
        traits: PLAIN,
    }
}

fn folder(
    name: &'static str,
    run: fn(&Root) -> Outcome,
    targets: &'static [&'static str],
    traits: Traits,
) -> Op {
    Op {
        name,
        before: folders,
        run,
        targets,
        traits,
    }
}

/// The state before of the file operations.
fn files(dir: &Path) {
    fs::write(dir.join("f"), "old content").unwrap();
    fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(dir.join("other"), "untouched").unwrap();
    fs::create_dir(dir.join("stage")).unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/real"), "old").unwrap();
    symlink("d/real", dir.join("link")).unwrap();
    // Where there are none, none is kept.
    let f = fs::File::open(dir.join("f")).unwrap();
    let flags = steadfast::sys::XattrFlags::empty();
    let _ = steadfast::sys::fsetxattr(&f, c"user.kept", b"1", flags);
}

fn tree(at: &Path, text: &str) {
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::write(at.join("a"), text).unwrap();
    fs::write(at.join("sub/b"), text).unwrap();
    symlink("a", at.join("sub/l")).unwrap();
}

/// The state before of the folder operations.
fn folders(dir: &Path) {
    tree(&dir.join("live"), "old");
    tree(&dir.join("next"), "new");
    fs::create_dir(dir.join("in")).unwrap();
    tree(&dir.join("in/next"), "new");
    fs::write(dir.join("file"), "old").unwrap();
    fs::write(dir.join("newfile"), "new").unwrap();
}

/// Dead writers' temporaries of every class.
fn leftovers(dir: &Path) {
    fs::write(dir.join("mine"), "mine").unwrap();
    fs::write(dir.join(temp_name('t', &[1])), "part").unwrap();
    tree(&dir.join(temp_name('d', &[2])), "part");
    fs::write(dir.join("x"), "displaced").unwrap();
    let ino = fs::metadata(dir.join("x")).unwrap().ino();
    fs::rename(dir.join("x"), dir.join(temp_name('x', &[ino, 3]))).unwrap();
    tree(&dir.join("y"), "displaced");
    let ino = fs::metadata(dir.join("y")).unwrap().ino();
    fs::rename(dir.join("y"), dir.join(temp_name('x', &[4, ino]))).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub").join(temp_name('t', &[5])), "part").unwrap();
}

fn done(receipt: Receipt) -> Outcome {
    Ok(told(&[receipt]))
}

fn told(receipts: &[Receipt]) -> Done {
    let mut done = Done::default();
    for note in receipts.iter().flat_map(Receipt::notes) {
        match note {
            Note::Left(path) => done.left.push(path.clone()),
            Note::AclNotKept => done.narrowed = true,
            _ => {}
        }
    }
    done
}

fn write(root: &Root, path: &str, options: FileOptions) -> Outcome {
    done(options.write(root, path, "new content")?)
}

fn new() -> FileOptions {
    FileOptions::new()
}

fn stage(root: &Root, path: &str, options: &FolderOptions) -> Outcome {
    let folder = options.begin(root, path)?;
    fill(folder.root()).map_err(|error| Fault {
        // Of what is published; the guard is dropped with all that is in it.
        state: DiskState::Unchanged,
        left: Vec::new(),
        ..error.into()
    })?;
    done(folder.commit()?)
}

fn fill(inside: &Root) -> steadfast::Result<()> {
    let options = new().durability(Durability::None);
    options.write(inside, "a", "new")?;
    let parents = options.create_parents(Mode::from_raw_mode(0o755));
    parents.write(inside, "s/b", "new").map(drop)
}

fn publish(root: &Root, from: &str, to: &str, options: &FolderOptions) -> Outcome {
    done(options.publish(root, from, root, to)?)
}

fn batch(root: &Root, strategy: BatchStrategy) -> Outcome {
    let mut batch = Batch::new(root)?.strategy(strategy);
    let options = new();
    let staged = new().staging(Staging::Unnamed).target(Target::CreateNew);
    batch.write("f", "new", &options)?;
    batch.write("other", "new", &options)?;
    batch.write("b1", "new", &options)?;
    batch.write("b2", "new", &staged)?;
    batch.write("b3", "new", &options)?;
    batch.write("d/real", "new", &options)?;
    let receipts = batch.commit()?;
    Ok(told(&receipts))
}

fn explicit(root: &Root) -> Outcome {
    let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let meta = steadfast::sys::statx(root, c"f", steadfast::sys::AtFlags::empty());
    let options = new()
        .mode(Mode::from_raw_mode(0o600))
        .times(Some(at(1)), Some(at(2)))
        .preserve(Preserve::default().times(true));
    let options = match meta {
        Ok(meta) => options.owner(Some(meta.uid()), Some(meta.gid())),
        Err(e) => return Err(io::Error::from(e).into()),
    };
    write(root, "f", options)
}

fn begin_and_commit(root: &Root) -> Outcome {
    let mut pending = new().begin(root, "f")?;
    pending.write_all(b"0123456789")?;
    pending.seek(SeekFrom::Start(2))?;
    pending.write_all(b"ab")?;
    pending.set_len(6)?;
    done(pending.commit()?)
}

pub(crate) fn file_ops() -> Vec<Op> {
    vec![
        file("create", |r| write(r, "new", new()), &["new"]),
        file("replace", |r| write(r, "f", new()), &["f"]),
        file(
            "create new",
            |r| write(r, "new", new().target(Target::CreateNew)),
            &["new"],
        ),
        file(
            "target replace",
            |r| write(r, "f", new().target(Target::Replace)),
            &["f"],
        ),
        file(
            "if unchanged",
            |r| {
                write(
                    r,
                    "f",
                    new().target(Target::IfUnchanged(Version::of(r, "f")?)),
                )
            },
            &["f"],
        ),
        file(
            "if this hash",
            |r| {
                let hash = sha2::Sha256::digest(b"old content").into();
                write(
                    r,
                    "f",
                    new().target(Target::IfUnchanged(Version::sha256(hash))),
                )
            },
            &["f"],
        ),
        file(
            "unnamed, create",
            |r| write(r, "new", new().staging(Staging::Unnamed)),
            &["new"],
        ),
        file(
            "unnamed, replace",
            |r| write(r, "f", new().staging(Staging::Unnamed)),
            &["f"],
        ),
        file(
            "unnamed, create new",
            |r| {
                write(
                    r,
                    "new",
                    new().staging(Staging::Unnamed).target(Target::CreateNew),
                )
            },
            &["new"],
        ),
        file(
            "unnamed, if unchanged",
            |r| {
                let seen = Target::IfUnchanged(Version::of(r, "f")?);
                write(r, "f", new().staging(Staging::Unnamed).target(seen))
            },
            &["f"],
        ),
        file(
            "staged elsewhere, create",
            |r| write(r, "new", new().staging(Staging::In("stage".into()))),
            &["new"],
        ),
        file(
            "staged elsewhere, replace",
            |r| write(r, "f", new().staging(Staging::In("stage".into()))),
            &["f"],
        ),
        file(
            "staged elsewhere, if unchanged",
            |r| {
                let seen = Target::IfUnchanged(Version::of(r, "f")?);
                write(
                    r,
                    "f",
                    new().staging(Staging::In("stage".into())).target(seen),
                )
            },
            &["f"],
        ),
        file(
            "not durable, create",
            |r| write(r, "new", new().durability(Durability::None)),
            &["new"],
        ),
        file(
            "not durable, replace",
            |r| write(r, "f", new().durability(Durability::None)),
            &["f"],
        ),
        file(
            "ordered, replace",
            |r| write(r, "f", new().durability(Durability::Ordered)),
            &["f"],
        ),
        file(
            "follow",
            |r| write(r, "link", new().symlink(SymlinkPolicy::Follow)),
            &["d"],
        ),
        file(
            "replace a link",
            |r| write(r, "link", new().symlink(SymlinkPolicy::Replace)),
            &["link"],
        ),
        file(
            "from a reader",
            |r| done(new().write_from(r, "f", &b"new content"[..])?),
            &["f"],
        ),
        file("begin and commit", begin_and_commit, &["f"]),
        Op {
            traits: Traits {
                parents: true,
                ..PLAIN
            },
            ..file(
                "parents",
                |r| {
                    write(
                        r,
                        "p/q/r/f",
                        new().create_parents(Mode::from_raw_mode(0o755)),
                    )
                },
                &["p"],
            )
        },
        file(
            "expected",
            |r| {
                let hash = sha2::Sha256::digest(b"new content").into();
                write(r, "f", new().expect_len(11).expect_sha256(hash))
            },
            &["f"],
        ),
        file("attributes", explicit, &["f"]),
    ]
}

pub(crate) fn folder_ops() -> Vec<Op> {
    vec![
        folder(
            "folder, new",
            |r| stage(r, "fresh", &FolderOptions::new()),
            &["fresh"],
            FOLDER_NEW,
        ),
        folder(
            "folder, create new",
            |r| {
                stage(
                    r,
                    "fresh",
                    &FolderOptions::new().target(FolderTarget::CreateNew),
                )
            },
            &["fresh"],
            FOLDER_NEW,
        ),
        folder(
            "folder, replace",
            |r| stage(r, "live", &FolderOptions::new()),
            &["live"],
            EXCHANGE,
        ),
        folder(
            "folder, replace, not durable",
            |r| {
                stage(
                    r,
                    "live",
                    &FolderOptions::new().durability(Durability::None),
                )
            },
            &["live"],
            EXCHANGE,
        ),
        folder(
            "folder, keep the old",
            |r| stage(r, "live", &FolderOptions::new().keep_old("before")),
            &["live"],
            KEEP,
        ),
        folder(
            "folder, keep the old elsewhere",
            |r| stage(r, "live", &FolderOptions::new().keep_old("in/before")),
            &["live"],
            KEEP,
        ),
    ]
}

pub(crate) fn move_ops() -> Vec<Op> {
    vec![
        folder(
            "publish folder, new",
            |r| publish(r, "next", "fresh", &FolderOptions::new()),
            &["fresh"],
            FOLDER_NEW,
        ),
        folder(
            "publish folder, replace",
            |r| publish(r, "next", "live", &FolderOptions::new()),
            &["live"],
            EXCHANGE,
        ),
        folder(
            "publish folder, from elsewhere",
            |r| publish(r, "in/next", "live", &FolderOptions::new()),
            &["live"],
            Traits {
                nested: true,
                ..EXCHANGE
            },
        ),
        folder(
            "publish folder, keep the old",
            |r| publish(r, "next", "live", &FolderOptions::new().keep_old("before")),
            &["live"],
            KEEP,
        ),
        folder(
            "publish file, new",
            |r| publish(r, "newfile", "fresh", &FolderOptions::new()),
            &["fresh"],
            PLAIN,
        ),
        folder(
            "publish file, replace",
            |r| publish(r, "newfile", "file", &FolderOptions::new()),
            &["file"],
            PLAIN,
        ),
        folder(
            "publish file, keep the old",
            |r| {
                publish(
                    r,
                    "newfile",
                    "file",
                    &FolderOptions::new().keep_old("before"),
                )
            },
            &["file"],
            KEEP,
        ),
    ]
}

pub(crate) fn swap_ops() -> Vec<Op> {
    let swap_traits = Traits {
        partial: true,
        ..EXCHANGE
    };
    vec![
        folder(
            "swap",
            |r| Ok(swap(r, "live", r, "next", Durability::Full).map(|()| Done::default())?),
            &["live", "next"],
            swap_traits,
        ),
        folder(
            "swap a file and a folder",
            |r| Ok(swap(r, "live", r, "file", Durability::Full).map(|()| Done::default())?),
            &["live", "file"],
            swap_traits,
        ),
        folder(
            "swap between directories",
            |r| Ok(swap(r, "live", r, "in/next", Durability::Full).map(|()| Done::default())?),
            &["live", "in"],
            swap_traits,
        ),
    ]
}

pub(crate) fn batch_ops() -> Vec<Op> {
    const ALL: &[&str] = &["f", "other", "b1", "b2", "b3", "d"];
    let op = |name, run| Op {
        traits: PARTIAL,
        ..file(name, run, ALL)
    };
    vec![
        op("batch, auto", |r| batch(r, BatchStrategy::Auto)),
        op("batch, each file", |r| batch(r, BatchStrategy::EachFile)),
        op("batch, started", |r| {
            batch(r, BatchStrategy::StartThenEachFile)
        }),
        op("batch, whole", |r| batch(r, BatchStrategy::WholeFileSystem)),
    ]
}

pub(crate) fn sweep_ops() -> Vec<Op> {
    vec![Op {
        before: leftovers,
        traits: Traits {
            sweeps: true,
            partial: true,
            ..PLAIN
        },
        ..file(
            "sweep",
            |r| {
                let report = sweep(r, ".", &SweepOptions::new().recursive(true))?;
                let left = report.kept().iter().map(|(path, _)| path.clone());
                Ok(Done {
                    left: left.collect(),
                    narrowed: false,
                })
            },
            &[],
        )
    }]
}

pub(crate) fn all() -> Vec<Op> {
    let groups = [
        file_ops(),
        folder_ops(),
        move_ops(),
        swap_ops(),
        batch_ops(),
        sweep_ops(),
    ];
    groups.into_iter().flatten().collect()
}
