//! A file while it is written by async code: one buffer is filled while the other is written.

use super::{not_done, run};
use crate::publish::{self, Receipt};
use crate::{Error, ErrorKind, Result};
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A file that is being written and has not been published: [`publish::PendingFile`] for async code.
///
/// It is an [`AsyncWrite`], whose flush hands everything to the file, and whose shutdown does no more than
/// that: [`commit`](Self::commit) alone publishes. Dropping it discards it. After a failed write it cannot be
/// committed.
#[derive(Debug)]
#[must_use = "dropping it discards the content; call commit()"]
pub struct PendingFile {
    work: Work,
    /// What is not written yet.
    full: Vec<u8>,
    /// For the next round.
    spare: Vec<u8>,
    runtime: Handle,
}

#[derive(Debug)]
enum Work {
    Idle(Box<publish::PendingFile<'static>>),
    /// On a thread that may wait.
    Writing(JoinHandle<Written>),
    /// Taken, or lost in a runtime that has ended.
    Gone,
}

/// What a write gives back.
#[derive(Debug)]
struct Written {
    file: Box<publish::PendingFile<'static>>,
    buffer: Vec<u8>,
    done: io::Result<()>,
}

impl PendingFile {
    /// How much is collected before it is written, in bytes.
    pub const BUFFER: usize = 128 * 1024;

    pub(super) fn new(file: publish::PendingFile<'static>, runtime: Handle) -> Self {
        Self {
            work: Work::Idle(Box::new(file)),
            full: Vec::new(),
            spare: Vec::new(),
            runtime,
        }
    }

    /// Publishes the file, as [`publish::PendingFile::commit`].
    ///
    /// If the future is dropped before it was polled, or while something that was written before is still on
    /// its way, the file is discarded; later it is published as a whole, or not at all.
    ///
    /// # Errors
    /// As [`publish::PendingFile::commit`], and those of [`run`](super::run()).
    pub async fn commit(mut self) -> Result<Receipt> {
        // What failed here has made the file one that cannot be committed.
        let _ = self.idle().await;
        let mut file = self.take()?;
        let rest = std::mem::take(&mut self.full);
        run(move || {
            let done = file.write_all(&rest);
            file.filled(done)?.commit()
        })
        .await
    }

    /// Removes the temporary and its content. Dropping does the same, and cannot say if it failed.
    ///
    /// # Errors
    /// As [`publish::PendingFile::discard`], and those of [`run`](super::run()).
    pub async fn discard(mut self) -> Result<()> {
        // It is discarded whether that went well or not.
        let _ = self.idle().await;
        let file = self.take()?;
        run(move || file.discard()).await
    }

    /// Discards because something has failed, and says what.
    pub(super) async fn give_up<T: Send + 'static>(mut self, error: io::Error) -> Result<T> {
        // The error that the caller has came first.
        let _ = self.idle().await;
        let file = self.take()?;
        run(move || match file.filled(Err(error)) {
            Err(error) => Err(error),
            Ok(_) => Err(gone()),
        })
        .await
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| self.poll_put(cx, bytes)).await?;
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits until nothing is being written.
    async fn idle(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_idle(cx)).await
    }

    fn take(&mut self) -> Result<publish::PendingFile<'static>> {
        match std::mem::replace(&mut self.work, Work::Gone) {
            Work::Idle(file) => Ok(*file),
            Work::Writing(_) | Work::Gone => Err(gone()),
        }
    }

    /// Takes as much as there is room for.
    fn poll_put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.full.len() >= Self::BUFFER {
            ready!(self.poll_idle(cx))?;
            self.start();
        }
        let room = Self::BUFFER - self.full.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.full.extend_from_slice(taken);
        if self.full.len() >= Self::BUFFER && matches!(self.work, Work::Idle(_)) {
            self.start();
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Work::Writing(handle) = &mut self.work else {
            return Poll::Ready(match self.work {
                Work::Gone => Err(gone().into()),
                _ => Ok(()),
            });
        };
        let written = ready!(Pin::new(handle).poll(cx));
        self.work = Work::Gone;
        let written = written.map_err(|e| io::Error::from(not_done(e)))?;
        self.work = Work::Idle(written.file);
        self.spare = written.buffer;
        Poll::Ready(written.done)
    }

    /// Begins to write what is collected, if nothing is being written.
    fn start(&mut self) {
        let mut file = match std::mem::replace(&mut self.work, Work::Gone) {
            Work::Idle(file) => file,
            other => {
                self.work = other;
                return;
            }
        };
        let mut buffer = std::mem::replace(&mut self.full, std::mem::take(&mut self.spare));
        self.work = Work::Writing(self.runtime.spawn_blocking(move || {
            let done = file.write_all(&buffer);
            buffer.clear();
            Written { file, buffer, done }
        }));
    }
}

/// The error of a file that went with its runtime.
fn gone() -> Error {
    Error::of_kind("publish file", ErrorKind::Cancelled).with_advice("its runtime was shut down")
}

impl AsyncWrite for PendingFile {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_put(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_idle(cx))?;
        if !this.full.is_empty() {
            this.start();
        }
        this.poll_idle(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        // Removing a large file takes a while. What is being written is dropped where it is written, and
        // a runtime that has ended drops this here and now.
        if let Work::Idle(file) = std::mem::replace(&mut self.work, Work::Gone)
            && !std::thread::panicking()
        {
            drop(self.runtime.spawn_blocking(move || drop(file)));
        }
    }
}
