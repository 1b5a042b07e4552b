//! Errors and their details.

use crate::decoder::{Array, Bool, Nil, Number, frame, n, t};

#[test]
fn errors_and_their_details() {
    let busy = frame("error.overloaded");
    assert_eq!((busy.kind, busy.flags, busy.opcode, busy.correlation), (2, 1, 10, 97));
    assert_eq!(busy.header, [Number(22), t("no room now"), Bool(true), Number(250), Nil]);
    let limit = Array(vec![
        Number(4),
        t("message_bytes_max"),
        Number(4_194_304),
        Number(4_194_305),
        Number(2),
    ]);
    let details = [
        ("bounds", 80, Array(n(&[1, 10, 1004]))),
        ("divergence", 81, Array(n(&[2, 4, 900, 10]))),
        ("limit", 63, limit),
        ("record", 64, Array(n(&[5, 2]))),
        ("sequence", 66, Array(n(&[6, 43]))),
        ("versions", 3, Array(n(&[7, 1, 1]))),
        ("range", 82, Array(n(&[8, 20, 23]))),
    ];
    for (name, code, detail) in details {
        let error = frame(&format!("error.{name}"));
        assert_eq!((error.kind, error.flags), (2, 1));
        let expected = [Number(code), t(name), Bool(false), Number(0), detail];
        assert_eq!(error.header, expected, "{name}");
    }
}
