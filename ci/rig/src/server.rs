//! The process behind a loop device: serves its backing file by FUSE, and takes orders on standard input.
//!
//! It must never wait for the file system on that device. So it is not in the mount namespace where that
//! one is mounted, opens no file but one in memory, holds all in memory that is locked, and gets memory
//! without waiting for writeback: however it ends, the kernel closes its connection, and whoever waits for
//! the device gets an error. It ends with its parent, with standard input, and when no order comes for a
//! long time.

use crate::image::Image;
use crate::log::{Event, Recording};
use crate::{Answer, fault};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, UNIX_EPOCH};

/// Without an order for this long, whoever gives them hangs.
const SILENCE: Duration = Duration::from_secs(300);
const FILE: INodeNo = INodeNo(2);
const SUPERBLOCK_END: usize = 4096;

#[derive(Debug, Default)]
struct Disk {
    image: Image,
    kept: HashMap<String, Image>,
    /// The last is the one that goes on; those before are of the states that it began from.
    recordings: Vec<Recording>,
    delay: Duration,
}

impl Disk {
    fn add(&mut self, event: Event) {
        if let Some(recording) = self.recordings.last_mut() {
            recording.add(event, &self.image);
        }
    }
}

#[derive(Clone, Debug)]
struct Served(Arc<Mutex<Disk>>, String);

impl Served {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let size = self.disk().image.size() as u64;
        let dir = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: if dir { 0 } else { size },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if dir { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 512,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == self.1.as_str() {
            reply.entry(&Duration::ZERO, &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing between the device and the log.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = self.disk().image.read(offset as usize, size as usize);
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let delay = self.disk().delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut disk = self.disk();
        disk.image.write(offset as usize, data);
        disk.add(Event::Write(offset as usize, data.into()));
        drop(disk);
        reply.written(data.len() as u32);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // The loop driver punches holes and zeroes ranges, nothing else.
        let mut disk = self.disk();
        disk.image.zero(offset as usize, length as usize);
        disk.add(Event::Zero(offset as usize, length as usize));
        drop(disk);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.disk().add(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// Serves the file `name` in the directory `at`, and writes the file `memory`, until standard input ends.
pub(crate) fn serve(at: &Path, name: &str, memory: &Path) -> Answer<()> {
    crate::die_with_parent()?;
    crate::lock_memory();
    let memory = File::options().write(true).open(memory)?;
    let served = Served(Arc::default(), name.to_owned());
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("steadfast-rig".to_owned())];
    let _session = fuser::spawn_mount(served.clone(), at, &config)?;
    let (alive, silent) = mpsc::channel();
    std::thread::spawn(move || {
        while silent.recv_timeout(SILENCE) != Err(mpsc::RecvTimeoutError::Timeout) {}
        eprintln!("the server of the rig hears nothing any more, and ends");
        std::process::exit(3);
    });
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        // The receiver lives as long as the process.
        let _ = alive.send(());
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let answer = match obey(&served, &memory, &words) {
            Ok(answer) => answer,
            Err(e) => format!("error {e}"),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    // Without an orderly unmount, which would wait for the loop device.
    std::process::exit(0);
}

/// Carries out one order. See `device.rs`, which gives them.
fn obey(served: &Served, memory: &File, words: &[&str]) -> Answer<String> {
    let mut disk = served.disk();
    let disk = &mut *disk;
    let empty = || fault("nothing is recorded");
    match words {
        ["blank", size] => disk.image = Image::new(size.parse()?),
        ["keep", name] => drop(disk.kept.insert((*name).to_owned(), disk.image.clone())),
        ["take", name] => {
            disk.image = disk.kept.get(*name).ok_or("never kept")?.clone();
        }
        ["show"] => {
            for (at, data) in disk.image.parts() {
                memory.write_all_at(data, at as u64)?;
            }
        }
        ["delay", micros] => disk.delay = Duration::from_micros(micros.parse()?),
        ["record"] => {
            let recording = Recording::start(&disk.image);
            disk.recordings.push(recording);
        }
        ["stop"] => disk.recordings.last_mut().ok_or_else(empty)?.going = false,
        ["forget"] => drop(disk.recordings.pop()),
        ["mark", number] => disk.add(Event::Mark(number.parse()?)),
        ["events"] => {
            let recording = disk.recordings.last().ok_or_else(empty)?;
            let words = recording.events.iter().map(|event| match event {
                // ext4 does not survive half of its own superblock, so that one is not to be torn.
                Event::Write(at, _) if *at < SUPERBLOCK_END => "w0".to_owned(),
                Event::Write(_, data) => format!("w{}", data.len()),
                Event::Zero(_, len) => format!("z{len}"),
                Event::Flush => "f".to_owned(),
                Event::Mark(number) => format!("m{number}"),
            });
            return Ok(words.collect::<Vec<_>>().join(" "));
        }
        ["load", after, chosen @ ..] => {
            let recording = disk.recordings.last().ok_or_else(empty)?;
            let image = recording.disk(after.parse()?, chosen);
            disk.image = image.ok_or("no such state")?;
            return Ok(format!("{:x}", disk.image.hash()));
        }
        _ => return Err(fault(format!("what is {words:?}?"))),
    }
    Ok("ok".to_owned())
}
