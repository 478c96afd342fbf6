//! What a staged file has yet to know of its options. It is short, for a batch holds thousands of files.

use super::attributes::{Explicit, Preserve};
use super::options::{FileOptions, SymlinkPolicy, Target};
use super::version::Identity;
use crate::Durability;

/// How a file is published.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) target: Wanted,
    pub(super) durability: Durability,
    pub(super) preserve: Preserve,
    /// What few ask for.
    rare: Option<Box<Rare>>,
}

/// What must have the name, looked at when it is given.
#[derive(Debug)]
pub(super) enum Wanted {
    CreateOrReplace,
    CreateNew,
    /// A file, or also a symlink.
    Replace {
        links: bool,
    },
    /// What was found with this identity.
    IfUnchanged(Box<Identity>),
}

#[derive(Debug)]
struct Rare {
    explicit: Explicit,
    expect_len: Option<u64>,
    #[cfg(feature = "sha256")]
    expect_sha256: Option<[u8; 32]>,
}

impl Terms {
    /// Those of these options; `None` if the version that they ask for was not found.
    pub(super) fn of(options: &FileOptions, found: Option<Identity>) -> Option<Self> {
        let target = match options.target {
            Target::CreateOrReplace => Wanted::CreateOrReplace,
            Target::CreateNew => Wanted::CreateNew,
            Target::Replace => Wanted::Replace {
                links: options.symlink == SymlinkPolicy::Replace,
            },
            Target::IfUnchanged(_) => Wanted::IfUnchanged(Box::new(found?)),
        };
        let asked = !options.explicit.is_none();
        let asked = asked || options.expect_len.is_some();
        #[cfg(feature = "sha256")]
        let asked = asked || options.expect_sha256.is_some();
        let rare = asked.then(|| {
            Box::new(Rare {
                explicit: options.explicit.clone(),
                expect_len: options.expect_len,
                #[cfg(feature = "sha256")]
                expect_sha256: options.expect_sha256,
            })
        });
        Some(Self {
            target,
            durability: options.durability,
            preserve: options.preserve,
            rare,
        })
    }

    /// What is asked for whatever was there before.
    pub(super) fn explicit(&self) -> &Explicit {
        static NONE: Explicit = Explicit::NONE;
        self.rare.as_ref().map_or(&NONE, |rare| &rare.explicit)
    }

    pub(super) fn expect_len(&self) -> Option<u64> {
        self.rare.as_ref()?.expect_len
    }

    #[cfg(feature = "sha256")]
    pub(super) fn expect_sha256(&self) -> Option<[u8; 32]> {
        self.rare.as_ref()?.expect_sha256
    }

    /// Whether the new file gets times other than those of its writing.
    pub(super) fn sets_times(&self) -> bool {
        self.preserve.times || self.explicit().has_times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Gid, Mode, Timespec, Uid};

    #[test]
    fn what_is_asked_for_is_kept_whatever_it_is() {
        let none = FileOptions::new();
        let (uid, gid) = (Uid::from_raw(1), Gid::from_raw(2));
        let time = Timespec {
            tv_sec: 3,
            tv_nsec: 4,
        };
        let asked = [
            none.clone().mode(Mode::RUSR),
            none.clone().owner(Some(uid), None),
            none.clone().owner(None, Some(gid)),
            none.clone().times(Some(time), None),
            none.clone().times(None, Some(time)),
            none.clone().xattr("user.x", "y"),
        ];
        let explicit = |options: &FileOptions| {
            let terms = Terms::of(options, None).unwrap();
            format!("{:?}", terms.explicit())
        };
        for options in asked {
            assert_eq!(explicit(&options), format!("{:?}", options.explicit));
            assert_ne!(explicit(&options), explicit(&none));
        }
        let terms = Terms::of(&none.clone().expect_len(5), None).unwrap();
        assert_eq!(terms.expect_len(), Some(5));
        #[cfg(feature = "sha256")]
        {
            let terms = Terms::of(&none.clone().expect_sha256([6; 32]), None).unwrap();
            assert_eq!(terms.expect_sha256(), Some([6; 32]));
        }
        assert!(Terms::of(&none, None).unwrap().rare.is_none());
    }

    /// A batch holds as many of them as it has files.
    #[test]
    fn a_file_that_is_staged_takes_little_room() {
        assert!(size_of::<crate::publish::PendingFile<'_>>() <= 256);
    }
}
