//! Many threads, or many processes, committing at once.

use crate::harness::{Case, Done, Watch, open};
use crate::{peers, sqlite};
use rustix::fs::CWD;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use steadfast::Root;
use steadfast::workspace::Workspace;
use steadfast_bench::{open_dir, replace_plain};

/// Commits in one sample, by all together.
const COMMITS: usize = 128;
const LEN: usize = 4 << 10;

/// Contents that differ from commit to commit: SQLite does not write what is there already.
struct Contents {
    all: Vec<Vec<u8>>,
    next: AtomicUsize,
}

impl Contents {
    fn new() -> Self {
        Self {
            all: (0..=255).map(|byte| vec![byte; LEN]).collect(),
            next: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> &[u8] {
        let at = self.next.fetch_add(1, Relaxed) % 251;
        self.all.get(at).map_or(&[], Vec::as_slice)
    }
}

/// 1 to 64 threads, 1 to 8 processes.
pub(super) fn cases(long: bool) -> Vec<Case> {
    let threads: &[usize] = if long {
        &[1, 2, 4, 8, 16, 32, 64]
    } else {
        &[1, 4, 16, 64]
    };
    let processes: &[usize] = if long { &[1, 2, 4, 8] } else { &[1, 4, 8] };
    let mut all: Vec<_> = threads.iter().map(|&n| by_threads(n)).collect();
    all.extend(processes.iter().map(|&n| by_processes(n)));
    all
}

fn title(count: usize, who: &str) -> String {
    let plural = match (count, who) {
        (1, who) => who.to_owned(),
        (_, "process") => "processes".to_owned(),
        (_, who) => format!("{who}s"),
    };
    format!("{COMMITS} commits of one file of 4 KiB each, by {count} {plural}")
}

/// Starts the threads, lets them begin together, and times until the last has ended.
fn together(w: &mut Watch, threads: usize, work: impl Fn(usize) -> Done + Send + Sync) -> Done {
    let barrier = Barrier::new(threads + 1);
    let work = &work;
    let barrier = &barrier;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    barrier.wait();
                    for _ in 0..COMMITS / threads {
                        work(thread)?;
                    }
                    Ok(())
                })
            })
            .collect();
        w.time(|| {
            barrier.wait();
            let mut answer = Ok(());
            for thread in running {
                let ended: Done = thread.join().map_err(|_| "a thread has panicked")?;
                answer = answer.and(ended);
            }
            answer
        })
    })
}

fn by_threads(threads: usize) -> Case {
    let id = format!("threads/{threads}");
    Case::new(id, title(threads, "thread"), COMMITS as u64)
        .untraced()
        .rounds(40)
        .with("raw", move |dir| {
            let (at, names) = setup(dir)?;
            let contents = Contents::new();
            Ok(move |w: &mut Watch| {
                together(w, threads, |thread| {
                    let name = names.get(thread).ok_or("no name")?;
                    let temporary = format!(".temporary-{thread}");
                    Ok(replace_plain(&at, name, &temporary, contents.next())?)
                })
            })
        })
        .with("steadfast", move |dir| {
            let (_, names) = setup(dir)?;
            let contents = Contents::new();
            let space = Workspace::open(&Root::open(dir)?)?;
            Ok(move |w: &mut Watch| {
                together(w, threads, |thread| {
                    let mut tx = space.begin();
                    tx.write(names.get(thread).ok_or("no name")?, contents.next())?;
                    Ok(tx.commit().map(drop)?)
                })
            })
        })
        .with("fs-transaction", move |dir| {
            let (_, names) = setup(dir)?;
            let (dir, contents) = (dir.to_owned(), Contents::new());
            Ok(move |w: &mut Watch| {
                together(w, threads, |thread| {
                    let name = names.get(thread..=thread).ok_or("no name")?;
                    peers::fs_transaction(&dir, name, contents.next(), false)
                })
            })
        })
        .with("SQLite", move |dir| {
            let (names, contents) = (peers::names(threads), Contents::new());
            // One connection and a lock: a connection for each thread spends its time asking again.
            let db = Mutex::new(sqlite::open(dir)?);
            Ok(move |w: &mut Watch| {
                together(w, threads, |thread| {
                    let name = names.get(thread..=thread).ok_or("no name")?;
                    let mut db = db.lock().map_err(|_| "a thread has panicked")?;
                    sqlite::write(&mut db, name, contents.next())
                })
            })
        })
}

fn setup(dir: &Path) -> Done<(OwnedFd, Vec<String>)> {
    let names = peers::names(64);
    for name in &names {
        fs::write(dir.join(name), [b'x'; LEN])?;
    }
    Ok((open(dir)?, names))
}

fn by_processes(count: usize) -> Case {
    let id = format!("processes/{count}");
    let mut case = Case::new(id, title(count, "process"), COMMITS as u64)
        .untraced()
        .rounds(40);
    for who in ["raw", "steadfast", "fs-transaction", "SQLite"] {
        case = case.with(who, move |dir| {
            setup(dir)?;
            let dir = dir.to_owned();
            if who == "SQLite" {
                // Of those that change a new database to a log at once all but one are refused.
                drop(sqlite::open(&dir)?);
            }
            let mut workers = Workers::start(who, &dir, count)?;
            Ok(move |w: &mut Watch| w.time(|| workers.round()))
        });
    }
    case
}

/// Processes that wait for a word, commit, and say so.
struct Workers(Vec<Child>);

impl Workers {
    fn start(who: &str, dir: &Path, count: usize) -> Done<Self> {
        let program = std::env::current_exe()?;
        let mut all = Self(Vec::new());
        for number in 0..count {
            let mut child = Command::new(&program);
            child.args(["worker", who]).arg(dir);
            child.args([number.to_string(), (COMMITS / count).to_string()]);
            child.stdin(Stdio::piped()).stdout(Stdio::piped());
            all.0.push(child.spawn()?);
        }
        all.hear()?;
        Ok(all)
    }

    fn round(&mut self) -> Done {
        for child in &mut self.0 {
            child.stdin.as_mut().ok_or("no pipe")?.write_all(b"!")?;
        }
        self.hear()
    }

    fn hear(&mut self) -> Done {
        for child in &mut self.0 {
            let said = child.stdout.as_mut().ok_or("no pipe")?;
            said.read_exact(&mut [0])?;
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
            let _ = child.wait(); // Nothing depends on it any more.
        }
    }
}

/// One of those processes: until nobody asks any more.
pub(crate) fn worker(who: &str, dir: &Path, number: usize, commits: usize) -> Done {
    let (names, contents) = (peers::names(64), Contents::new());
    let name = names.get(number..=number).ok_or("no name")?;
    let mut commit: Box<dyn FnMut() -> Done> = match who {
        "raw" => {
            let at = open_dir(CWD, dir)?;
            let temporary = format!(".temporary-{number}");
            let name = name.concat();
            Box::new(move || Ok(replace_plain(&at, &name, &temporary, contents.next())?))
        }
        "steadfast" => {
            let space = Workspace::open(&Root::open(dir)?)?;
            let name = name.concat();
            Box::new(move || {
                let mut tx = space.begin();
                tx.write(&name, contents.next())?;
                Ok(tx.commit().map(drop)?)
            })
        }
        "fs-transaction" => {
            let dir = dir.to_owned();
            Box::new(move || peers::fs_transaction(&dir, name, contents.next(), false))
        }
        _ => {
            let mut db = sqlite::open(dir)?;
            Box::new(move || sqlite::write(&mut db, name, contents.next()))
        }
    };
    let (mut asked, mut said) = (std::io::stdin().lock(), std::io::stdout().lock());
    said.write_all(b".")?;
    said.flush()?;
    while asked.read(&mut [0])? == 1 {
        for _ in 0..commits {
            commit()?;
        }
        said.write_all(b".")?;
        said.flush()?;
    }
    Ok(())
}
