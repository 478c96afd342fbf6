//! Setting damaged things aside: under names of their own, never removed.

use super::{OP, Work};
use crate::root::{Dir, sync_names};
use crate::sys::{self, AsFd, AtFlags, Errno, RenameFlags};
use crate::workspace::abandoned;
use crate::workspace::state::{self, Sub};
use crate::{DiskState, Error, Name, Result};
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// A folder whose names are to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Logs,
    Staged,
    Kept,
    Retired,
    Conflicts,
    Abandoned,
}

impl Place {
    pub(super) fn name(self) -> &'static CStr {
        match self {
            Self::Logs => Sub::Logs.name(),
            Self::Staged => Sub::Staged.name(),
            Self::Kept => Sub::Kept.name(),
            Self::Retired => Sub::Retired.name(),
            Self::Conflicts => Sub::Conflicts.name(),
            Self::Abandoned => abandoned::FOLDER,
        }
    }
}

impl Work<'_> {
    /// Gives a file of the state folder a second name, under which it stays when another takes its place.
    pub(super) fn link_aside(&mut self, name: &CStr) -> Result<()> {
        let dir = &self.look.dir;
        for copy in 0_u32.. {
            let aside = aside_name(name.to_bytes(), copy)?;
            match sys::linkat(dir, name, dir, aside.as_c_str()) {
                Ok(()) => {
                    self.note_aside(None, &aside);
                    break;
                }
                // Perhaps by a repair that was killed after this.
                Err(Errno::EXIST) if self.is_same(name, &aside)? => {
                    self.note_aside(None, &aside);
                    break;
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(fail("linkat", e, None, &aside)),
            }
        }
        self.changed.insert(None);
        self.sync()
    }

    fn is_same(&self, a: &CStr, b: &Name) -> Result<bool> {
        let look = |name| sys::statx(&self.look.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match (look(a), look(b.as_c_str())) {
            (Ok(a), Ok(b)) => Ok(a.id() == b.id()),
            (Err(e), _) | (_, Err(e)) => Err(fail("statx", e, None, b)),
        }
    }

    /// Gives something a name under which nothing looks for it.
    pub(super) fn move_aside(
        &mut self,
        dir: &Dir,
        place: Option<Place>,
        name: &Name,
    ) -> Result<()> {
        for copy in 0_u32.. {
            let aside = aside_name(name.as_bytes(), copy)?;
            let (from, to) = (name.as_c_str(), aside.as_c_str());
            // Nobody else makes such names, and whoever repairs does it alone.
            if sys::statx(dir, to, AtFlags::SYMLINK_NOFOLLOW).err() != Some(Errno::NOENT) {
                continue;
            }
            match sys::renameat2(dir, from, dir, to, RenameFlags::empty()) {
                Ok(()) => {
                    self.note_aside(place, &aside);
                    self.changed.insert(place);
                    return Ok(());
                }
                Err(e) => return Err(fail("renameat", e, place, name)),
            }
        }
        Ok(())
    }

    pub(super) fn note_aside(&mut self, place: Option<Place>, aside: &Name) {
        self.out.set_aside.push(shown(place).join(aside));
    }

    /// Makes the names durable that were changed.
    pub(super) fn sync(&mut self) -> Result<()> {
        for place in std::mem::take(&mut self.changed) {
            let synced = match place {
                None => sync_names(self.look.dir.as_fd()),
                Some(sub) => match self.look.folder(sub.name())? {
                    Some(dir) => sync_names(dir.as_fd()),
                    None => Ok(()),
                },
            };
            synced.map_err(|e| {
                let error = Error::new(OP, "fsync", e).with_path(shown(place));
                error.with_state(DiskState::Published)
            })?;
        }
        Ok(())
    }
}

fn shown(place: Option<Place>) -> PathBuf {
    let path = Path::new(state::shown());
    match place {
        Some(place) => path.join(place.name().to_string_lossy().as_ref()),
        None => path.to_owned(),
    }
}

/// What is set aside begins so, wherever it is.
pub(in crate::workspace::operator) const ASIDE: &[u8] = b"damaged-";

fn aside_name(name: &[u8], copy: u32) -> Result<Name> {
    let mut bytes = ASIDE.to_vec();
    bytes.extend_from_slice(name);
    if copy > 0 {
        bytes.extend_from_slice(format!("-{copy}").as_bytes());
    }
    Name::from_bytes(&bytes).map_err(|e| Error::new(OP, "renameat2", e))
}

pub(super) fn to_name(name: &CStr) -> Result<Name> {
    Name::from_entry(name).map_err(|e| Error::new(OP, "renameat2", e))
}

fn fail(call: &'static str, errno: Errno, place: Option<Place>, name: &Name) -> Error {
    Error::new(OP, call, errno).with_path(shown(place).join(name))
}
