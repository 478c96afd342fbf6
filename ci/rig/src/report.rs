//! What a worker tells of its job, and the table of all.

use crate::device::Kind;
use crate::play::{Expect, Subject};
use crate::worker::Tally;

/// What a job has printed, or why it has not ended well.
type Told = Result<String, String>;

/// The numbers of a job in one line, then its messages.
pub(crate) fn line(tally: &Tally) -> String {
    let mut out = format!(
        "{} {} {} {} {} {} {:.3} {:.3}",
        tally.checked,
        tally.nested,
        tally.same,
        tally.lost,
        tally.torn,
        tally.unmountable,
        tally.seconds,
        tally.checking
    );
    for part in tally.parts {
        out.push_str(&format!(" {part:.3}"));
    }
    out.push('\n');
    for message in tally.messages() {
        out.push_str(&message);
        out.push('\n');
    }
    out
}

fn read(told: &str) -> Option<Tally> {
    let mut words = told.lines().next()?.split(' ');
    let mut number = || words.next()?.parse().ok();
    let mut out = Tally::default();
    for place in [
        &mut out.checked,
        &mut out.nested,
        &mut out.same,
        &mut out.lost,
        &mut out.torn,
        &mut out.unmountable,
    ] {
        *place = number()?;
    }
    let mut time = || words.next()?.parse().ok();
    out.seconds = time()?;
    out.checking = time()?;
    for part in &mut out.parts {
        *part = time()?;
    }
    Some(out)
}

/// What is not as it must be.
fn complaint(kind: &Kind, subject: &Subject, tally: &Tally) -> Option<&'static str> {
    let found = tally.lost + tally.torn;
    let unmountable = tally.unmountable > 0 && !kind.fragile;
    match (subject.expect)(kind) {
        _ if unmountable => Some("DOES NOT MOUNT"),
        _ if tally.checked == 0 => Some("NO STATES"),
        Expect::Clean if found > 0 && !kind.fragile => Some("VIOLATED"),
        Expect::Loses if tally.torn > 0 && !kind.fragile => Some("VIOLATED"),
        Expect::Loses if tally.lost == 0 => Some("LOSS NOT SEEN"),
        Expect::Wrong if found == 0 => Some("FAULT NOT SEEN"),
        _ => None,
    }
}

/// What the table says of it.
fn cell(kind: &Kind, subject: &Subject, tally: &Tally) -> String {
    let found = match (tally.lost, tally.torn) {
        (0, 0) => "clean".to_owned(),
        (lost, torn) => format!("{lost} lost, {torn} torn"),
    };
    let mut out = format!("{}: {found}", tally.checked);
    if tally.unmountable > 0 {
        out = format!("{out}, {} not mounted", tally.unmountable);
    }
    match complaint(kind, subject, tally) {
        Some(complaint) => format!("{out}, {complaint}"),
        None => out,
    }
}

/// Says at once what is wrong with a job.
pub(crate) fn tell(kind: &Kind, subject: &Subject, told: &Told) {
    match told {
        Err(e) => println!("{}, {}: {e}", kind.name, subject.name),
        Ok(text) => match read(text) {
            Some(tally) => {
                let bad = complaint(kind, subject, &tally);
                if bad.is_some() || (kind.fragile && tally.lost + tally.torn > 0) {
                    println!("{}, {}: {text}", kind.name, subject.name);
                }
            }
            None => println!("{}, {}: not understood: {text}", kind.name, subject.name),
        },
    }
}

/// Prints the table, and what is known of each file system; whether everything is as it must be.
pub(crate) fn table(wanted: &[(&Kind, &Subject)], results: &[Option<Told>], seconds: f64) -> bool {
    let mut good = !wanted.is_empty();
    let mut sums: Vec<(&str, Tally)> = Vec::new();
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for ((kind, subject), told) in wanted.iter().zip(results) {
        let tally = told.as_ref().and_then(|t| read(t.as_ref().ok()?));
        let cell = match &tally {
            Some(tally) => cell(kind, subject, tally),
            None => "DID NOT RUN".to_owned(),
        };
        let tally = tally.unwrap_or_default();
        good &= complaint(kind, subject, &tally).is_none();
        // File by file system, and of each the same subjects.
        match rows.iter_mut().find(|(name, _)| *name == subject.name) {
            Some((_, cells)) => cells.push(cell),
            None => rows.push((subject.name, vec![cell])),
        }
        match sums.iter_mut().find(|(name, _)| *name == kind.name) {
            Some((_, sum)) => sum.add(&tally),
            None => sums.push((kind.name, tally)),
        }
    }
    let heads: Vec<_> = sums.iter().map(|(name, _)| *name).collect();
    println!("| subject | {} |", heads.join(" | "));
    println!("| ---{} |", " | ---".repeat(heads.len()));
    for (name, cells) in rows {
        println!("| {name} | {} |", cells.join(" | "));
    }
    let (mut states, mut nested) = (0, 0);
    println!();
    println!(
        "| file system | states | of recovery | each, ms | disk | mount | recovery | umount | recording, s |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, sum) in &sums {
        let per_state = |seconds: f64| seconds * 1000.0 / sum.checked.max(1) as f64;
        let parts = sum.parts.map(|part| format!("{:.1}", per_state(part)));
        println!(
            "| {name} | {} | {} | {:.1} | {} | {:.0} |",
            sum.checked,
            sum.nested,
            per_state(sum.checking),
            parts.join(" | "),
            sum.seconds - sum.checking
        );
        states += sum.checked;
        nested += sum.nested;
    }
    println!();
    println!(
        "{states} states, {nested} of them of a recovery that was cut, in {seconds:.0} s: {:.0} a second, \
         with all that is around them",
        states as f64 / seconds.max(0.001)
    );
    good
}
