//! The file systems, and one of them on the loop devices of a server.

use crate::{Answer, fault};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// In such pieces a disk is saved.
const PIECE: usize = 64 << 10;

/// With these in its environment mkfs.xfs makes file systems as small as its own tests need them.
const SMALL_XFS: [(&str, &str); 3] = [("TEST_DIR", "/"), ("TEST_DEV", "/"), ("QA_CHECK_FS", "1")];

/// A file system: how to make it, and how to mount it.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) fs: &'static str,
    make: &'static [&'static str],
    options: &'static str,
    pub(crate) size: usize,
    /// What a write may be torn into, in sectors: btrfs does not survive a torn superblock of its own.
    pub(crate) torn: usize,
    /// Whether mounts that fail are its own, known fault.
    pub(crate) fragile: bool,
    /// Part of the short run.
    pub(crate) short: bool,
}

const BTRFS: Kind = Kind {
    name: "btrfs",
    fs: "btrfs",
    // One copy of everything: less to write, and nothing to repair it from.
    make: &["mkfs.btrfs", "-q", "-f", "-K", "-m", "single"],
    options: "",
    size: 160 << 20,
    torn: 8,
    fragile: false,
    short: true,
};

const EXT4: &[&str] = &[
    "mkfs.ext4",
    "-q",
    "-F",
    "-J",
    "size=4",
    "-E",
    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
];

const fn ext4(name: &'static str, make: &'static [&'static str], options: &'static str) -> Kind {
    Kind {
        name,
        fs: "ext4",
        make,
        options,
        size: 48 << 20,
        torn: 1,
        fragile: false,
        short: false,
    }
}

pub(crate) const KINDS: [Kind; 7] = [
    Kind {
        short: true,
        ..ext4("ext4", EXT4, "")
    },
    Kind {
        name: "xfs",
        fs: "xfs",
        // Of what a mount reads block by block as little as there may be.
        make: &[
            "mkfs.xfs",
            "-q",
            "-f",
            "-K",
            "-d",
            "agcount=2",
            "-l",
            "size=6m",
        ],
        options: "nouuid",
        size: 64 << 20,
        torn: 1,
        fragile: false,
        short: true,
    },
    BTRFS,
    Kind {
        name: "btrfs-dup",
        make: &["mkfs.btrfs", "-q", "-f", "-K"],
        short: false,
        ..BTRFS
    },
    Kind {
        // A rename does not hide here that a sync is missing.
        short: true,
        ..ext4("ext4-noauto", EXT4, "noauto_da_alloc")
    },
    ext4("ext4-writeback", EXT4, "data=writeback"),
    Kind {
        fragile: true,
        ..ext4(
            "ext4-fast",
            &[
                "mkfs.ext4",
                "-q",
                "-F",
                "-J",
                "size=4",
                "-E",
                "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                "-O",
                "fast_commit",
            ],
            "",
        )
    },
];

/// The file system of this name.
pub(crate) fn kind(name: &str) -> Answer<&'static Kind> {
    let found = KINDS.iter().find(|kind| kind.name == name);
    found.ok_or_else(|| fault(format!("no file system {name}")))
}

/// Runs a program to its end.
pub(crate) fn run(what: &mut Command) -> Answer<String> {
    let done = what.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(fault(format!("{what:?}: {}: {}", done.status, said.trim())))
}

/// The one or the other loop device of a server, which may have the same disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// What is done to the disk is recorded, and the server has it.
    Recorded,
    /// It is only looked at: the disk that the server has stays as it was.
    Memory,
}

/// A file system on a loop device that a server of the rig serves.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) kind: &'static Kind,
    /// Where it is mounted; the same path in recording and check.
    pub(crate) at: PathBuf,
    server: BufReader<UnixStream>,
    nodes: [PathBuf; 2],
}

impl Device {
    /// With a fresh file system, which is kept as `fresh`. `dir` has the directory `at`; `server` takes
    /// orders.
    pub(crate) fn new(
        kind: &'static Kind,
        dir: &Path,
        nodes: [&str; 2],
        server: UnixStream,
    ) -> Answer<Self> {
        let mut device = Self {
            kind,
            at: dir.join("at"),
            server: BufReader::new(server),
            nodes: nodes.map(PathBuf::from),
        };
        run(Command::new(kind.make[0])
            .args(&kind.make[1..])
            .envs(SMALL_XFS)
            .arg(device.node(Through::Recorded)))?;
        device.order("keep fresh")?;
        Ok(device)
    }

    pub(crate) fn node(&self, through: Through) -> &Path {
        match through {
            Through::Recorded => &self.nodes[0],
            Through::Memory => &self.nodes[1],
        }
    }

    /// Gives an order to the server; see there.
    pub(crate) fn order(&mut self, order: &str) -> Answer<String> {
        ask(&mut self.server, order)
    }

    /// Writes what is on the recorded device, after [`show`](Self::show), into a file that has no blocks
    /// for zeros.
    pub(crate) fn save(&self, to: &Path) -> Answer<()> {
        let (mut from, to) = (File::open(self.node(Through::Recorded))?, File::create(to)?);
        let mut data = vec![0; PIECE];
        for at in (0..self.kind.size).step_by(PIECE) {
            from.read_exact(&mut data)?;
            if data.iter().any(|byte| *byte != 0) {
                to.write_all_at(&data, at as u64)?;
            }
        }
        Ok(to.set_len(self.kind.size as u64)?)
    }

    /// Puts such a file onto it.
    pub(crate) fn restore(&self, from: &Path) -> Answer<()> {
        let mut from = File::open(from)?;
        let node = self.node(Through::Recorded);
        let mut to = File::options().write(true).open(node)?;
        std::io::copy(&mut from, &mut to)?;
        Ok(to.sync_all()?)
    }

    /// Has the disk that the server has now on a device, which is not mounted.
    ///
    /// The kernel drops what it has cached of the disk before when nobody has the device open any more, but
    /// anybody may have. With the superblock of a clean file system from the cache nothing would be
    /// recovered. So the device is emptied through itself: that takes every page out of the cache.
    pub(crate) fn show(&mut self, through: Through) -> Answer<()> {
        if through == Through::Recorded {
            // To empty it is to write to it.
            self.order("keep shown")?;
        }
        let node = File::options().write(true).open(self.node(through))?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&node, flags, 0, self.kind.size as u64)?;
        match through {
            Through::Recorded => self.order("take shown")?,
            Through::Memory => self.order("show")?,
        };
        // What others have read meanwhile. If it stayed, zeros would be found, and the state be a bad one.
        Ok(fadvise(&node, 0, None, Advice::DontNeed)?)
    }

    /// Mounts what [`show`](Self::show) has put onto the device.
    pub(crate) fn mount(&self, through: Through) -> Answer<()> {
        let options = std::ffi::CString::new(self.kind.options)?;
        let node = self.node(through);
        let mount = || {
            let (at, fs) = (&self.at, self.kind.fs);
            mount(node, at, fs, MountFlags::empty(), Some(options.as_c_str()))
        };
        let mut done = mount();
        if done == Err(Errno::EXIST) && self.kind.fs == "btrfs" {
            // It remembers the other device as one with a newer state of this file system.
            let other = match through {
                Through::Recorded => Through::Memory,
                Through::Memory => Through::Recorded,
            };
            run(Command::new("btrfs")
                .args(["device", "scan", "--forget"])
                .arg(self.node(other)))?;
            done = mount();
        }
        done.map_err(|e| fault(format!("mount: {e}")))
    }

    pub(crate) fn unmount(&self) -> Answer<()> {
        // What was closed a moment ago may still be on its way out of the kernel.
        for _ in 0..20_000 {
            match unmount(&self.at, UnmountFlags::empty()) {
                Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(1)),
                done => return done.map_err(|e| fault(format!("umount: {e}"))),
            }
        }
        Err(fault("something keeps the file system busy"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It is rarely mounted any more, and what cannot be undone here ends with the mount namespace.
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Gives an order to a server, and the answer.
pub(crate) fn ask(server: &mut BufReader<UnixStream>, order: &str) -> Answer<String> {
    writeln!(server.get_mut(), "{order}")?;
    let mut line = String::new();
    server.read_line(&mut line)?;
    match line.trim_end() {
        "" if !line.ends_with('\n') => Err(fault("the server is gone")),
        answer if answer.starts_with("error ") => Err(fault(format!("{order}: {answer}"))),
        answer => Ok(answer.to_owned()),
    }
}

/// Detaches the loop devices whose file has this in its name, and says which.
pub(crate) fn detach(name: &str) -> Answer<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let file = entry.path().join("loop/backing_file");
        if fs::read_to_string(file).is_ok_and(|file| file.contains(name)) {
            let node = Path::new("/dev").join(entry.file_name());
            run(Command::new("losetup").arg("-d").arg(&node))?;
            out.push(node);
        }
    }
    Ok(out)
}
