//! Floating-point operations that Rust does not have: other rounding modes, min and max of the ISA, narrow formats.

/// The rounding modes other than to nearest (PTX ISA, section 9.7.3: `.rz`, `.rm`, `.rp`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Toward {
    Zero,
    Minus,
    Plus,
}

/// The exact sum `high + low`, rounded to f32. `high` is the sum to the nearest f64 and `low` what that left out.
#[inline]
fn round(high: f64, low: f64, toward: Toward) -> f32 {
    let nearest = high as f32;
    if !high.is_finite() || (nearest.is_infinite() && toward_infinity(high, toward)) {
        return nearest;
    }
    let excess = f64::from(nearest) - high; // exact, except where `nearest` is infinite, which has the right sign
    let above = excess > 0.0 || (excess == 0.0 && low < 0.0);
    let below = excess < 0.0 || (excess == 0.0 && low > 0.0);
    match toward {
        Toward::Minus if above => nearest.next_down(),
        Toward::Plus if below => nearest.next_up(),
        Toward::Zero if above && (high > 0.0 || (high == 0.0 && low > 0.0)) => nearest.next_down(),
        Toward::Zero if below && (high < 0.0 || (high == 0.0 && low < 0.0)) => nearest.next_up(),
        _ => nearest,
    }
}

#[inline]
fn toward_infinity(x: f64, toward: Toward) -> bool {
    match toward {
        Toward::Zero => false,
        Toward::Minus => x < 0.0,
        Toward::Plus => x > 0.0,
    }
}

/// `a + b` and what rounding to f64 left out (Knuth's two-sum).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// `a + b` (section 9.7.3.3).
#[inline]
pub(super) fn add(a: f32, b: f32, toward: Toward) -> f32 {
    sum(f64::from(a), f64::from(b), toward)
}

/// `a * b` (section 9.7.3.5).
#[inline]
pub(super) fn mul(a: f32, b: f32, toward: Toward) -> f32 {
    round(f64::from(a) * f64::from(b), 0.0, toward) // exact in f64
}

/// `a * b + c`, rounded once (section 9.7.3.6).
#[inline]
pub(super) fn fma(a: f32, b: f32, c: f32, toward: Toward) -> f32 {
    sum(f64::from(a) * f64::from(b), f64::from(c), toward) // the product is exact: 48 bits
}

#[inline]
fn sum(a: f64, b: f64, toward: Toward) -> f32 {
    let (high, low) = two_sum(a, b);
    match (high == 0.0, toward) {
        // Opposite numbers have the sum -0 when rounding down (IEEE 754, section 6.3).
        (true, Toward::Minus) if a != 0.0 || a.is_sign_negative() || b.is_sign_negative() => -0.0,
        _ => round(high, low, toward),
    }
}

/// Section 9.7.3.11: the other operand where one is NaN, and +0 above -0.
#[inline]
pub(super) fn min(a: f32, b: f32) -> f32 {
    if a.is_nan() || b < a || (b == a && b.is_sign_negative()) { b } else { a }
}

/// Section 9.7.3.12.
#[inline]
pub(super) fn max(a: f32, b: f32) -> f32 {
    if a.is_nan() || b > a || (b == a && b.is_sign_positive()) { b } else { a }
}

/// As [`min`], in f64.
#[inline]
pub(super) fn min64(a: f64, b: f64) -> f64 {
    if a.is_nan() || b < a || (b == a && b.is_sign_negative()) { b } else { a }
}

/// As [`max`], in f64.
#[inline]
pub(super) fn max64(a: f64, b: f64) -> f64 {
    if a.is_nan() || b > a || (b == a && b.is_sign_positive()) { b } else { a }
}

/// `.ftz`: subnormal numbers become zeros of their sign.
#[inline]
pub(super) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Section 9.7.3.14, `rcp.approx.ftz.f64`: of the upper 32 bits, as upper 32 bits; the lower ones are zero.
#[inline]
pub(super) fn gross_reciprocal(x: f64) -> f64 {
    let upper = |x: f64| f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000);
    let x = upper(x);
    let x = if x.is_subnormal() { 0.0f64.copysign(x) } else { x };
    let y = upper(1.0 / x);
    if y.is_subnormal() { 0.0f64.copysign(y) } else { y }
}

/// Exact. Without a branch, so that a loop over lanes becomes vector code.
#[inline]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The exponent is 112 too small; a product with 2^112 sets that right, for subnormal numbers as well.
    let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | u32::from(bits & 0x8000) << 16)
}

#[inline]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn directed_rounding_brackets_the_exact_result() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits((state >> 32) as u32 & 0xbfff_ffff | 0x2000_0000)
        };
        for _ in 0..200_000 {
            let (a, b, c) = (draw(), draw(), draw());
            let results = [Toward::Minus, Toward::Plus].map(|toward| fma(a, b, c, toward));
            let [down, up] = results;
            let nearest = a.mul_add(b, c);
            if nearest.is_finite() {
                assert!(down <= nearest && nearest <= up, "{a:e} * {b:e} + {c:e}");
                assert!(down == up || down.next_up() == up, "{a:e} * {b:e} + {c:e}: {down:e} {up:e}");
                let zero = fma(a, b, c, Toward::Zero);
                assert_eq!(zero, if nearest > 0.0 { down } else { up });
            }
        }
    }

    #[test]
    fn edges() {
        assert_eq!(add(1.0, f32::from_bits(1), Toward::Zero), 1.0);
        assert_eq!(add(1.0, f32::from_bits(1), Toward::Plus), 1.0 + f32::EPSILON);
        assert_eq!(add(f32::MAX, f32::MAX, Toward::Zero), f32::MAX);
        assert_eq!(add(f32::MAX, f32::MAX, Toward::Plus), f32::INFINITY);
        assert_eq!(add(1.0, -1.0, Toward::Minus).to_bits(), (-0.0f32).to_bits());
        assert_eq!(add(1.0, -1.0, Toward::Zero).to_bits(), 0);
        assert_eq!(mul(f32::MIN_POSITIVE, 0.5, Toward::Zero), f32::MIN_POSITIVE / 2.0);
        assert_eq!(min(f32::NAN, 1.0), 1.0);
        assert_eq!(min(1.0, f32::NAN), 1.0);
        assert_eq!(min(0.0, -0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(max(-0.0, 0.0).to_bits(), 0);
        assert_eq!(max64(f64::NAN, -1.0), -1.0);
        assert_eq!(flush(-f32::from_bits(5)).to_bits(), (-0.0f32).to_bits());
        assert_eq!(gross_reciprocal(4.0), 0.25);
    }
}
