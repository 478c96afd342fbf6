//! Exchanging two names, and publishing a folder, also where the kernel or the file system cannot exchange.
//!
//! Both are the kernel's one call under the claims of a transaction. Where there is no such call the same
//! change is committed as that transaction, and recovery finishes what a crash interrupts.

use super::Workspace;
use super::commit::{self, Receipt};
use super::draft::Draft;
use super::transaction::Transaction;
use crate::publish::{self, FolderOptions, FolderTarget, Note, SymlinkPolicy};
use crate::tree::Watch;
use crate::{DiskState, Durability, Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::path::Path;

const SWAP: &str = "swap";
const PUBLISH: &str = "publish";
/// How often a target may come or go before it is claimed.
const ROUNDS: u32 = 8;

impl Workspace {
    /// Exchanges two names beneath the root, whatever they are: two folders, a folder and a file, in one
    /// directory or in two. When this returns it is durable in place: also who reads the tree after a power
    /// cut without opening the workspace finds them exchanged.
    ///
    /// With `RENAME_EXCHANGE` (Linux 3.15, and the file system's support) it is [`publish::swap`]: both names
    /// exist at every moment, nothing is logged, and the number of the receipt is 0. Without, it is a
    /// transaction ([`Transaction::exchange`]) and a checkpoint ([`settle`](Self::settle)): **between two
    /// renames one of the names is absent**, and after a crash just then it stays so until the workspace is
    /// opened, which exchanges them. In both cases the names are claimed, so that transactions on them wait.
    ///
    /// The log may hold transactions whose names are not known to be durable. If there are any, a checkpoint
    /// comes first, or recovery could take the exchanged things for somebody else's.
    ///
    /// # Errors
    /// With [`DiskState::Unchanged`]: [`ErrorKind::NotFound`], one of them is missing;
    /// [`InvalidInput`](ErrorKind::InvalidInput), one is inside the other; [`Busy`](ErrorKind::Busy), a mount
    /// point, or others hold a claim; [`LowerLayer`](ErrorKind::LowerLayer), an overlayfs folder of a lower
    /// layer, which cannot be renamed either; [`Conflict`](ErrorKind::Conflict), and those of
    /// [`Transaction::commit`]. With [`DiskState::Published`] they are exchanged, but a directory could not
    /// be synced. With [`DiskState::Committed`] it is recorded durably, and recovery finishes it.
    ///
    /// ```
    /// use steadfast::{Root, workspace::Workspace};
    /// # let tmp = tempfile::tempdir()?;
    /// # std::fs::create_dir(tmp.path().join("live"))?;
    /// # std::fs::write(tmp.path().join("next"), "")?;
    /// let workspace = Workspace::open(&Root::open(tmp.path())?)?;
    /// workspace.swap("live", "next")?;
    /// assert!(tmp.path().join("next").is_dir());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn swap(&self, a: impl AsRef<Path>, b: impl AsRef<Path>) -> Result<Receipt> {
        let (a, b) = (a.as_ref(), b.as_ref());
        operation!("swap in workspace", a = a, b = b);
        let named = |e: Error| e.with_operation(SWAP).with_default_path(a);
        self.ready().map_err(named)?;
        let mut tx = self.begin();
        tx.label(SWAP).exchange(a, b);
        let draft = commit::claimed_draft(&mut tx).map_err(named)?;
        if draft.is_empty() {
            return Ok(unlogged(Vec::new()));
        }
        self.settle_below().map_err(named)?;
        match publish::swap(&self.root, a, &self.root, b, Durability::Full) {
            Err(e) if is_missing(&e) => self.journaled(tx, draft).map_err(named),
            done => done.map(|()| unlogged(Vec::new())),
        }
    }

    /// Publishes the finished folder or file `from` at `to`, both beneath the root: it is synced whole and
    /// moved into place, and what was at `to` is removed, or kept as the options say. When this returns it
    /// is durable in place, whatever durability the options name.
    ///
    /// Where the kernel can exchange names it is [`FolderOptions::publish`], and the number of the receipt is
    /// 0. Where that is [`ErrorKind::Unsupported`] it is a transaction and a checkpoint, as of
    /// [`swap`](Self::swap): **`to` is absent between two renames**, and after a crash just then until the
    /// workspace is opened, which puts the new one there. In both cases the names are claimed.
    ///
    /// # Errors
    /// As [`FolderOptions::publish`], [`swap`](Self::swap) and [`Transaction::commit`].
    /// [`InvalidInput`](ErrorKind::InvalidInput) also: `from` and `to` are one and the same; the options
    /// follow a symlink at the target.
    ///
    /// ```
    /// use steadfast::{Root, publish::FolderOptions, workspace::Workspace};
    /// # let tmp = tempfile::tempdir()?;
    /// # std::fs::create_dir(tmp.path().join("live"))?;
    /// # std::fs::create_dir(tmp.path().join("next"))?;
    /// # std::fs::write(tmp.path().join("next/index.html"), "")?;
    /// let workspace = Workspace::open(&Root::open(tmp.path())?)?;
    /// workspace.publish_folder("next", "live", &FolderOptions::new())?;
    /// assert!(tmp.path().join("live/index.html").is_file());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn publish_folder(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        options: &FolderOptions,
    ) -> Result<Receipt> {
        let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
        self.publish_folder_watched(from, to, options, watch)
    }

    /// [`publish_folder`](Self::publish_folder), telling `watch` of what has been synced; it can stop the
    /// work until the first rename.
    ///
    /// # Errors
    /// As [`publish_folder`](Self::publish_folder), and [`ErrorKind::Cancelled`].
    pub fn publish_folder_watched(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        options: &FolderOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Receipt> {
        let (from, to) = (from.as_ref(), to.as_ref());
        operation!("publish in workspace", from = from, to = to);
        let named = |e: Error| e.with_operation(PUBLISH).with_default_path(from);
        if options.symlink == SymlinkPolicy::Follow {
            return Err(named(Error::of_kind(PUBLISH, ErrorKind::InvalidInput))
                .with_other(to)
                .with_detail("a symlink at the target is not followed here")
                .with_advice("name what it leads to"));
        }
        self.ready().map_err(named)?;
        let (tx, draft) = self.publication(from, to, options).map_err(named)?;
        self.settle_below().map_err(named)?;
        let full = options.clone().durability(Durability::Full);
        // It syncs what is published before it comes to the names, and so also for the transaction.
        match full.publish_watched(&self.root, from, &self.root, to, watch) {
            Err(e) if is_missing(&e) => self.journaled(tx, draft).map_err(named),
            done => done.map(|receipt| unlogged(receipt.notes().to_vec())),
        }
    }

    /// The claimed transaction that publishes, and what it comes to.
    fn publication(
        &self,
        from: &Path,
        to: &Path,
        options: &FolderOptions,
    ) -> Result<(Transaction<'_>, Draft)> {
        let mut last = None;
        for _ in 0..ROUNDS {
            let replaces = match options.target {
                FolderTarget::CreateNew => false,
                FolderTarget::Replace => true,
                FolderTarget::CreateOrReplace => self.begin().exists(to)?,
            };
            let mut tx = self.begin();
            tx.label(PUBLISH);
            // By an exchange on paper, which refuses one inside the other as the kernel does.
            let mut names = 2;
            match (replaces, &options.keep_old) {
                (false, _) => tx.rename_no_replace(from, to),
                (true, None) => tx.exchange(from, to).remove_tree(from),
                (true, Some(keep)) => {
                    names = 3;
                    tx.exchange(from, to).rename_no_replace(from, keep)
                }
            };
            match commit::claimed_draft(&mut tx) {
                Ok(draft) if changed_names(&draft) < names => {
                    return Err(Error::of_kind(PUBLISH, ErrorKind::InvalidInput)
                        .with_path(from)
                        .with_other(to)
                        .with_detail("they are one and the same"));
                }
                Ok(draft) => return Ok((tx, draft)),
                // The target may have come or gone before it was claimed.
                Err(e)
                    if options.target == FolderTarget::CreateOrReplace
                        && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
                        && self.begin().exists(to)? != replaces =>
                {
                    last = Some(e);
                }
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| Error::of_kind(PUBLISH, ErrorKind::Busy).with_path(to)))
    }

    /// Commits what the kernel could not do at once, and makes it durable in place.
    fn journaled(&self, mut tx: Transaction<'_>, mut draft: Draft) -> Result<Receipt> {
        // A checkpoint, and the sync of what is published, lie between.
        draft.forget_seen();
        let receipt = commit::commit_draft(&mut tx, draft)?;
        self.settle().map_err(|e| {
            e.with_state(DiskState::Committed).with_advice(
                "it is in place and recorded durably; open the workspace after a power cut, before \
                 anybody reads the tree",
            )
        })?;
        Ok(receipt)
    }

    /// Sees to it that no transaction on the claimed paths waits for its checkpoint: after a crash it would
    /// be looked for where it was, and content that is only in its record may have moved on.
    fn settle_below(&self) -> Result<()> {
        let ledger = &self.state.ledger;
        if ledger.last()? > ledger.horizon()? {
            self.checkpoint()?;
        }
        Ok(())
    }
}

/// Of what was done without a transaction.
fn unlogged(notes: Vec<Note>) -> Receipt {
    Receipt { number: 0, notes }
}

/// Whether the call is not to be had here, and nothing was changed.
fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::Unsupported && error.disk_state() == DiskState::Unchanged
}

/// How many names will be another thing's, or nothing's.
fn changed_names(draft: &Draft) -> usize {
    let slots = draft.slots.iter();
    slots.filter(|slot| !slot.is_as_before()).count()
}
