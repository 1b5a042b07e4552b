//! Frames, one after the other, fed in two pieces.

#![no_main]

use bytes::BytesMut;
use grus_protocol::{FrameError, FrameLimits, frame};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = FrameLimits { frame_bytes_max: 4096, header_bytes_max: 256 };
    let whole = decode_all(&[data], &limits);
    let (first, second) = data.split_at(data.len() / 2);
    assert_eq!(whole, decode_all(&[first, second], &limits), "pieces make no difference");
});

fn decode_all(pieces: &[&[u8]], limits: &FrameLimits) -> Vec<Result<frame::Frame, FrameError>> {
    let mut out = Vec::new();
    let mut buffer = BytesMut::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let missing = frame::bytes_missing(&buffer, limits);
            match frame::decode(&mut buffer, limits) {
                Ok(None) => {
                    assert!(missing > 0);
                    break;
                }
                Ok(Some(read)) => {
                    assert_eq!(missing, 0);
                    let bytes = 24 + read.header.len() + read.body.len();
                    assert!(bytes <= limits.frame_bytes_max as usize);
                    assert!(read.header.len() <= limits.header_bytes_max as usize);
                    out.push(Ok(read));
                }
                Err(error) => {
                    let mut reply = BytesMut::new();
                    if error.put_reply(&mut reply) {
                        let answer = frame::decode(&mut reply, &FrameLimits::REPLIES);
                        // A reply to an opcode that is not known repeats its number.
                        assert!(matches!(answer, Ok(Some(_)) | Err(FrameError::Refused { .. })));
                    }
                    let ends = error.is_fatal();
                    out.push(Err(error));
                    if ends {
                        return out;
                    }
                }
            }
        }
    }
    out
}
