//! The process is killed before and after every call of a section, and the one that recovers it again.

use crate::common::spawn;
use crate::scenes::{self, Scene};
use crate::support::{Tree, assert_clean, assert_same, furnish, open, tree};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use steadfast::sys::hook::{self, ENV};

const JOB: &str = "STEADFAST_SECTION_JOB";
const SCENE: &str = "STEADFAST_SECTION_SCENE";
const DIR: &str = "STEADFAST_SECTION_DIR";
/// More calls than any of them makes.
const BOUND: u64 = 5000;
const SIGKILL: i32 = 9;

/// What the children are: this binary with variables set. On its own it does nothing.
#[test]
fn child() {
    let (Ok(job), Some(dir)) = (std::env::var(JOB), std::env::var_os(DIR)) else {
        return;
    };
    let top = Path::new(&dir);
    if job == "recover" {
        hook::arm_from_env();
        open(top);
        return;
    }
    let workspace = open(top);
    let name = std::env::var(SCENE).unwrap();
    let scene = scenes::all().into_iter().find(|s| s.name == name).unwrap();
    hook::arm_from_env();
    let mut section = workspace.section(scene.name).unwrap();
    (scene.run)(&mut section, top).unwrap();
    match job.as_str() {
        "commit" => drop(section.commit().unwrap()),
        _ => section.rollback().unwrap(),
    }
}

/// Does a job in a child that stops at a call. `false`: it came to its end before.
fn killed(job: &str, scene: &Scene, dir: &Path, plan: &str) -> bool {
    let inherited = std::env::var(ENV).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(ENV, format!("{inherited};{plan}"))
        .env(JOB, job)
        .env(SCENE, scene.name)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = spawn(&mut command).wait_with_output().unwrap();
    if child.status.signal() == Some(SIGKILL) {
        return true;
    }
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let errors = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{job}, {}, {plan}: {said}{errors}",
        scene.name
    );
    false
}

struct Run {
    top: tempfile::TempDir,
    before: Tree,
}

impl Run {
    fn new() -> Self {
        let top = crate::dir();
        open(top.path()).close().unwrap();
        furnish(top.path());
        let before = tree(top.path());
        Self { top, before }
    }

    /// After a recovery: as before the section, or, after a decided commit, as it was left.
    fn check(&self, left: &Tree, may_be_kept: bool, context: &str) {
        let now = tree(self.top.path());
        if !(may_be_kept && now == *left) {
            assert_same(&now, &self.before, context);
        }
        assert_clean(self.top.path(), context);
    }
}

/// Kills a job at calls, and at each of those recovery as well, at one call or at all.
fn kill_all(scene: &Scene, job: &str, step: u64, kills: &AtomicU64) {
    let long = crate::long();
    // Not the same calls of every scene.
    let offset = scene.name.len() as u64 * 5;
    for side in ["before", "after"] {
        for n in 0.. {
            let start = offset + if side == "after" { step / 2 } else { 0 };
            let at = 1 + n * step + start % step;
            assert!(at < BOUND, "{}: no end", scene.name);
            let run = Run::new();
            let plan = format!("stop-{side}:{at}");
            if !killed(job, scene, run.top.path(), &plan) {
                break;
            }
            kills.fetch_add(1, Ordering::Relaxed);
            let context = format!("{job} {}, {plan}", scene.name);
            let left = tree(run.top.path());
            // Different calls of recovery each time.
            let mut again = 1 + (at * 7) % if long { 37 } else { 90 };
            while killed(
                "recover",
                scene,
                run.top.path(),
                &format!("stop-{side}:{again}"),
            ) {
                kills.fetch_add(1, Ordering::Relaxed);
                again += if long { 37 } else { BOUND };
            }
            let workspace = open(run.top.path());
            assert!(workspace.recovered().is_empty(), "{context}");
            workspace.close().unwrap();
            run.check(&left, job == "commit", &context);
        }
    }
}

fn everywhere(job: &str, step: usize) {
    let step = crate::step(step) as u64;
    let queue = Mutex::new(scenes::all());
    let kills = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let Some(scene) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    kill_all(&scene, job, step, &kills);
                }
            });
        }
    });
    println!("{job}: {} processes killed", kills.into_inner());
}

#[test]
fn killed_while_taking_back() {
    everywhere("roll back", 61);
}

#[test]
fn killed_while_committing() {
    everywhere("commit", 127);
}
