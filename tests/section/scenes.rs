//! What a section may do to the furnished tree, steps of its own and those of other programs.

use crate::support::{set_mtime, write};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use steadfast::Result;
use steadfast::sys::Mode;
use steadfast::workspace::{Attributes, Section};

pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Section<'_>, &Path) -> Result<()>,
}

pub(crate) fn all() -> Vec<Scene> {
    let scene = |name, run| Scene { name, run };
    vec![
        scene("write", |s, _| {
            s.apply(|tx| {
                tx.write("a", b"new")?;
                tx.write("new", b"new")?;
                tx.write("b", vec![b'x'; 50_000])
            })
        }),
        scene("remove", |s, _| {
            s.apply(|tx| {
                tx.remove_file("a")
                    .remove_tree("d")
                    .remove_dir("e")
                    .remove_file("s");
                tx.remove_file("c2");
                Ok(())
            })
        }),
        scene("make folders", |s, _| {
            s.apply(|tx| {
                tx.create_dir_all("x/y/z").create_dir("d/new");
                tx.write("x/y/file", b"new")?;
                tx.symlink("nowhere", "x/link");
                Ok(())
            })
        }),
        scene("rename, then write at the old name", |s, _| {
            s.apply(|tx| {
                tx.rename("a", "moved");
                tx.write("a", b"another")
            })
        }),
        scene("rename a folder and write in it", |s, _| {
            s.apply(|tx| {
                tx.rename("d", "x");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.write("x/one", b"new one")?;
                tx.rename("x/sub", "x/bus");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.write("x/bus/deep", b"new deep")?;
                tx.remove_file("x/bus/link");
                tx.write("x/bus/more", b"more")
            })
        }),
        scene("deep below what moves", |s, _| {
            s.apply(|tx| {
                tx.rename("d", "x");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.write("x/sub/deep", b"new deep")?;
                tx.create_dir("x/sub/new");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.rename("x/sub", "sub").rename("x", "e/x");
                tx.remove_file("sub/link");
                Ok(())
            })
        }),
        scene("exchange", |s, _| {
            s.apply(|tx| {
                tx.exchange("a", "d");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.write("a/two", b"new two")?;
                tx.exchange("a/sub", "b");
                Ok(())
            })
        }),
        scene("capture and make anew", |s, _| {
            s.apply(|tx| {
                tx.create_dir("quarantine");
                Ok(())
            })?;
            s.capture("d", "quarantine/d")?;
            s.apply(|tx| {
                tx.create_dir("d");
                tx.write("d/one", b"anew")
            })
        }),
        scene("capture and restore", |s, _| {
            let captured = s.capture("d", "aside")?;
            s.apply(|tx| tx.write("aside/one", b"changed"))?;
            s.restore(&captured)
        }),
        scene("move into new folders and remove those", |s, _| {
            s.apply(|tx| {
                tx.create_dir_all("x/y");
                tx.rename("a", "x/y/a").rename("d", "x/d");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.rename("x", "z");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.write("z/d/one", b"new")?;
                tx.write("z/y/b", b"new")
            })?;
            s.apply(|tx| {
                tx.remove_tree("z/y").remove_tree("z");
                Ok(())
            })
        }),
        scene("a folder into its own successor", |s, _| {
            s.apply(|tx| {
                tx.create_dir("new");
                tx.rename("d", "new/d");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.rename("new", "d");
                Ok(())
            })
        }),
        scene("attributes", |s, _| {
            s.apply(|tx| {
                let all = Attributes::new()
                    .mode(Mode::from_raw_mode(0o600))
                    .xattr("user.origin", "elsewhere")
                    .modified(std::time::UNIX_EPOCH);
                tx.set_attributes("d/two", all.clone());
                tx.set_attributes("d/sub", Attributes::new().mode(Mode::RWXU));
                Ok(())
            })?;
            s.apply(|tx| {
                tx.rename("d/two", "two");
                let mode = Attributes::new().mode(Mode::from_raw_mode(0o444));
                tx.set_attributes("two", mode.without_xattr("user.origin"));
                tx.set_attributes("a", Attributes::new().mode(Mode::from_raw_mode(0o777)));
                Ok(())
            })
        }),
        scene("hard links", |s, _| {
            s.apply(|tx| {
                tx.remove_file("c").remove_file("d/one");
                tx.hard_link("c2", "c3");
                tx.hard_link("a", "d/a");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.remove_file("c2");
                tx.rename("d/sub/link", "one");
                Ok(())
            })
        }),
        scene("protect and leave alone", |s, _| {
            s.protect(["a", "d", "missing", "no/such/path"])
        }),
        scene("others write in place", |s, top| {
            s.protect(["a", "b", "d", "missing"])?;
            let open = |path: &str| {
                fs::File::options()
                    .write(true)
                    .open(top.join(path))
                    .unwrap()
            };
            open("a").write_all_at(b"A", 0).unwrap();
            open("b").set_len(5).unwrap();
            let mut append = fs::File::options();
            let mut two = append.append(true).open(top.join("d/two")).unwrap();
            two.write_all(b", and more").unwrap();
            fs::remove_file(top.join("d/one")).unwrap();
            write(top.join("d/sub/new/file"), "new");
            write(top.join("missing"), "there");
            Ok(())
        }),
        scene("others change modes and times", |s, top| {
            s.protect(["a", "d"])?;
            let mode = |path: &str, mode| {
                fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
            };
            mode("a", 0o777);
            mode("d/sub", 0o700);
            mode("d/sub/deep", 0o600);
            set_mtime(top.join("d/two"), 5);
            Ok(())
        }),
        scene("others remove and replace", |s, top| {
            s.protect(["a", "d", "e", "s"])?;
            fs::remove_dir_all(top.join("d")).unwrap();
            fs::remove_file(top.join("a")).unwrap();
            fs::create_dir(top.join("a")).unwrap();
            write(top.join("a/in it"), "new");
            write(top.join("d"), "a file now");
            fs::remove_dir(top.join("e")).unwrap();
            fs::remove_file(top.join("s")).unwrap();
            std::os::unix::fs::symlink("a", top.join("s")).unwrap();
            Ok(())
        }),
        scene("protect, then steps", |s, top| {
            s.protect(["d", "a"])?;
            s.apply(|tx| {
                tx.rename("c", "d/c");
                tx.write("d/one", b"new")?;
                tx.rename("a", "d/sub/a");
                Ok(())
            })?;
            write(top.join("d/sub/a"), "in place");
            s.apply(|tx| {
                tx.rename("d", "moved");
                tx.write("a", b"another")
            })?;
            write(top.join("moved/two"), "in place");
            s.apply(|tx| {
                tx.write("moved/three", b"three")?;
                tx.rename("moved/c", "c again");
                Ok(())
            })
        }),
        scene("moves within what is protected", |s, _| {
            s.protect(["d"])?;
            s.apply(|tx| {
                tx.rename("d", "x");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.exchange("x/sub/deep", "b");
                Ok(())
            })?;
            s.apply(|tx| {
                tx.rename("x/sub", "y");
                tx.rename("a", "y/a");
                Ok(())
            })
        }),
        scene("steps above, then protect", |s, top| {
            s.apply(|tx| {
                tx.rename("d", "x");
                Ok(())
            })?;
            s.protect(["x/two", "x/none"])?;
            write(top.join("x/two"), "in place");
            write(top.join("x/none"), "there");
            s.apply(|tx| {
                tx.rename("x", "y");
                Ok(())
            })?;
            fs::remove_file(top.join("y/two")).unwrap();
            Ok(())
        }),
        scene("everything", |s, top| {
            s.protect(["."])?;
            fs::remove_dir_all(top.join("d")).unwrap();
            write(top.join("a"), "in place");
            write(top.join("x/y"), "new");
            fs::rename(top.join("e"), top.join("x/e")).unwrap();
            fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
            s.apply(|tx| {
                tx.rename("c", "x/c");
                tx.write("c", b"new")
            })
        }),
        scene("phases and more", |s, _| {
            s.phase("first")?;
            s.evidence(["a", "d", "missing"], false)?;
            s.key("key", "value")?;
            s.apply(|tx| tx.write("a", b"new"))?;
            s.phase("second")
        }),
    ]
}
