//! What waits for no disk, by criterion: resolving paths, and records as bytes.
//!
//! `cargo bench --manifest-path benches/contest/Cargo.toml`; in `STEADFAST_TEST_DIR`, else in `/dev/shm`.
#![allow(clippy::unwrap_used)] // Whatever fails here ends the measurement.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use steadfast::Root;
use steadfast::journal::{Log, LogOptions, Record, inspect};
use steadfast::root::{Backend, RootOptions};
use tempfile::TempDir;

fn fresh() -> TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").unwrap_or_else(|| "/dev/shm".into());
    tempfile::tempdir_in(base).unwrap()
}

/// A file so many components deep, and its path from there.
fn file(dir: &Path, depth: usize) -> PathBuf {
    let folder: PathBuf = (1..depth).map(|n| format!("folder-{n}")).collect();
    fs::create_dir_all(dir.join(&folder)).unwrap();
    let path = folder.join("file");
    fs::write(dir.join(&path), "text").unwrap();
    path
}

fn resolution(c: &mut Criterion) {
    let tmp = fresh();
    let mut group = c.benchmark_group("open");
    for depth in [1, 4, 16] {
        let path = file(tmp.path(), depth);
        let at = fs::File::open(tmp.path()).unwrap();
        group.bench_with_input(BenchmarkId::new("raw openat2", depth), &path, |b, path| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            b.iter(|| openat2(&at, path, flags, Mode::empty(), resolve).unwrap());
        });
        for (name, backend) in [("steadfast", Backend::Auto), ("walk", Backend::Walk)] {
            let root = RootOptions::new().backend(backend).open(tmp.path());
            let root = root.unwrap();
            group.bench_with_input(BenchmarkId::new(name, depth), &path, |b, path| {
                b.iter(|| root.open_with(path, OFlags::RDONLY, Mode::empty()).unwrap());
            });
        }
        let authority = cap_std::ambient_authority();
        let dir = cap_std::fs::Dir::open_ambient_dir(tmp.path(), authority).unwrap();
        group.bench_with_input(BenchmarkId::new("cap-std", depth), &path, |b, path| {
            b.iter(|| dir.open(path).unwrap());
        });
    }
    group.finish();
}

fn log(tmp: &TempDir) -> Log {
    let root = Root::open(tmp.path()).unwrap();
    let (log, _) = LogOptions::new()
        .open(root.dir().try_clone().unwrap())
        .unwrap();
    log
}

/// Appending is encoding alone: no system call. What is appended is written and released in between, which
/// is not measured.
fn encoding(c: &mut Criterion) {
    /// So many appends fit into the buffer.
    const TURNS: u64 = 32;
    let mut group = c.benchmark_group("log: encode");
    for (records, len) in [(1, 128), (1, 4 << 10), (16, 1 << 10)] {
        let tmp = fresh();
        let log = log(&tmp);
        let payload = vec![b'x'; len];
        let all = vec![Record::new(Record::FIRST_KIND, &payload); records];
        group.throughput(Throughput::Bytes((records * len) as u64));
        let id = BenchmarkId::from_parameter(format!("{records} of {len} bytes"));
        group.bench_function(id, |b| {
            b.iter_custom(|turns| {
                let mut took = Duration::ZERO;
                let mut left = turns;
                while left > 0 {
                    let now = left.min(TURNS);
                    let start = Instant::now();
                    let mut last = 0;
                    for _ in 0..now {
                        last = log.append(black_box(&all)).unwrap().last;
                    }
                    took += start.elapsed();
                    let released = log.release(last).unwrap();
                    log.sync(released).unwrap();
                    left -= now;
                }
                took
            });
        });
    }
    group.finish();
}

/// Reading, and checking every sum.
fn decoding(c: &mut Criterion) {
    let tmp = fresh();
    let log = log(&tmp);
    let payload = [b'x'; 1 << 10];
    for _ in 0..500 {
        log.append_durable(&[Record::new(Record::FIRST_KIND, &payload)])
            .unwrap();
    }
    drop(log);
    let root = Root::open(tmp.path()).unwrap();
    c.bench_function("log: decode 500 of 1024 bytes", |b| {
        b.iter(|| inspect(root.dir()).unwrap());
    });
}

criterion_group!(benches, resolution, encoding, decoding);
criterion_main!(benches);
