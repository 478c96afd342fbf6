//! The file systems, and one of them on the loop device of a server.

use crate::{Answer, fault};
use rustix::fs::{Advice, fadvise};
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

pub(crate) const KINDS: [Kind; 6] = [
    Kind {
        short: true,
        ..ext4("ext4", EXT4, "")
    },
    Kind {
        name: "xfs",
        fs: "xfs",
        make: &["mkfs.xfs", "-q", "-f", "-K"],
        options: "nouuid",
        size: 320 << 20,
        torn: 1,
        fragile: false,
        short: true,
    },
    Kind {
        name: "btrfs",
        fs: "btrfs",
        make: &["mkfs.btrfs", "-q", "-f", "-K"],
        options: "",
        size: 160 << 20,
        torn: 8,
        fragile: false,
        short: true,
    },
    ext4("ext4-noauto", EXT4, "noauto_da_alloc"),
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

/// A file system on a loop device that a server of the rig serves.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) kind: &'static Kind,
    /// Where it is mounted; the same path in recording and check.
    pub(crate) at: PathBuf,
    server: BufReader<UnixStream>,
    node: PathBuf,
}

impl Device {
    /// With a fresh file system, which is kept as `fresh`. `dir` has the directory `at`; `server` takes
    /// orders.
    pub(crate) fn new(
        kind: &'static Kind,
        dir: &Path,
        node: &str,
        server: UnixStream,
    ) -> Answer<Self> {
        let mut device = Self {
            kind,
            at: dir.join("at"),
            server: BufReader::new(server),
            node: PathBuf::from(node),
        };
        run(Command::new(kind.make[0])
            .args(&kind.make[1..])
            .arg(&device.node))?;
        device.order("keep fresh")?;
        Ok(device)
    }

    /// Gives an order to the server; see there.
    pub(crate) fn order(&mut self, order: &str) -> Answer<String> {
        ask(&mut self.server, order)
    }

    /// Writes what is on the device into a file that has no blocks for zeros.
    pub(crate) fn save(&self, to: &Path) -> Answer<()> {
        self.drop_cache()?;
        let (mut from, to) = (File::open(&self.node)?, File::create(to)?);
        let mut data = vec![0; PIECE];
        for at in (0..self.kind.size).step_by(PIECE) {
            from.read_exact(&mut data)?;
            if data.iter().any(|byte| *byte != 0) {
                to.write_all_at(&data, at as u64)?;
            }
        }
        Ok(to.set_len(self.kind.size as u64)?)
    }

    /// Puts such a file onto the device.
    pub(crate) fn restore(&self, from: &Path) -> Answer<()> {
        let mut from = File::open(from)?;
        let mut to = File::options().write(true).open(&self.node)?;
        std::io::copy(&mut from, &mut to)?;
        Ok(to.sync_all()?)
    }

    /// Drops what the kernel has cached of a disk before the one that the server has now. It does so
    /// by itself when nobody has the device open any more, but at times something has. With the
    /// superblock of a clean file system from the cache nothing would be recovered.
    fn drop_cache(&self) -> Answer<()> {
        Ok(fadvise(File::open(&self.node)?, 0, None, Advice::DontNeed)?)
    }

    pub(crate) fn mount(&self) -> Answer<()> {
        self.drop_cache()?;
        let options = std::ffi::CString::new(self.kind.options)?;
        let flags = MountFlags::empty();
        mount(
            &self.node,
            &self.at,
            self.kind.fs,
            flags,
            Some(options.as_c_str()),
        )
        .map_err(|e| fault(format!("mount: {e}")))
    }

    pub(crate) fn unmount(&self) -> Answer<()> {
        // What was closed a moment ago may still be on its way out of the kernel.
        for _ in 0..2000 {
            match unmount(&self.at, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(1)),
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
