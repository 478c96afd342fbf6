//! A loop device and the server behind it, as the process has them that starts the workers.
//!
//! The server is in the mount namespace of this process and of the guardian, never in that of a worker.
//! A process whose end may unmount the tested file system therefore never holds `/dev/fuse`: the one
//! ends without the other.

use crate::device::{ask, detach, run};
use crate::guard::MARK;
use crate::{Answer, fault};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

#[derive(Debug)]
pub(crate) struct Backing {
    server: Child,
    /// Where its file is.
    at: PathBuf,
    /// What its loop device is found by.
    name: String,
    /// The loop device.
    pub(crate) node: PathBuf,
}

impl Backing {
    /// A blank device of this size, and what takes its orders. `dir` has the directory `fuse`.
    pub(crate) fn new(dir: &Path, name: &str, size: usize) -> Answer<(Self, UnixStream)> {
        let at = dir.join("fuse").join(name);
        fs::create_dir_all(&at)?;
        let (ours, theirs) = UnixStream::pair()?;
        let server = Command::new(std::env::current_exe()?)
            .arg("serve")
            .args([at.as_os_str(), name.as_ref()])
            .env(MARK, dir)
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .spawn()?;
        let mut backing = Self {
            server,
            at,
            name: name.to_owned(),
            node: PathBuf::new(),
        };
        // There is one answer to each order, so nothing of another is lost with the reader.
        ask(
            &mut BufReader::new(ours.try_clone()?),
            &format!("blank {size}"),
        )?;
        backing.node = run(Command::new("losetup")
            .env(MARK, dir)
            .args(["--find", "--show"])
            .arg(backing.at.join(name)))?
        .into();
        let number = backing.node.file_name().ok_or("no loop device")?;
        let cache = Path::new("/sys/block")
            .join(number)
            .join("queue/write_cache");
        if fs::read_to_string(cache)?.trim() != "write back" {
            return Err(fault("the loop device does not pass flushes on"));
        }
        Ok((backing, ours))
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // What cannot be undone here is left to the guardian.
        let _ = detach(&self.name);
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}
