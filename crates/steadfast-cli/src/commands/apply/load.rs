//! Reading a manifest from a file or from stdin.

use crate::args::{ApplyArgs, ManifestFormat};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::{self, Format, MAX_LEN, Manifest, ManifestError, Section};
use crate::paths::{insert_path, shown};
use crate::signals;
use crate::stdin::Stdin;
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A manifest, and where its `from` paths begin.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    base: PathBuf,
}

/// The longest content that is held in memory.
const IN_MEMORY: u64 = 64 << 20;

/// Reads and checks all of it.
pub(super) fn load(args: &ApplyArgs) -> Result<Loaded, Failure> {
    let is_stdin = args.manifest == Path::new("-");
    let format = format(args, is_stdin)?;
    let mut text = Vec::new();
    // One byte too many tells that it is too long.
    let read = match is_stdin {
        true => Stdin::new().take(MAX_LEN + 1).read_to_end(&mut text),
        false => File::open(&args.manifest)
            .and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut text)),
    };
    if let Err(error) = read {
        return Err(unreadable("read manifest", &args.manifest, &error));
    }
    let manifest = manifest::parse(&text, format).map_err(|e| refused(&args.manifest, &e))?;
    let base = match args.manifest.parent() {
        Some(parent) if !is_stdin => parent.to_path_buf(),
        _ => PathBuf::new(),
    };
    Ok(Loaded { manifest, base })
}

impl Loaded {
    /// Opens a file whose content is to be written.
    pub(super) fn open(&self, from: &Path) -> Result<File, Failure> {
        let path = self.base.join(from);
        let fail = |e: &io::Error| unreadable("read content", &path, e);
        // A FIFO would be waited for.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut options = File::options();
        let file = options.read(true).custom_flags(flags).open(&path);
        let file = file.map_err(|e| fail(&e))?;
        if !file.metadata().map_err(|e| fail(&e))?.is_file() {
            return Err(fail(&io::Error::other("it is not a regular file")));
        }
        Ok(file)
    }

    /// All of a file.
    pub(super) fn read(&self, from: &Path) -> Result<Vec<u8>, Failure> {
        let path = self.base.join(from);
        let mut content = Vec::new();
        let read = self
            .open(from)?
            .take(IN_MEMORY + 1)
            .read_to_end(&mut content);
        read.map_err(|e| unreadable("read content", &path, &e))?;
        if content.len() as u64 > IN_MEMORY {
            let error = io::Error::other("it is longer than 64 MiB, which only \"write\" takes");
            return Err(unreadable("read content", &path, &error));
        }
        Ok(content)
    }
}

fn format(args: &ApplyArgs, is_stdin: bool) -> Result<Format, Failure> {
    let named = args.manifest.extension().and_then(OsStr::to_str);
    match (args.format, named) {
        (Some(ManifestFormat::Toml), _) => Ok(Format::Toml),
        (Some(ManifestFormat::Json), _) => Ok(Format::Json),
        (None, Some("toml")) if !is_stdin => Ok(Format::Toml),
        (None, Some("json")) if !is_stdin => Ok(Format::Json),
        _ => {
            let name = shown(&args.manifest);
            let words =
                "is it TOML or JSON? Say so with --format, or end its name with .toml or .json";
            Err(Failure::usage(format!("manifest {name}: {words}")))
        }
    }
}

/// The manifest makes no sense.
fn refused(path: &Path, error: &ManifestError) -> Failure {
    let message = format!("cannot read manifest {path:?}: {error}");
    let mut failure = Failure::new(Exit::Usage, "manifest", message);
    insert_path(&mut failure.json, "path", path);
    let position = error.position();
    let (condition, operation) = match error.section() {
        Section::Whole => (None, None),
        Section::Condition(n) => (Some(n), None),
        Section::Operation(n) => (None, Some(n)),
    };
    let place = json!({
        "problem": error.kind(),
        "line": position.map(|p| p.line),
        "column": position.map(|p| p.column),
        "condition": condition,
        "operation": operation,
        "field": error.field(),
    });
    failure.json.insert("manifest".into(), place);
    failure
}

/// A file outside could not be read.
fn unreadable(operation: &'static str, path: &Path, error: &io::Error) -> Failure {
    if let Some(signal) = signals::pending() {
        return Failure::interrupted(operation, path, signal);
    }
    let exit = match error.kind() {
        io::ErrorKind::NotFound => Exit::Condition,
        _ => Exit::Failed,
    };
    let kind = match error.kind() {
        io::ErrorKind::NotFound => "not_found",
        io::ErrorKind::PermissionDenied => "permission_denied",
        io::ErrorKind::IsADirectory => "is_a_directory",
        _ => "source",
    };
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or(&words);
    let message = format!("cannot {operation} {path:?}: {words}");
    let mut failure = Failure::new(exit, kind, message);
    insert_path(&mut failure.json, "path", path);
    let number = error.raw_os_error();
    failure.json.insert("operation".into(), operation.into());
    failure.json.insert("errno_number".into(), number.into());
    let name =
        number.and_then(|n| steadfast::sys::errno_name(rustix::io::Errno::from_raw_os_error(n)));
    failure.json.insert("errno".into(), Value::from(name));
    failure
}
