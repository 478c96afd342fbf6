//! From the paths on the command line to a root and a path beneath it.

use crate::args::RootArg;
use crate::exit::Exit;
use crate::failure::Failure;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use steadfast::{ErrorKind, Root, RootOptions, Scope};

/// A path of the command line: the root to resolve beneath, the path there, and the user's own spelling.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory that is held.
    pub(crate) root: Root,
    /// The path beneath it.
    pub(crate) path: PathBuf,
    /// As the user wrote it.
    pub(crate) given: PathBuf,
    /// What the user would put before a path beneath the root.
    pub(crate) prefix: PathBuf,
}

impl Place {
    /// `given` beneath `root`, or, without one, its last component beneath its parent directory.
    pub(crate) fn find(root: &RootArg, given: &Path) -> Result<Self, Failure> {
        let (parent, path) = match &root.root {
            Some(root) => (root.as_path(), given),
            None => split(given),
        };
        let open = Root::open(parent).map_err(|e| Failure::of(e, &[]));
        match open {
            Ok(open) => Ok(Self::over(open, parent, path, given)),
            Err(failure) if root.root.is_some() => Err(failure),
            // Nobody spoke of a root.
            Err(failure) => Err(failure.about("open folder")),
        }
    }

    /// As [`find`](Self::find), but directories on the way may be missing: then the root is the last one that
    /// is there, and the path beneath it is longer.
    pub(crate) fn find_far(root: &RootArg, given: &Path) -> Result<Self, Failure> {
        let error = match Self::find(root, given) {
            Err(failure) if root.root.is_none() && failure.exit == Exit::Condition => failure,
            done => return done,
        };
        let bytes = given.as_os_str().as_bytes();
        let mut end = last_start(bytes);
        while end > 0 {
            end = last_start(&bytes[..end]);
            let parent = match end {
                0 if given.is_absolute() => break,
                0 => Path::new("."),
                _ => as_path(&bytes[..end]),
            };
            match Root::open(parent) {
                Ok(root) => return Ok(Self::over(root, parent, as_path(&bytes[end..]), given)),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(Failure::of(e, &[])),
            }
        }
        Err(error)
    }

    /// Beneath the root of the file system, where no root was given: for paths that must share one
    /// root. It is resolved as any program would.
    pub(crate) fn wide(root: &RootArg, given: &Path) -> Result<Self, Failure> {
        if root.root.is_some() {
            return Self::find(root, given);
        }
        let top = Path::new("/");
        let absolute = std::path::absolute(given)
            .map_err(|e| Failure::usage(format!("cannot make {given:?} absolute: {e}")))?;
        let root = RootOptions::new()
            .scope(Scope::InRoot)
            .open(top)
            .map_err(|e| Failure::of(e, &[]))?;
        Ok(Self::over(root, top, &absolute, given))
    }

    fn over(root: Root, parent: &Path, path: &Path, given: &Path) -> Self {
        let prefix = if parent == Path::new(".") && !given.starts_with(".") {
            PathBuf::new()
        } else {
            parent.to_path_buf()
        };
        Self {
            root,
            path: path.to_path_buf(),
            given: given.to_path_buf(),
            prefix,
        }
    }

    /// An error about this place, and perhaps others, in the user's spelling.
    pub(crate) fn fail(&self, error: steadfast::Error, others: &[&Self]) -> Failure {
        let mut places = vec![self];
        places.extend(others);
        let refused = matches!(
            error.kind(),
            ErrorKind::Busy | ErrorKind::InvalidInput | ErrorKind::IsADirectory
        );
        let nameless = refused && places.iter().any(|place| place.is_nameless());
        let mut failure = Failure::of(error, &places);
        if nameless {
            // That of the library is for what has a name.
            failure.hints.retain(|(label, _)| *label != "advice");
            failure.advise("'/', '.' and '..' are no names: give a path that ends in one");
        }
        failure
    }

    fn is_nameless(&self) -> bool {
        let path = self.path.as_os_str().as_bytes();
        matches!(&path[last_start(path)..], b"" | b"." | b"..")
    }
}

/// Parent and last component; slashes at the end stay with the component, for they ask for a directory.
pub(crate) fn split(path: &Path) -> (&Path, &Path) {
    let bytes = path.as_os_str().as_bytes();
    match last_start(bytes) {
        // Only slashes: the root directory, which has no name to work on.
        0 if bytes.starts_with(b"/") => (path, Path::new(".")),
        0 => (Path::new("."), path),
        start => (as_path(&bytes[..start]), as_path(&bytes[start..])),
    }
}

/// Where the last component begins; 0 if it is the first, or if there is none.
fn last_start(path: &[u8]) -> usize {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let slash = path[..end].iter().rposition(|b| *b == b'/');
    slash.map_or(0, |i| i + 1)
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_keeps_its_slashes() {
        let cases = [
            ("a", (".", "a")),
            ("a/", (".", "a/")),
            ("a/b", ("a/", "b")),
            ("a//b//", ("a//", "b//")),
            ("/b", ("/", "b")),
            ("//", ("//", ".")),
            ("..", (".", "..")),
            ("", (".", "")),
        ];
        for (path, (parent, last)) in cases {
            let want = (Path::new(parent).as_os_str(), Path::new(last).as_os_str());
            let (p, l) = split(Path::new(path));
            assert_eq!((p.as_os_str(), l.as_os_str()), want, "{path:?}");
        }
    }

    #[test]
    fn far_places_are_beneath_the_last_directory_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::create_dir(&there).unwrap();
        let none = RootArg { root: None };
        let cases = ["there/f", "there/a/b/f", "there//a//b/f/"];
        for case in cases {
            let given = dir.path().join(case);
            let place = Place::find_far(&none, &given).unwrap();
            assert_eq!(
                place.root.dir().metadata().unwrap().id(),
                Root::open(&there).unwrap().dir().metadata().unwrap().id(),
                "{case}"
            );
            let mut joined = place.prefix.clone().into_os_string();
            joined.push(&place.path);
            assert_eq!(joined, given.as_os_str(), "{case}");
            assert!(place.path.is_relative());
        }
        assert!(Place::find(&none, &dir.path().join("a/f")).is_err());
    }
}
