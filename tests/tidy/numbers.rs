//! The numbers of the pages, compared with the run of the benchmarks that is kept.
//!
//! Each page has a part between two marks that is written from the results, and from nothing else.

use serde_json::Value;
use std::fmt::Write;
use std::fs;

const RESULTS: &str = "docs/benchmarks/results.json";
const BEGIN: &str = "<!-- numbers from docs/benchmarks/results.json -->\n";
const END: &str = "<!-- end of numbers -->\n";
/// With this variable the test writes the parts instead.
const WRITE: &str = "STEADFAST_WRITE";

/// The run, as it is in the file.
struct Run(Value);

/// One number of all file systems: `None` where it was not measured.
type Row = Vec<Option<f64>>;

impl Run {
    fn systems(&self) -> &[Value] {
        self.0["file_systems"].as_array().unwrap()
    }

    /// A number of one contender in one case, on each file system.
    fn row(&self, case: &str, who: &str, what: &str) -> Row {
        let of = |list: &Value, key: &str, name: &str| {
            let all = list.as_array()?;
            all.iter().find(|one| one[key] == *name).cloned()
        };
        let number = |fs: &Value| of(&of(&fs["cases"], "id", case)?["contenders"], "name", who);
        let each = self.systems().iter().map(number);
        each.map(|one| one.and_then(|one| one[what].as_f64()))
            .collect()
    }

    fn medians(&self, case: &str, who: &str) -> Row {
        self.row(case, who, "median_us")
    }

    /// The least of some on each file system.
    fn best(&self, case: &str, who: &[&str]) -> Row {
        let rows: Vec<Row> = who.iter().map(|who| self.medians(case, who)).collect();
        (0..self.systems().len())
            .map(|at| rows.iter().filter_map(|r| r[at]).min_by(f64::total_cmp))
            .collect()
    }

    fn names(&self) -> Vec<&str> {
        let all = self.systems().iter();
        all.map(|fs| fs["name"].as_str().unwrap()).collect()
    }

    /// When and on what.
    fn circumstances(&self) -> String {
        let machine = &self.0["machine"];
        let text = |key: &str| machine[key].as_str().unwrap();
        let loads = self.systems().iter().flat_map(|fs| {
            let pair = fs["load"].as_array().unwrap().iter();
            pair.map(|load| load.as_f64().unwrap())
        });
        let loads: Vec<f64> = loads.collect();
        let most = loads.iter().copied().fold(0.0, f64::max);
        let least = loads.iter().copied().fold(f64::MAX, f64::min);
        format!(
            "{}, {} processors ({}), {}; {}; load of the machine {least:.1} to {most:.1}",
            text("kernel"),
            machine["processors"],
            text("processor"),
            text("disk"),
            text("date"),
        )
    }
}

fn by(ours: &Row, others: &Row) -> Row {
    let pair = |(a, b): (&Option<f64>, &Option<f64>)| Some((*a)? / (*b)?);
    ours.iter().zip(others).map(pair).collect()
}

fn digits(value: f64) -> usize {
    match value {
        v if v < 1.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    }
}

fn cells(row: &Row, unit: &str) -> String {
    let cell = |value: &Option<f64>| match value {
        Some(v) => format!(
            "{v:.0$}{unit}",
            if unit.is_empty() { digits(*v) } else { 0 }
        ),
        None => "-".to_owned(),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(" | ")
}

/// One number where all are the same, else all of them.
fn counts(row: &Row) -> String {
    let mut all: Vec<_> = row.iter().flatten().map(|v| format!("{v:.0}")).collect();
    all.dedup();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join(" / "),
    }
}

/// Ours, the others', and what it says of them: the best of the others is taken.
type Claim<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [&'a str]);

const RAW: &[&str] = &["raw"];
const ONE_BY_ONE: &[&str] = &["raw, one by one"];
const OURS: &str = "steadfast";

const CLAIMS: [Claim<'static>; 13] = [
    (
        "one file replaced, mode, owner and attributes kept",
        "the same calls by hand",
        "replace/4096",
        OURS,
        &["raw, attributes kept"],
    ),
    (
        "a transaction of 1 file",
        "a durable replace by hand",
        "transaction/1/4096",
        OURS,
        ONE_BY_ONE,
    ),
    (
        "a transaction of 10 files",
        "10 durable replaces by hand",
        "transaction/10/4096",
        OURS,
        ONE_BY_ONE,
    ),
    (
        "a transaction of 100 files",
        "100 durable replaces by hand",
        "transaction/100/4096",
        OURS,
        ONE_BY_ONE,
    ),
    (
        "the same",
        "fs-transaction",
        "transaction/100/4096",
        OURS,
        &["fs-transaction"],
    ),
    (
        "the same, settled: in place for every reader",
        "100 durable replaces by hand",
        "transaction/100/4096",
        "steadfast, settled",
        ONE_BY_ONE,
    ),
    (
        "a transaction of 100 files",
        "SQLite (WAL, FULL), as many rows and no files",
        "transaction/100/4096",
        OURS,
        &["SQLite"],
    ),
    (
        "100 files written in place",
        "the same",
        "transaction/100/4096",
        "steadfast, in place",
        &["SQLite"],
    ),
    (
        "128 commits by 16 threads",
        "durable replaces by 16 threads, by hand",
        "threads/16",
        OURS,
        RAW,
    ),
    (
        "a batch that replaces 1,000 files",
        "the best of four ways by hand",
        "batch/replace/1000",
        "steadfast, nothing kept",
        &[
            "raw, one by one",
            "raw, one syncfs",
            "raw, all staged, then fsync of each",
            "raw, fsync by 32 threads",
        ],
    ),
    (
        "two folders exchanged",
        "the same two calls by hand",
        "swap",
        OURS,
        RAW,
    ),
    (
        "a file opened beneath a root, 16 folders deep",
        "openat2 by hand",
        "look-up/16",
        OURS,
        &["raw openat2"],
    ),
    (
        "the same without openat2",
        "cap-std",
        "walk/16",
        OURS,
        &["cap-std"],
    ),
];

fn readme(run: &Run) -> String {
    let mut out = String::new();
    let names = run.names();
    let _ = writeln!(out, "| | beside | {} |", names.join(" | "));
    let _ = writeln!(out, "| --- | --- |{}", " ---: |".repeat(names.len()));
    for (what, beside, case, ours, others) in CLAIMS {
        let row = by(&run.medians(case, ours), &run.best(case, others));
        let _ = writeln!(out, "| {what} | {beside} | {} |", cells(&row, ""));
    }
    let open = cells(&run.medians("open", OURS), " us");
    let _ = writeln!(out, "| a clean workspace opened | its time | {open} |");
    let _ = writeln!(out, "\n{}.", run.circumstances());
    out
}

fn page(run: &Run) -> String {
    let mut out = format!("{}.\n\n", run.circumstances());
    let names = run.names().join(" / ");
    let _ = writeln!(
        out,
        "| what one sample does; {names} where they differ | flushes | calls | of them syncs |"
    );
    let _ = writeln!(out, "| --- | ---: | ---: | ---: |");
    for (title, case, who) in [
        ("replace a file, by hand", "replace/4096", "raw"),
        (
            "replace a file, by hand, attributes kept",
            "replace/4096",
            "raw, attributes kept",
        ),
        ("replace a file", "replace/4096", OURS),
        ("a transaction of 1 file", "transaction/1/4096", OURS),
        ("a transaction of 10 files", "transaction/10/4096", OURS),
        ("a transaction of 100 files", "transaction/100/4096", OURS),
        ("the same by SQLite", "transaction/100/4096", "SQLite"),
        (
            "the same by fs-transaction",
            "transaction/100/4096",
            "fs-transaction",
        ),
        (
            "1 file written in place",
            "transaction/1/4096",
            "steadfast, in place",
        ),
        (
            "100 files written in place",
            "transaction/100/4096",
            "steadfast, in place",
        ),
        ("128 commits by 1 thread", "threads/1", OURS),
        ("128 commits by 16 threads", "threads/16", OURS),
        (
            "128 commits by 16 threads, by SQLite",
            "threads/16",
            "SQLite",
        ),
        (
            "a batch of 1,000 files, by hand, one syncfs",
            "batch/replace/1000",
            "raw, one syncfs",
        ),
        (
            "a batch of 1,000 files",
            "batch/replace/1000",
            "steadfast, nothing kept",
        ),
        ("an exchange of two folders", "swap", OURS),
    ] {
        let count = |what| counts(&run.row(case, who, what));
        let _ = writeln!(
            out,
            "| {title} | {} | {} | {} |",
            count("flushes"),
            count("calls"),
            count("syncs")
        );
    }
    out
}

/// A page with another part between the marks; `None`: it has none.
fn with_part(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}\n{END}{after}"))
}

#[test]
fn the_numbers_of_the_pages_are_those_of_the_run() {
    let text = fs::read_to_string(super::top().join(RESULTS)).unwrap();
    let run = Run(serde_json::from_str(&text).unwrap());
    for (name, part) in [
        ("README.md", readme(&run)),
        ("docs/benchmarks.md", page(&run)),
    ] {
        let path = super::top().join(name);
        let kept = fs::read_to_string(&path).unwrap();
        let now = with_part(&kept, &part).expect(name);
        if std::env::var_os(WRITE).is_some() {
            fs::write(path, now).unwrap();
            continue;
        }
        assert!(
            kept == now,
            "the numbers of {name} are not those of {RESULTS}, which gives:\n{part}\n\
             {WRITE}=1 cargo test --test tidy writes them anew"
        );
    }
}

#[test]
fn numbers_are_taken_from_the_right_place() {
    let one = |name: &str, median: f64, flushes: f64| {
        let mut one = serde_json::json!({ "name": name, "flushes": flushes });
        one["median_us"] = median.into();
        one
    };
    let system = |name: &str, ours: f64, flushes: f64| {
        let contenders = [
            one("raw", 8.0, 4.0),
            one("other", 4.0, 4.0),
            one(OURS, ours, flushes),
        ];
        serde_json::json!({
            "name": name, "load": [0.25, 3.0],
            "cases": [{ "id": "a", "contenders": [] }, { "id": "b", "contenders": contenders }],
        })
    };
    let machine = serde_json::json!({
        "kernel": "Linux 6", "processors": 2, "processor": "P", "disk": "a disk", "date": "a day",
    });
    let systems = [system("ext4", 2.0, 1.0), system("xfs", 480.0, 2.0)];
    let run = Run(serde_json::json!({ "machine": machine, "file_systems": systems }));
    let row = by(&run.medians("b", OURS), &run.best("b", &["raw", "other"]));
    assert_eq!(cells(&row, ""), "0.500 | 120");
    assert_eq!(cells(&run.medians("b", OURS), " us"), "2 us | 480 us");
    assert_eq!(cells(&run.medians("c", OURS), ""), "- | -");
    assert_eq!(counts(&run.row("b", OURS, "flushes")), "1 / 2");
    assert_eq!(counts(&run.row("b", "raw", "flushes")), "4");
    assert_eq!(counts(&run.row("b", "raw", "calls")), "-");
    assert_eq!(
        run.circumstances(),
        "Linux 6, 2 processors (P), a disk; a day; load of the machine 0.2 to 3.0"
    );
    let page = format!("a\n{BEGIN}old\n{END}b\n");
    let now = with_part(&page, "new\n").unwrap();
    assert_eq!(now, format!("a\n{BEGIN}\nnew\n\n{END}b\n"));
    assert_eq!(with_part(&now, "new\n").unwrap(), now);
    assert_eq!(with_part("a\n", "new\n"), None);
}
