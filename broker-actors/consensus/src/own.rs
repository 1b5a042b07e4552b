//! Consensus's own replicated state: what its own items change, on every replica alike.

use bytes::{BufMut, Bytes};
use grus_protocol::ids::TimestampMs;

use crate::codec::{CodecError, Reader, Writer};

/// The part that holds this state in a checkpoint.
pub(crate) const OWN_KEY: &[u8] = b"\0group";
/// Item: the leader's digest of the state at the seal before this one.
pub(crate) const KIND_DIGEST: u16 = 1;
/// Item: drop the log up to a seal, on all replicas alike.
pub(crate) const KIND_TRIM: u16 = 2;
/// Item: raise the feature level.
pub(crate) const KIND_FEATURE_LEVEL: u16 = 3;
/// Most seals remembered: segments a log may keep.
const SEALS_MAX: usize = 1 << 20;

/// An applied seal: a log index at which every replica has a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealPoint {
    /// Log index of the Seal entry.
    pub index: u64,
    /// Term of the Seal entry.
    pub term: u64,
}

/// The state. Deterministic: a function of the applied entries alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnState {
    /// Greatest entry time so far.
    pub(crate) time_max: TimestampMs,
    /// Feature level in force.
    pub(crate) level: u16,
    /// Seals not yet trimmed away, oldest first; the trimmed one itself stays.
    pub(crate) seals: Vec<SealPoint>,
    /// The seal up to which the log is to be dropped.
    pub(crate) trim: Option<SealPoint>,
}

impl OwnState {
    /// The time an entry is applied at: its own, never behind an earlier one.
    pub(crate) fn entry_time(&mut self, time: TimestampMs) -> TimestampMs {
        self.time_max = self.time_max.max(time);
        self.time_max
    }

    /// Takes a trim point; what is not a seal ahead of the last trim is ignored, by all alike.
    pub(crate) fn trim_to(&mut self, point: SealPoint) {
        if !self.seals.contains(&point) || self.trim.is_some_and(|trim| trim >= point) {
            return;
        }
        self.trim = Some(point);
        self.seals.retain(|seal| *seal >= point);
    }

    /// The newest seal at or below `index`, ahead of the last trim.
    pub(crate) fn seal_at_or_below(&self, index: u64) -> Option<SealPoint> {
        let found = self.seals.iter().rev().find(|seal| seal.index <= index).copied();
        found.filter(|point| self.trim.is_none_or(|trim| *point > trim))
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::versioned();
        w.0.put_u64_le(self.time_max.0);
        w.0.put_u16_le(self.level);
        w.count(self.seals.len());
        for seal in &self.seals {
            put_point(&mut w, *seal);
        }
        w.0.put_u8(u8::from(self.trim.is_some()));
        if let Some(trim) = self.trim {
            put_point(&mut w, trim);
        }
        w.finish()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes, "group state");
        r.version()?;
        let time_max = TimestampMs(r.u64()?);
        let level = r.u16()?;
        let mut seals = Vec::new();
        for _ in 0..r.count(SEALS_MAX)? {
            seals.push(take_point(&mut r)?);
        }
        let trim = if r.bool()? { Some(take_point(&mut r)?) } else { None };
        r.end()?;
        Ok(Self { time_max, level, seals, trim })
    }
}

fn put_point(w: &mut Writer, point: SealPoint) {
    w.0.put_u64_le(point.index);
    w.0.put_u64_le(point.term);
}

fn take_point(r: &mut Reader) -> Result<SealPoint, CodecError> {
    Ok(SealPoint { index: r.u64()?, term: r.u64()? })
}

/// The item that carries the leader's digest of the state at `seal`.
pub(crate) fn digest_item(seal: SealPoint, digest: u64) -> Bytes {
    let mut w = Writer::default();
    put_point(&mut w, seal);
    w.0.put_u64_le(digest);
    w.finish()
}

/// Reads a digest item.
pub(crate) fn read_digest_item(bytes: Bytes) -> Result<(SealPoint, u64), CodecError> {
    let mut r = Reader::new(bytes, "digest item");
    let point = take_point(&mut r)?;
    let digest = r.u64()?;
    r.end()?;
    Ok((point, digest))
}

/// The item that trims the log up to `point`.
pub(crate) fn trim_item(point: SealPoint) -> Bytes {
    let mut w = Writer::default();
    put_point(&mut w, point);
    w.finish()
}

/// Reads a trim item.
pub(crate) fn read_trim_item(bytes: Bytes) -> Result<SealPoint, CodecError> {
    let mut r = Reader::new(bytes, "trim item");
    let point = take_point(&mut r)?;
    r.end()?;
    Ok(point)
}

/// The item that raises the feature level.
pub(crate) fn level_item(level: u16) -> Bytes {
    Bytes::copy_from_slice(&level.to_le_bytes())
}

/// Reads a feature level item.
pub(crate) fn read_level_item(bytes: Bytes) -> Result<u16, CodecError> {
    let mut r = Reader::new(bytes, "feature level item");
    let level = r.u16()?;
    r.end()?;
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(index: u64) -> SealPoint {
        SealPoint { index, term: 1 }
    }

    #[test]
    fn time_never_goes_back() {
        let mut own = OwnState::default();
        assert_eq!(own.entry_time(TimestampMs(5)), TimestampMs(5));
        assert_eq!(own.entry_time(TimestampMs(3)), TimestampMs(5));
    }

    #[test]
    fn a_trim_goes_to_a_seal_and_never_back() {
        let seals = vec![point(10), point(20), point(30)];
        let mut own = OwnState { seals, ..Default::default() };
        assert_eq!(own.seal_at_or_below(29), Some(point(20)));
        assert_eq!(own.seal_at_or_below(9), None);
        own.trim_to(point(15));
        assert_eq!(own.trim, None, "15 is no seal");
        own.trim_to(point(20));
        own.trim_to(point(10));
        assert_eq!((own.trim, own.seals.clone()), (Some(point(20)), vec![point(20), point(30)]));
        assert_eq!(own.seal_at_or_below(29), None, "already trimmed to 20");
    }

    #[test]
    fn the_state_comes_back_from_its_part() {
        let own = OwnState {
            time_max: TimestampMs(9),
            level: 2,
            seals: vec![point(3)],
            trim: Some(point(3)),
        };
        assert_eq!(OwnState::decode(own.encode()).unwrap(), own);
        let cut = own.encode();
        assert!(OwnState::decode(cut.slice(..cut.len() - 1)).is_err());
    }
}
