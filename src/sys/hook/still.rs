//! Files that are taken for others, and a world without chance, for a thread that records what it does.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The file that another one stands for, in a copy of a tree: inode numbers and times of birth and change are
/// what nobody can give to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Likeness {
    /// Its inode number.
    pub ino: u64,
    /// Its time of birth.
    pub btime: Option<(i64, u32)>,
    /// The time of change of the copy as it was made, and the one to be shown in its place.
    pub ctime: [(i64, u32); 2],
    /// The same of the time of modification, if that is the kernel's and not one that was set.
    pub mtime: [(i64, u32); 2],
}

/// By device and inode number.
pub type Likenesses = HashMap<(u64, u64), Likeness>;

thread_local! {
    static LIKENESSES: RefCell<Likenesses> = RefCell::default();
}

/// For whom this thread takes these files from now on. Gives those before.
pub fn set_likenesses(all: Likenesses) -> Likenesses {
    LIKENESSES.replace(all)
}

/// A world without chance: files that nobody has seen have numbers in the order in which they are looked at,
/// the clock shows how many calls were made, what is drawn comes from a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Still {
    /// The device whose files these are.
    pub dev: u64,
    /// The inode number of the next file.
    pub ino: u64,
    /// Milliseconds that the clock shows; each call takes one.
    pub clock: u64,
    /// Times from this second on are the kernel's, and are not to be seen.
    pub since: i64,
    /// What was drawn last.
    pub drawn: u64,
}

impl Still {
    fn now(&self) -> (i64, u32) {
        let part = u32::try_from(self.clock % 1000).unwrap_or_default();
        let whole = i64::try_from(self.clock / 1000).unwrap_or_default();
        (whole, part * 1_000_000)
    }
}

thread_local! {
    static STILL: Cell<Option<Still>> = const { Cell::new(None) };
}

/// Puts this thread into such a world, or (`None`) back. Gives the one before, as it is by now.
pub fn set_still(still: Option<Still>) -> Option<Still> {
    STILL.replace(still)
}

/// Whether this thread is in such a world.
pub(crate) fn is_still() -> bool {
    STILL.get().is_some()
}

/// A millisecond goes by.
pub fn tick() {
    if let Some(mut still) = STILL.get() {
        still.clock += 1;
        STILL.set(Some(still));
    }
}

/// The next number that is drawn in a world without chance (SplitMix64).
pub(crate) fn drawn() -> Option<u64> {
    let mut still = STILL.get()?;
    still.drawn = still.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STILL.set(Some(still));
    let z = (still.drawn ^ (still.drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(z ^ (z >> 31))
}

/// What the clock shows in a world without chance.
pub(crate) fn clock() -> Option<std::time::Duration> {
    STILL
        .get()
        .map(|still| std::time::Duration::from_millis(still.clock))
}

/// For whom a file is taken whose times of change and modification these are by now.
pub fn likeness(id: (u64, u64), ctime: (i64, u32), mtime: (i64, u32)) -> Option<Likeness> {
    let mut still = STILL.get();
    LIKENESSES.with_borrow_mut(|all| {
        let Some(still) = still.as_mut().filter(|still| still.dev == id.0) else {
            return all.get(&id).copied();
        };
        let now = still.now();
        let like = all.entry(id).or_insert_with(|| {
            still.ino += 1;
            STILL.set(Some(*still));
            Likeness {
                ino: still.ino,
                btime: Some(now),
                ctime: [ctime, now],
                mtime: [mtime, now],
            }
        });
        if like.ctime[0] != ctime {
            like.ctime = [ctime, now];
        }
        if mtime.0 >= still.since && like.mtime[0] != mtime {
            like.mtime = [mtime, now];
        }
        Some(*like)
    })
}

/// A file was given times, which are not to be seen: it is taken for what it was before.
pub fn set_made(id: (u64, u64), ctime: (i64, u32)) {
    LIKENESSES.with_borrow_mut(|all| {
        if let Some(like) = all.get_mut(&id) {
            like.ctime[0] = ctime;
        }
    });
}

/// Puts the one that it stands for in the place of a file.
pub(crate) fn liken(stx: &mut rustix::fs::Statx) {
    let dev = rustix::fs::makedev(stx.stx_dev_major, stx.stx_dev_minor);
    let made = (stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec);
    let modified = (stx.stx_mtime.tv_sec, stx.stx_mtime.tv_nsec);
    let Some(like) = likeness((dev, stx.stx_ino), made, modified) else {
        return;
    };
    stx.stx_ino = like.ino;
    if let Some((sec, nsec)) = like.btime {
        (stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec) = (sec, nsec);
    }
    if like.ctime[0] == made {
        (stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec) = like.ctime[1];
    }
    if let Some(still) = STILL.get() {
        if modified.0 >= still.since && like.mtime[0] == modified {
            (stx.stx_mtime.tv_sec, stx.stx_mtime.tv_nsec) = like.mtime[1];
        }
        stx.stx_mnt_id = 1;
        stx.stx_atime = stx.stx_mtime;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{CWD, Mode, OFlags, openat};

    #[test]
    fn one_file_stands_for_another() {
        let statx = || crate::sys::statx(CWD, c"/", crate::sys::AtFlags::empty()).unwrap();
        let own = statx().id();
        let ctime = statx().ctime();
        let made = (ctime.tv_sec, u32::try_from(ctime.tv_nsec).unwrap());
        let like = Likeness {
            ino: own.ino + 1,
            btime: Some((1, 2)),
            ctime: [made, (3, 4)],
            mtime: [(0, 0); 2],
        };
        let before = set_likenesses([((own.dev, own.ino), like)].into());
        let found = statx();
        set_likenesses(before);
        assert_eq!((found.id().ino, found.ctime().tv_sec), (own.ino + 1, 3));
        if own.btime.is_some() {
            assert_eq!(found.id().btime, Some((1, 2)));
        }
        assert_eq!(statx().id(), own);
    }

    #[test]
    fn without_chance_all_is_the_same_each_time() {
        let path = std::env::temp_dir().join(format!("steadfast-still-{}", std::process::id()));
        let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
        let statx = || crate::sys::statx(CWD, path.as_c_str(), crate::sys::AtFlags::empty());
        let look = || {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            let file = openat(CWD, path.as_c_str(), flags, Mode::RUSR).unwrap();
            let own = statx().unwrap();
            let still = Still {
                dev: own.id().dev,
                ino: 10,
                clock: 5_000,
                since: own.mtime().tv_sec,
                drawn: 1,
            };
            set_still(Some(still));
            let new = statx().unwrap();
            crate::sys::write(&file, b"x").unwrap();
            let written = statx().unwrap();
            let mut bytes = [0; 12];
            crate::sys::random(&mut bytes).unwrap();
            let clock = crate::sys::realtime();
            set_likenesses(Likenesses::new());
            set_still(None);
            crate::sys::unlinkat(CWD, path.as_c_str()).unwrap();
            assert_ne!(own.id(), new.id());
            assert_eq!(new.id(), written.id());
            assert_ne!(new.mtime(), written.mtime());
            (new.id().ino, new.id().btime, written.mtime(), bytes, clock)
        };
        let first = look();
        assert_eq!((first.0, first.1), (11, Some((5, 1_000_000))));
        assert_eq!(first, look());
    }
}
