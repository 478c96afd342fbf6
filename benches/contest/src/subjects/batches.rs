//! A thousand files, each atomic, all durable at the end, but not one transaction.

use crate::harness::{Case, Done, Watch, open};
use crate::peers;
use rustix::fs::{Mode, OFlags, fsync, openat, renameat, syncfs};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use steadfast::Root;
use steadfast::publish::{Batch, FileOptions, Preserve};
use steadfast_bench::replace_plain;

const LEN: usize = 4 << 10;

/// 1,000 new files, and 1,000 that are replaced.
pub(super) fn cases() -> Vec<Case> {
    vec![batch(1000, true), batch(1000, false)]
}

/// Gives a directory where the files are not, or are, and are clean.
fn fresh(dir: &Path, names: &[String], new: bool, bytes: &[u8]) -> Done {
    for name in names {
        if new {
            let _ = fs::remove_file(dir.join(name)); // Not there the first time.
        } else if !dir.join(name).exists() {
            fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(syncfs(open(dir)?)?)
}

fn staged(at: impl AsFd, names: &[String], bytes: &[u8]) -> Done<Vec<OwnedFd>> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut files = Vec::new();
    for name in names {
        let temporary = format!(".{name}");
        let file = openat(at.as_fd(), temporary, flags, Mode::from_raw_mode(0o600))?;
        rustix::io::write(&file, bytes)?;
        files.push(file);
    }
    Ok(files)
}

fn named(at: impl AsFd, names: &[String]) -> Done {
    let at = at.as_fd();
    for name in names {
        renameat(at, format!(".{name}"), at, name)?;
    }
    Ok(fsync(at)?)
}

fn batch(count: usize, new: bool) -> Case {
    let (id, what) = if new {
        ("create", "creates")
    } else {
        ("replace", "replaces")
    };
    let title = format!("a batch that {what} {count} files of 4 KiB, each atomic, all durable");
    let setup = move |dir: &Path| -> Done<_> {
        let names = peers::names(count);
        Ok((open(dir)?, dir.to_owned(), names, vec![b'x'; LEN]))
    };
    let ours = move |preserve: Preserve| {
        move |dir: &Path| -> Done<_> {
            let (_, dir, names, bytes) = setup(dir)?;
            let root = Root::open(&dir)?;
            let options = FileOptions::new().preserve(preserve);
            Ok(move |w: &mut Watch| -> Done {
                fresh(&dir, &names, new, &bytes)?;
                w.time(|| {
                    let mut batch = Batch::new(&root)?;
                    for name in &names {
                        batch.write(name, &bytes, &options)?;
                    }
                    Ok(batch.commit().map(drop)?)
                })
            })
        }
    };
    Case::new(format!("batch/{id}/{count}"), title, count as u64)
        .rounds(20)
        .with("raw, one by one", move |dir| {
            let (at, dir, names, bytes) = setup(dir)?;
            Ok(move |w: &mut Watch| {
                fresh(&dir, &names, new, &bytes)?;
                w.time(|| {
                    for name in &names {
                        replace_plain(&at, name, ".temporary", &bytes)?;
                    }
                    Ok(())
                })
            })
        })
        .with("raw, one syncfs", move |dir| {
            let (at, dir, names, bytes) = setup(dir)?;
            Ok(move |w: &mut Watch| {
                fresh(&dir, &names, new, &bytes)?;
                w.time(|| {
                    // At most so many descriptors at once.
                    for names in names.chunks(256) {
                        staged(&at, names, &bytes)?;
                    }
                    syncfs(&at)?;
                    named(&at, &names)
                })
            })
        })
        .with("raw, all staged, then fsync of each", move |dir| {
            let (at, dir, names, bytes) = setup(dir)?;
            Ok(move |w: &mut Watch| {
                fresh(&dir, &names, new, &bytes)?;
                w.time(|| {
                    for names in names.chunks(256) {
                        for file in staged(&at, names, &bytes)? {
                            fsync(&file)?;
                        }
                    }
                    named(&at, &names)
                })
            })
        })
        .with("raw, fsync by 32 threads", move |dir| {
            let (at, dir, names, bytes) = setup(dir)?;
            Ok(move |w: &mut Watch| {
                fresh(&dir, &names, new, &bytes)?;
                w.time(|| {
                    for names in names.chunks(256) {
                        let files = staged(&at, names, &bytes)?;
                        std::thread::scope(|scope| {
                            let sync = |part: &[OwnedFd]| part.iter().try_for_each(fsync);
                            let parts: Vec<_> = files
                                .chunks(files.len().div_ceil(32))
                                .map(|part| scope.spawn(move || sync(part)))
                                .collect();
                            for part in parts {
                                part.join().map_err(|_| "a thread has panicked")??;
                            }
                            Done::Ok(())
                        })?;
                    }
                    named(&at, &names)
                })
            })
        })
        .with("steadfast, nothing kept", ours(Preserve::NOTHING))
        .with("steadfast", ours(Preserve::default()))
        .with("tempfile + syncs, one by one", move |dir| {
            let (at, dir, names, bytes) = setup(dir)?;
            Ok(move |w: &mut Watch| {
                fresh(&dir, &names, new, &bytes)?;
                w.time(|| {
                    for name in &names {
                        peers::tempfile(&dir, &at, name, &bytes, false)?;
                    }
                    Ok(())
                })
            })
        })
}
