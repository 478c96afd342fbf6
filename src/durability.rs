//! How much a call waits for the disk.

/// What an operation that returned `Ok` may still lose in a power cut.
///
/// Against other processes, every level is atomic alike.
///
/// Sources: fsync(2), rename(2); Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), on what
/// an unsynced rename may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing is synced: fastest, and after a power cut the file may be old, new, empty or full of zeros.
    None,
    /// Content is synced before it is published, the name is not synced after: after a power cut the old
    /// state or the new one, never a mixture, but perhaps not the latest.
    Ordered,
    /// `Ok` means that it survives a power cut, with every directory that the call made on the way.
    #[default]
    Full,
}

impl Durability {
    /// Whether content is synced before it gets its name.
    #[must_use]
    pub fn syncs_content(self) -> bool {
        self != Self::None
    }

    /// Whether names are synced before the call returns.
    #[must_use]
    pub fn syncs_names(self) -> bool {
        self == Self::Full
    }
}
