//! Two result files: what became slower by more than the noise.

use crate::harness::Done;
use crate::result::{CaseResult, ContenderResult, Run};
use std::fs;
use std::path::Path;

/// Less than this is not told, however quiet the machine was.
const LEAST: f64 = 0.05;

/// Prints what became slower or faster; answers how many became slower.
pub(crate) fn files(old: &Path, new: &Path) -> Done<usize> {
    let read = |file: &Path| -> Done<Run> { Ok(serde_json::from_str(&fs::read_to_string(file)?)?) };
    let (old, new) = (read(old)?, read(new)?);
    let mut slower = 0;
    let mut compared = 0;
    for system in &new.file_systems {
        let Some(before) = old.file_systems.iter().find(|fs| fs.name == system.name) else {
            continue;
        };
        for case in &system.cases {
            let Some(old_case) = before.case(&case.id) else {
                continue;
            };
            // What others cost is not ours to change.
            for now in case
                .contenders
                .iter()
                .filter(|c| c.name.starts_with("steadfast"))
            {
                let Some(then) = old_case.of(&now.name) else {
                    continue;
                };
                let Some(verdict) = verdict(old_case, then, case, now) else {
                    continue;
                };
                compared += 1;
                let what = format!("{}, {}, {}", system.name, case.id, now.name);
                let Verdict { change, noise } = verdict;
                if change > 1.0 + noise {
                    slower += 1;
                    println!("slower: {what}: {change:.2} times (noise {noise:.2})");
                } else if change < 1.0 / (1.0 + noise) {
                    println!("faster: {what}: {change:.2} times (noise {noise:.2})");
                }
                calls(&what, then, now);
            }
        }
    }
    println!("{compared} compared, {slower} slower");
    if compared == 0 {
        return Err("the files have nothing in common".into());
    }
    Ok(slower)
}

struct Verdict {
    change: f64,
    noise: f64,
}

/// By the ratio to the case's first contender, which has seen the same weather on both days.
fn verdict(
    old_case: &CaseResult,
    then: &ContenderResult,
    case: &CaseResult,
    now: &ContenderResult,
) -> Option<Verdict> {
    let (old_base, base) = (
        old_case.contenders.first()?,
        case.of(&old_case.contenders.first()?.name)?,
    );
    let same = base.name == now.name;
    let relative = |c: &ContenderResult, base: &ContenderResult| {
        if same {
            c.median_us
        } else {
            c.median_us / base.median_us
        }
    };
    let change = relative(now, base) / relative(then, old_base);
    let all = [then, now, old_base, base];
    let noise = all.iter().map(|c| error(c).powi(2)).sum::<f64>().sqrt();
    Some(Verdict {
        change,
        noise: (3.0 * noise).max(LEAST),
    })
}

/// The standard error of a median, relative to it, by the quartiles.
fn error(c: &ContenderResult) -> f64 {
    let spread = (c.quartile_3_us - c.quartile_1_us) / 1.349;
    1.253 * spread / (c.samples.max(1) as f64).sqrt() / c.median_us.max(0.01)
}

/// Calls do not depend on the weather.
fn calls(what: &str, then: &ContenderResult, now: &ContenderResult) {
    for (kind, then, now) in [
        ("system calls", then.calls, now.calls),
        ("syncs", then.syncs, now.syncs),
    ] {
        if let (Some(then), Some(now)) = (then, now)
            && now > then
        {
            println!("more {kind}: {what}: {then}, now {now}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, median: f64, spread: f64) -> ContenderResult {
        ContenderResult {
            name: name.to_owned(),
            samples: 50,
            median_us: median,
            quartile_1_us: median - spread,
            quartile_3_us: median + spread,
            ..ContenderResult::default()
        }
    }

    fn case(raw: f64, ours: f64, spread: f64) -> CaseResult {
        CaseResult {
            contenders: vec![
                result("raw", raw, spread),
                result("steadfast", ours, spread),
            ],
            ..CaseResult::default()
        }
    }

    fn change(old: &CaseResult, new: &CaseResult) -> Verdict {
        let ours = |case: &CaseResult| case.of("steadfast").cloned().unwrap_or_default();
        verdict(old, &ours(old), new, &ours(new)).unwrap_or(Verdict {
            change: 0.0,
            noise: 0.0,
        })
    }

    #[test]
    fn a_slower_machine_is_no_slower_library() {
        let seen = change(&case(100.0, 120.0, 1.0), &case(200.0, 240.0, 2.0));
        assert!((seen.change - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_beyond_the_noise_depends_on_the_noise() {
        let quiet = change(&case(100.0, 120.0, 1.0), &case(100.0, 132.0, 1.0));
        assert!(quiet.change > 1.0 + quiet.noise);
        let loud = change(&case(100.0, 120.0, 20.0), &case(100.0, 132.0, 20.0));
        assert!(loud.change < 1.0 + loud.noise);
        assert!((quiet.change - loud.change).abs() < 1e-9);
    }
}
