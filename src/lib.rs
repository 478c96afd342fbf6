//! Changes to files and folders on Linux that are atomic, durable and contained.
#[cfg(not(target_os = "linux"))]
compile_error!("steadfast works on Linux only: it is built on renameat2, openat2 and O_TMPFILE");

mod durability;
mod error;
pub mod publish;
pub mod root;
pub mod sys;
pub mod tree;

pub use durability::Durability;
pub use error::{DiskState, Error, ErrorKind, Result};
pub use root::{Backend, Capabilities, Dir, Name, Root, RootOptions, Scope};

// The README's example is compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
