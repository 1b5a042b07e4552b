//! The edge of a connection that this broker has made to another one ([`crate::peer`]): tasks without state of their own, started and ended by the
//! actor.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{Frame, FrameHead, ReplyError, decode, encode};
use grus_protocol::ids::{BrokerAddress, BrokerId};
use grus_protocol::limits::FrameLimits;
use grus_protocol::message::{Hello, HelloReply, OpenPeer, OpenPeerReply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::connection::output::{Output, SLICES_MAX};
use crate::dispatch::SOFTWARE;
use crate::peer::PeerIs;
use crate::peer::calls::Held;

/// Room made for the next read at least.
const READ_BYTES: usize = 8 * 1024;
/// A peer that takes no byte for so long is left.
const WRITE_STALL: Duration = Duration::from_secs(5);
/// Bytes gathered for one write, unless one frame alone has more.
const WRITE_BYTES: u64 = 1 << 20;

/// Who connects, and to whom.
pub(crate) struct Whom {
    pub(crate) own: BrokerId,
    pub(crate) own_disk: u64,
    pub(crate) frame_bytes_max: u32,
    pub(crate) peer: PeerIs,
}

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    head: Bytes,
    body: Vec<Bytes>,
    /// Its room, until it is written.
    held: Option<Held>,
}

impl Outgoing {
    /// The frame with that head, header and body.
    ///
    /// # Panics
    /// When it is longer than any frame may be: a call is far shorter.
    pub(crate) fn new(head: FrameHead, header: &impl Serialize, body: Vec<Bytes>) -> Self {
        let body_bytes = body.iter().map(Bytes::len).sum();
        let mut out = BytesMut::with_capacity(64);
        encode(head, header, body_bytes, &mut out).expect("a call fits a frame");
        Self { head: out.freeze(), body, held: None }
    }

    /// Its room, given back once it is written.
    pub(crate) fn holding(self, held: Held) -> Self {
        Self { held: Some(held), ..self }
    }
}

/// Connects, and says who this is and whom it means.
pub(crate) async fn open(whom: &Whom) -> Result<TcpStream, String> {
    let text = |error: io::Error| error.to_string();
    let BrokerAddress { id, host, port } = &whom.peer.address;
    let mut stream = TcpStream::connect((host.as_str(), *port)).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let hello = Hello::new(format!("broker-{}", whom.own), SOFTWARE);
    let agreed: HelloReply = ask(&mut stream, 1, &hello).await?;
    if agreed.broker_id != *id {
        return Err(format!("broker {} is there", agreed.broker_id));
    }
    let open = OpenPeer {
        broker: whom.own,
        disk: whom.own_disk,
        to: *id,
        to_disk: whom.peer.disk,
        frame_bytes_max: whom.frame_bytes_max,
    };
    let opened: OpenPeerReply = ask(&mut stream, 2, &open).await?;
    if opened.frame_bytes_max < whom.frame_bytes_max {
        let (takes, sends) = (opened.frame_bytes_max, whom.frame_bytes_max);
        return Err(format!("its limits.frame_bytes_max is {takes}, here it is {sends}"));
    }
    Ok(stream)
}

/// Asks one thing and waits for its answer, behind which nothing comes.
async fn ask<R: Request>(
    stream: &mut TcpStream,
    correlation: u64,
    request: &R,
) -> Result<R::Reply, String>
where
    R::Reply: DeserializeOwned,
{
    let text = |error: io::Error| error.to_string();
    let head = FrameHead::request(R::OPCODE, correlation);
    let Outgoing { head, .. } = Outgoing::new(head, request, Vec::new());
    stream.write_all(&head).await.map_err(text)?;
    let mut buffer = BytesMut::with_capacity(1_024);
    loop {
        let frame = decode(&mut buffer, &FrameLimits::REPLIES)
            .map_err(|error| format!("not a Grus broker: {error}"))?;
        if let Some(frame) = frame {
            return frame.reply().map_err(|error| refused(&error));
        }
        if stream.read_buf(&mut buffer).await.map_err(text)? == 0 {
            return Err("closed before it answered".to_owned());
        }
    }
}

fn refused(error: &ReplyError) -> String {
    match error {
        ReplyError::Refused(ErrorReply { code: ErrorCode::UnknownOpcode, .. }) => {
            "its build knows no peers".to_owned()
        }
        ReplyError::Refused(refusal) => format!("refused: {refusal}"),
        ReplyError::Header(error) => format!("not a Grus broker: {error}"),
    }
}

/// Reads frames until the connection ends, breaks, or nobody takes them; the result says why.
pub(crate) async fn read<T: Future<Output = bool>>(
    mut half: OwnedReadHalf,
    mut take: impl FnMut(Frame) -> T,
) -> String {
    let mut buffer = BytesMut::new();
    loop {
        loop {
            match decode(&mut buffer, &FrameLimits::REPLIES) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if !take(frame).await {
                        return "nobody reads".to_owned();
                    }
                }
                Err(error) if error.is_fatal() => return error.to_string(),
                Err(_of_a_later_version) => {}
            }
        }
        buffer.reserve(READ_BYTES); // as it comes: a length alone reserves nothing
        match half.read_buf(&mut buffer).await {
            Ok(0) => return "closed by the peer".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// Writes what comes, several frames at once where they wait, until the connection ends or the peer
/// takes no byte for [`WRITE_STALL`]; the result says why.
pub(crate) async fn write(
    half: OwnedWriteHalf,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> String {
    let mut output = Output::new();
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        let mut all_held = Vec::new();
        while let Some(Outgoing { head, body, held }) = next {
            all_held.extend(held);
            output.push(head);
            for slice in body {
                output.push(slice);
            }
            let has_room = output.bytes() < WRITE_BYTES;
            next = has_room.then(|| outgoing.try_recv().ok()).flatten();
        }
        if let Err(reason) = write_all(&half, &mut output).await {
            return reason;
        }
        drop(all_held);
    }
    "given up".to_owned()
}

async fn write_all(half: &OwnedWriteHalf, output: &mut Output) -> Result<(), String> {
    while !output.is_empty() {
        match tokio::time::timeout(WRITE_STALL, half.writable()).await {
            Err(_elapsed) => return Err("the peer does not read".to_owned()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(())) => {}
        }
        let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
        let count = output.slices(&mut slices);
        let written = match half.try_write_vectored(&slices[..count]) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).to_string()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.to_string()),
        };
        output.advance(written);
    }
    Ok(())
}
