//! System calls taken away from this process, as a container runtime does.

use crate::harness::Done;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

fn apply(calls: &[i64], action: SeccompAction) -> Done {
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}

/// openat2(2) is not known from now on.
pub(crate) fn without_openat2() -> Done {
    apply(
        &[libc::SYS_openat2],
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
    )
}

/// Whoever renames is killed from now on.
pub(crate) fn kill_at_rename() -> Done {
    apply(
        &[libc::SYS_renameat, libc::SYS_renameat2],
        SeccompAction::KillProcess,
    )
}
