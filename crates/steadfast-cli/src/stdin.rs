//! Standard input that a signal can interrupt.

use crate::signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::fmt;
use std::io::{self, Read, StdinLock};
use std::os::fd::AsFd;

/// Reads stdin until its end, or until a signal asks to stop.
#[derive(Debug)]
pub(crate) struct Stdin {
    input: StdinLock<'static>,
    bytes: u64,
}

impl Stdin {
    /// The process's own.
    pub(crate) fn new() -> Self {
        Self {
            input: io::stdin().lock(),
            bytes: 0,
        }
    }

    /// How much has been read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits until there is something to read, or a signal.
    fn wait(&self) -> io::Result<()> {
        let Some(wake) = signals::wake() else {
            return Ok(());
        };
        let stdin = self.input.as_fd();
        let mut fds = [
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin, PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                // The signal's own pipe says what interrupted it, if it was one of ours.
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) if fds[0].revents().is_empty() => return Ok(()),
                Ok(_) => return Err(io::Error::other(Interrupted)),
            }
        }
    }
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        // Around the lock's buffer, which would hold bytes that a poll does not see.
        loop {
            match rustix::io::read(self.input.as_fd(), &mut *buf) {
                Err(Errno::INTR) => self.wait()?,
                done => {
                    let n = done?;
                    self.bytes = self.bytes.saturating_add(n as u64);
                    return Ok(n);
                }
            }
        }
    }
}

/// A signal arrived. Not [`io::ErrorKind::Interrupted`], which readers take as a reason to try again.
#[derive(Debug)]
struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted by a signal")
    }
}

impl std::error::Error for Interrupted {}
