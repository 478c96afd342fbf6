//! The userspace walk: openat2's answer without openat2, errno for errno.
//!
//! One component at a time, each opened from the descriptor of the directory before it, without following
//! links; links are read and followed here, and `..` goes back to the directory that the walk came through.
//! So nothing is ever reached except by steps downwards from the root. The last component is opened by one
//! call with the caller's own flags, so that creating, truncating and waiting are the kernel's, as are the
//! permissions. `docs/resolution.md` has the rules, and where this cannot be the same.

mod args;
mod link;
mod mounts;
mod text;
mod trail;

use super::resolve::Request;
use crate::sys::{self, AsFd, AtFlags, Errno, Mode, OFlags, OwnedFd, ResolveFlags};
use link::{Found, Link};
use mounts::Mounts;
use text::{Kind, Text};
use trail::{Stop, THROUGH, Trail};

/// Links that are followed in one call, as in the kernel.
const LINKS: u32 = 40;

/// Descriptors of outer directories that are kept open.
const WINDOW: usize = 32;

/// How often a walk begins again because the tree changed under a level that was closed. The pass after the
/// last of these closes nothing, and so cannot be disturbed.
const PASSES: u32 = 4;

/// How often the last component is opened again while others keep exchanging what it is.
const TRIES: u32 = 64;

/// Opens as openat2 would.
///
/// # Errors
/// As openat2(2), but `EAGAIN` only for `RESOLVE_CACHED`, always. `EMFILE`: up to 35 descriptors are needed
/// for a moment; more only for a path of many levels in a tree where others keep renaming these.
pub(crate) fn open(request: &Request<'_>) -> sys::Result<OwnedFd> {
    resolve(request).map(|(fd, ..)| fd)
}

/// Opens as [`open`] does, and gives the path from the root that has no links, `.` and `..`, as it was when
/// the walk went along it. It is empty for the root itself.
pub(crate) fn canonical(request: &Request<'_>) -> sys::Result<(OwnedFd, Vec<u8>)> {
    resolve(request).map(|(fd, trail, named)| (fd, trail.into_path(named)))
}

/// The descriptor, the way there, and whether the candidate of the trail is the last name of it.
fn resolve<'r>(request: &Request<'r>) -> sys::Result<(OwnedFd, Trail<'r>, bool)> {
    args::check(request)?;
    for pass in 0..=PASSES {
        let window = if pass < PASSES { WINDOW } else { usize::MAX };
        let mut walk = Walk::new(request, window)?;
        match walk.run() {
            Ok((fd, named)) => return Ok((fd, walk.trail, named)),
            Err(Stop::Errno(e)) => return Err(e),
            Err(Stop::Changed) => {}
        }
    }
    // Not reached: the last pass closes no level.
    Err(Errno::NOENT)
}

struct Walk<'q, 'r> {
    request: &'q Request<'r>,
    text: Text<'r>,
    trail: Trail<'r>,
    mounts: Mounts,
    links: u32,
    /// A slash behind the last component was seen: it is followed, and must be a directory.
    must_dir: bool,
}

/// What became of the last component.
enum Last {
    Open(OwnedFd),
    /// It is a link: go on with its text.
    Followed,
}

impl<'q, 'r> Walk<'q, 'r> {
    fn new(request: &'q Request<'r>, window: usize) -> Result<Self, Errno> {
        let stay = request.resolve.contains(ResolveFlags::NO_XDEV);
        Ok(Self {
            request,
            text: Text::new(request.path),
            trail: Trail::new(request.root, request.path.len(), window),
            mounts: Mounts::new(request.root, stay)?,
            links: 0,
            must_dir: false,
        })
    }

    fn run(&mut self) -> Result<(OwnedFd, bool), Stop> {
        while let Some(component) = self.text.next() {
            let (last, slash) = (component.last, component.slash);
            match component.kind {
                Kind::Normal => {
                    self.trail.set_candidate(component.name);
                    if !last {
                        self.through()?;
                    } else if let Last::Open(fd) = self.last(slash)? {
                        return Ok((fd, true));
                    }
                }
                // The right to search is checked by whatever is looked up next in the same directory.
                Kind::Dot => {}
                Kind::DotDot => self.up()?,
            }
        }
        // The path ended with `.`, `..`, or a link to the root, or is `/`.
        let fd = sys::openat(
            self.trail.here(),
            c".",
            self.request.flags,
            self.request.mode,
        )?;
        Ok((fd, false))
    }

    /// A path or a link's text begins with a slash.
    fn go_to_root(&mut self) -> Result<(), Errno> {
        if self.request.resolve.contains(ResolveFlags::BENEATH) {
            return Err(Errno::XDEV);
        }
        self.trail.leave_all();
        Ok(())
    }

    fn up(&mut self) -> Result<(), Stop> {
        self.may_search()?;
        if self.trail.at_root() && self.request.resolve.contains(ResolveFlags::BENEATH) {
            return Err(Errno::XDEV.into());
        }
        self.trail.leave()
    }

    /// Lets the kernel judge whether this directory may be searched.
    fn may_search(&self) -> Result<(), Errno> {
        sys::statx(self.trail.here(), c".", AtFlags::empty()).map(drop)
    }

    /// A component that others follow: it must be a directory, or a link to one.
    fn through(&mut self) -> Result<(), Stop> {
        let here = self.trail.here();
        let name = self.trail.candidate()?;
        self.mounts.before(here, name, true)?;
        let fd = match sys::openat(here, name, THROUGH, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOTDIR | Errno::LOOP) => match link::look(here, name, false)? {
                Found::Link(link) => return Ok(self.follow(link, None)?),
                Found::Dir(fd) => fd,
                Found::Other => return Err(Errno::NOTDIR.into()),
            },
            Err(e) => return Err(e.into()),
        };
        self.mounts.after(fd.as_fd())?;
        self.trail.enter(fd)
    }

    fn last(&mut self, slash: bool) -> Result<Last, Stop> {
        let asked = self.request.flags;
        let creates = asked.contains(OFlags::CREATE);
        if slash {
            if creates {
                self.may_search()?;
                return Err(Errno::ISDIR.into());
            }
            self.must_dir = true;
        }
        // O_EXCL never follows, and answers EEXIST for a link by itself.
        let exclusive = creates && asked.contains(OFlags::EXCL);
        let follows = self.must_dir || !(asked.contains(OFlags::NOFOLLOW) || exclusive);
        let mut flags = asked | OFlags::NOFOLLOW;
        if self.must_dir {
            flags |= OFlags::DIRECTORY;
        }
        let directory = flags.contains(OFlags::DIRECTORY);
        // An O_PATH open of whatever is there: it opens links too, and sets off no automount.
        let as_it_is = flags.contains(OFlags::PATH) && !directory;

        let mut tries = 0;
        loop {
            tries += 1;
            let here = self.trail.here();
            let name = self.trail.candidate()?;
            self.mounts.before(here, name, !as_it_is)?;
            let errno = match sys::openat(here, name, flags, self.request.mode) {
                Ok(fd) => {
                    self.mounts.after(fd.as_fd())?;
                    if as_it_is && follows {
                        let facts = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)?;
                        if facts.is_symlink() {
                            let link = Link {
                                text: sys::readlinkat(&fd, c"").map(|text| text.into_bytes()),
                                owner: Some(facts.uid()),
                            };
                            let sticky = link::sticky(here)?;
                            self.follow(link, sticky)?;
                            return Ok(Last::Followed);
                        }
                    }
                    return Ok(Last::Open(fd));
                }
                Err(e) => e,
            };
            let may_be_link = match errno {
                Errno::LOOP => true,
                Errno::NOTDIR => directory,
                // A sticky directory's rule against opening others' files with O_CREAT hits links first.
                Errno::ACCESS => creates,
                _ => false,
            };
            if !(may_be_link && follows) {
                return Err(errno.into());
            }
            let sticky = link::sticky(here)?;
            match (link::look(here, name, sticky.is_some()), errno) {
                (Ok(Found::Link(link)), _) => {
                    self.follow(link, sticky)?;
                    return Ok(Last::Followed);
                }
                (_, Errno::ACCESS) | (Ok(Found::Other), Errno::NOTDIR) => {
                    return Err(errno.into());
                }
                // It was a link then and is something else now: the open must be made again.
                (Ok(_), _) if tries < TRIES => {}
                (Err(Errno::NOENT), _) if creates && tries < TRIES => {}
                (Err(e), _) => return Err(e.into()),
                (Ok(_), _) => return Err(errno.into()),
            }
        }
    }

    /// Follows the link that the candidate is: `sticky` is the owner of the directory that it is the last
    /// component in, if others may plant links there.
    fn follow(&mut self, link: Link, sticky: Option<sys::Uid>) -> Result<(), Errno> {
        if self.links >= LINKS {
            return Err(Errno::LOOP);
        }
        self.links += 1;
        if let (Some(dir_owner), Some(owner)) = (sticky, link.owner)
            && link::is_protected(owner, dir_owner)?
        {
            return Err(Errno::ACCESS);
        }
        if self.request.resolve.contains(ResolveFlags::NO_SYMLINKS) {
            return Err(Errno::LOOP);
        }
        let here = self.trail.here();
        let (kind, nosymfollow) = sys::link_facts(here)?;
        if nosymfollow {
            return Err(Errno::LOOP);
        }
        let text = link.text?;
        if link::is_magic(kind, here, self.trail.candidate()?, &text)? {
            let none = self.request.resolve.contains(ResolveFlags::NO_MAGICLINKS);
            return Err(if none { Errno::LOOP } else { Errno::XDEV });
        }
        if text.first() == Some(&b'/') {
            self.go_to_root()?;
        }
        self.text.insert(text);
        Ok(())
    }
}
