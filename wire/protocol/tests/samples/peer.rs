//! Samples of what brokers say to one another.

use bytes::Bytes;
use grus_protocol::message::{OpenPeer, OpenPeerReply, ShardMessage, ShardMessageReply};
use grus_protocol::{BrokerId, ShardId};

use super::pair;

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let open = OpenPeer {
        broker: BrokerId(5),
        disk: 0x0001_2345_6789_abcd,
        to: BrokerId(6),
        to_disk: 0x0001_dcba_9876_5432,
        frame_bytes_max: 16 << 20,
    };
    let opened = OpenPeerReply { disk: 0x0001_dcba_9876_5432, frame_bytes_max: 32 << 20 };
    pair(out, &open, &opened, [b"", b""]);
    // The bodies: "who are you" (kind 8), and "sound, on disk up to 7".
    let (asked, answer) =
        ([1, 8], [&[1, 9, 0, 1][..], &[0; 8], &[7, 0, 0, 0, 0, 0, 0, 0]].concat());
    let message = ShardMessage { shard: ShardId(3), group: 0x000b_0b0b_0b0b_0b0b };
    pair(out, &message, &ShardMessageReply {}, [&asked, &answer]);
}
