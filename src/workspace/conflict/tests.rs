//! What says what a conflict is, as bytes.

use super::*;

#[test]
fn no_flipped_bit_is_believed() {
    let ident = |ino| Ident {
        kind: Kind::File,
        ino,
        btime: Some((1, 2)),
        len: 3,
        mtime: (4, 5),
    };
    let conflict = Conflict {
        id: ConflictId {
            number: 7,
            index: 1,
        },
        path: b"d/f".to_vec(),
        label: b"label".to_vec(),
        found: Some(ident(8)),
        kept: Some((Name::new("kept").unwrap(), ident(9))),
        change: None,
    };
    let bytes = conflict.encode();
    assert_eq!(Conflict::decode(&bytes).unwrap(), conflict);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = Conflict::decode(&flipped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bit}");
    }
}
