//! With the feature `tracing`: a span for each operation, and in it an event for each sync. Without: nothing.

/// Enters a span until the end of the block that it stands in.
macro_rules! operation {
    ($name:literal $(, $field:ident = $value:expr)*) => {
        #[cfg(feature = "tracing")]
        let _span =
            tracing::debug_span!(target: "steadfast", $name $(, $field = ?$value)*).entered();
    };
}

/// Makes a call that makes something durable, and tells how long it took and what it answered.
#[cfg(feature = "tracing")]
pub(crate) fn sync<T>(
    name: &'static str,
    f: impl FnOnce() -> crate::sys::Result<T>,
) -> crate::sys::Result<T> {
    use tracing::Level;
    if !tracing::enabled!(target: "steadfast::sync", Level::WARN) {
        return f();
    }
    let start = std::time::Instant::now();
    let done = f();
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    match &done {
        Ok(_) => tracing::debug!(target: "steadfast::sync", call = name, micros, "synced"),
        Err(errno) => {
            let errno = crate::sys::errno_name(*errno).unwrap_or("?");
            tracing::warn!(target: "steadfast::sync", call = name, micros, errno, "sync failed");
        }
    }
    done
}
