//! What is read, what is refused, and that nothing makes the reader fall over.

use super::*;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const TOML: [&str; 3] = [
    include_str!("../../../../examples/manifest/release.toml"),
    include_str!("../../../../examples/manifest/every-operation.toml"),
    include_str!("../../../../examples/manifest/attributes.toml"),
];
const JSON: &str = include_str!("../../../../examples/manifest/rotate.json");

fn toml(text: &str) -> Result<Manifest, ManifestError> {
    parse(text.as_bytes(), Format::Toml)
}

fn json(text: &str) -> Result<Manifest, ManifestError> {
    parse(text.as_bytes(), Format::Json)
}

fn one(text: &str) -> Change {
    let mut manifest = toml(&format!("[[operations]]\n{text}")).unwrap();
    assert_eq!(manifest.operations.len(), 1);
    manifest.operations.pop().unwrap().change
}

#[test]
fn every_operation_has_an_example() {
    let manifest = toml(TOML[1]).unwrap();
    let mut found: Vec<_> = manifest
        .operations
        .iter()
        .map(|o| o.change.name())
        .collect();
    found.sort_unstable();
    found.dedup();
    let all = [
        "append",
        "create_dir",
        "exchange",
        "hard_link",
        "key",
        "remove_dir",
        "remove_file",
        "remove_tree",
        "rename",
        "set_attributes",
        "symlink",
        "write",
        "write_in_place",
    ];
    assert_eq!(found, all);
    // What an unknown name is told.
    let error = toml("[[operations]]\nop = 'wirte'")
        .unwrap_err()
        .to_string();
    assert!(all.iter().all(|op| error.contains(op)), "{error}");
}

#[test]
fn fields_are_read_as_they_stand() {
    let written = one(
        "op = 'write'\npath = 'd/f'\ncontent_base64 = 'AP8='\ncreate_new = true\nmode = '0640'\n\
         owner = 7\ngroup = 8\nmtime = 2026-01-31T12:00:00.5+01:00\natime = -1\n\
         xattrs = { 'user.a' = 'x', 'user.b' = { bytes = '/w==' }, 'user.c' = false }",
    );
    let attributes = Attributes {
        mode: Some(0o640),
        owner: Some(7),
        group: Some(8),
        mtime: Some(UNIX_EPOCH + Duration::from_millis(1_769_857_200_500)),
        atime: Some(UNIX_EPOCH - Duration::from_secs(1)),
        xattrs: vec![
            (b"user.a".to_vec(), Some(b"x".to_vec())),
            (b"user.b".to_vec(), Some(vec![0xff])),
            (b"user.c".to_vec(), None),
        ],
    };
    let wanted = Change::Write {
        path: "d/f".into(),
        content: Content::Bytes(vec![0, 0xff]),
        create_new: true,
        attributes,
    };
    assert_eq!(written, wanted);
    let renamed = one("op = 'rename'\npath = 'a'\nto = { bytes = 'Zv8=' }");
    assert_eq!(renamed.paths()[1].as_os_str().as_encoded_bytes(), b"f\xff");
    let key = one("op = 'key'\nname = 'k'");
    assert_eq!(
        key,
        Change::Key {
            name: b"k".to_vec(),
            value: Vec::new()
        }
    );
}

#[test]
fn toml_and_json_mean_the_same() {
    let manifest = json(JSON).unwrap();
    let text = "label = 'rotate'\noperations = [\n\
        { op = 'rename', path = 'log.1', to = 'log.2' },\n\
        { op = 'rename', path = 'log', to = 'log.1' },\n\
        { op = 'write', path = 'log', content = '', create_new = true } ]";
    let other = toml(text).unwrap();
    assert_eq!(manifest.label, other.label);
    let changes = |m: Manifest| {
        m.operations
            .into_iter()
            .map(|o| o.change)
            .collect::<Vec<_>>()
    };
    let lines: Vec<_> = manifest.operations.iter().map(|o| o.line).collect();
    assert_eq!(lines, [4, 5, 6]);
    assert_eq!(changes(manifest), changes(other));
}

#[test]
fn conditions_are_read() {
    let manifest = toml(TOML[1]).unwrap();
    let expects: Vec<_> = manifest.conditions.iter().map(|c| c.expect).collect();
    assert!(matches!(
        expects[..],
        [Expect::Present, Expect::Absent, Expect::Sha256([0x43, ..])]
    ));
    assert_eq!(manifest.conditions[2].path, Path::new("counter"));
    assert_eq!(manifest.label.as_deref(), Some("every operation"));
}

#[test]
fn operations_know_their_lines() {
    for text in TOML {
        let manifest = toml(text).unwrap();
        for operation in &manifest.operations {
            let line = usize::try_from(operation.line).unwrap();
            let near: Vec<_> = text.lines().skip(line - 1).take(2).collect();
            let op = format!("op = \"{}\"", operation.change.name());
            assert!(near.contains(&op.as_str()), "{op}: {near:?}");
        }
    }
}

/// What a faulty operation is told, with its place.
#[track_caller]
fn refused(text: &str, want: &str) {
    let found = toml(text).unwrap_err().to_string();
    assert_eq!(found, want, "{text}");
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        (
            "operations = 1",
            "line 1, column 14: field \"operations\": a list is needed, not a whole number",
        ),
        ("", "line 1, column 1: field \"operations\": missing"),
        (
            "operations = []",
            "line 1, column 14: field \"operations\": at least one is needed",
        ),
        (
            "format = 2",
            "line 1, column 10: field \"format\": this version of steadfast reads format 1 only",
        ),
        (
            "operation = []\noperations = [{}]",
            "line 1, column 1: field \"operation\": unknown; known here: format, label, \
             conditions, operations",
        ),
        (
            "label = 'a'\noperations = [3]",
            "line 2, column 15: operation 1: a table is needed, not a whole number",
        ),
        (
            "operations = [\n{ op = 'remove_file', path = 'a' },\n{ op = 'remove_file' }]",
            "line 3, column 1: operation 2: field \"path\": missing",
        ),
        (
            "[[operations]]\nop = 'remove_file'\npath = 'a'\nforce = true",
            "line 4, column 1: operation 1: field \"force\": unknown; known here: op, path",
        ),
        (
            "[[operations]]\nop = 'write'\npath = 'a'\ncontent = 'x'\nmode = 416",
            "line 5, column 8: operation 1: field \"mode\": octal text, such as \"0640\", is \
             needed, not a whole number",
        ),
        (
            "[[operations]]\nop = 'write'\npath = 'a'\ncontent = 'x'\nmode = '0649'",
            "line 5, column 8: operation 1: field \"mode\": a mode is an octal number up to 7777",
        ),
        (
            "[[operations]]\nop = 'append'\npath = 'a'\ncontent = 'x'\nfrom = 'y'",
            "line 1, column 1: operation 1: exactly one of content, content_base64, from is needed",
        ),
        (
            "[[operations]]\nop = 'write'\npath = '/a'\ncontent = 'x'",
            "line 3, column 8: operation 1: field \"path\": a path is relative to the root",
        ),
        (
            "[[operations]]\nop = 'write'\npath = ''\ncontent = 'x'",
            "line 3, column 8: operation 1: field \"path\": a path is not empty",
        ),
        (
            "[[operations]]\nop = 'write'\npath = \"a\\u0000\"\ncontent = 'x'",
            "line 3, column 8: operation 1: field \"path\": a path has no NUL byte",
        ),
        (
            "[[operations]]\nop = 'write'\npath = { bytes = '*' }\ncontent = 'x'",
            "line 3, column 18: operation 1: field \"path.bytes\": not base64 (RFC 4648, with \
             padding)",
        ),
        (
            "[[operations]]\nop = 'write'\npath = { byte = '*' }\ncontent = 'x'",
            "line 3, column 10: operation 1: field \"path.byte\": unknown; known here: bytes",
        ),
        (
            "[[operations]]\nop = 'set_attributes'\npath = 'a'",
            "line 1, column 1: operation 1: at least one of mode, owner, group, mtime, atime, \
             xattrs is needed",
        ),
        (
            "[[operations]]\nop = 'set_attributes'\npath = 'a'\nowner = 4294967295",
            "line 4, column 9: operation 1: field \"owner\": an owner or group is a number from 0 \
             to 4294967294",
        ),
        (
            "[[operations]]\nop = 'set_attributes'\npath = 'a'\nmtime = 2026-01-31",
            "line 4, column 9: operation 1: field \"mtime\": a time has a date and an offset from \
             UTC: 2026-01-31T12:00:00Z",
        ),
        (
            "[[operations]]\nop = 'set_attributes'\npath = 'a'\n[operations.xattrs]\n'user.a' = 3",
            "line 5, column 12: operation 1: field \"xattrs.user.a\": text, or { bytes = \
             \"base64\" }, is needed, not a whole number",
        ),
        (
            "[[conditions]]\npath = 'a'\nexpect = 'sha256:12'\n[[operations]]\nop = \
             'remove_file'\npath = 'a'",
            "line 3, column 10: condition 1: field \"expect\": a SHA-256 hash has 64 hexadecimal \
             digits",
        ),
    ];
    for (text, want) in cases {
        refused(text, want);
    }
}

#[test]
fn errors_say_it_to_programs_too() {
    let error =
        toml("[[operations]]\nop = 'write'\npath = 'a'\ncontent = 'x'\nmode = '9'").unwrap_err();
    assert_eq!(error.section(), Section::Operation(1));
    assert_eq!((error.field(), error.kind()), (Some("mode"), "value"));
    let position = error.position().unwrap();
    assert_eq!((position.line, position.column), (5, 8));
    let kinds = [
        ("a = ", "syntax"),
        ("a = 1\na = 2", "syntax"),
        ("operations = [{}]", "missing_field"),
        ("operations = 1.5", "type"),
        ("x = 1\noperations = [{}]", "unknown_field"),
    ];
    for (text, kind) in kinds {
        assert_eq!(toml(text).unwrap_err().kind(), kind, "{text}");
    }
}

#[test]
fn json_is_as_strict() {
    let cases = [
        ("", "line 1, column 1: EOF while parsing a value"),
        ("{\n  \"a\": }", "line 2, column 8: expected value"),
        ("{} {}", "line 1, column 4: trailing characters"),
        ("[]", "line 1, column 1: a table is needed, not a list"),
        (
            "{\"format\": 1,\n\"format\": 1}",
            "line 2, column 11: field \"format\": there twice",
        ),
        (
            "{\"format\": null}",
            "line 1, column 12: field \"format\": a whole number is needed, not null",
        ),
        (
            "{\"format\": 1.5}",
            "line 1, column 12: field \"format\": a whole number is needed, not a fraction, or a \
             number of more than 64 bits",
        ),
        (
            "{\"operations\": [{\"op\": \"key\",\n  \"name\": 3}]}",
            "line 2, column 11: operation 1: field \"name\": text, or { bytes = \"base64\" }, is \
             needed, not a whole number",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(json(text).unwrap_err().to_string(), want, "{text}");
    }
}

#[test]
fn columns_are_counted_in_characters() {
    let error = toml("label = '\u{e4}\u{20ac}' x").unwrap_err();
    assert_eq!(error.position().unwrap().column, 14);
    let bytes = b"label = 'a'\n# \xc3\xa4 \xff";
    let error = parse(bytes, Format::Toml).unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 5: not UTF-8");
}

#[test]
fn limits_are_kept() {
    let long = vec![b' '; usize::try_from(MAX_LEN).unwrap() + 1];
    for format in [Format::Toml, Format::Json] {
        let error = parse(&long, format).unwrap_err();
        assert_eq!((error.kind(), error.position()), ("limit", None));
    }
    let many = format!("operations = [{}]", "{},".repeat(MAX_ENTRIES + 1));
    assert_eq!(toml(&many).unwrap_err().kind(), "limit");
    // The readers themselves must not fall over either.
    for depth in [9, 100, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let texts = [
            (format!("{{\"operations\": {open}{close}}}"), Format::Json),
            (format!("operations = {open}{close}"), Format::Toml),
            (
                format!("operations = {}1", "{a=".repeat(depth)),
                Format::Toml,
            ),
            (format!("{}x = 1", "a.".repeat(depth)), Format::Toml),
            (
                format!("{{\"a\": {}1", "{\"a\":".repeat(depth)),
                Format::Json,
            ),
        ];
        for (text, format) in texts {
            let kind = parse(text.as_bytes(), format).unwrap_err().kind();
            assert!(["limit", "syntax"].contains(&kind), "{kind} {depth}");
        }
    }
    let label = format!("label = '{}'\noperations = [{{}}]", "x".repeat(2000));
    assert_eq!(toml(&label).unwrap_err().field(), Some("label"));
}

/// Every example, cut at each byte and with each byte changed, is read or refused; and some of both, or it
/// is no test.
#[test]
fn no_text_makes_the_reader_fall_over() {
    let examples = TOML
        .map(|t| (t, Format::Toml))
        .into_iter()
        .chain([(JSON, Format::Json)]);
    let (mut read, mut refused) = (0_u32, 0_u32);
    let mut look = |text: &[u8], format| match parse(text, format) {
        Ok(_) => read += 1,
        Err(error) => {
            refused += 1;
            assert!(!error.to_string().is_empty());
        }
    };
    for (text, format) in examples {
        for at in 0..text.len() {
            look(&text.as_bytes()[..at], format);
            for with in [
                b'"', b'[', b'{', b'\\', b'=', b'\n', 0, 0x80, b'9', b'-', b'}',
            ] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = with;
                look(&bytes, format);
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} {refused}");
}

#[test]
fn paths_of_an_operation_are_all_that_it_names() {
    let manifest = toml(TOML[1]).unwrap();
    let paths: Vec<PathBuf> = manifest
        .operations
        .iter()
        .flat_map(|o| o.change.paths())
        .map(Path::to_path_buf)
        .collect();
    for name in [
        "app.conf",
        "draft",
        "a/b/c/final",
        "left",
        "right",
        "second-name",
        "logo.bin",
    ] {
        assert!(paths.contains(&name.into()), "{name}");
    }
    assert!(
        manifest
            .operations
            .last()
            .unwrap()
            .change
            .paths()
            .is_empty()
    );
}

/// The text blocks of the description that are TOML.
fn described() -> Vec<&'static str> {
    let page = include_str!("../../../../docs/manifest.md");
    let blocks = page.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_description_has_an_example_of_what_it_describes() {
    let blocks = described();
    let read = |text| toml(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let names: Vec<_> = blocks
        .iter()
        .flat_map(|text| read(text).operations)
        .map(|o| o.change.name())
        .collect();
    for op in [
        "write",
        "append",
        "write_in_place",
        "create_dir",
        "remove_tree",
        "rename",
    ] {
        assert!(names.contains(&op), "{op}");
    }
    for op in ["exchange", "symlink", "hard_link", "set_attributes", "key"] {
        assert!(names.contains(&op), "{op}");
    }
}
