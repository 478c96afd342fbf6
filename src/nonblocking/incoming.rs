//! What an async reader gives, for work on another thread: a bounded channel with an explicit end.

use super::{not_done, read, runtime};
use crate::{Error, ErrorKind, Result};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use tokio::io::AsyncRead;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What is read at once.
const PIECE: usize = 32 * 1024;
/// How many pieces may wait for the work.
const PIECES: usize = 4;

/// What goes through the channel. That it is closed is not an end, for it closes too when a future is
/// dropped.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
    Failed(io::Error),
}

/// What an async reader gives, as a [`std::io::Read`] for the work of [`run_from`].
///
/// Reading waits until the reader has given something. It ends only where the reader has ended. Where the
/// reader fails its error is read, and [`ErrorKind::Cancelled`] where the future was dropped; every
/// further read fails.
///
/// # Panics
/// Reading panics on a thread that runs async tasks, as
/// [`blocking_recv`](tokio::sync::mpsc::Receiver::blocking_recv) does.
#[derive(Debug)]
pub struct Incoming {
    from: Receiver<Piece>,
    piece: Vec<u8>,
    /// How much of the piece was taken.
    taken: usize,
    over: Over,
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Not,
    Ended,
    CutOff,
}

impl Incoming {
    /// How much is held in memory at the most, in bytes: what waits for the work, what the work has before
    /// it, and what is being read.
    pub const BUFFER: usize = (PIECES + 2) * PIECE;
}

impl io::Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.taken == self.piece.len() {
            match self.over {
                Over::Not => {}
                Over::Ended => return Ok(0),
                Over::CutOff => return Err(cut_off().into()),
            }
            match self.from.blocking_recv() {
                Some(Piece::Bytes(bytes)) => (self.piece, self.taken) = (bytes, 0),
                Some(Piece::End) => {
                    self.over = Over::Ended;
                    return Ok(0);
                }
                Some(Piece::Failed(error)) => {
                    self.over = Over::CutOff;
                    return Err(error);
                }
                None => {
                    self.over = Over::CutOff;
                    return Err(cut_off().into());
                }
            }
        }
        let rest = self.piece.get(self.taken..).unwrap_or_default();
        let n = io::Read::read(&mut &*rest, into)?;
        self.taken += n;
        Ok(n)
    }
}

fn cut_off() -> Error {
    Error::of_kind("read what comes in", ErrorKind::Cancelled)
}

/// Does work that waits on the runtime's threads for that, and hands it what a reader gives meanwhile.
///
/// The reader is asked for no more than [`Incoming::BUFFER`] before the work takes it, and no further once
/// the work is done. If the future is dropped before the reader's end was seen, the work reads an error;
/// after that the work goes on, and is done as a whole or not at all, as it always is.
///
/// The work occupies its thread for as long as it waits for the reader. A runtime has a limited number of
/// these (`max_blocking_threads`, 512 unless set): readers that need one themselves, such as files of
/// tokio, can wait for each other without end if there are as many at once.
///
/// # Errors
/// Those of `work`. [`ErrorKind::Unsupported`]: this thread belongs to no tokio runtime.
/// [`ErrorKind::Cancelled`]: the runtime was shut down before it began.
pub async fn run_from<T: Send + 'static>(
    reader: impl AsyncRead,
    work: impl FnOnce(Incoming) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (to, from) = channel(PIECES);
    let incoming = Incoming {
        from,
        piece: Vec::new(),
        taken: 0,
        over: Over::Not,
    };
    let mut work = runtime()?.spawn_blocking(move || work(incoming));
    let mut feeding = pin!(feed(reader, to));
    let mut fed = false;
    let done = poll_fn(|cx| {
        // First, so that nobody waits for a reader of whom nothing more is wanted.
        if let Poll::Ready(done) = Pin::new(&mut work).poll(cx) {
            return Poll::Ready(done);
        }
        fed = fed || feeding.as_mut().poll(cx).is_ready();
        Poll::Pending
    });
    match done.await {
        Ok(done) => done,
        Err(error) => Err(not_done(error)),
    }
}

/// Sends all that the reader gives, and how it ended. Returns early if nobody wants it.
async fn feed(reader: impl AsyncRead, to: Sender<Piece>) {
    let mut reader = pin!(reader);
    let mut piece = vec![0; PIECE];
    // Room first: what was read and cannot be sent would be one more piece in memory.
    while let Ok(room) = to.reserve().await {
        match read(reader.as_mut(), &mut piece).await {
            Ok(0) => return room.send(Piece::End),
            Ok(n) => room.send(Piece::Bytes(piece.get(..n).unwrap_or_default().to_vec())),
            Err(error) => return room.send(Piece::Failed(error)),
        }
    }
}
