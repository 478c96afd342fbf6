//! Putting everything back: the same for a section that gives up, and for a dead one's.

use super::record::Begin;
use super::recover::StillOpen;
use super::resource::{Authority, Hooks};
use super::sum::{Sum, Use};
use super::undo::{Spot, What};
use super::{image, protect, times};
use crate::error::chain;
use crate::sys::{self, AsFd, AtFlags, Errno, Gid, Mode as FileMode, Timestamps, Uid, XattrFlags};
use crate::tree::acl;
use crate::workspace::ctx::Ctx;
use crate::workspace::identity::{Ident, Stamp};
use crate::workspace::mapping::Attributes;
use crate::workspace::realise::roll_back;
use crate::{Dir, Error, Name, Result, Root};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

const OP: &str = "take back section";

/// Puts back what the section has changed. It can be called again after any error, and after a crash at any
/// point: the end is not recorded here, and nothing that was put away is removed.
///
/// `alive`: so is its process, and with it the times of change tell what others have changed.
pub(super) fn take_back(
    ctx: &mut Ctx<'_>,
    hooks: &Hooks,
    begin: &Begin,
    sum: &Sum,
    resources: &[(String, Vec<u8>)],
    alive: bool,
) -> std::result::Result<(), StillOpen> {
    // Nothing is touched as long as not everything can be undone.
    for (hook, _) in resources {
        if hooks.get(hook).is_none() {
            return Err(StillOpen::HookMissing(hook.clone()));
        }
    }
    give_back(hooks, begin.number, resources)?;
    files(ctx, begin, sum, alive)
}

/// Calls the hooks, the last resource first.
fn give_back(
    hooks: &Hooks,
    number: u64,
    resources: &[(String, Vec<u8>)],
) -> std::result::Result<(), StillOpen> {
    if resources.is_empty() {
        return Ok(());
    }
    let authority = Authority::new(number);
    let mut done = Ok(());
    for (name, payload) in resources.iter().rev() {
        let Some(hook) = hooks.get(name) else {
            done = Err(StillOpen::HookMissing(name.clone()));
            break;
        };
        // A panic here would be one in a drop.
        let answer = catch_unwind(AssertUnwindSafe(|| hook(payload, &authority)));
        let why = match answer {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => chain(&*e),
            Err(_) => "it panicked".to_owned(),
        };
        done = Err(StillOpen::HookFailed(name.clone(), why));
        break;
    }
    authority.end();
    done
}

fn files(
    ctx: &mut Ctx<'_>,
    begin: &Begin,
    sum: &Sum,
    alive: bool,
) -> std::result::Result<(), StillOpen> {
    let failed = |e: Error| StillOpen::Failed(e.with_operation(OP).to_string());
    let images = images(ctx, sum, alive).map_err(failed)?;
    let extra = match sum.top() {
        Some(_) => Some(new_names(ctx.root, sum).map_err(failed)?),
        None => None,
    };
    let mapping = sum.mapping(&images, extra).map_err(failed)?;
    let outcome = roll_back(ctx, &mapping).map_err(failed)?;
    if let Some(found) = outcome.conflicts.first() {
        let path = OsStr::from_bytes(&found.path);
        return Err(StillOpen::Lost(path.into()));
    }
    times::restore(ctx.root, begin, sum, &images).map_err(failed)?;
    if let Some(top) = sum.top() {
        dress(ctx.root, top).map_err(failed)?;
    }
    ctx.syncfs(ctx.kept)
        .map_err(|e| failed(Error::new(OP, "syncfs", e)))
}

/// Which of the images are needed.
fn images(ctx: &mut Ctx<'_>, sum: &Sum, alive: bool) -> Result<Vec<(usize, Use)>> {
    let mut out = Vec::new();
    let mut clock = None;
    for (at, spot) in sum.spots().iter().enumerate() {
        let What::Image {
            name, live, since, ..
        } = &spot.what
        else {
            continue;
        };
        let copy = (!alive).then_some((ctx.kept, name));
        let now = match clock {
            Some(now) => now,
            None => *clock.insert(image::clock(ctx)?),
        };
        // If the clock went back, no time tells anything.
        let same = now >= *since && is_live(ctx.root, sum, at, (live, *since), copy)?;
        out.push((at, if same { Use::Live } else { Use::Copy }));
    }
    // The names of one file are put back together, or they would be names of two.
    let live = |at: usize| match &sum.spots()[at].what {
        What::Image { live, .. } => Some(*live),
        _ => None,
    };
    let copied: Vec<Ident> = (out.iter())
        .filter(|(_, way)| *way == Use::Copy)
        .filter_map(|(at, _)| live(*at))
        .collect();
    for (at, way) in &mut out {
        if live(*at).is_some_and(|own| copied.iter().any(|other| other.is(&own))) {
            *way = Use::Copy;
        }
    }
    Ok(out)
}

fn is_live(
    root: &Root,
    sum: &Sum,
    at: usize,
    (live, since): (&Ident, Stamp),
    copy: Option<(&Dir, &Name)>,
) -> Result<bool> {
    let spot = &sum.spots()[at];
    let place = sum.place_of(spot);
    let path = sum.path(spot);
    match root.split(OsStr::from_bytes(&path)) {
        Ok((dir, name)) => {
            let same = Ident::of(&dir.metadata()?).is(&place.ident);
            Ok(same && image::is_unchanged((&dir, &name), live, since, copy)?)
        }
        // Its directory was moved, or is gone: the mapping looks for it.
        Err(_) => Ok(false),
    }
}

/// What is in the root that was not there when it was protected.
fn new_names(root: &Root, sum: &Sum) -> Result<(Ident, Vec<Name>)> {
    let ident = Ident::of(&root.dir().metadata()?);
    let mut names = protect::names(root)?;
    names.retain(|name| {
        let known = |s: &Spot| sum.place_of(s).ident.is(&ident) && s.name == *name;
        let was = |s: &Spot| s.what.matters() && known(s);
        !sum.spots().iter().any(was)
    });
    Ok((ident, names))
}

/// Gives the root its attributes back.
fn dress(root: &Root, was: &Attributes) -> Result<()> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(".");
    let meta = sys::statx(root, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    let (uid, gid) = (Uid::from_raw(was.uid), Gid::from_raw(was.gid));
    if (meta.uid(), meta.gid()) != (uid, gid) {
        sys::fchown(root, Some(uid), Some(gid)).map_err(fail("fchown"))?;
    }
    let now = match sys::flistxattr(root.as_fd()) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Vec::new(),
        done => done.map_err(fail("flistxattr"))?,
    };
    for name in now.iter().filter(|name| !acl::is_alias(name)) {
        if !was.xattrs.iter().any(|(n, _)| n == name.to_bytes()) {
            sys::fremovexattr(root.as_fd(), name.as_c_str()).map_err(fail("fremovexattr"))?;
        }
    }
    for (name, value) in &was.xattrs {
        let name = CString::new(name.as_slice()).unwrap_or_default();
        let found = sys::fgetxattr(root.as_fd(), name.as_c_str()).map_err(fail("fgetxattr"))?;
        if found.as_ref() != Some(value) {
            sys::fsetxattr(root.as_fd(), name.as_c_str(), value, XattrFlags::empty())
                .map_err(fail("fsetxattr"))?;
        }
    }
    let mode = FileMode::from_raw_mode(was.mode);
    if sys::statx(root, c"", AtFlags::EMPTY_PATH)
        .map_err(fail("statx"))?
        .mode()
        != mode
    {
        sys::fchmod(root, mode).map_err(fail("fchmod"))?;
    }
    let times = Timestamps {
        last_access: times::timespec(was.atime.unwrap_or(was.mtime)),
        last_modification: times::timespec(was.mtime),
    };
    sys::futimens(root, &times).map_err(fail("futimens"))
}
