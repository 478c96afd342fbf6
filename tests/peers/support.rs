//! What these tests share: other credentials, mounts of one's own, and looking at what is there.

use crate::common;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Gid, Uid, getuid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use steadfast::publish::{FileOptions, Staging, Target, Version};
use steadfast::sys::hook;
use steadfast::{DiskState, Error, ErrorKind, Root};

pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    getuid().is_root()
}

pub(crate) use crate::common::skipped;

pub(crate) fn no_exchange() -> bool {
    hook::denied_by_env("renameat2(RENAME_EXCHANGE)")
}

/// Runs `f` on a thread with working directory, mounts and credentials of its own, which go with it.
fn apart<R: Send>(flags: rustix::thread::UnshareFlags, f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Deprecated for what it does with CLONE_FILES, which is not asked for here.
            #[allow(deprecated)]
            rustix::thread::unshare(flags).unwrap();
            f()
        });
        thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

/// With a working directory of its own.
pub(crate) fn with_own_cwd<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    apart(rustix::thread::UnshareFlags::FS, f)
}

/// With mounts of its own; only as root.
pub(crate) fn with_own_mounts(test: &str, f: impl FnOnce() + Send) {
    if !is_root() {
        skipped(test, "needs root");
        return;
    }
    apart(rustix::thread::UnshareFlags::NEWNS, || {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        f();
    });
}

/// Mounts, or says that it cannot be tested.
pub(crate) fn mounted(test: &str, kind: &str, at: &Path, data: &str) -> bool {
    let data = std::ffi::CString::new(data).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    match rustix::mount::mount(kind, at, kind, flags, Some(&*data)) {
        Ok(()) => true,
        Err(e) => {
            skipped(test, format_args!("mount {kind}: {e}"));
            false
        }
    }
}

/// Runs `f` without privileges in a directory that `prepare` has filled (as root, if we are) and that belongs
/// to nobody.
pub(crate) fn as_nobody(test: &str, prepare: impl FnOnce(&Path), f: impl FnOnce(&Path) + Send) {
    let tmp = common::dir();
    let dir = tmp.path().join("dir");
    fs::create_dir(&dir).unwrap();
    chmod(tmp.path(), 0o755);
    if is_root() {
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    prepare(&dir);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if is_root() {
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            if let Err(e) = fs::metadata(dir.join(".")) {
                skipped(
                    test,
                    format_args!("nobody cannot reach the test directory: {e}"),
                );
                return;
            }
            f(&dir);
        });
        thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
    chmod(&dir, 0o700);
}

pub(crate) fn chmod(at: &Path, bits: u32) {
    fs::set_permissions(at, Permissions::from_mode(bits)).unwrap();
}

pub(crate) fn mode(at: &Path) -> u32 {
    fs::symlink_metadata(at).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn read(at: &Path) -> String {
    fs::read_to_string(at).unwrap()
}

/// Every entry of a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The temporaries in a directory.
pub(crate) fn temporaries(dir: &Path) -> Vec<String> {
    let mut names = names(dir);
    names.retain(|name| name.starts_with(".sf-"));
    names
}

/// Refused with nothing changed.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(done: Result<T, Error>, kind: ErrorKind) -> Error {
    let error = done.unwrap_err();
    let found = (error.kind(), error.disk_state());
    assert_eq!(found, (kind, DiskState::Unchanged), "{error}");
    assert!(error.left_behind().is_empty(), "{error}");
    error
}

/// Every way of replacing the file `path`; the first is good for what is there now, and once.
pub(crate) fn replacing(root: &Root, path: &str) -> Vec<FileOptions> {
    let new = FileOptions::new;
    let mut all = Vec::new();
    if let Ok(seen) = Version::of(root, path) {
        all.push(new().target(Target::IfUnchanged(seen)));
    }
    all.extend([
        new(),
        new().staging(Staging::Unnamed),
        new().target(Target::Replace),
    ]);
    all
}
