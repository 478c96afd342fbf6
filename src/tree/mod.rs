//! Whole trees by descriptor: walk, copy, remove, sync.
