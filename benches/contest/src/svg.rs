//! Plots, drawn by hand: bars of ratios on a logarithmic scale.

use crate::result::{FileSystem, Run};
use std::fmt::Write as _;

/// File name and picture of each plot.
pub(crate) fn all(run: &Run) -> Vec<(&'static str, String)> {
    let plots: [(&str, &str, &[&str]); 5] = [
        (
            "one-file.svg",
            "One durable file of 4 KiB, by the raw system calls",
            &["replace/4096", "create/4096"],
        ),
        (
            "transactions.svg",
            "Transactions, by as many raw durable replaces",
            &[
                "transaction/1/4096",
                "transaction/10/4096",
                "transaction/100/4096",
                "transaction/1000/4096",
            ],
        ),
        (
            "threads.svg",
            "128 commits by many threads or processes, by raw replaces",
            &[
                "threads/1",
                "threads/4",
                "threads/16",
                "threads/64",
                "processes/4",
                "processes/8",
            ],
        ),
        (
            "many.svg",
            "1,000 files, folders and trees, by the raw calls or the tool",
            &[
                "batch/create/1000",
                "batch/replace/1000",
                "swap",
                "publish",
                "tree/copy/1000",
                "tree/remove/1000",
                "tree/sync/1000",
            ],
        ),
        (
            "look-ups.svg",
            "Opening a file beneath a directory, by raw openat2 or a bare walk",
            &[
                "look-up/1",
                "look-up/4",
                "look-up/16",
                "walk/1",
                "walk/4",
                "walk/16",
            ],
        ),
    ];
    plots
        .into_iter()
        .map(|(file, title, cases)| (file, bars(title, &run.file_systems, cases)))
        .collect()
}

const COLOURS: [&str; 3] = ["#4269d0", "#efb118", "#3ca951"];
const LEFT: f64 = 270.0;
const WIDE: f64 = 560.0;
const BAR: f64 = 7.0;

fn bars(title: &str, systems: &[FileSystem], cases: &[&str]) -> String {
    let mut rows: Vec<(bool, String, Vec<Option<f64>>)> = Vec::new();
    for id in cases {
        let Some(case) = systems.first().and_then(|fs| fs.case(id)) else {
            continue;
        };
        rows.push((true, case.title.clone(), Vec::new()));
        for contender in case.contenders.iter().skip(1) {
            let ratios = systems.iter().map(|fs| {
                let case = fs.case(id)?;
                Some(case.of(&contender.name)?.median_us / case.contenders.first()?.median_us)
            });
            rows.push((false, contender.name.clone(), ratios.collect()));
        }
    }
    let values = rows
        .iter()
        .flat_map(|(_, _, v)| v.iter().flatten().copied());
    let (low, high) = values.fold((0.5_f64, 2.0_f64), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let (low, high) = (low.log10() - 0.05, high.log10() + 0.15);
    let place = |ratio: f64| LEFT + WIDE * (ratio.log10() - low) / (high - low);

    let each = BAR * systems.len() as f64 + 6.0;
    let tall: f64 = 60.0
        + rows
            .iter()
            .map(|r| if r.0 { 26.0 } else { each })
            .sum::<f64>();
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {tall:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">{}; less is better</text>",
        LEFT + WIDE + 50.0,
        escape(title)
    );
    for (n, (fs, colour)) in systems.iter().zip(COLOURS).enumerate() {
        let x = LEFT + 70.0 * n as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{x:.0}\" y=\"28\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"37\">{}</text>",
            x + 14.0,
            escape(&fs.name)
        );
    }
    let ticks: [f64; 14] = [
        0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0,
    ];
    for tick in ticks
        .into_iter()
        .filter(|t| (low..high).contains(&t.log10()))
    {
        let (x, dark) = (place(tick), if tick == 1.0 { "#444444" } else { "#dddddd" });
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"44\" x2=\"{x:.1}\" y2=\"{:.0}\" stroke=\"{dark}\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>",
            tall - 14.0,
            tall - 3.0
        );
    }
    let mut y = 44.0;
    for (head, label, ratios) in rows {
        if head {
            let _ = writeln!(
                out,
                "<text x=\"10\" y=\"{:.0}\" font-weight=\"bold\">{}</text>",
                y + 17.0,
                escape(&label)
            );
            y += 26.0;
            continue;
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + each / 2.0 + 1.0,
            escape(&label)
        );
        for (n, (ratio, colour)) in ratios.into_iter().zip(COLOURS).enumerate() {
            let Some(ratio) = ratio else { continue };
            let (from, to) = (place(1.0).min(place(ratio)), place(1.0).max(place(ratio)));
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" \
                 fill=\"{colour}\"><title>{ratio:.3}</title></rect>",
                y + BAR * n as f64,
                (to - from).max(1.0)
            );
        }
        y += each;
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
