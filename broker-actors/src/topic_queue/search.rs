//! Searches in a queue's batches by something that only grows along it: time, term, log index.

use grus_protocol::ids::Offset;

use super::fetch_plan::Bounds;

/// The extent of one batch in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its first offset.
    pub base: Offset,
    /// One past its last offset.
    pub end: Offset,
}

/// The first offset of the first batch for which `reached` holds, or the end of the queue.
///
/// `batch_at` finds the batch that holds an offset, or the next one after it; `reached` must hold
/// for every batch behind one for which it holds. Costs as many look-ups as a binary search.
pub fn first_reached<B>(
    bounds: Bounds,
    mut batch_at: impl FnMut(Offset) -> Option<(Extent, B)>,
    mut reached: impl FnMut(&B) -> bool,
) -> Offset {
    let (mut low, mut high) = (bounds.log_start, bounds.end_offset);
    while low < high {
        let middle = Offset(low.0 + (high.0 - low.0) / 2);
        match batch_at(middle) {
            Some((extent, _)) if extent.base >= high => high = middle,
            None => high = middle,
            Some((extent, batch)) if reached(&batch) => high = extent.base.min(middle).max(low),
            Some((extent, _)) => low = extent.end.max(Offset(middle.0 + 1)),
        }
    }
    match batch_at(low) {
        Some((extent, _)) if low < bounds.end_offset => {
            Offset(extent.base.0.clamp(bounds.log_start.0, bounds.end_offset.0).max(low.0))
        }
        _ => low.min(bounds.end_offset),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Batches of (base, count, value); offsets in between may be missing.
    fn batch_at(batches: &[(u64, u64, u64)], offset: Offset) -> Option<(Extent, u64)> {
        let (base, count, value) =
            batches.iter().copied().find(|(base, count, _)| base + count > offset.0)?;
        Some((Extent { base: Offset(base), end: Offset(base + count) }, value))
    }

    fn search(batches: &[(u64, u64, u64)], start: u64, end: u64, least: u64) -> u64 {
        let bounds = Bounds { log_start: Offset(start), end_offset: Offset(end) };
        first_reached(bounds, |offset| batch_at(batches, offset), |value| *value >= least).0
    }

    #[test]
    fn it_finds_the_batch_its_start_and_the_end() {
        let batches = [(10, 5, 100), (15, 1, 200), (16, 4, 300)];
        assert_eq!(search(&batches, 10, 20, 0), 10);
        assert_eq!(search(&batches, 10, 20, 101), 15);
        assert_eq!(search(&batches, 10, 20, 201), 16);
        assert_eq!(search(&batches, 10, 20, 301), 20);
        assert_eq!(search(&batches, 12, 20, 50), 12, "never before the visible start");
        assert_eq!(search(&[], 7, 7, 1), 7);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn it_agrees_with_a_walk(
            steps in prop::collection::vec((0_u64..3, 1_u64..6, 0_u64..4), 1..12),
            start_skip in 0_u64..4,
            least in 0_u64..40,
        ) {
            let (mut batches, mut next, mut value) = (Vec::new(), 5, 0);
            for (hole, count, growth) in steps {
                next += hole;
                value += growth;
                batches.push((next, count, value));
                next += count;
            }
            let start = batches[0].0 + start_skip.min(batches[0].1 - 1);
            let walked = batches
                .iter()
                .find(|(_, _, value)| *value >= least)
                .map_or(next, |(base, _, _)| (*base).max(start));
            prop_assert_eq!(search(&batches, start, next, least), walked);
        }
    }
}
