//! What the kernel is asked for, as strace(1) sees it: flags that no result shows, because nobody is there to
//! take a name that was drawn by lot, and syncs, of which only a power cut would tell.

use crate::common;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use steadfast::claim::{ClaimPath, Claims, Want};
use steadfast::journal::{LogOptions, Record, inspect};
use steadfast::publish::{
    Batch, BatchStrategy, FileOptions, FolderOptions, Staging, SweepOptions, Target, Version, swap,
    sweep,
};
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::sys::{self, Errno, Mode, OFlags, OwnedFd, SyncRange};
use steadfast::workspace::Workspace;
use steadfast::{Dir, Durability, ErrorKind, Result, Root};

const AT: &str = "STEADFAST_TRACED";

type Operation = Box<dyn FnOnce() -> Result<()>>;

/// One operation of each kind, and its name.
fn operations(top: &Path) -> Vec<(&'static str, Operation)> {
    let root = || Root::open(top).unwrap();
    let log = || Dir::from(OwnedFd::from(File::open(top.join("log")).unwrap()));
    vec![
        ("replace", {
            let root = root();
            Box::new(move || FileOptions::new().write(&root, "f", "new").map(drop))
        }),
        ("unnamed", {
            let root = root();
            let options = FileOptions::new().staging(Staging::Unnamed);
            Box::new(move || options.write(&root, "u", "new").map(drop))
        }),
        ("staged elsewhere", {
            let root = root();
            let options = FileOptions::new().staging(Staging::In("d".into()));
            Box::new(move || options.write(&root, "f", "other").map(drop))
        }),
        ("only if unchanged", {
            let root = root();
            Box::new(move || {
                let version = Version::of(&root, "g")?;
                let options = FileOptions::new().target(Target::IfUnchanged(version));
                options.write(&root, "g", "new").map(drop)
            })
        }),
        ("only with this hash", {
            let root = root();
            // Of "one".
            let hash = [
                0x76, 0x92, 0xc3, 0xad, 0x35, 0x40, 0xbb, 0x80, 0x3c, 0x02, 0x0b, 0x3a, 0xee, 0x66,
                0xcd, 0x88, 0x87, 0x12, 0x32, 0x34, 0xea, 0x0c, 0x6e, 0x71, 0x43, 0xc0, 0xad, 0xd7,
                0x3f, 0xf4, 0x31, 0xed,
            ];
            let options = FileOptions::new().target(Target::IfUnchanged(Version::sha256(hash)));
            Box::new(move || options.write(&root, "h", "new").map(drop))
        }),
        ("folder", {
            let root = root();
            Box::new(move || FolderOptions::new().begin(&root, "n")?.commit().map(drop))
        }),
        ("move", {
            let root = root();
            Box::new(move || {
                let options = FolderOptions::new();
                options.publish(&root, "m", &root, "moved")?;
                options.publish(&root, "k", &root, "moved too").map(drop)
            })
        }),
        ("swap", {
            let root = root();
            Box::new(move || swap(&root, "g", &root, "d/x", Durability::Full))
        }),
        ("batch", {
            let root = root();
            Box::new(move || {
                let mut batch = Batch::new(&root)?.strategy(BatchStrategy::WholeFileSystem);
                batch.write("b", "new", &FileOptions::new())?;
                batch.commit().map(drop)
            })
        }),
        ("names that may not be read", {
            let held = File::open(top).unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let dir = Dir::from(sys::openat(&held, c"d", flags, Mode::empty()).unwrap());
            // Its second call is to open it for reading.
            let action = Action::Fail(Errno::ACCESS);
            let plan = Some(Plan { at: 2, action });
            Box::new(move || {
                hook::deny(&[("openat(O_TMPFILE)", Errno::OPNOTSUPP)], || {
                    hook::scope(plan, || dir.sync()).0
                })
            })
        }),
        ("sweep", {
            let root = root();
            Box::new(move || sweep(&root, ".", &SweepOptions::new()).map(drop))
        }),
        ("log", {
            let (first, again, look) = (log(), log(), log());
            Box::new(move || {
                let options = LogOptions::new().segment_len(8192);
                let (log, _) = options.open(first)?;
                log.append_durable(&[Record::new(16, b"a record")])?;
                drop(log);
                let (log, _) = options.open(again)?;
                inspect(&look)?;
                log.close()
            })
        }),
        ("workspace", {
            let root = root();
            Box::new(move || {
                let workspace = Workspace::open(&root)?;
                let mut tx = workspace.begin();
                tx.read("w/f")?;
                tx.write("w/f", "new")?;
                tx.write("w/new", "new")?;
                tx.remove_file("w/gone")
                    .write_in_place("w/long", vec![b'n'; 20_000])?;
                tx.append("w/more", "new")?;
                tx.rename("w/here", "w/there").create_dir("w/d");
                tx.write("w/d/long", vec![0; 1 << 20])?;
                tx.commit()?;
                drop(workspace);
                Workspace::open(&root).map(drop)
            })
        }),
        ("claim", {
            let root = root();
            Box::new(move || {
                let claims = Claims::open(root.dir())?;
                let want = Want::exclusive(ClaimPath::new("a/b")?);
                claims.try_claim(&[want]).map(drop)
            })
        }),
    ]
}

/// Does what is traced; each operation begins and ends with a call that means nothing.
#[test]
fn child() {
    let Some(top) = std::env::var_os(AT) else {
        return;
    };
    let mark = File::open(&top).unwrap();
    let no_exchange = hook::denied_by_env("renameat2(RENAME_EXCHANGE)");
    for (name, operation) in operations(Path::new(&top)) {
        let say = |number| {
            // The answer is that it is no file whose content could be written out.
            let _ = sys::sync_file_range(&mark, number, 1, SyncRange::Start);
        };
        say(1);
        let done = operation();
        say(2);
        match done {
            Err(e) if e.kind() == ErrorKind::Unsupported && no_exchange => {}
            done => done.unwrap_or_else(|e| panic!("{name}: {e}")),
        }
    }
}

/// The calls of each operation, or why there are none.
fn traced(top: &Path) -> std::result::Result<Vec<Vec<String>>, String> {
    let log = top.join("trace");
    let mut command = Command::new("strace");
    let test = format!("{}::child", module_path!().split_once("::").unwrap().1);
    command
        .args(["-f", "-o"])
        .arg(&log)
        .arg("-e")
        .arg("trace=openat,?openat2,fsync,fdatasync,syncfs,sync_file_range")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(AT, top.join("work"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let done = command.output().map_err(|e| format!("strace: {e}"))?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    if !text.contains("sync_file_range") {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let mut out = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        // The process's number comes first.
        let call = line
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start();
        if call.starts_with("sync_file_range(") {
            inside = !inside;
            if inside {
                out.push(Vec::new());
            }
        } else if inside {
            out.last_mut().unwrap().push(call.to_owned());
        }
    }
    Ok(out)
}

/// What an open may not lack, if it does.
fn lacks(call: &str) -> Option<&'static str> {
    // What is opened by a whole path is no name in a directory that others may change.
    let (first, rest) = call.split_once('(')?.1.split_once(", \"")?;
    let (name, rest) = rest.split_once('"')?;
    let has = |flag| rest.contains(flag);
    if !has("O_CLOEXEC") {
        return Some("O_CLOEXEC");
    }
    // The lock table is everybody's, and made by whoever comes first.
    if has("O_CREAT") && !has("O_EXCL") && name != "claims" {
        return Some("O_EXCL");
    }
    // A number is a descriptor's, in the process's own folder of them.
    let own = name == "." || name.bytes().all(|b| b.is_ascii_digit());
    if !call.starts_with("openat(") || first == "AT_FDCWD" || own || has("O_TMPFILE") {
        return None;
    }
    if !has("O_NOFOLLOW") {
        return Some("O_NOFOLLOW");
    }
    // Nobody waits at a FIFO that has taken the name.
    let waits = !has("O_PATH") && !has("O_DIRECTORY") && !has("O_EXCL");
    (waits && !has("O_NONBLOCK")).then_some("O_NONBLOCK")
}

#[test]
fn flags_and_syncs_are_asked_for() {
    let tmp = common::dir();
    let work = tmp.path().join("work");
    for dir in ["", "d", "log", "m", "w"] {
        fs::create_dir(work.join(dir)).unwrap();
    }
    for name in [
        "f", "g", "d/x", "m/y", "h", "k", "w/f", "w/gone", "w/here", "w/long", "w/more",
    ] {
        fs::write(work.join(name), "one").unwrap();
    }
    // For the sweep to open: left by a dead writer, and by one who made a folder.
    hook::deny(&[("unlinkat", Errno::IO)], || {
        drop(FileOptions::new().begin(&Root::open(&work).unwrap(), "t"));
    });
    fs::create_dir(work.join(".sf-d0123456789abcdef96735b5a")).unwrap();
    let operations = operations(&work);
    let names: Vec<_> = operations.iter().map(|(name, _)| *name).collect();
    let found = match traced(tmp.path()) {
        Ok(found) => found,
        Err(why) => return common::skipped("flags_and_syncs_are_asked_for", why),
    };
    assert_eq!(found.len(), names.len());
    let mut opened = 0;
    for (name, calls) in names.iter().zip(&found) {
        for call in calls.iter().filter(|c| c.starts_with("openat")) {
            opened += 1;
            assert_eq!(lacks(call), None, "{name}: {call}");
        }
    }
    assert!(opened > names.len());
    if common::switched_off() {
        return;
    }
    for (name, want) in [
        ("replace", "fsync fsync"),
        ("unnamed", "fsync fsync"),
        ("staged elsewhere", "fsync fsync fsync"),
        // What is in it, itself with its attributes, and its name.
        ("folder", "fsync fsync fsync"),
        ("swap", "fsync fsync"),
        ("batch", "syncfs fsync"),
        // Of a descriptor that stands for a place, and then of a file in it.
        ("names that may not be read", "fsync syncfs"),
        ("sweep", "fsync"),
        // The folder with its format, twice as it is new, and a log; what is staged, two contents
        // among it, and the names; the record; what is written over. Then what was found is made
        // good.
        (
            "workspace",
            "fsync fsync fsync fsync fsync fsync fsync fsync fsync \
             fsync fsync fsync fsync fsync fdatasync fsync \
             fdatasync fsync syncfs fdatasync fdatasync",
        ),
        // A segment and its name; a record; what was found, again, and the name; the end.
        ("log", "fsync fsync fdatasync fdatasync fsync fdatasync"),
    ] {
        let calls = &found[names.iter().position(|n| *n == name).unwrap()];
        let syncs: Vec<_> = calls
            .iter()
            .filter_map(|c| c.split_once('('))
            .map(|c| c.0)
            .collect();
        let syncs: Vec<_> = syncs.into_iter().filter(|c| c.contains("sync")).collect();
        let mut syncs = syncs.join(" ");
        if name == "batch" && syncs == "fsync fsync" {
            // An overlay's files may be of other devices than its directories.
            syncs = want.to_owned();
        }
        assert_eq!(syncs, want, "{name}: {calls:#?}");
    }
}
