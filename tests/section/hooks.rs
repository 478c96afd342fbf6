//! Resources of the application, keys, phases, and what others meet.

use crate::common::{self, no_child, spawn, wait_until};
use crate::support::{assert_clean, assert_same, furnish, open, tree, write};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast::workspace::{
    Abandon, Attributes, Authority, StillOpen, Workspace, WorkspaceOptions, abandon,
};
use steadfast::{ErrorKind, Root};

const JOB: &str = "STEADFAST_SECTION_HOLD";
const DIR: &str = "STEADFAST_SECTION_HOLD_DIR";

type Calls = Arc<Mutex<Vec<(Vec<u8>, Authority, bool)>>>;

/// Options with a hook that notes what it is called with, and whether it could act then.
fn noting(name: &str, calls: &Calls) -> WorkspaceOptions {
    let calls = Arc::clone(calls);
    WorkspaceOptions::new()
        .wait(Duration::from_secs(1))
        .hook(name, move |payload, authority| {
            let valid = authority.still_valid();
            let call = (payload.to_vec(), authority.clone(), valid);
            calls.lock().unwrap().push(call);
            Ok(())
        })
}

fn open_with(top: &Path, options: WorkspaceOptions) -> Workspace {
    options.open(&Root::open(top).unwrap()).unwrap()
}

/// A section in another process, which says that it stands and waits to be killed.
#[test]
fn child() {
    let (Ok(job), Some(dir)) = (std::env::var(JOB), std::env::var_os(DIR)) else {
        return;
    };
    let workspace = open(Path::new(&dir));
    let mut section = workspace.section("held").unwrap();
    section.protect(["d"]).unwrap();
    section.phase("half way").unwrap();
    section.apply(|tx| tx.write("a", b"new")).unwrap();
    write(Path::new(&dir).join("d/one"), "changed");
    if job == "resources" {
        section.resource("service", b"first").unwrap();
        section.resource("service", b"second").unwrap();
    }
    fs::write(Path::new(&dir).join(".steadfast/ready"), "").unwrap();
    // Until it is killed, or its parent is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

fn hold(job: &str, top: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "hooks::child", "--nocapture", "--test-threads=1"])
        .env(JOB, job)
        .env(DIR, top)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let child = spawn(&mut command);
    let ready = top.join(".steadfast/ready");
    wait_until("the section", || ready.exists());
    fs::remove_file(ready).unwrap();
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn hooks_are_called_when_it_is_taken_back_and_not_else() {
    let _alone = no_child();
    let dir = common::dir();
    furnish(dir.path());
    let calls = Calls::default();
    let workspace = open_with(dir.path(), noting("service", &calls));
    let begin = || {
        let mut section = workspace.section("resources").unwrap();
        section.resource("service", b"first").unwrap();
        section.apply(|tx| tx.write("a", b"new")).unwrap();
        section.resource("service", b"second").unwrap();
        section
    };
    begin().commit().unwrap();
    assert!(calls.lock().unwrap().is_empty());
    let section = begin();
    let number = section.number();
    section.rollback().unwrap();
    let calls = calls.lock().unwrap();
    let payloads: Vec<&[u8]> = calls.iter().map(|(p, ..)| p.as_slice()).collect();
    assert_eq!(payloads, [&b"second"[..], b"first"]);
    for (_, authority, valid) in calls.iter() {
        assert_eq!(authority.fence(), number);
        assert!(*valid && !authority.still_valid());
    }
}

#[test]
fn a_hook_that_fails_leaves_the_section_open() {
    let _alone = no_child();
    let dir = common::dir();
    furnish(dir.path());
    let fails = Arc::new(Mutex::new(true));
    let asked = Arc::clone(&fails);
    let options = WorkspaceOptions::new()
        .hook("service", move |_, _| match *asked.lock().unwrap() {
            true => Err("not now".into()),
            false => Ok(()),
        })
        .hook("panics", |_, _| {
            std::panic::resume_unwind(Box::new("on purpose"))
        });
    let workspace = open_with(dir.path(), options);
    let before = tree(dir.path());
    let mut section = workspace.section("resources").unwrap();
    section.apply(|tx| tx.write("a", b"new")).unwrap();
    section.resource("service", b"").unwrap();
    let number = section.number();
    let error = section.rollback().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{error}");
    assert!(error.to_string().contains("not now"), "{error}");
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"new");
    // Only its own paths are closed.
    let write = |path: &str| {
        let mut tx = workspace.begin();
        tx.write(path, b"other").unwrap();
        tx.commit()
    };
    write("elsewhere").unwrap();
    let error = write("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    fs::remove_file(dir.path().join("elsewhere")).unwrap();
    *fails.lock().unwrap() = false;
    let recovery = workspace.recover().unwrap();
    assert_eq!(recovery.taken_back(), [number]);
    let now = tree(dir.path());
    assert_eq!(now.get(Path::new("./a")), before.get(Path::new("./a")));
    write("a").unwrap();

    // A commit on its paths has it taken back, and works on what is there then.
    let mut section = workspace.section("again").unwrap();
    section.apply(|tx| tx.write("a", b"newer")).unwrap();
    section.resource("service", b"").unwrap();
    *fails.lock().unwrap() = true;
    section.rollback().unwrap_err();
    assert_eq!(write("a").unwrap_err().kind(), ErrorKind::Conflict);
    *fails.lock().unwrap() = false;
    let mut tx = workspace.begin();
    tx.append("a", b", and more").unwrap();
    tx.commit().unwrap();
    let text = fs::read(dir.path().join("a")).unwrap();
    assert_eq!(text, b"other, and more");

    let mut section = workspace.section("panics").unwrap();
    section.resource("panics", b"").unwrap();
    assert_eq!(section.rollback().unwrap_err().kind(), ErrorKind::Source);
}

#[test]
fn a_dead_section_without_its_hook_stays_open_and_all_else_is_recovered() {
    let dir = common::dir();
    open(dir.path()).close().unwrap();
    furnish(dir.path());
    let before = tree(dir.path());
    kill(hold("resources", dir.path()));
    let left = tree(dir.path());
    let other = open(dir.path());
    let report = |workspace: &Workspace| workspace.recovered().sections().to_vec();
    let [open_one] = &report(&other)[..] else {
        panic!("{:?}", report(&other));
    };
    let still = open_one.still_open().unwrap();
    assert_eq!(*still.why(), StillOpen::HookMissing("service".to_owned()));
    assert_eq!(
        (open_one.label(), open_one.phase()),
        ("held", Some("half way"))
    );
    assert!(still.paths().any(|path| path == Path::new("d")));
    assert!(other.recovered().taken_back().is_empty());
    let mut tx = other.begin();
    tx.set_attributes("d/two", Attributes::new());
    tx.write("d/new", b"").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let mut tx = other.begin();
    tx.write("c", b"c old").unwrap();
    tx.commit().unwrap();
    other.settle().unwrap();
    let mut again = other.section("again").unwrap();
    assert_eq!(
        again.protect(["d"]).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    drop(again);
    assert_eq!(
        tree(dir.path()).get(Path::new("./d/one")),
        left.get(Path::new("./d/one"))
    );

    let calls = Calls::default();
    let with_hook = open_with(dir.path(), noting("service", &calls));
    let number = open_one.number();
    assert_eq!(with_hook.recovered().taken_back(), [number]);
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 2);
    assert!(
        calls
            .iter()
            .all(|(_, a, valid)| *valid && a.fence() == number)
    );
    assert!(calls.iter().all(|(_, a, _)| !a.still_valid()));
    let now = tree(dir.path());
    for path in ["./a", "./d", "./d/one", "./d/two"] {
        assert_eq!(
            now.get(Path::new(path)),
            before.get(Path::new(path)),
            "{path}"
        );
    }
    // Who knew of it as open finds that it is not any more.
    let mut tx = other.begin();
    tx.write("d/new", b"").unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_live_section_keeps_others_out_and_a_dead_one_is_taken_back_by_whoever_comes() {
    let dir = common::dir();
    open(dir.path()).close().unwrap();
    furnish(dir.path());
    let before = tree(dir.path());
    let options = WorkspaceOptions::new().wait(Duration::from_millis(20));
    let child = hold("files", dir.path());
    let workspace = open_with(dir.path(), options);
    assert!(workspace.recovered().is_empty());
    let write = |path: &str| {
        let mut tx = workspace.begin();
        tx.write(path, b"mine").unwrap();
        tx.commit()
    };
    assert_eq!(write("a").unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(write("d/one").unwrap_err().kind(), ErrorKind::Busy);
    write("b").unwrap();
    kill(child);
    // Its death is seen without opening anew.
    write("c").unwrap();
    let now = tree(dir.path());
    for path in ["./a", "./d", "./d/one"] {
        assert_eq!(
            now.get(Path::new(path)),
            before.get(Path::new(path)),
            "{path}"
        );
    }
    write("a").unwrap();
    workspace.close().unwrap();
    assert_clean(dir.path(), "after");
}

#[test]
fn keys_come_with_the_commit() {
    let _alone = no_child();
    let dir = common::dir();
    furnish(dir.path());
    let workspace = open(dir.path());
    let mut section = workspace.section("key").unwrap();
    section.apply(|tx| tx.write("a", b"new")).unwrap();
    section.key("once", "value").unwrap();
    let twice = section.key("once", "other").unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    assert_eq!(workspace.key("once").unwrap(), None);
    section.rollback().unwrap();
    assert_eq!(workspace.key("once").unwrap(), None);
    let mut section = workspace.section("key").unwrap();
    section.key("once", "value").unwrap();
    section.commit().unwrap();
    assert_eq!(workspace.key("once").unwrap().unwrap(), b"value");
    let mut section = workspace.section("key").unwrap();
    let again = section.key("once", "other").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let applied = section.apply(|tx| {
        tx.key("another", "");
        Ok(())
    });
    assert_eq!(applied.unwrap_err().kind(), ErrorKind::InvalidInput);
    drop(section);
    workspace.close().unwrap();
    assert_clean(dir.path(), "keys");
}

#[test]
fn what_goes_wrong_before_a_step_leaves_the_section_usable() {
    let _alone = no_child();
    let dir = common::dir();
    let workspace = open(dir.path());
    furnish(dir.path());
    let before = tree(dir.path());
    let mut section = workspace.section("mistakes").unwrap();
    section.apply(|tx| tx.write("a", b"new")).unwrap();
    let missing = section.apply(|tx| {
        tx.remove_file("missing");
        Ok(())
    });
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let late = section.protect(["a"]).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        section.protect([".steadfast/keys"]).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        section.protect(["../x"]).unwrap_err().kind(),
        ErrorKind::Escape
    );
    let in_place = section.apply(|tx| tx.write_in_place("c", b"C"));
    assert_eq!(in_place.unwrap_err().kind(), ErrorKind::Unsupported);
    let captured = section.capture("d", "x").unwrap();
    section
        .apply(|tx| {
            tx.rename("x", "y");
            tx.create_dir("x");
            Ok(())
        })
        .unwrap();
    assert_eq!(
        section.restore(&captured).unwrap_err().kind(),
        ErrorKind::Changed
    );
    let taken = section.capture("y", "x").unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    section.apply(|tx| tx.write("b", b"new")).unwrap();
    drop(section);
    assert_same(&tree(dir.path()), &before, "mistakes");
    workspace.close().unwrap();
    assert_clean(dir.path(), "mistakes");
}

#[test]
fn evidence_tells_what_is_there() {
    let _alone = no_child();
    let dir = common::dir();
    furnish(dir.path());
    let workspace = open(dir.path());
    let mut section = workspace.section("evidence").unwrap();
    let all = section.evidence(["a", "missing", "s"], true).unwrap();
    let a = all[0].seen().unwrap();
    assert_eq!((a.len, a.mode.as_raw_mode()), (5, 0o640));
    // Of "a old".
    let hash = a.sha256.unwrap();
    assert_eq!(hash[..4], [0x84, 0x15, 0x20, 0xfb], "{hash:02x?}");
    assert_eq!(all[1].seen(), None);
    assert_eq!(all[2].seen().unwrap().sha256, None);
}

/// A directory of a lower layer cannot be renamed.
#[test]
fn what_an_overlay_has_below_is_put_back() {
    const TEST: &str = "what_an_overlay_has_below_is_put_back";
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let _alone = no_child();
    if steadfast::sys::hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        return common::skipped(TEST, "a lower directory cannot be moved out of the way");
    }
    let dir = crate::dir();
    let at = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (below, upper, work, merged) = (at("below"), at("upper"), at("work"), at("merged"));
    furnish(&below);
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        below.display(),
        upper.display(),
        work.display()
    );
    let options = std::ffi::CString::new(options).unwrap();
    if let Err(e) = mount(
        "overlay",
        &merged,
        "overlay",
        MountFlags::empty(),
        &*options,
    ) {
        return common::skipped(TEST, e);
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = unmount(self.0, UnmountFlags::DETACH);
        }
    }
    let _unmount = Unmount(&merged);
    let workspace = open(&merged);
    let before = tree(&merged);
    let mut section = workspace.section("overlay").unwrap();
    section.protect(["d", "a", "c", "c2"]).unwrap();
    write(merged.join("d/one"), "changed");
    write(merged.join("d/more"), "new");
    write(merged.join("a"), "changed");
    section
        .apply(|tx| {
            tx.rename("b", "d/b");
            Ok(())
        })
        .unwrap();
    section.rollback().unwrap();
    let now = tree(&merged);
    for path in ["./a", "./b", "./d", "./d/one", "./d/sub/deep"] {
        let content = |tree: &crate::support::Tree| tree[Path::new(path)].clone();
        assert_eq!(content(&now), content(&before), "{path}");
    }
    assert!(!now.contains_key(Path::new("./d/more")));
    workspace.close().unwrap();
    assert_clean(&merged, TEST);
}

#[test]
fn a_dead_section_can_be_given_up() {
    for how in [Abandon::KeepOurs, Abandon::Drop] {
        let dir = common::dir();
        open(dir.path()).close().unwrap();
        furnish(dir.path());
        kill(hold("resources", dir.path()));
        let left = tree(dir.path());
        let other = open(dir.path());
        let number = other.recovered().sections()[0].number();
        drop(other);
        let root = Root::open(dir.path()).unwrap();
        let gone = abandon(&root, number, how).unwrap();
        assert_eq!((gone.number, gone.label.as_str()), (number, "held"));
        assert_eq!(gone.given_up.is_empty(), how == Abandon::Drop);
        // Once is enough.
        let again = abandon(&root, number, how).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound, "{again}");
        let workspace = open(dir.path());
        assert!(
            workspace
                .recovered()
                .sections()
                .iter()
                .all(|s| s.still_open().is_none())
        );
        assert_eq!(tree(dir.path()), left);
        let mut tx = workspace.begin();
        tx.write("d/new", b"").unwrap();
        tx.commit().unwrap();
        workspace.close().unwrap();
        // What is kept is there still, after all that swept.
        for step in &gone.given_up {
            assert!(
                fs::symlink_metadata(dir.path().join(&step.path)).is_ok(),
                "{step:?}"
            );
        }
        // And nothing else: without an exchange, what was replaced was put aside.
        let left = ["kept", "retired"].map(|folder| {
            let inside = fs::read_dir(dir.path().join(".steadfast").join(folder));
            inside.unwrap().count()
        });
        let kept: usize = left.iter().sum();
        assert_eq!(kept, gone.given_up.len(), "{:?}", gone.given_up);
    }
}
