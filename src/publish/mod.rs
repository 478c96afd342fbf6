//! One file or one folder, atomically: stage, sync, publish, retire.
