//! The loop devices of a worker and the server behind them, as the process has them that starts the workers.
//!
//! What is recorded goes through FUSE. States are looked at on a second device, whose file is in memory: a
//! mount reads hundreds of blocks one by one, and there none of them waits for the server.
//!
//! The server is in the mount namespace of this process and of the guardian, never in that of a worker.
//! A process whose end may unmount the tested file system therefore never holds `/dev/fuse`: the one
//! ends without the other.

use crate::device::{ask, detach, run};
use crate::guard::MARK;
use crate::{Answer, fault};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::io::BufReader;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

#[derive(Debug)]
pub(crate) struct Backing {
    server: Child,
    /// Where its file is.
    at: PathBuf,
    /// What its loop devices are found by.
    name: String,
    /// The loop devices: what is recorded, and what is only looked at.
    pub(crate) nodes: [PathBuf; 2],
}

impl Backing {
    /// Blank devices of this size, and what takes their orders. `dir` has the directory `fuse`.
    pub(crate) fn new(dir: &Path, name: &str, size: usize) -> Answer<(Self, UnixStream)> {
        let at = dir.join("fuse").join(name);
        fs::create_dir_all(&at)?;
        let memory = memfd_create(name, MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, size as u64)?;
        let memory_at = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        let (ours, theirs) = UnixStream::pair()?;
        let server = Command::new(std::env::current_exe()?)
            .arg("serve")
            .args([at.as_os_str(), name.as_ref(), memory_at.as_ref()])
            .env(MARK, dir)
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .spawn()?;
        let mut backing = Self {
            server,
            at,
            name: name.to_owned(),
            nodes: Default::default(),
        };
        // There is one answer to each order, so nothing of another is lost with the reader.
        ask(
            &mut BufReader::new(ours.try_clone()?),
            &format!("blank {size}"),
        )?;
        backing.nodes = [
            attach(dir, &backing.at.join(name))?,
            attach(dir, Path::new(&memory_at))?,
        ];
        Ok((backing, ours))
    }
}

/// A loop device over this file.
fn attach(dir: &Path, file: &Path) -> Answer<PathBuf> {
    let node: PathBuf = run(Command::new("losetup")
        .env(MARK, dir)
        .args(["--find", "--show"])
        .arg(file))?
    .into();
    let number = node.file_name().ok_or("no loop device")?;
    let cache = Path::new("/sys/block")
        .join(number)
        .join("queue/write_cache");
    if fs::read_to_string(cache)?.trim() != "write back" {
        return Err(fault("the loop device does not pass flushes on"));
    }
    Ok(node)
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
