//! Attributes as the transaction sees them, for comparison with what the disk has in the end.

use super::*;
use crate::workspace::identity::Stamp;
use crate::workspace::view::stop::{Done, Stop};

/// What is known of a thing; what the commit decides is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    pub(crate) len: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Stamp>,
    /// Of a symlink.
    pub(crate) target: Option<Vec<u8>>,
}

impl View<'_> {
    /// Facts about what is at `path`; a symlink at its end is not followed.
    ///
    /// # Errors
    /// As lstat(2).
    pub(crate) fn metadata(&mut self, path: &Path) -> Result<Facts> {
        self.named("look at", path, |view, path| {
            let ix = view.seen(path)?.ok_or(Stop::Path(Errno::NOENT))?;
            view.facts(ix)
        })
    }

    fn facts(&mut self, ix: InodeIx) -> Done<Facts> {
        let kind = self.inodes[ix].kind;
        let target = match kind {
            Kind::Symlink => Some(self.link_text(ix)?),
            _ => None,
        };
        let inode = &self.inodes[ix];
        let like = inode
            .like
            .and_then(|like| self.inodes[like].origin.as_ref());
        let own = inode.origin.as_ref();
        // What is there, or what a new file takes over.
        let base = own.or(like).map(|origin| &origin.meta);
        let len = match kind {
            Kind::File => self.parts_of(ix).iter().map(|part| self.len_of(part)).sum(),
            Kind::Symlink => target.as_ref().map(|text| text.len() as u64),
            _ => own.map(|origin| origin.meta.len()),
        };
        let written = inode.in_place.is_some();
        let mtime = own.filter(|_| !written).map(|origin| origin.ident.mtime);
        let attr = &inode.attr;
        Ok(Facts {
            kind,
            len,
            mode: attr.mode.or(base.map(|meta| meta.mode().bits())),
            uid: attr.uid.or(base.map(|meta| meta.uid().as_raw())),
            gid: attr.gid.or(base.map(|meta| meta.gid().as_raw())),
            mtime: attr.mtime.or(mtime),
            target,
        })
    }

    fn len_of(&self, part: &Part) -> Option<u64> {
        match part {
            Part::Given(Source::Bytes(bytes)) => Some(bytes.len() as u64),
            Part::Given(Source::File(file)) => Some(file.len),
            Part::Existing(ix) => self.inodes[*ix].origin.as_ref().map(|o| o.ident.len),
        }
    }
}
