//! `swap`: two names change places.

use super::{Done, journaled};
use crate::args::SwapArgs;
use crate::output::Report;
use crate::paths::shown;
use crate::place::Place;
use steadfast::publish;

/// One exchange.
pub(crate) fn run(args: &SwapArgs) -> Done {
    if let Some(top) = args.journal.get() {
        return journaled::swap(args, top);
    }
    let a = Place::find(&args.root, &args.a)?;
    let b = Place::find(&args.root, &args.b)?;
    publish::swap(&a.root, &a.path, &b.root, &b.path, args.durability.get())
        .map_err(|e| journaled::advise(a.fail(e, &[&b])))?;
    let detail = format!("swapped {} and {}", shown(&args.a), shown(&args.b));
    Ok(Report::done([detail])
        .with_path("a", &args.a)
        .with_path("b", &args.b))
}
