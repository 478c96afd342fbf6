//! For async code on tokio: the same operations, on the runtime's threads for blocking work.
//!
//! Nothing here does anything in another way than the rest of the crate, whose calls wait for the disk and so
//! would stop a runtime's own threads. [`run`] moves any of them to where waiting is allowed; [`Root`] and
//! [`PendingFile`] do so for files, also for content that comes in pieces.
//!
//! ```
//! use steadfast::nonblocking::{self, Root};
//! use steadfast::publish::FileOptions;
//! use steadfast::workspace::Workspace;
//!
//! # async fn example(dir: &std::path::Path) -> steadfast::Result<()> {
//! let root = Root::open(dir).await?;
//! root.write(&FileOptions::new(), "app.conf", "threads = 4\n").await?;
//!
//! // All of what a reader gives, or nothing.
//! let upload: &[u8] = b"as much as you like"; // Any AsyncRead.
//! root.write_from(&FileOptions::new(), "upload", upload).await?;
//!
//! // Whatever else there is: a transaction, for example.
//! root.run(|root| {
//!     let workspace = Workspace::open(root)?;
//!     let mut tx = workspace.begin();
//!     tx.rename("app.conf", "app.conf.old").rename("upload", "app.conf");
//!     tx.commit()
//! })
//! .await?;
//!
//! // One that takes what a reader gives, to its end or not at all.
//! let more: &[u8] = b"threads = 8\n";
//! root.run_from(more, |root, more| {
//!     let workspace = Workspace::open(root)?;
//!     let mut tx = workspace.begin();
//!     tx.write_from("more.conf", more)?;
//!     tx.remove_file("app.conf.old");
//!     tx.commit()
//! })
//! .await?;
//! # Ok(())
//! # }
//! # let dir = tempfile::tempdir()?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(example(dir.path()))?;
//! # assert_eq!(std::fs::read(dir.path().join("app.conf"))?, b"as much as you like");
//! # assert_eq!(std::fs::read(dir.path().join("more.conf"))?, b"threads = 8\n");
//! # assert!(!dir.path().join("app.conf.old").exists());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # When a future is dropped
//! A call that has begun on its thread cannot be called off: it goes on, and is done as a whole or not at
//! all, as it always is. A file that is written in pieces is published by [`PendingFile::commit`] and by
//! nothing else: as long as that has not begun, a dropped future, a failed reader, a panic or the end of the
//! runtime discards what was written, and no file that is cut short is ever published.
//!
//! What [`run_from`] hands to its work ends only where its reader has ended: if the future is dropped before,
//! or the reader fails, the work reads an error there and never an end.
//!
//! # How much it holds
//! A file that is being written has at the most [`PendingFile::BUFFER`] bytes twice in memory, one part that
//! is being filled and one that is being written; who writes faster waits. It occupies a thread only while
//! something is written, so that any number of slow sources may be read at once, also from files that need
//! the same threads. [`run_from`] is for work that reads by itself, such as a transaction: it holds at the
//! most [`Incoming::BUFFER`] bytes, and its thread for as long as the work waits for the reader.
//!
//! # Panics
//! All calls here panic where [`tokio::task::spawn_blocking`] does: if the system cannot start its first
//! thread. A panic of the caller's own code is handed on.

mod incoming;
mod pending;

pub use incoming::{Incoming, run_from};
pub use pending::PendingFile;

use crate::publish::{FileOptions, Receipt};
use crate::{Error, ErrorKind, Result};
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Handle;
use tokio::task::JoinError;

const OP: &str = "run on the blocking pool";
/// What is read at once.
const PIECE: usize = 32 * 1024;

/// Does any work that waits on the runtime's threads for that. It begins when the future is first polled.
///
/// # Errors
/// Those of `work`. [`ErrorKind::Unsupported`]: this thread belongs to no tokio runtime.
/// [`ErrorKind::Cancelled`]: the runtime was shut down before it began.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match runtime()?.spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(not_done(error)),
    }
}

fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|_| {
        Error::of_kind(OP, ErrorKind::Unsupported)
            .with_detail("this thread belongs to no tokio runtime")
    })
}

/// The error of work that has no result; if it panicked the panic goes on here.
fn not_done(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::of_kind(OP, ErrorKind::Cancelled).with_detail("the runtime was shut down"),
    }
}

/// What the reader gives next, at the most as much as there is room for; 0 is its end.
async fn read(mut from: Pin<&mut impl AsyncRead>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        let read = poll_fn(|cx| {
            let mut into = ReadBuf::new(into);
            ready!(from.as_mut().poll_read(cx, &mut into))?;
            Poll::Ready(io::Result::Ok(into.filled().len()))
        });
        match read.await {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A [`Root`](crate::Root) for async code. Clones share one descriptor.
#[derive(Clone, Debug)]
pub struct Root(Arc<crate::Root>);

impl Root {
    /// Opens `path`, as [`Root::open`](crate::Root::open).
    ///
    /// # Errors
    /// As open(2) of a directory, and those of [`run`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        run(move || crate::Root::open(path).map(Self::from)).await
    }

    /// The root itself, for calls that do not wait.
    #[must_use]
    pub fn get_ref(&self) -> &crate::Root {
        &self.0
    }

    /// Does any work with the root on the runtime's threads for work that waits.
    ///
    /// # Errors
    /// As [`run`](run()).
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&crate::Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.0);
        run(move || work(&root)).await
    }

    /// Does work with the root and with what a reader gives, which the work reads as any [`std::io::Read`]: a
    /// transaction that streams, an archive that is unpacked.
    ///
    /// If the future is dropped before the reader's end was seen, the work reads an error in its place.
    ///
    /// # Errors
    /// As [`run_from`].
    pub async fn run_from<T: Send + 'static>(
        &self,
        reader: impl AsyncRead,
        work: impl FnOnce(&crate::Root, Incoming) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.0);
        run_from(reader, move |incoming| work(&root, incoming)).await
    }

    /// Publishes these bytes, as [`FileOptions::write`].
    ///
    /// If the future is dropped once it was polled, they are published all the same, or not at all.
    ///
    /// # Errors
    /// As [`FileOptions::write`], and those of [`run`](run()).
    pub async fn write(
        &self,
        options: &FileOptions,
        path: impl AsRef<Path>,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<Receipt> {
        let (options, path) = (options.clone(), path.as_ref().to_owned());
        self.run(move |root| options.write(root, path, bytes)).await
    }

    /// Publishes all that a reader gives until its end, as [`FileOptions::write_from`].
    ///
    /// If the future is dropped before the reader's end was seen, nothing is published.
    ///
    /// # Errors
    /// As [`FileOptions::write_from`], and those of [`run`](run()). With [`ErrorKind::Source`] the reader has
    /// failed, and nothing is published.
    pub async fn write_from(
        &self,
        options: &FileOptions,
        path: impl AsRef<Path>,
        reader: impl AsyncRead,
    ) -> Result<Receipt> {
        let mut file = self.begin(options, path).await?;
        let mut reader = pin!(reader);
        let mut piece = vec![0; PIECE];
        loop {
            match read(reader.as_mut(), &mut piece).await {
                Ok(0) => return file.commit().await,
                Ok(n) => match file.write_all(piece.get(..n).unwrap_or_default()).await {
                    Ok(()) => {}
                    Err(error) => return file.give_up(error).await,
                },
                Err(error) => return file.give_up(error).await,
            }
        }
    }

    /// Begins to publish a file, as [`FileOptions::begin`]: write to it, then
    /// [`commit`](PendingFile::commit).
    ///
    /// # Errors
    /// As [`FileOptions::begin`], and those of [`run`](run()).
    pub async fn begin(
        &self,
        options: &FileOptions,
        path: impl AsRef<Path>,
    ) -> Result<PendingFile> {
        let (options, path) = (options.clone(), path.as_ref().to_owned());
        let runtime = runtime()?;
        let file = self
            .run(move |root| options.begin_owned(root, path))
            .await?;
        Ok(PendingFile::new(file, runtime))
    }
}

impl From<crate::Root> for Root {
    fn from(root: crate::Root) -> Self {
        Self(Arc::new(root))
    }
}

impl From<Arc<crate::Root>> for Root {
    fn from(root: Arc<crate::Root>) -> Self {
        Self(root)
    }
}
