//! Power cuts on real file systems: copies of a loop device's backing file, taken in the middle of the work,
//! are what the disk would hold if the power went there. Each can be mounted and looked at.

use crate::common::{Random, output, skipped};
use std::cell::{Cell, RefCell};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to make a file system, and to mount it.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    make: &'static [&'static str],
    options: &'static str,
    size: u64,
}

pub(crate) const EXT4: Kind = Kind {
    name: "ext4",
    make: &["mkfs.ext4", "-q", "-F"],
    options: "loop",
    size: 32 << 20,
};
pub(crate) const XFS: Kind = Kind {
    name: "xfs",
    make: &["mkfs.xfs", "-q", "-f"],
    options: "loop,nouuid",
    size: 320 << 20,
};
pub(crate) const BTRFS: Kind = Kind {
    name: "btrfs",
    make: &["mkfs.btrfs", "-q", "-f"],
    options: "loop",
    size: 160 << 20,
};

impl Kind {
    /// Makes a file that holds a fresh file system.
    pub(crate) fn make(&self, image: &Path) {
        fs::File::create(image).unwrap().set_len(self.size).unwrap();
        run(Command::new(self.make[0]).args(&self.make[1..]).arg(image));
    }

    pub(crate) fn mount<'a>(&self, image: &Path, at: &'a Path) -> Mounted<'a> {
        run(Command::new("mount")
            .args(["-o", self.options])
            .arg(image)
            .arg(at));
        Mounted(at)
    }
}

fn run(what: &mut Command) {
    let done = output(what).unwrap();
    assert!(done.status.success(), "{what:?}: {done:?}");
}

/// A mount that ends with this value, however the test ends.
#[derive(Debug)]
pub(crate) struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    pub(crate) fn end(self) {
        // A child of another test has this one's descriptors until it begins its program.
        for _ in 0..500 {
            let mut unmount = Command::new("umount");
            if output(unmount.arg(self.0)).unwrap().status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        run(Command::new("umount").arg(self.0));
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // It is rarely mounted any more.
        let _ = output(Command::new("umount").args(["-q", "-l"]).arg(self.0));
    }
}

/// One power cut: the disk, and what is known of the moment.
struct Cut<T> {
    file: PathBuf,
    known: T,
    moment: String,
}

/// Takes the images: at every few calls, now and then after a sync that somebody else might have caused.
pub(crate) struct Camera<T> {
    image: PathBuf,
    at: PathBuf,
    /// A file and a directory that others sync, as far as they exist.
    others: [&'static str; 2],
    every: u64,
    calls: Cell<u64>,
    random: RefCell<Random>,
    cuts: RefCell<Vec<Cut<T>>>,
}

impl<T> Camera<T> {
    /// A call was made.
    pub(crate) fn call(&self, name: &str, known: impl FnOnce() -> T) {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get().is_multiple_of(self.every) {
            self.cut(name, known());
        }
    }

    /// The power goes, now or after what others do: some of the work becomes durable, not in its order.
    pub(crate) fn cut(&self, after: &str, known: T) {
        let sync = |what: &[&str]| {
            output(Command::new("sync").args(what).current_dir(&self.at)).unwrap();
        };
        let mut random = self.random.borrow_mut();
        let meanwhile = match random.below(4) {
            0 => {
                sync(&self.others[..1]);
                "sync of a file"
            }
            1 => {
                sync(&self.others[1..]);
                "sync of a directory"
            }
            2 if random.one_in(4) => {
                sync(&["-f", "."]);
                "sync of all"
            }
            _ => "nothing",
        };
        let mut cuts = self.cuts.borrow_mut();
        let file = self.image.with_file_name(format!("cut-{}", cuts.len()));
        run(Command::new("cp")
            .args(["--sparse=always", "--"])
            .arg(&self.image)
            .arg(&file));
        cuts.push(Cut {
            file,
            known,
            moment: format!("call {}, {after}, {meanwhile} meanwhile", self.calls.get()),
        });
    }
}

/// Runs `work` on a fresh file system, then `check` on every image that the camera has taken.
///
/// What `work` gives is what `check` knows of the whole, beside what was known at each cut.
pub(crate) fn cuts<T, W>(
    kind: &Kind,
    every: u64,
    others: [&'static str; 2],
    work: impl FnOnce(&Path, &std::rc::Rc<Camera<T>>) -> W,
    mut check: impl FnMut(&Path, &W, &T, &str),
) {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let top = tempfile::tempdir_in(base).unwrap();
    let (image, at) = (top.path().join("image"), top.path().join("at"));
    fs::create_dir(&at).unwrap();
    kind.make(&image);
    let mounted = kind.mount(&image, &at);
    let camera = std::rc::Rc::new(Camera {
        image: image.clone(),
        at: at.clone(),
        others,
        every,
        calls: Cell::new(0),
        random: RefCell::new(Random(kind.size)),
        cuts: RefCell::new(Vec::new()),
    });
    let whole = work(&at, &camera);
    mounted.end();
    let cuts = camera.cuts.take();
    let mut failed = 0;
    for cut in &cuts {
        let name = format!("{}, {}", kind.name, cut.moment);
        let mounted = kind.mount(&cut.file, &at);
        let check = AssertUnwindSafe(|| check(&at, &whole, &cut.known, &name));
        failed += usize::from(catch_unwind(check).is_err());
        mounted.end();
        fs::remove_file(&cut.file).unwrap();
    }
    println!("{}: {} power cuts", kind.name, cuts.len());
    assert_eq!(failed, 0, "{}: of {} power cuts", kind.name, cuts.len());
    assert!(cuts.len() > 20);
}

/// Says why it cannot run, if it cannot.
pub(crate) fn possible(test: &str, kind: &Kind) -> bool {
    if std::env::var_os("STEADFAST_TEST_DIR").is_some() {
        skipped(
            test,
            "it mounts its own file system, whatever the others are tested on: ci/proofs.sh runs it",
        );
        return false;
    }
    let root = output(Command::new("id").arg("-u")).is_ok_and(|o| o.stdout == b"0\n");
    if !root {
        skipped(test, "it mounts file systems, which needs root");
        return false;
    }
    let there = output(Command::new(kind.make[0]).arg("-V")).is_ok();
    if !there {
        skipped(test, format!("{} is not installed", kind.make[0]));
    }
    there
}
