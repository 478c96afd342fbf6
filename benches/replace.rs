//! Durable replace and folder swap: the library against the same system calls by hand, one after the other.
//!
//! Each round does both, in changing order, so that whatever else the machine does falls on both alike. What
//! counts is the ratio. Runs in `STEADFAST_TEST_DIR` or the temporary directory; `ROUNDS=n` sets how often
//! (default 200).

use rustix::fs::CWD;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use steadfast::publish::{FileOptions, Preserve, swap};
use steadfast::{Durability, Root};
use steadfast_bench::{open_dir, replace, replace_plain, swap as swap_by_hand};

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let rounds = match std::env::var("ROUNDS") {
        Ok(n) => n.parse()?,
        Err(_) => 200,
    };
    let base = std::env::var_os("STEADFAST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    let temp = tempfile::tempdir_in(base)?;
    println!("medians of {rounds} rounds in {}", temp.path().display());
    println!(
        "{:<34} {:>12} {:>12} {:>7}",
        "", "library", "by hand", "ratio"
    );
    replaces(temp.path(), rounds)?;
    swaps(temp.path(), rounds)
}

fn replaces(dir: &Path, rounds: usize) -> Done {
    let (root, by_hand) = (Root::open(dir)?, open_dir(CWD, dir)?);
    for size in [100, 4096, 1 << 20] {
        let content = vec![b'x'; size];
        fs::write(dir.join("a"), &content)?;
        fs::write(dir.join("b"), &content)?;
        let options = FileOptions::new();
        compare(
            &format!("replace, {size} bytes"),
            rounds,
            || Ok(options.write(&root, "a", &content).map(drop)?),
            || Ok(replace(&by_hand, "b", ".temporary", &content)?),
        )?;
        let options = FileOptions::new().preserve(Preserve::NOTHING);
        compare(
            &format!("replace, nothing kept, {size} bytes"),
            rounds,
            || Ok(options.write(&root, "a", &content).map(drop)?),
            || Ok(replace_plain(&by_hand, "b", ".temporary", &content)?),
        )?;
    }
    Ok(())
}

fn swaps(dir: &Path, rounds: usize) -> Done {
    let (root, by_hand) = (Root::open(dir)?, open_dir(CWD, dir)?);
    for name in ["one", "two", "three", "four"] {
        fs::create_dir(dir.join(name))?;
        fs::write(dir.join(name).join("file"), name)?;
    }
    compare(
        "swap of two folders",
        rounds,
        || Ok(swap(&root, "one", &root, "two", Durability::Full)?),
        || Ok(swap_by_hand(&by_hand, "three", "four")?),
    )
}

/// Runs both in turn and prints the medians and their ratio.
fn compare(
    what: &str,
    rounds: usize,
    mut library: impl FnMut() -> Done,
    mut by_hand: impl FnMut() -> Done,
) -> Done {
    // Once each, for what happens the first time only.
    library()?;
    by_hand()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            ours.push(time(&mut library)?);
            theirs.push(time(&mut by_hand)?);
        } else {
            theirs.push(time(&mut by_hand)?);
            ours.push(time(&mut library)?);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!(
        "{what:<34} {:>9.1} us {:>9.1} us {ratio:>7.3}",
        micros(ours),
        micros(theirs)
    );
    Ok(())
}

fn time(work: &mut impl FnMut() -> Done) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
