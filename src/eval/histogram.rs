//! Scores of the best window of photos with a face and of photos without (paper, Fig. 3(b)): where they part lies the threshold.

/// Bins of a histogram, at least and at most.
const BINS: [usize; 2] = [10, 40];

/// How many photos have a best score in each bin, for photos with a face and for backgrounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Where the first bin begins, and the width of each.
    pub low: f64,
    pub width: f64,
    /// [faces, backgrounds], photos per bin; a score on an edge belongs to the bin above it.
    pub counts: [Vec<usize>; 2],
    /// [faces, backgrounds], photos without any window.
    pub without: [usize; 2],
}

impl Histogram {
    /// Of the best scores of photos with a face and of backgrounds; `None` stands for a photo without a window. `None` if no
    /// score is finite.
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
        // More photos carry finer bins.
        let bins = ((1.5 * (all().count() as f64).sqrt()) as usize).clamp(BINS[0], BINS[1]);
        // Equal scores need a width, too.
        let width = ((high - low) / bins as f64).max(1e-6);
        let count = |values: &Vec<f64>| {
            let mut counts = vec![0; bins];
            for value in values {
                counts[(((value - low) / width) as usize).min(bins - 1)] += 1;
            }
            counts
        };
        let without = [0, 1].map(|kind| scores[kind].len() - values[kind].len());
        Some(Self { low, width, counts: [count(&values[0]), count(&values[1])], without })
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
    fn equal_scores_and_no_scores_are_no_trouble() {
        assert_eq!(Histogram::new(&[vec![Some(3.0); 4], vec![]]).unwrap().totals(), [4, 0]);
        assert_eq!(Histogram::new(&[vec![None], vec![Some(f32::INFINITY)]]), None);
    }
}
