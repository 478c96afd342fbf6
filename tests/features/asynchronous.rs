//! Feature `tokio`: the same results, and nothing half done whatever becomes of a future.
//!
//! A runtime that is dropped waits for what its threads have begun, so that afterwards all is said and done.

use crate::common;
use std::cell::Cell;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker, ready};
use steadfast::nonblocking::{Incoming, PendingFile, Root, run, run_from};
use steadfast::publish::{FileOptions, Target};
use steadfast::workspace::Workspace;
use steadfast::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, spawn_blocking};

/// One thread for tasks, and one for work that waits.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(1).build().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Bytes that tell where they stand.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// What a reader does once it has given its content.
#[derive(Clone)]
enum Then {
    End,
    Fail,
    /// Waits for ever, and says so.
    Stall(Rc<Cell<bool>>),
}

/// Gives its content in pieces of changing length.
struct Reader {
    content: Vec<u8>,
    at: usize,
    then: Then,
}

fn reader(len: usize, then: Then) -> Reader {
    Reader {
        content: content(len),
        at: 0,
        then,
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = &this.content[this.at..];
        let n = rest.len().min(into.remaining()).min(1 + this.at % 9973);
        into.put_slice(&rest[..n]);
        this.at += n;
        match &this.then {
            _ if n > 0 => Poll::Ready(Ok(())),
            Then::End => Poll::Ready(Ok(())),
            Then::Fail => Poll::Ready(Err(io::Error::other("the line is dead"))),
            Then::Stall(stalled) => {
                stalled.set(true);
                Poll::Pending
            }
        }
    }
}

/// Polls a future until its reader has stalled.
async fn until_stalled<T>(mut future: Pin<&mut impl Future<Output = T>>, stalled: &Cell<bool>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        match stalled.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[test]
fn the_same_results() {
    let dir = common::dir();
    let large = 3 * PendingFile::BUFFER + 7;
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let options = FileOptions::new();
        for (name, len) in [("empty", 0), ("small", 10), ("large", large)] {
            let source = reader(len, Then::End);
            root.write_from(&options, name, source).await.unwrap();
        }
        let receipt = root.write(&options, "small", "other").await.unwrap();
        assert_eq!(receipt.replaced().unwrap().len(), 10);
        let new = FileOptions::new().target(Target::CreateNew);
        let error = root.write(&new, "small", "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        root.run(|root| {
            let workspace = Workspace::open(root)?;
            let mut tx = workspace.begin();
            tx.rename("large", "moved");
            tx.commit()?;
            workspace.close()
        })
        .await
        .unwrap();
        assert!(root.get_ref().try_exists("moved").unwrap());
    });
    let read = |name| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(read("empty"), b"");
    assert_eq!(read("small"), b"other");
    assert!(read("moved") == content(large));
}

#[test]
fn a_cancelled_future_publishes_nothing_and_leaves_nothing() {
    // Nothing written yet; something on its way; both buffers used more than once.
    for len in [0, 100, PendingFile::BUFFER, 5 * PendingFile::BUFFER + 1] {
        let dir = common::dir();
        let runtime = runtime();
        runtime.block_on(async {
            let root = Root::open(dir.path()).await.unwrap();
            let stalled = Rc::new(Cell::new(false));
            let source = reader(len, Then::Stall(Rc::clone(&stalled)));
            let options = FileOptions::new();
            let mut writing = Box::pin(root.write_from(&options, "a", source));
            until_stalled(writing.as_mut(), &stalled).await;
            // It was there, or this test would see nothing.
            assert_eq!(names(dir.path()).len(), 1);
            drop(writing);
        });
        drop(runtime);
        assert_eq!(names(dir.path()), [""; 0], "after {len} bytes");
    }
}

#[test]
fn a_reader_that_fails_publishes_nothing() {
    let dir = common::dir();
    let runtime = runtime();
    runtime.block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let options = FileOptions::new();
        root.write(&options, "a", "old").await.unwrap();
        for len in [0, 5, 3 * PendingFile::BUFFER] {
            let source = reader(len, Then::Fail);
            let error = root.write_from(&options, "a", source).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert_eq!(error.source().unwrap().to_string(), "the line is dead");
            assert_eq!(error.path(), Some(Path::new("a")));
            // The failure was told when everything was cleared away.
            assert_eq!(names(dir.path()), ["a"]);
        }
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"old");
    });
}

#[test]
fn only_commit_publishes() {
    let dir = common::dir();
    let runtime = runtime();
    runtime.block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let mut file = root.begin(&FileOptions::new(), "a").await.unwrap();
        let mut taken = 0;
        let bytes = content(PendingFile::BUFFER + 1);
        while taken < bytes.len() {
            let put = poll_fn(|cx| Pin::new(&mut file).poll_write(cx, &bytes[taken..]));
            taken += put.await.unwrap();
        }
        poll_fn(|cx| Pin::new(&mut file).poll_shutdown(cx))
            .await
            .unwrap();
        assert!(!dir.path().join("a").exists());
        file.discard().await.unwrap();
        assert_eq!(names(dir.path()), [""; 0]);

        let wrong = FileOptions::new().expect_len(2);
        let file = root.begin(&wrong, "a").await.unwrap();
        let error = file.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert_eq!(names(dir.path()), [""; 0]);
    });
}

/// Work that holds the runtime's only thread until the sender is dropped.
fn hold() -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (open, gate) = mpsc::channel();
    let held = spawn_blocking(move || {
        // It ends by an error, when the sender is gone.
        let _ = gate.recv();
    });
    (open, held)
}

/// Writes until no more is taken or nothing is left, and gives how much was taken.
fn fill(file: &mut PendingFile, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len()
        && let Poll::Ready(n) = Pin::new(&mut *file).poll_write(cx, &bytes[taken..])
    {
        taken += n.unwrap();
    }
    taken
}

#[test]
fn who_writes_faster_than_the_disk_waits() {
    let dir = common::dir();
    let bytes = content(4 * PendingFile::BUFFER);
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let mut file = root.begin(&FileOptions::new(), "a").await.unwrap();
        let (open, held) = hold();
        let mut taken = poll_fn(|cx| Poll::Ready(fill(&mut file, cx, &bytes))).await;
        assert_eq!(taken, 2 * PendingFile::BUFFER);
        drop(open);
        held.await.unwrap();
        while taken < bytes.len() {
            let put = poll_fn(|cx| Pin::new(&mut file).poll_write(cx, &bytes[taken..]));
            taken += put.await.unwrap();
        }
        file.commit().await.unwrap();
    });
    assert!(std::fs::read(dir.path().join("a")).unwrap() == bytes);
}

#[test]
fn a_commit_that_has_begun_is_done_as_a_whole() {
    let dir = common::dir();
    let bytes = content(PendingFile::BUFFER - 1);
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let mut file = root.begin(&FileOptions::new(), "a").await.unwrap();
        let put = poll_fn(|cx| Pin::new(&mut file).poll_write(cx, &bytes)).await;
        assert_eq!(put.unwrap(), bytes.len());
        let (open, held) = hold();
        let mut commit = Box::pin(file.commit());
        let begun = poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx))).await;
        assert!(begun.is_pending());
        drop(commit);
        drop(open);
        held.await.unwrap();
        // The thread takes its work in order: this comes after the commit.
        spawn_blocking(|| ()).await.unwrap();
    });
    assert!(std::fs::read(dir.path().join("a")).unwrap() == bytes);
}

#[test]
fn a_dropped_runtime_publishes_nothing() {
    let dir = common::dir();
    let runtime_of_files = runtime();
    let (root, mut open) = runtime_of_files.block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let open = root.begin(&FileOptions::new(), "a").await.unwrap();
        let other = root.clone();
        let stalled = tokio::spawn(async move {
            let mut file = other.begin(&FileOptions::new(), "b").await.unwrap();
            let bytes = content(3 * PendingFile::BUFFER);
            poll_fn(|cx| Poll::Ready(fill(&mut file, cx, &bytes))).await;
            std::future::pending::<()>().await;
        });
        // Both files are there.
        while names(dir.path()).len() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(!stalled.is_finished());
        (root, open)
    });
    drop(runtime_of_files);
    assert_eq!(names(dir.path()).len(), 1, "that of the task is gone");

    // What is left over cannot go on in a runtime that is no more, and says so.
    runtime().block_on(async {
        let bytes = content(3 * PendingFile::BUFFER);
        let mut taken = 0;
        let error = poll_fn(|cx| {
            loop {
                assert!(taken < bytes.len(), "it went on");
                let put = Pin::new(&mut open).poll_write(cx, &bytes[taken..]);
                match ready!(put) {
                    Ok(n) => taken += n,
                    Err(error) => return Poll::Ready(error),
                }
            }
        });
        let error = error.await;
        assert_eq!(Error::of(&error).unwrap().kind(), ErrorKind::Cancelled);
        // Who reads or writes in a loop would try again for ever.
        assert_ne!(error.kind(), io::ErrorKind::Interrupted);
        let error = open.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(names(dir.path()), [""; 0]);
        root.write(&FileOptions::new(), "c", "").await.unwrap();
    });
}

/// Gives its content in pieces, and is not ready before each of them and before its end.
struct Hesitant {
    content: Vec<u8>,
    at: usize,
    piece: usize,
    hesitated: bool,
    /// Whether the end was given.
    ended: Rc<Cell<bool>>,
}

impl AsyncRead for Hesitant {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.hesitated = !this.hesitated;
        if this.hesitated {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = &this.content[this.at..];
        let n = rest.len().min(into.remaining()).min(this.piece);
        into.put_slice(&rest[..n]);
        this.at += n;
        this.ended.set(n == 0);
        Poll::Ready(Ok(()))
    }
}

/// A future that is to make `old` into [`NEW`] bytes of [`content`].
type Replacing = Pin<Box<dyn Future<Output = steadfast::Result<()>>>>;
const NEW: usize = 3 * PendingFile::BUFFER / 2;

/// The folder of a workspace.
const STATE: &str = ".steadfast";

/// Drops the future after each number of polls that it can be dropped after, and lets it come to its end
/// once.
fn dropped_everywhere(make: impl Fn(Root, Hesitant) -> Replacing) {
    let mut kept = 0;
    for polls in 0.. {
        let dir = common::dir();
        let path = dir.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let ended = Rc::new(Cell::new(false));
        let runtime = runtime();
        let done = runtime.block_on(async {
            let root = Root::open(dir.path()).await.unwrap();
            let reader = Hesitant {
                content: content(NEW),
                at: 0,
                piece: NEW / 5,
                hesitated: false,
                ended: Rc::clone(&ended),
            };
            let mut replacing = make(root, reader);
            let mut left = polls;
            poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                replacing.as_mut().poll(cx).map(Some)
            })
            .await
        });
        // All that was begun is over.
        drop(runtime);
        let found = std::fs::read(&path).unwrap();
        match done {
            Some(done) => {
                done.unwrap();
                assert!(found == content(NEW));
                assert!(kept > 5, "it was dropped {kept} times only");
                return;
            }
            None if found == b"old" => kept += 1,
            None => assert!(ended.get() && found == content(NEW), "after {polls} polls"),
        }
        // And nothing is left of it.
        let mut names = names(dir.path());
        if names.contains(&STATE.to_owned()) {
            names.retain(|name| name != STATE);
            let staged = self::names(&dir.path().join(STATE).join("staged"));
            assert_eq!(staged, [""; 0], "after {polls} polls");
        }
        assert_eq!(names, ["a"], "after {polls} polls");
    }
}

#[test]
fn a_file_is_dropped_wherever_it_waits() {
    dropped_everywhere(|root, reader| {
        Box::pin(async move {
            let options = FileOptions::new();
            root.write_from(&options, "a", reader).await.map(drop)
        })
    });
}

/// A transaction that writes what comes in.
fn committed(root: &steadfast::Root, incoming: Incoming) -> steadfast::Result<()> {
    let workspace = Workspace::open(root)?;
    let mut tx = workspace.begin();
    tx.write_from("a", incoming)?;
    tx.commit()?;
    workspace.close()
}

#[test]
fn a_transaction_is_dropped_wherever_it_waits() {
    dropped_everywhere(|root, reader| {
        Box::pin(async move { root.run_from(reader, committed).await })
    });
}

#[test]
fn what_nobody_takes_is_not_read_and_never_has_an_end() {
    let dir = common::dir();
    let ended = Rc::new(Cell::new(false));
    let len = 2 * Incoming::BUFFER;
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let (open, held) = hold();
        let mut source = reader(len, Then::Stall(Rc::clone(&ended)));
        let mut work = Box::pin(root.run_from(Watched(&mut source), committed));
        let begun = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        assert!(begun.is_pending());
        drop(work);
        let read = source.at;
        assert!(0 < read && read < Incoming::BUFFER && !ended.get());
        drop(open);
        held.await.unwrap();
        // The thread takes its work in order.
        spawn_blocking(|| ()).await.unwrap();
    });
    assert!(!dir.path().join("a").exists());
}

/// A reader that somebody else keeps.
struct Watched<'r>(&'r mut Reader);

impl AsyncRead for Watched<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_read(cx, into)
    }
}

#[test]
fn work_that_has_its_end_goes_on_without_its_future() {
    let dir = common::dir();
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let (open, held) = hold();
        let source: &[u8] = b"new";
        let mut work = Box::pin(root.run_from(source, committed));
        let begun = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        assert!(begun.is_pending());
        drop(work);
        drop(open);
        held.await.unwrap();
        spawn_blocking(|| ()).await.unwrap();
    });
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"new");
}

#[test]
fn what_comes_in_fails_as_its_reader_does_and_never_ends() {
    let dir = common::dir();
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let source = reader(3 * Incoming::BUFFER, Then::Fail);
        let error = root.run_from(source, committed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert_eq!(error.source().unwrap().to_string(), "the line is dead");
        assert!(!dir.path().join("a").exists());

        let source = reader(10, Then::Fail);
        let again = run_from(source, |mut incoming| {
            let mut all = Vec::new();
            assert!(incoming.read_to_end(&mut all).is_err());
            assert_eq!(all, content(10));
            let error = incoming.read(&mut [0]).unwrap_err();
            assert_eq!(incoming.read(&mut []).unwrap(), 0);
            Ok(error)
        });
        let again = again.await.unwrap();
        assert_eq!(Error::of(&again).unwrap().kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn work_that_has_enough_does_not_wait_for_its_reader() {
    runtime().block_on(async {
        let stalled = Rc::new(Cell::new(false));
        let source = reader(10, Then::Stall(Rc::clone(&stalled)));
        let first = run_from(source, |mut incoming| {
            let mut first = [0; 3];
            incoming.read_exact(&mut first).unwrap();
            Ok(first)
        });
        assert_eq!(first.await.unwrap(), [0, 1, 2]);
        // And an end is an end, however often it is asked for.
        let ends = run_from(reader(2, Then::End), |mut incoming| {
            let mut all = Vec::new();
            incoming.read_to_end(&mut all).unwrap();
            incoming.read_to_end(&mut all).unwrap();
            Ok(all)
        });
        assert_eq!(ends.await.unwrap(), [0, 1]);
    });
}

/// A reader that waits for the runtime's only thread itself, as those of files do.
struct ByThread(Option<JoinHandle<()>>, u32);

impl AsyncRead for ByThread {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.1 == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = this.0.get_or_insert_with(|| spawn_blocking(|| ()));
        ready!(pin!(read).poll(cx)).unwrap();
        this.0 = None;
        this.1 -= 1;
        let piece = content(into.remaining());
        into.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

#[test]
fn many_files_from_readers_that_need_the_same_thread() {
    let dir = common::dir();
    runtime().block_on(async {
        let root = Root::open(dir.path()).await.unwrap();
        let options = FileOptions::new().durability(steadfast::Durability::None);
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let (root, options) = (root.clone(), options.clone());
                tokio::spawn(async move {
                    let source = ByThread(None, 10);
                    root.write_from(&options, format!("{n}"), source).await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    assert_eq!(names(dir.path()).len(), 8);
}

#[test]
fn without_a_runtime_it_is_an_error_and_a_panic_is_handed_on() {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = pin!(run(|| Ok(()))).poll(&mut cx) else {
        panic!("it did something");
    };
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let runtime = runtime();
    let work = || -> steadfast::Result<()> { std::panic::panic_any(7) };
    let panic = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(work))));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&7));
}
