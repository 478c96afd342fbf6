//! What the threads of one log wait for each other with. `ci/schedules` builds the library with a lock that
//! knows of every order in which they may run, and goes through them.

#[cfg(feature = "_schedules")]
pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "_schedules"))]
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
