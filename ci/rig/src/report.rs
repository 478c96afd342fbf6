//! What a worker tells of its job, and the table of all.

use crate::device::Kind;
use crate::play::{Expect, Subject};
use crate::worker::Tally;
use std::collections::BTreeMap;

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

fn word(kind: &Kind, subject: &Subject, tally: &Tally) -> &'static str {
    complaint(kind, subject, tally).unwrap_or(match (subject.expect)(kind) {
        Expect::Clean => "clean",
        Expect::Loses => "loses, as it says",
        Expect::Wrong => "caught",
        Expect::Any => "-",
    })
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

/// Prints the table; whether everything is as it must be.
pub(crate) fn table(wanted: &[(&Kind, &Subject)], results: &[Option<Told>], seconds: f64) -> bool {
    let mut good = true;
    let mut sums: BTreeMap<&str, Tally> = BTreeMap::new();
    println!(
        "| file system | subject | states | of recovery | lost | torn | no mount | states/s | |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
    for ((kind, subject), told) in wanted.iter().zip(results) {
        let tally = told.as_ref().and_then(|t| read(t.as_ref().ok()?));
        let Some(tally) = tally else {
            good = false;
            println!(
                "| {} | {} | | | | | | | DID NOT RUN |",
                kind.name, subject.name
            );
            continue;
        };
        good &= complaint(kind, subject, &tally).is_none();
        let sum = sums.entry(kind.name).or_default();
        sum.checked += tally.checked;
        sum.nested += tally.nested;
        sum.seconds += tally.seconds;
        sum.checking += tally.checking;
        for (sum, part) in sum.parts.iter_mut().zip(tally.parts) {
            *sum += part;
        }
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {:.0} | {} |",
            kind.name,
            subject.name,
            tally.checked,
            tally.nested,
            tally.lost,
            tally.torn,
            tally.unmountable,
            tally.checked as f64 / tally.checking.max(0.001),
            word(kind, subject, &tally)
        );
    }
    let mut states = 0;
    for (name, sum) in &sums {
        let per_state = |seconds: f64| seconds * 1000.0 / sum.checked.max(1) as f64;
        let [disk, mount, recover, unmount] = sum.parts.map(per_state);
        println!(
            "{name}: {} states, {} of them of a recovery that was cut; {:.0} a second and worker; \
             each {:.1} ms: disk {disk:.1}, mount {mount:.1}, recovery {recover:.1}, \
             umount {unmount:.1}; {:.0} s of recording",
            sum.checked,
            sum.nested,
            sum.checked as f64 / sum.checking.max(0.001),
            per_state(sum.checking),
            sum.seconds - sum.checking
        );
        states += sum.checked;
    }
    println!(
        "{states} states in {seconds:.0} s: {:.0} a second, with all that is around them",
        states as f64 / seconds.max(0.001)
    );
    good && !wanted.is_empty()
}
