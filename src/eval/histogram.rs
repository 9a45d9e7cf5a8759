//! Best window scores of photos with a face and of photos without (paper, Fig. 3(b)): the threshold is where they separate.

/// Minimum and maximum number of bins.
const BINS: [usize; 2] = [10, 40];

/// Number of photos whose best score falls in each bin, for photos with a face and for backgrounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Lower edge of the first bin, and bin width.
    pub low: f64,
    pub width: f64,
    /// [faces, backgrounds], photos per bin; a score on an edge belongs to the bin above it.
    pub counts: [Vec<usize>; 2],
    /// [faces, backgrounds], photos without any window.
    pub without: [usize; 2],
    /// Where the two separate best; `None` without backgrounds.
    pub parting: Option<Parting>,
}

/// The threshold with the largest difference between the shares of faces and of backgrounds that reach it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parting {
    pub threshold: f32,
    /// [faces, backgrounds], shares of the photos whose best score reaches it.
    pub shares: [f64; 2],
}

impl Parting {
    /// `None` if there are no faces or no backgrounds, or if no score is a number.
    fn new(scores: &[Vec<Option<f32>>; 2]) -> Option<Self> {
        let mut all: Vec<(f32, usize)> = Vec::new();
        for (kind, scores) in scores.iter().enumerate() {
            all.extend(scores.iter().flatten().filter(|score| !score.is_nan()).map(|score| (*score, kind)));
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut reached = [0; 2];
        let mut best: Option<Self> = None;
        // Photos with equal scores pass together.
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            same.iter().for_each(|(_, kind)| reached[*kind] += 1);
            let shares = [0, 1].map(|kind| f64::from(reached[kind]) / scores[kind].len() as f64);
            if best.is_none_or(|best| shares[0] - shares[1] > best.shares[0] - best.shares[1]) {
                best = Some(Self { threshold: same[0].0, shares });
            }
        }
        best.filter(|_| scores.iter().all(|scores| !scores.is_empty()))
    }
}

impl Histogram {
    /// Builds the histogram from the best scores of photos with a face and of backgrounds; `None` stands for a photo without a
    /// window. Returns `None` if no score is finite.
    pub fn new(scores: &[Vec<Option<f32>>; 2]) -> Option<Self> {
        let finite = |scores: &[Option<f32>]| -> Vec<f64> {
            scores.iter().flatten().filter(|s| s.is_finite()).map(|s| f64::from(*s)).collect()
        };
        let values = [finite(&scores[0]), finite(&scores[1])];
        let all = || values.iter().flatten().copied();
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        if low > high {
            return None;
        }
        // More photos allow for finer bins.
        let bins = ((1.5 * (all().count() as f64).sqrt()) as usize).clamp(BINS[0], BINS[1]);
        // Equal scores need a non-zero width as well.
        let width = ((high - low) / bins as f64).max(1e-6);
        let count = |values: &Vec<f64>| {
            let mut counts = vec![0; bins];
            for value in values {
                counts[(((value - low) / width) as usize).min(bins - 1)] += 1;
            }
            counts
        };
        let without = [0, 1].map(|kind| scores[kind].len() - values[kind].len());
        let parting = Parting::new(scores);
        Some(Self { low, width, counts: [count(&values[0]), count(&values[1])], without, parting })
    }

    /// [faces, backgrounds], photos with a window.
    pub fn totals(&self) -> [usize; 2] {
        [0, 1].map(|kind| self.counts[kind].iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_photo_is_counted_once() {
        let scores = [vec![Some(1.0), Some(2.0), None, Some(f32::NAN)], vec![Some(-1.0), Some(2.0)]];
        let found = Histogram::new(&scores).unwrap();
        assert_eq!((found.low, found.totals(), found.without), (-1.0, [2, 2], [2, 0]));
        assert_eq!((found.counts[1][0], found.counts[1].last(), found.counts[0].last()), (1, Some(&1), Some(&1)));
        let many = [(0..1000).map(|i| Some(i as f32)).collect(), vec![]];
        assert_eq!(Histogram::new(&many).unwrap().counts[0], vec![25; 40]);
    }

    #[test]
    fn scores_part_where_most_faces_and_fewest_backgrounds_are_above() {
        let scores = |values: &[f32]| values.iter().map(|v| Some(*v)).collect::<Vec<_>>();
        let found = Parting::new(&[scores(&[5.0, 4.0, 3.0, 1.0]), scores(&[3.5, 2.0, 0.0, -1.0])]).unwrap();
        assert_eq!(found, Parting { threshold: 4.0, shares: [0.5, 0.0] });
        let found = Parting::new(&[scores(&[5.0, 4.0, 3.0, 3.0]), scores(&[3.0, 2.0, f32::NAN])]).unwrap();
        assert_eq!((found.threshold, found.shares[0]), (3.0, 1.0));
        assert_eq!(Parting::new(&[scores(&[1.0]), vec![]]), None);
    }

    #[test]
    fn equal_scores_and_no_scores_are_no_trouble() {
        assert_eq!(Histogram::new(&[vec![Some(3.0); 4], vec![]]).unwrap().totals(), [4, 0]);
        assert_eq!(Histogram::new(&[vec![None], vec![Some(f32::INFINITY)]]), None);
    }
}
