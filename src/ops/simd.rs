//! Run-time selection of SIMD instructions: a program built for baseline x86-64 uses the instructions of the processor it
//! runs on, and still starts on processors without AVX2.
//!
//! Hot loops are wrapped in `dispatch!`, which compiles them twice. Rust neither reassociates
//! nor contracts floating-point arithmetic, so both copies give the same bits. AVX-512 is used only by the matrix product,
//! which has dedicated kernels ([`super::product`]): all other loops are memory-bound.

use std::fmt;
use std::sync::LazyLock;

/// A SIMD instruction set that the hot loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The target's baseline: SSE2 on x86-64.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F in addition to AVX2 and FMA; matrix products only.
    Avx512,
}

impl Level {
    /// The best level that this processor supports.
    pub fn detect() -> Self {
        #[cfg(test)]
        if let Some(level) = tests::FORCED.get() {
            return level;
        }
        static LEVEL: LazyLock<Level> = LazyLock::new(|| Level::supported().next_back().unwrap_or(Level::Baseline));
        *LEVEL
    }

    /// All levels that this processor supports, best last.
    pub fn supported() -> impl DoubleEndedIterator<Item = Self> {
        [Self::Baseline, Self::Avx2, Self::Avx512].into_iter().filter(|level| level.is_supported())
    }

    #[cfg(target_arch = "x86_64")]
    fn is_supported(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Self::Baseline => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx2() && is_x86_feature_detected!("avx512f"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_supported(self) -> bool {
        self == Self::Baseline
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Self::Baseline => "baseline",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}

/// Evaluates a block that is compiled with AVX2 and FMA if this processor has them. A dispatch costs about two nanoseconds:
/// put it around a row or a tile, not around a pixel. What the loops call must be `#[inline(always)]`, or a closure of a few
/// instructions: a function that is not inlined is compiled for the baseline and runs at a quarter of the speed.
macro_rules! dispatch {
    ($block:expr) => {
        $crate::ops::simd::call(
            #[inline(always)]
            || $block,
        )
    };
}
pub(crate) use dispatch;

/// [`dispatch!`] of a closure that is `#[inline(always)]`.
#[inline(always)]
pub(crate) fn call<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if Level::detect() >= Level::Avx2 {
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: the processor has both.
        return unsafe { avx2(f) };
    }
    f()
}

/// `to += from`, over the shorter of the two.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    dispatch!(to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// What [`Level::detect`] answers on this thread instead.
        pub(super) static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// Runs `f` at each level that this processor supports, as far as it stays on this thread.
    pub(crate) fn at_every_level(f: impl Fn(Level)) {
        for level in Level::supported() {
            FORCED.set(Some(level));
            f(level);
        }
        FORCED.set(None);
    }

    #[test]
    fn the_level_in_use_is_the_best_supported() {
        assert_eq!(Level::supported().next(), Some(Level::Baseline));
        assert_eq!(Level::supported().max(), Some(Level::detect()));
    }

    #[test]
    fn both_copies_of_a_loop_give_the_same_bits() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32).sin()).collect();
        #[inline(always)]
        fn smooth(x: &[f32]) -> f32 {
            x.iter().fold(0.3, |sum, x| sum * 0.75 + x / (1.0 + sum * sum).sqrt())
        }
        assert_eq!(smooth(&x).to_bits(), dispatch!(smooth(&x)).to_bits());
    }
}
