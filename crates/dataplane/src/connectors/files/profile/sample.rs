//! Chooses what is read of sources that are too large to be read whole.

use std::ops::Range;

use super::super::listing::Listed;

/// How many pieces are read.
const PIECES: u64 = 16;

/// How large each piece is.
pub(super) const PIECE_BYTES: u64 = 1 << 20;

/// Returns evenly spread pieces over all files, as (file, range), in order; the first is the first file's head.
pub(super) fn pieces(files: &[Listed]) -> Vec<(usize, Range<u64>)> {
    let total: u64 = files.iter().map(|file| file.size).sum();
    let mut pieces: Vec<(usize, Range<u64>)> = Vec::new();
    for piece in 0..PIECES {
        // The last piece ends where the last file does.
        let mut at = total.saturating_sub(PIECE_BYTES) / (PIECES - 1) * piece;
        let mut index = 0;
        while index + 1 < files.len() && at >= files[index].size {
            at -= files[index].size;
            index += 1;
        }
        let start = match pieces.last() {
            Some((last, range)) if *last == index => at.max(range.end),
            _ => at,
        };
        let range = start..(at + PIECE_BYTES).min(files[index].size);
        if !range.is_empty() {
            pieces.push((index, range));
        }
    }
    pieces
}

/// Returns evenly spread files, by index: for those that can only be read from their start.
pub(super) fn heads(files: &[Listed]) -> Vec<usize> {
    let count = files.len().min(usize::try_from(PIECES).unwrap_or(usize::MAX));
    let mut heads: Vec<usize> = (0..count).map(|index| index * files.len() / count).collect();
    heads.retain(|index| files[*index].size > 0);
    heads
}

/// Returns the ranges of one file that its fingerprint rests on.
pub(super) fn ranges(size: u64, whole: bool) -> Vec<Range<u64>> {
    const DIGESTED_BYTES: u64 = 64 << 10;
    if whole {
        // In pieces, so that memory stays small.
        return (0..size).step_by(4 << 20).map(|start| start..(start + (4 << 20)).min(size)).collect();
    }
    let starts = (0..PIECES).map(|piece| size.saturating_sub(DIGESTED_BYTES) / (PIECES - 1) * piece);
    starts.map(|start| start..(start + DIGESTED_BYTES).min(size)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Listed, heads, pieces, ranges};

    fn files(sizes: &[u64]) -> Vec<Listed> {
        let file = |size: &u64| Listed { name: String::new(), path: String::new(), size: *size, version: None };
        sizes.iter().map(file).collect()
    }

    #[test]
    fn pieces_are_spread_and_do_not_overlap() {
        for sizes in [&[100 << 20][..], &[0, 50 << 20, 3, 60 << 20], &[1 << 20; 80]] {
            let files = files(sizes);
            let pieces = pieces(&files);
            assert!(pieces.len() > 10, "{sizes:?}");
            assert!(pieces.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].1.end <= pair[1].1.start));
            assert!(pieces.iter().all(|(file, range)| range.end <= files[*file].size));
        }
        assert_eq!(heads(&files(&[1, 0, 1])), [0, 2]);
        assert_eq!(ranges(10, true), vec![0..10]);
        assert!(ranges(1 << 30, false).iter().all(|range| range.end <= 1 << 30));
    }
}
