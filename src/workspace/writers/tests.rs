//! Logs are taken, reused, passed over and named.

use super::*;

#[test]
fn private_names_tell_their_owner() {
    let name = fresh_name(0xab).unwrap();
    assert!(name.as_bytes().starts_with(b"000000ab-"));
    assert_eq!(owner_of(&name), Some(0xab));
    assert_ne!(name, fresh_name(0xab).unwrap());
    for other in [
        "000000ab-",
        "000000AB-0123456789abcdef",
        "000000ab-0123456789abcdef0",
        "x",
    ] {
        assert_eq!(owner_of(&Name::new(other).unwrap()), None, "{other}");
    }
}
