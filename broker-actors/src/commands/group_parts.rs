//! What items about groups have in common, as bytes.

use bytes::{BufMut, BytesMut};
use grus_protocol::ids::{Generation, GroupId, MemberId, Offset, QueueId, QueueKey, TopicId};

use super::groups::{ELEMENTS_MAX, Holding, ProgressKey, RUNGS_MAX, RetryTerms, Span};
use crate::codec::{CodecError, Decoder};

/// Writes them; also part of a checkpoint.
pub(crate) fn put_terms(out: &mut BytesMut, terms: &RetryTerms) {
    out.put_u32_le(terms.deliveries_max);
    out.put_u32_le(count(terms.ladder_ms.len()));
    terms.ladder_ms.iter().for_each(|rung_ms| out.put_u64_le(*rung_ms));
}

/// Reads what [`put_terms`] wrote.
pub(crate) fn terms_of(decoder: &mut Decoder) -> Result<RetryTerms, CodecError> {
    let deliveries_max = decoder.u32()?;
    let rungs = decoder.u32()?;
    if rungs > RUNGS_MAX {
        return Err(CodecError::Value("rungs of a ladder"));
    }
    Ok(RetryTerms { deliveries_max, ladder_ms: list(rungs, || decoder.u64())? })
}

pub(super) fn put_place(out: &mut BytesMut, place: ProgressKey) {
    out.put_u32_le(place.queue.queue.0);
    out.put_u64_le(place.queue.topic.0);
    out.put_u64_le(place.group.0);
    out.put_bytes(0, 4);
}

pub(super) fn place_of(decoder: &mut Decoder) -> Result<ProgressKey, CodecError> {
    let queue = QueueId(decoder.u32()?);
    let topic = TopicId(decoder.u64()?);
    let group = GroupId(decoder.u64()?);
    decoder.take(4)?;
    Ok(ProgressKey { queue: QueueKey { topic, queue }, group })
}

pub(super) fn put_holding(out: &mut BytesMut, holding: &Holding) {
    put_place(out, holding.place);
    out.put_u64_le(holding.generation.0);
    out.put_u64_le(holding.member.0);
    out.put_u32_le(holding.round);
    out.put_bytes(0, 4);
}

pub(super) fn holding_of(decoder: &mut Decoder) -> Result<Holding, CodecError> {
    let place = place_of(decoder)?;
    let generation = Generation(decoder.u64()?);
    let member = MemberId(decoder.u64()?);
    let round = decoder.u32()?;
    decoder.take(4)?;
    Ok(Holding { place, generation, member, round })
}

pub(super) fn put_spans(out: &mut BytesMut, spans: &[Span]) {
    for span in spans {
        out.put_u64_le(span.from.0);
        out.put_u64_le(span.to.0);
    }
}

pub(super) fn spans_of(decoder: &mut Decoder, spans: u32) -> Result<Vec<Span>, CodecError> {
    list(spans, || {
        let from = Offset(decoder.u64()?);
        Ok(Span { from, to: Offset(decoder.u64()?) })
    })
}

pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).expect("items are bounded")
}

pub(super) fn count_of(decoder: &mut Decoder) -> Result<u32, CodecError> {
    let count = decoder.u32()?;
    if count > ELEMENTS_MAX {
        return Err(CodecError::Value("count of an item"));
    }
    Ok(count)
}

/// Reads one after the other: a count that lies allocates nothing.
pub(super) fn list<T>(
    count: u32,
    mut next: impl FnMut() -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next()?);
    }
    Ok(all)
}
