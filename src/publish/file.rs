//! A file's content: from a reader, and checked by its hash.

#[cfg(feature = "sha256")]
use crate::sys::{self, AsFd, Errno};
use std::io::{self, Read, Write};

/// Buffer for streams: large enough that a system call's own cost does not show.
pub(super) const BUFFER: usize = 128 * 1024;

/// Passes all that a reader gives to a writer.
pub(super) fn copy_from(reader: &mut dyn Read, writer: &mut dyn Write) -> io::Result<()> {
    let mut buf = vec![0; BUFFER];
    loop {
        match reader.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => writer.write_all(&buf[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// SHA-256 of all of a file's content, read from its start; the offset stays.
#[cfg(feature = "sha256")]
pub(super) fn sha256_of(fd: impl AsFd) -> Result<[u8; 32], Errno> {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    let mut buf = vec![0; BUFFER];
    let mut at = 0;
    loop {
        match sys::pread(fd.as_fd(), &mut buf, at)? {
            0 => return Ok(hash.finalize().into()),
            n => {
                hash.update(&buf[..n]);
                at += n as u64;
            }
        }
    }
}
