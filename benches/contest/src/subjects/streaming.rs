//! A large file from a reader: what memory it takes.

use crate::harness::{Case, Watch, open};
use crate::peers;
use rustix::fs::fsync;
use std::fs;
use std::io::{self, Read};
use steadfast::Root;
use steadfast::publish::FileOptions;

const LEN: u64 = 64 << 20;

/// 64 MiB, streamed where that is possible.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "stream-in",
            "replace a file by 64 MiB from a reader, durably",
            1,
        )
        .rounds(8)
        .with("raw: std::io::copy, fsync, rename, fsync", |dir| {
            let (at, dir) = (open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let mut file = fs::File::create(dir.join(".temporary"))?;
                    io::copy(&mut source(), &mut file)?;
                    file.sync_all()?;
                    fs::rename(dir.join(".temporary"), dir.join("file"))?;
                    Ok(fsync(&at)?)
                })
            })
        })
        .with("steadfast", |dir| {
            let root = Root::open(dir)?;
            let options = FileOptions::new();
            Ok(move |w: &mut Watch| {
                w.time(|| Ok(options.write_from(&root, "file", source()).map(drop)?))
            })
        })
        .with("fs-transaction, which takes bytes only", |dir| {
            let dir = dir.to_owned();
            let names = ["file".to_owned()];
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let mut bytes = Vec::new();
                    source().read_to_end(&mut bytes)?;
                    peers::fs_transaction(&dir, &names, &bytes, false)
                })
            })
        }),
    ]
}

fn source() -> impl Read {
    io::repeat(b'x').take(LEN)
}
