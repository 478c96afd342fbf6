//! On a FUSE file system, where syncfs(2) does not have the server sync: each thing is synced by itself.

use crate::common::{output, skipped, wait_until};
use crate::scripts::five;
use crate::tree::litter;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use steadfast::Root;
use steadfast::sys::hook;
use steadfast::workspace::Workspace;

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that has failed is told already.
        let _ = output(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn mounted(test: &str, top: &Path) -> Option<Mounted> {
    let (below, at) = (top.join("below"), top.join("at"));
    fs::create_dir(&below).unwrap();
    fs::create_dir(&at).unwrap();
    match output(Command::new("bindfs").arg(&below).arg(&at)) {
        Ok(done) if done.status.success() => Some(Mounted(at)),
        Ok(done) => {
            skipped(test, String::from_utf8_lossy(&done.stderr));
            None
        }
        Err(e) => {
            skipped(test, format!("bindfs: {e}"));
            None
        }
    }
}

#[test]
fn each_thing_is_synced_where_syncfs_proves_nothing() {
    let top = crate::dir();
    let test = "each_thing_is_synced_where_syncfs_proves_nothing";
    let Some(mount) = mounted(test, top.path()) else {
        return;
    };
    let at = &mount.0;
    five(at);
    let workspace = Workspace::open(&Root::open(at).unwrap()).unwrap();
    let synced = Rc::new(RefCell::new(BTreeSet::new()));
    let observer = || {
        let synced = synced.clone();
        move |name: &'static str, what: Option<(u64, u64)>| {
            if name == "fsync" {
                synced.borrow_mut().extend(what);
            }
        }
    };
    hook::observe(observer(), || {
        let mut tx = workspace.begin();
        tx.create_dir_all("new/deep");
        tx.write("new/deep/file", "new").unwrap();
        tx.write("f0", "replaced").unwrap();
        tx.write("d/x", vec![b'x'; 40_000]).unwrap();
        tx.rename("f2", "new/f2");
        tx.remove_file("d/e/y");
        tx.write_in_place("f3", "in place").unwrap();
        tx.symlink("f0", "new/link");
        tx.commit().unwrap();
    });
    let all = [
        ".",
        "new",
        "new/deep",
        "new/deep/file",
        "new/f2",
        "f0",
        "f3",
        "d",
        "d/x",
        "d/e",
    ];
    for path in all {
        let meta = fs::metadata(at.join(path)).unwrap();
        let id = (meta.dev(), meta.ino());
        assert!(synced.borrow().contains(&id), "{path} is not synced");
    }
    // Also what may be neither read nor written in the end, by its copies, the old and the new one.
    let before = synced.borrow().len();
    hook::observe(observer(), || {
        let mut tx = workspace.begin();
        tx.write_in_place("f4", "in place").unwrap();
        tx.commit().unwrap();
    });
    assert!(synced.borrow().len() >= before + 3, "no copies are synced");
    workspace.close().unwrap();
    // What is closed is given back to the server a little later, and has a name of its own until then.
    wait_until("nothing is left", || litter(at).is_empty());
}
