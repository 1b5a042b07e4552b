//! What brokers say to one another.

use crate::CORRELATION;
use crate::decoder::{frame, little, n};

#[test]
fn brokers_among_themselves() {
    let open = frame("OpenPeer.request");
    assert_eq!((open.kind, open.opcode, open.correlation), (1, 100, CORRELATION + 100));
    let (one, other) = (0x0001_2345_6789_abcd, 0x0001_dcba_9876_5432);
    assert_eq!(open.header, n(&[5, one, 6, other, 16 << 20]));
    assert_eq!(frame("OpenPeer.reply").header, n(&[other, 32 << 20]));
    let asked = frame("ShardMessage.request");
    assert_eq!((asked.opcode, asked.header), (101, n(&[3, 0x000b_0b0b_0b0b_0b0b])));
    assert_eq!(asked.body, [1, 8], "version 1, Standing");
    let answer = frame("ShardMessage.reply");
    assert_eq!(answer.header, []);
    assert_eq!(answer.body[..3], [1, 9, 0], "version 1, Standing, sound");
    assert_eq!((answer.body[3], little(&answer.body[12..20])), (1, 7), "on disk up to 7");
}
