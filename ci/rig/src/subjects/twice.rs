//! Transactions that change one thing more than once before the cut, with no checkpoint in between: of one
//! thing there are several changes to recover, and the last is the one that counts.

use super::workspace::{base, long, open, recover};
use crate::device::Kind;
use crate::play::{Expect, Play, Subject};
use crate::tree::{Entry, Tree, tree};
use crate::{Answer, fault};
use rustix::fs::getxattr;
use rustix::io::Errno;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steadfast::sys::{Gid, Mode, Uid};
use steadfast::workspace::{Attributes, Transaction, Workspace};

const XATTR: &str = "user.note";
/// Times before this one were set by a transaction, others by the kernel.
const SET: i64 = 1_000_000_000;

/// The tree, with owner, time of modification if a transaction has set it, and attribute of each thing.
fn exact(top: &Path) -> Answer<Tree> {
    let mut out = tree(top)?;
    let paths: Vec<_> = out.keys().cloned().collect();
    for path in paths {
        let at = top.join(&path);
        let meta = fs::symlink_metadata(&at)?;
        let mut value = [0; 64];
        let note = match getxattr(&at, XATTR, &mut value) {
            Ok(len) => String::from_utf8_lossy(&value[..len]).into_owned(),
            Err(Errno::NODATA) => "none".to_owned(),
            Err(e) => return Err(fault(format!("{}: {e}", at.display()))),
        };
        let modified = Some(meta.mtime()).filter(|time| *time < SET);
        let all = format!("{} {} {modified:?} {note}", meta.uid(), meta.gid());
        let name = PathBuf::from(format!("{}: owner, time, attribute", path.display()));
        out.insert(name, Entry::File(0, 0, all.into()));
    }
    Ok(out)
}

fn recover_exact(top: &Path) -> Answer<Tree> {
    recover(top)?;
    exact(top)
}

fn prepare(top: &Path) -> Answer<()> {
    let files = [
        "mode",
        "owner",
        "time",
        "xattr",
        "setuid",
        "time and content",
        "over",
        "replaced",
        "removed",
        "linked",
    ];
    for name in files {
        fs::write(top.join(name), long(name))?;
        fs::set_permissions(top.join(name), Permissions::from_mode(0o644))?;
    }
    fs::hard_link(top.join("linked"), top.join("other name"))?;
    fs::create_dir(top.join("folder"))?;
    Ok(())
}

/// One transaction as a step.
fn commit(
    play: &mut Play<'_>,
    workspace: &Workspace,
    what: impl FnOnce(&mut Transaction<'_>) -> steadfast::Result<()>,
) -> Answer<()> {
    play.step(exact, |_, _| {
        let mut tx = workspace.begin();
        what(&mut tx)?;
        tx.commit()?;
        Ok(())
    })
}

fn mode(mode: u32) -> Attributes {
    Attributes::new().mode(Mode::from_bits_retain(mode))
}

fn owner(uid: u32, gid: u32) -> Attributes {
    let with_user = Attributes::new().uid(Uid::from_raw(uid));
    with_user.gid(Gid::from_raw(gid))
}

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn modified(seconds: u64) -> Attributes {
    Attributes::new().modified(time(seconds))
}

fn note(value: &str) -> Attributes {
    Attributes::new().xattr(XATTR, value)
}

fn attributes(play: &mut Play<'_>) -> Answer<()> {
    play.states = vec![exact(&play.top)?];
    let workspace = open(&play.top)?;
    commit(play, &workspace, |tx| {
        tx.set_attributes("mode", mode(0o600));
        tx.set_attributes("folder", mode(0o700));
        tx.set_attributes("setuid", mode(0o4755));
        tx.set_attributes("owner", owner(1, 1));
        tx.set_attributes("time", modified(1_000));
        tx.set_attributes("xattr", note("first"));
        Ok(())
    })?;
    commit(play, &workspace, |tx| {
        tx.set_attributes("mode", mode(0o640));
        tx.set_attributes("folder", mode(0o711));
        tx.set_attributes("setuid", owner(4, 4));
        tx.set_attributes("owner", owner(2, 3));
        tx.set_attributes("time", modified(2_000));
        tx.set_attributes("xattr", note("the second"));
        Ok(())
    })?;
    // Now what was there before the first.
    commit(play, &workspace, |tx| {
        tx.set_attributes("mode", mode(0o644));
        tx.set_attributes("folder", mode(0o755));
        tx.set_attributes("setuid", mode(0o644));
        tx.set_attributes("owner", owner(0, 0));
        tx.set_attributes("time", modified(1_000));
        tx.set_attributes("xattr", Attributes::new().without_xattr(XATTR));
        Ok(())
    })?;
    // Several of one thing, and what its owner may no longer do.
    for n in 1..3 {
        commit(play, &workspace, |tx| {
            let some = owner(n, n).modified(time(3_000)).xattr(XATTR, "third");
            tx.set_attributes("mode", some.mode(Mode::from_bits_retain(0o400)));
            tx.set_attributes("setuid", mode(0o6755 - n));
            Ok(())
        })?;
    }
    Ok(())
}

fn contents(play: &mut Play<'_>) -> Answer<()> {
    play.states = vec![exact(&play.top)?];
    let workspace = open(&play.top)?;
    commit(play, &workspace, |tx| {
        tx.write_in_place("over", long("1"))?;
        tx.write_in_place("replaced", long("in place"))?;
        tx.set_attributes("removed", modified(1_000));
        tx.write_in_place("linked", long("by the one"))
    })?;
    commit(play, &workspace, |tx| {
        tx.write_in_place("over", long("2, longer"))?;
        tx.write("replaced", long("by another"))?;
        tx.remove_file("removed");
        tx.write_in_place("other name", long("by the other"))
    })?;
    // Shorter again.
    commit(play, &workspace, |tx| {
        tx.write_in_place("over", "3")?;
        tx.write_in_place("replaced", "in place")?;
        tx.write("removed", long("a new one"))?;
        tx.write("linked", long("one name less"))
    })?;
    commit(play, &workspace, |tx| {
        tx.write_in_place("over", long("4"))?;
        tx.remove_file("replaced");
        tx.write_in_place("removed", long("once more"))?;
        tx.write_in_place("other name", long("by the only one"))?;
        tx.write_in_place("time and content", long("before"))
    })?;
    // Both in one, in either order of the two.
    commit(play, &workspace, |tx| {
        tx.write_in_place("time and content", long("with a time"))?;
        tx.set_attributes("time and content", modified(1_000));
        tx.set_attributes("over", modified(2_000));
        tx.write_in_place("over", long("5"))
    })?;
    commit(play, &workspace, |tx| {
        tx.write_in_place("time and content", long("without"))?;
        tx.set_attributes("over", modified(3_000));
        Ok(())
    })
}

/// With `data=writeback` ext4 gives the blocks of a removed file to another one before the removal is
/// durable. What was staged may come back with the content of the next: a conflict.
fn not_writeback(kind: &Kind) -> Expect {
    match kind.name {
        "ext4-writeback" => Expect::Any,
        _ => Expect::Clean,
    }
}

pub(crate) fn all() -> Vec<Subject> {
    let contents = Subject {
        expect: not_writeback,
        ..base("one thing twice: content", contents)
    };
    let both = [base("one thing twice: attributes", attributes), contents];
    let exactly = both.map(|subject| Subject {
        prepare,
        recover: recover_exact,
        ..subject
    });
    exactly.into()
}
