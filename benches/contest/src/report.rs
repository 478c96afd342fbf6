//! The tables, as Markdown, and the plots beside them.

use crate::harness::Done;
use crate::result::{CaseResult, ContenderResult, FileSystem, Run};
use crate::{svg, targets};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Writes `tables.md` and the plots into a folder, from a result file.
pub(crate) fn write(file: &Path, folder: &Path) -> Done {
    let run: Run = serde_json::from_str(&fs::read_to_string(file)?)?;
    fs::create_dir_all(folder)?;
    let mut text = String::new();
    machine(&mut text, &run)?;
    bounds(&mut text, &run)?;
    for (title, prefixes) in CHAPTERS {
        chapter(&mut text, &run, title, prefixes)?;
    }
    fs::write(folder.join("tables.md"), &text)?;
    for (name, plot) in svg::all(&run) {
        fs::write(folder.join(name), plot)?;
    }
    print!("{text}");
    Ok(())
}

const CHAPTERS: [(&str, &[&str]); 8] = [
    (
        "One file",
        &["replace/", "create/", "unsynced/", "stream-in"],
    ),
    ("Transactions", &["transaction/", "stream/"]),
    ("Threads and processes", &["threads/", "processes/"]),
    ("Batches", &["batch/"]),
    ("Folders", &["swap", "publish", "folders/"]),
    ("Opening", &["open", "recover"]),
    ("Look-ups", &["look-up/", "walk/"]),
    ("Trees", &["tree/"]),
];

fn machine(out: &mut String, run: &Run) -> Done {
    let m = &run.machine;
    writeln!(out, "# Tables\n")?;
    writeln!(
        out,
        "Made by `benches/run.sh`. How to read them: [benchmarks](../benchmarks.md).\n"
    )?;
    writeln!(out, "| | |\n| --- | --- |")?;
    writeln!(out, "| when | {} |", m.date)?;
    writeln!(out, "| kernel | {} |", m.kernel)?;
    let memory = m.memory_mib as f64 / 1024.0;
    writeln!(
        out,
        "| processors | {} of {}, {memory:.1} GiB |",
        m.processors, m.processor
    )?;
    writeln!(out, "| disk | {} |", m.disk)?;
    writeln!(out, "| compiler | {} |", m.compiler)?;
    for fs in &run.file_systems {
        let [before, after] = fs.load;
        writeln!(
            out,
            "| {} | mounted as {}; load {before:.1} before, {after:.1} after; {} s |",
            fs.name, fs.mounted, fs.seconds
        )?;
    }
    let versions = m.versions.iter().map(|(name, v)| format!("{name} {v}"));
    writeln!(
        out,
        "| compared | {} |\n",
        versions.collect::<Vec<_>>().join(", ")
    )?;
    Ok(())
}

fn bounds(out: &mut String, run: &Run) -> Done {
    writeln!(out, "## Against the targets\n")?;
    writeln!(
        out,
        "Ratios of medians, and of minima behind the stroke; bold is what is missed. Behind a dash: \
         what can be had at\nall, by hand.\n"
    )?;
    let names: Vec<_> = run.file_systems.iter().map(|fs| fs.name.as_str()).collect();
    writeln!(out, "| | target | {} |", names.join(" | "))?;
    writeln!(out, "| --- | ---: |{}", " ---: |".repeat(names.len()))?;
    for target in &targets::ALL {
        let sign = if target.at_least { ">=" } else { "<=" };
        let number = |fs: &FileSystem| {
            let value = (target.value)(fs)?;
            let text = format!("{value:.digits$}", digits = digits(value));
            Some(if target.met(value) {
                text
            } else {
                format!("**{text}**")
            })
        };
        let cells = run.file_systems.iter().map(|fs| {
            let both = [number(fs), number(&fs.least())];
            both.into_iter().flatten().collect::<Vec<_>>().join(" / ")
        });
        let cells: Vec<_> = cells.collect();
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let cells = cells.join(" | ");
        let targets::Target { text, unit, .. } = target;
        let bound = target.limit.map(|limit| format!("{sign} {limit}{unit}"));
        writeln!(out, "| {text} | {} | {cells} |", bound.unwrap_or_default())?;
    }
    writeln!(out)?;
    Ok(())
}

fn digits(value: f64) -> usize {
    match value {
        v if v < 1.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    }
}

fn chapter(out: &mut String, run: &Run, title: &str, prefixes: &[&str]) -> Done {
    let Some(first) = run.file_systems.first() else {
        return Ok(());
    };
    let within = |case: &&CaseResult| prefixes.iter().any(|p| case.id.starts_with(p));
    let cases: Vec<_> = first.cases.iter().filter(within).collect();
    if cases.is_empty() {
        return Ok(());
    }
    writeln!(out, "## {title}\n")?;
    for case in cases {
        table(out, run, case)?;
    }
    Ok(())
}

fn table(out: &mut String, run: &Run, case: &CaseResult) -> Done {
    let mut title = case.title.clone();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    writeln!(out, "**{title}** (`{}`)\n", case.id)?;
    let names: Vec<_> = run.file_systems.iter().map(|fs| fs.name.as_str()).collect();
    let traced = case.contenders.iter().any(|c| c.calls.is_some());
    let more = if traced {
        " calls | syncs | memory |"
    } else {
        ""
    };
    writeln!(out, "| | {} | flushes |{more}", names.join(" | "))?;
    let columns = names.len() + 1 + if traced { 3 } else { 0 };
    writeln!(out, "| --- |{}", " ---: |".repeat(columns))?;
    for contender in &case.contenders {
        let each = |fs: &FileSystem| Some(fs.case(&case.id)?.of(&contender.name)?.clone());
        let results: Vec<_> = run.file_systems.iter().map(each).collect();
        let cells = run.file_systems.iter().zip(&results).map(|(fs, result)| {
            let base = fs.case(&case.id).and_then(|case| case.contenders.first());
            cell(base, result.as_ref())
        });
        let cells: Vec<_> = cells.collect();
        write!(out, "| {} | {} |", contender.name, cells.join(" | "))?;
        let per = |of: fn(&ContenderResult) -> Option<f64>| {
            let values = results.iter().flatten().filter_map(of);
            same(&values.map(|v| format!("{v:.0}")).collect::<Vec<_>>())
        };
        write!(out, " {} |", per(|c| Some(c.flushes)))?;
        if traced {
            write!(out, " {} |", per(|c| c.calls.map(|n| n as f64)))?;
            write!(out, " {} |", per(|c| c.syncs.map(|n| n as f64)))?;
            let memory = results.iter().flatten().filter_map(|c| c.memory_kib).max();
            let memory = memory.map_or_else(String::new, |kib| format!("{kib} KiB"));
            write!(out, " {memory} |")?;
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    Ok(())
}

/// One value where all are the same, else all of them.
fn same(values: &[String]) -> String {
    match values {
        [first, rest @ ..] if rest.iter().all(|v| v == first) => first.clone(),
        all => all.join(" / "),
    }
}

fn cell(base: Option<&ContenderResult>, result: Option<&ContenderResult>) -> String {
    let (Some(base), Some(result)) = (base, result) else {
        return String::new();
    };
    let median = result.median_us / base.median_us;
    let least = result.min_us / base.min_us;
    if result.name == base.name {
        let range = (time(result.min_us), time(result.max_us));
        return format!("{} ({} to {})", time(result.median_us), range.0, range.1);
    }
    format!(
        "{}: {median:.digits$} / {least:.least_digits$}",
        time(result.median_us),
        digits = digits(median),
        least_digits = digits(least)
    )
}

/// Microseconds for people.
pub(crate) fn time(us: f64) -> String {
    match us {
        v if v < 10.0 => format!("{v:.2} us"),
        v if v < 10_000.0 => format!("{v:.0} us"),
        v if v < 1e6 => format!("{:.1} ms", v / 1e3),
        v => format!("{:.2} s", v / 1e6),
    }
}
