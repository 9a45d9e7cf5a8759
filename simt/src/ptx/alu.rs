//! The arithmetic of the ISA as one table: opcodes, operand types, and what a lane computes. From it come the decoder, the
//! executing code, and the list that tests hold against the kernels.
//!
//! A row is `Name Class ["opcode", ...] (operands) -> result { body }`. Types of 32 bits and fewer are in the file of 32-bit
//! registers, 64-bit types in the other; `bool` is a predicate. Section numbers are those of the PTX ISA 9.0.

use super::count::Class;
use super::float::{self, Toward};
use super::warp::{Reg, WARP, Warp};
use std::cmp::Ordering::{Equal, Greater, Less};

/// Where values of a type live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum File {
    Predicate,
    /// Registers of up to 32 bits.
    Word,
    /// 64-bit registers.
    Double,
}

/// A type of operands.
pub(super) trait Lane: Copy {
    const FILE: File;
    const ZERO: Self;
    fn load(warp: &mut Warp, register: Reg) -> [Self; WARP];
    fn store(warp: &mut Warp, register: Reg, mask: u32, values: &[Self; WARP]);
}

macro_rules! lanes {
    ($($type:ty: $file:ident, $load:ident, $store:ident, $from:expr, $to:expr;)+) => { $(
        impl Lane for $type {
            const FILE: File = File::$file;
            const ZERO: Self = 0 as $type;
            #[inline(always)]
            fn load(warp: &mut Warp, register: Reg) -> [Self; WARP] {
                warp.$load(register).map($from)
            }
            #[inline(always)]
            fn store(warp: &mut Warp, register: Reg, mask: u32, values: &[Self; WARP]) {
                warp.$store(register, mask, &values.map($to));
            }
        }
    )+ };
}

lanes! {
    u32: Word, word, set_word, |x| x, |x| x;
    i32: Word, word, set_word, |x| x as i32, |x| x as u32;
    f32: Word, word, set_word, f32::from_bits, f32::to_bits;
    u16: Word, word, set_word, |x| x as u16, u32::from;
    i16: Word, word, set_word, |x| x as i16, |x| u32::from(x as u16);
    u8: Word, word, set_word, |x| x as u8, u32::from;
    i8: Word, word, set_word, |x| x as i8, |x| x as u32;
    u64: Double, double, set_double, |x| x, |x| x;
    i64: Double, double, set_double, |x| x as i64, |x| x as u64;
    f64: Double, double, set_double, f64::from_bits, f64::to_bits;
}

impl Lane for bool {
    const FILE: File = File::Predicate;
    const ZERO: Self = false;
    #[inline(always)]
    fn load(warp: &mut Warp, register: Reg) -> [Self; WARP] {
        let bits = warp.predicate(register);
        std::array::from_fn(|lane| bits >> lane & 1 != 0)
    }
    #[inline(always)]
    fn store(warp: &mut Warp, register: Reg, mask: u32, values: &[Self; WARP]) {
        let bits = values.iter().rev().fold(0, |bits, value| bits << 1 | u32::from(*value));
        warp.set_predicate(register, mask, bits);
    }
}

/// A row of the table: how an instruction is written.
pub(super) struct Form {
    pub alu: Alu,
    pub class: Class,
    pub opcodes: &'static [&'static str],
    pub operands: &'static [File],
    pub result: File,
}

macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident $class:ident [$($opcode:literal),+] ($($arg:ident: $type:ty),+) -> $result:ty $body:block)+) => {
        /// An arithmetic instruction.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Alu { $($(#[$doc])* $name),+ }

        /// The table.
        pub(super) const FORMS: &[Form] = &[$(Form {
            alu: Alu::$name,
            class: Class::$class,
            opcodes: &[$($opcode),+],
            operands: &[$(<$type as Lane>::FILE),+],
            result: <$result as Lane>::FILE,
        }),+];

        impl Warp {
            /// Computes an arithmetic instruction in the lanes of `mask`.
            #[inline(always)]
            pub(super) fn compute(&mut self, alu: Alu, to: Reg, from: [Reg; 4], mask: u32) {
                match alu {
                    $(Alu::$name => {
                        let mut index = 0;
                        $(
                            let $arg = <$type as Lane>::load(self, from[index]);
                            index += 1;
                        )+
                        let _ = index;
                        let mut out = [<$result as Lane>::ZERO; WARP];
                        for (lane, out) in out.iter_mut().enumerate() {
                            $(let $arg = $arg[lane];)+
                            *out = $body;
                        }
                        <$result as Lane>::store(self, to, mask, &out);
                    })+
                }
            }
        }
    };
}

instructions! {
    // 9.7.1 Integer arithmetic.
    Add32 Integer ["add.s32", "add.u32"] (a: u32, b: u32) -> u32 { a.wrapping_add(b) }
    Sub32 Integer ["sub.s32", "sub.u32"] (a: u32, b: u32) -> u32 { a.wrapping_sub(b) }
    Add64 Integer ["add.s64", "add.u64"] (a: u64, b: u64) -> u64 { a.wrapping_add(b) }
    Sub64 Integer ["sub.s64", "sub.u64"] (a: u64, b: u64) -> u64 { a.wrapping_sub(b) }
    Add16 Integer ["add.s16", "add.u16"] (a: u16, b: u16) -> u16 { a.wrapping_add(b) }
    Sub16 Integer ["sub.s16", "sub.u16"] (a: u16, b: u16) -> u16 { a.wrapping_sub(b) }
    MulLow16 Integer ["mul.lo.s16", "mul.lo.u16"] (a: u16, b: u16) -> u16 { a.wrapping_mul(b) }
    MulLow32 Integer ["mul.lo.s32", "mul.lo.u32"] (a: u32, b: u32) -> u32 { a.wrapping_mul(b) }
    MulLow64 Integer ["mul.lo.s64", "mul.lo.u64"] (a: u64, b: u64) -> u64 { a.wrapping_mul(b) }
    MulHighU32 Integer ["mul.hi.u32"] (a: u32, b: u32) -> u32 { ((u64::from(a) * u64::from(b)) >> 32) as u32 }
    MulHighS32 Integer ["mul.hi.s32"] (a: i32, b: i32) -> i32 { ((i64::from(a) * i64::from(b)) >> 32) as i32 }
    MulHighU64 Integer ["mul.hi.u64"] (a: u64, b: u64) -> u64 { ((u128::from(a) * u128::from(b)) >> 64) as u64 }
    MulHighS64 Integer ["mul.hi.s64"] (a: i64, b: i64) -> i64 { ((i128::from(a) * i128::from(b)) >> 64) as i64 }
    MulWideU16 Integer ["mul.wide.u16"] (a: u16, b: u16) -> u32 { u32::from(a) * u32::from(b) }
    MulWideS16 Integer ["mul.wide.s16"] (a: i16, b: i16) -> i32 { i32::from(a) * i32::from(b) }
    MulWideU32 Integer ["mul.wide.u32"] (a: u32, b: u32) -> u64 { u64::from(a) * u64::from(b) }
    MulWideS32 Integer ["mul.wide.s32"] (a: i32, b: i32) -> i64 { i64::from(a) * i64::from(b) }
    MadLow16 Integer ["mad.lo.s16", "mad.lo.u16"] (a: u16, b: u16, c: u16) -> u16 { a.wrapping_mul(b).wrapping_add(c) }
    MadLow32 Integer ["mad.lo.s32", "mad.lo.u32"] (a: u32, b: u32, c: u32) -> u32 { a.wrapping_mul(b).wrapping_add(c) }
    MadLow64 Integer ["mad.lo.s64", "mad.lo.u64"] (a: u64, b: u64, c: u64) -> u64 { a.wrapping_mul(b).wrapping_add(c) }
    MadWideU32 Integer ["mad.wide.u32"] (a: u32, b: u32, c: u64) -> u64 { (u64::from(a) * u64::from(b)).wrapping_add(c) }
    MadWideS32 Integer ["mad.wide.s32"] (a: i32, b: i32, c: i64) -> i64 { (i64::from(a) * i64::from(b)).wrapping_add(c) }
    // Division by zero is reported before these are computed, in lanes that are active.
    DivS16 Division ["div.s16"] (a: i16, b: i16) -> i16 { if b == 0 { -1 } else { a.wrapping_div(b) } }
    DivU16 Division ["div.u16"] (a: u16, b: u16) -> u16 { a.checked_div(b).unwrap_or(u16::MAX) }
    DivS32 Division ["div.s32"] (a: i32, b: i32) -> i32 { if b == 0 { -1 } else { a.wrapping_div(b) } }
    DivU32 Division ["div.u32"] (a: u32, b: u32) -> u32 { a.checked_div(b).unwrap_or(u32::MAX) }
    DivS64 Division ["div.s64"] (a: i64, b: i64) -> i64 { if b == 0 { -1 } else { a.wrapping_div(b) } }
    DivU64 Division ["div.u64"] (a: u64, b: u64) -> u64 { a.checked_div(b).unwrap_or(u64::MAX) }
    RemS16 Division ["rem.s16"] (a: i16, b: i16) -> i16 { if b == 0 { a } else { a.wrapping_rem(b) } }
    RemU16 Division ["rem.u16"] (a: u16, b: u16) -> u16 { a.checked_rem(b).unwrap_or(a) }
    RemS32 Division ["rem.s32"] (a: i32, b: i32) -> i32 { if b == 0 { a } else { a.wrapping_rem(b) } }
    RemU32 Division ["rem.u32"] (a: u32, b: u32) -> u32 { a.checked_rem(b).unwrap_or(a) }
    RemS64 Division ["rem.s64"] (a: i64, b: i64) -> i64 { if b == 0 { a } else { a.wrapping_rem(b) } }
    RemU64 Division ["rem.u64"] (a: u64, b: u64) -> u64 { a.checked_rem(b).unwrap_or(a) }
    AbsS32 Integer ["abs.s32"] (a: i32) -> i32 { a.wrapping_abs() }
    AbsS64 Integer ["abs.s64"] (a: i64) -> i64 { a.wrapping_abs() }
    Neg16 Integer ["neg.s16"] (a: i16) -> i16 { a.wrapping_neg() }
    Neg32 Integer ["neg.s32"] (a: i32) -> i32 { a.wrapping_neg() }
    Neg64 Integer ["neg.s64"] (a: i64) -> i64 { a.wrapping_neg() }
    MinU16 Integer ["min.u16"] (a: u16, b: u16) -> u16 { a.min(b) }
    MinS16 Integer ["min.s16"] (a: i16, b: i16) -> i16 { a.min(b) }
    MinU32 Integer ["min.u32"] (a: u32, b: u32) -> u32 { a.min(b) }
    MinS32 Integer ["min.s32"] (a: i32, b: i32) -> i32 { a.min(b) }
    MinU64 Integer ["min.u64"] (a: u64, b: u64) -> u64 { a.min(b) }
    MinS64 Integer ["min.s64"] (a: i64, b: i64) -> i64 { a.min(b) }
    MaxU16 Integer ["max.u16"] (a: u16, b: u16) -> u16 { a.max(b) }
    MaxS16 Integer ["max.s16"] (a: i16, b: i16) -> i16 { a.max(b) }
    MaxU32 Integer ["max.u32"] (a: u32, b: u32) -> u32 { a.max(b) }
    MaxS32 Integer ["max.s32"] (a: i32, b: i32) -> i32 { a.max(b) }
    MaxU64 Integer ["max.u64"] (a: u64, b: u64) -> u64 { a.max(b) }
    MaxS64 Integer ["max.s64"] (a: i64, b: i64) -> i64 { a.max(b) }
    // 9.7.1.15 to 9.7.1.21: bits. Shifts and fields clamp at the width.
    Popc32 Integer ["popc.b32"] (a: u32) -> u32 { a.count_ones() }
    Popc64 Integer ["popc.b64"] (a: u64) -> u32 { a.count_ones() }
    Clz32 Integer ["clz.b32"] (a: u32) -> u32 { a.leading_zeros() }
    Clz64 Integer ["clz.b64"] (a: u64) -> u32 { a.leading_zeros() }
    Brev32 Integer ["brev.b32"] (a: u32) -> u32 { a.reverse_bits() }
    Brev64 Integer ["brev.b64"] (a: u64) -> u64 { a.reverse_bits() }
    BfindU32 Integer ["bfind.u32"] (a: u32) -> u32 { 31u32.wrapping_sub(a.leading_zeros()) }
    BfeU32 Integer ["bfe.u32"] (a: u32, at: u32, len: u32) -> u32 {
        let (at, len) = (at & 255, len & 255);
        let high = if at > 31 { 0 } else { a >> at };
        if len > 31 { high } else { high & ((1 << len) - 1) }
    }
    BfeS32 Integer ["bfe.s32"] (a: i32, at: u32, len: u32) -> i32 {
        let (at, len) = ((at & 255).min(32), (len & 255).min(32));
        let wide = i64::from(a) >> at; // a copy of the sign beyond the width
        if len == 0 { 0 } else { (wide << (64 - len) >> (64 - len)) as i32 }
    }
    Bfi32 Integer ["bfi.b32"] (a: u32, b: u32, at: u32, len: u32) -> u32 {
        let (at, len) = ((at & 255).min(32), (len & 255).min(32));
        let field = (((1u64 << len) - 1) << at) as u32;
        (b & !field) | ((u64::from(a) << at) as u32 & field)
    }
    // 9.7.8 Logic and shifts.
    And16 Integer ["and.b16"] (a: u16, b: u16) -> u16 { a & b }
    Or16 Integer ["or.b16"] (a: u16, b: u16) -> u16 { a | b }
    Xor16 Integer ["xor.b16"] (a: u16, b: u16) -> u16 { a ^ b }
    Not16 Integer ["not.b16"] (a: u16) -> u16 { !a }
    And32 Integer ["and.b32"] (a: u32, b: u32) -> u32 { a & b }
    Or32 Integer ["or.b32"] (a: u32, b: u32) -> u32 { a | b }
    Xor32 Integer ["xor.b32"] (a: u32, b: u32) -> u32 { a ^ b }
    Not32 Integer ["not.b32"] (a: u32) -> u32 { !a }
    And64 Integer ["and.b64"] (a: u64, b: u64) -> u64 { a & b }
    Or64 Integer ["or.b64"] (a: u64, b: u64) -> u64 { a | b }
    Xor64 Integer ["xor.b64"] (a: u64, b: u64) -> u64 { a ^ b }
    Not64 Integer ["not.b64"] (a: u64) -> u64 { !a }
    Lop3 Integer ["lop3.b32"] (a: u32, b: u32, c: u32, table: u32) -> u32 {
        (0..8).filter(|row| table >> row & 1 != 0).fold(0, |sum, row| {
            let pick = |x: u32, bit: u32| if row >> bit & 1 != 0 { x } else { !x };
            sum | (pick(a, 2) & pick(b, 1) & pick(c, 0))
        })
    }
    Shl16 Integer ["shl.b16"] (a: u16, n: u32) -> u16 { a.checked_shl(n).unwrap_or(0) }
    Shl32 Integer ["shl.b32"] (a: u32, n: u32) -> u32 { if n > 31 { 0 } else { a << n } }
    Shl64 Integer ["shl.b64"] (a: u64, n: u32) -> u64 { if n > 63 { 0 } else { a << n } }
    ShrU16 Integer ["shr.u16", "shr.b16"] (a: u16, n: u32) -> u16 { a.checked_shr(n).unwrap_or(0) }
    ShrS16 Integer ["shr.s16"] (a: i16, n: u32) -> i16 { a >> n.min(15) }
    ShrU32 Integer ["shr.u32", "shr.b32"] (a: u32, n: u32) -> u32 { if n > 31 { 0 } else { a >> n } }
    ShrS32 Integer ["shr.s32"] (a: i32, n: u32) -> i32 { a >> n.min(31) }
    ShrU64 Integer ["shr.u64", "shr.b64"] (a: u64, n: u32) -> u64 { if n > 63 { 0 } else { a >> n } }
    ShrS64 Integer ["shr.s64"] (a: i64, n: u32) -> i64 { a >> n.min(63) }
    FunnelLeft Integer ["shf.l.wrap.b32"] (a: u32, b: u32, n: u32) -> u32 {
        ((u64::from(b) << 32 | u64::from(a)) << (n & 31) >> 32) as u32
    }
    FunnelRight Integer ["shf.r.wrap.b32"] (a: u32, b: u32, n: u32) -> u32 {
        ((u64::from(b) << 32 | u64::from(a)) >> (n & 31)) as u32
    }
    FunnelLeftClamp Integer ["shf.l.clamp.b32"] (a: u32, b: u32, n: u32) -> u32 {
        ((u64::from(b) << 32 | u64::from(a)) << n.min(32) >> 32) as u32
    }
    FunnelRightClamp Integer ["shf.r.clamp.b32"] (a: u32, b: u32, n: u32) -> u32 {
        ((u64::from(b) << 32 | u64::from(a)) >> n.min(32)) as u32
    }
    // 9.7.9.7: four bytes chosen from eight; the top bit of a selector copies the sign.
    Prmt Integer ["prmt.b32"] (a: u32, b: u32, select: u32) -> u32 {
        let bytes = u64::from(b) << 32 | u64::from(a);
        (0..4).fold(0, |out, index| {
            let nibble = select >> (4 * index) & 15;
            let byte = (bytes >> (8 * (nibble & 7))) as u8;
            let byte = if nibble > 7 { ((byte as i8) >> 7) as u8 } else { byte };
            out | u32::from(byte) << (8 * index)
        })
    }

    // 9.7.3 Floating point, single and double.
    AddF32 Float ["add.f32", "add.rn.f32"] (a: f32, b: f32) -> f32 { a + b }
    AddRzF32 Float ["add.rz.f32"] (a: f32, b: f32) -> f32 { float::add(a, b, Toward::Zero) }
    AddRmF32 Float ["add.rm.f32"] (a: f32, b: f32) -> f32 { float::add(a, b, Toward::Minus) }
    AddRpF32 Float ["add.rp.f32"] (a: f32, b: f32) -> f32 { float::add(a, b, Toward::Plus) }
    SubF32 Float ["sub.f32", "sub.rn.f32"] (a: f32, b: f32) -> f32 { a - b }
    MulF32 Float ["mul.f32", "mul.rn.f32"] (a: f32, b: f32) -> f32 { a * b }
    MulRzF32 Float ["mul.rz.f32"] (a: f32, b: f32) -> f32 { float::mul(a, b, Toward::Zero) }
    MulRmF32 Float ["mul.rm.f32"] (a: f32, b: f32) -> f32 { float::mul(a, b, Toward::Minus) }
    MulRpF32 Float ["mul.rp.f32"] (a: f32, b: f32) -> f32 { float::mul(a, b, Toward::Plus) }
    FmaF32 Float ["fma.rn.f32"] (a: f32, b: f32, c: f32) -> f32 { a.mul_add(b, c) }
    FmaRzF32 Float ["fma.rz.f32"] (a: f32, b: f32, c: f32) -> f32 { float::fma(a, b, c, Toward::Zero) }
    FmaRmF32 Float ["fma.rm.f32"] (a: f32, b: f32, c: f32) -> f32 { float::fma(a, b, c, Toward::Minus) }
    FmaRpF32 Float ["fma.rp.f32"] (a: f32, b: f32, c: f32) -> f32 { float::fma(a, b, c, Toward::Plus) }
    MinF32 Float ["min.f32"] (a: f32, b: f32) -> f32 { float::min(a, b) }
    MaxF32 Float ["max.f32"] (a: f32, b: f32) -> f32 { float::max(a, b) }
    // NaN where one is: the canonical one.
    MaxNanF32 Float ["max.NaN.f32"] (a: f32, b: f32) -> f32 {
        if a.is_nan() || b.is_nan() { f32::from_bits(0x7fff_ffff) } else { float::max(a, b) }
    }
    AbsF32 Float ["abs.f32"] (a: f32) -> f32 { a.abs() }
    NegF32 Float ["neg.f32"] (a: f32) -> f32 { -a }
    CopysignF32 Float ["copysign.f32"] (a: f32, b: f32) -> f32 { b.copysign(a) }
    DivF32 Special ["div.rn.f32"] (a: f32, b: f32) -> f32 { a / b }
    RcpF32 Special ["rcp.rn.f32"] (a: f32) -> f32 { 1.0 / a }
    SqrtF32 Special ["sqrt.rn.f32"] (a: f32) -> f32 { a.sqrt() }
    AddF64 Double ["add.f64", "add.rn.f64"] (a: f64, b: f64) -> f64 { a + b }
    SubF64 Double ["sub.f64", "sub.rn.f64"] (a: f64, b: f64) -> f64 { a - b }
    MulF64 Double ["mul.f64", "mul.rn.f64"] (a: f64, b: f64) -> f64 { a * b }
    FmaF64 Double ["fma.rn.f64"] (a: f64, b: f64, c: f64) -> f64 { a.mul_add(b, c) }
    MinF64 Double ["min.f64"] (a: f64, b: f64) -> f64 { float::min64(a, b) }
    MaxF64 Double ["max.f64"] (a: f64, b: f64) -> f64 { float::max64(a, b) }
    AbsF64 Double ["abs.f64"] (a: f64) -> f64 { a.abs() }
    NegF64 Double ["neg.f64"] (a: f64) -> f64 { -a }
    DivF64 Double ["div.rn.f64"] (a: f64, b: f64) -> f64 { a / b }
    RcpF64 Double ["rcp.rn.f64"] (a: f64) -> f64 { 1.0 / a }
    SqrtF64 Double ["sqrt.rn.f64"] (a: f64) -> f64 { a.sqrt() }
    GrossRcpF64 Special ["rcp.approx.ftz.f64"] (a: f64) -> f64 { float::gross_reciprocal(a) }
    // Approximations, here to the nearest float; a seed moves them within the documented error (`is_approximate`).
    DivApprox Special ["div.approx.f32", "div.full.f32"] (a: f32, b: f32) -> f32 { a / b }
    DivApproxFtz Special ["div.approx.ftz.f32", "div.full.ftz.f32"] (a: f32, b: f32) -> f32 {
        float::flush(float::flush(a) / float::flush(b))
    }
    RcpApprox Special ["rcp.approx.f32"] (a: f32) -> f32 { 1.0 / a }
    RcpApproxFtz Special ["rcp.approx.ftz.f32"] (a: f32) -> f32 { float::flush(1.0 / float::flush(a)) }
    SqrtApprox Special ["sqrt.approx.f32"] (a: f32) -> f32 { a.sqrt() }
    SqrtApproxFtz Special ["sqrt.approx.ftz.f32"] (a: f32) -> f32 { float::flush(a).sqrt() }
    RsqrtApprox Special ["rsqrt.approx.f32"] (a: f32) -> f32 { (1.0 / f64::from(a).sqrt()) as f32 }
    RsqrtApproxFtz Special ["rsqrt.approx.ftz.f32"] (a: f32) -> f32 { (1.0 / f64::from(float::flush(a)).sqrt()) as f32 }
    Exp2Approx Special ["ex2.approx.f32"] (a: f32) -> f32 { f64::from(a).exp2() as f32 }
    Exp2ApproxFtz Special ["ex2.approx.ftz.f32"] (a: f32) -> f32 { float::flush(f64::from(float::flush(a)).exp2() as f32) }
    Log2Approx Special ["lg2.approx.f32"] (a: f32) -> f32 { f64::from(a).log2() as f32 }
    Log2ApproxFtz Special ["lg2.approx.ftz.f32"] (a: f32) -> f32 { float::flush(f64::from(float::flush(a)).log2() as f32) }
    SinApprox Special ["sin.approx.f32"] (a: f32) -> f32 { f64::from(a).sin() as f32 }
    CosApprox Special ["cos.approx.f32"] (a: f32) -> f32 { f64::from(a).cos() as f32 }
    TanhApprox Special ["tanh.approx.f32"] (a: f32) -> f32 { f64::from(a).tanh() as f32 }

    // 9.7.6 Comparisons. Those of floats are false with NaN; with `u` (unordered) they are true.
    EqS32 Predicate ["setp.eq.s32", "setp.eq.u32", "setp.eq.b32"] (a: u32, b: u32) -> bool { a == b }
    NeS32 Predicate ["setp.ne.s32", "setp.ne.u32", "setp.ne.b32"] (a: u32, b: u32) -> bool { a != b }
    LtS32 Predicate ["setp.lt.s32"] (a: i32, b: i32) -> bool { a < b }
    LeS32 Predicate ["setp.le.s32"] (a: i32, b: i32) -> bool { a <= b }
    GtS32 Predicate ["setp.gt.s32"] (a: i32, b: i32) -> bool { a > b }
    GeS32 Predicate ["setp.ge.s32"] (a: i32, b: i32) -> bool { a >= b }
    LtU32 Predicate ["setp.lt.u32", "setp.lo.u32"] (a: u32, b: u32) -> bool { a < b }
    LeU32 Predicate ["setp.le.u32", "setp.ls.u32"] (a: u32, b: u32) -> bool { a <= b }
    GtU32 Predicate ["setp.gt.u32", "setp.hi.u32"] (a: u32, b: u32) -> bool { a > b }
    GeU32 Predicate ["setp.ge.u32", "setp.hs.u32"] (a: u32, b: u32) -> bool { a >= b }
    EqS64 Predicate ["setp.eq.s64", "setp.eq.u64", "setp.eq.b64"] (a: u64, b: u64) -> bool { a == b }
    NeS64 Predicate ["setp.ne.s64", "setp.ne.u64", "setp.ne.b64"] (a: u64, b: u64) -> bool { a != b }
    LtS64 Predicate ["setp.lt.s64"] (a: i64, b: i64) -> bool { a < b }
    LeS64 Predicate ["setp.le.s64"] (a: i64, b: i64) -> bool { a <= b }
    GtS64 Predicate ["setp.gt.s64"] (a: i64, b: i64) -> bool { a > b }
    GeS64 Predicate ["setp.ge.s64"] (a: i64, b: i64) -> bool { a >= b }
    LtU64 Predicate ["setp.lt.u64", "setp.lo.u64"] (a: u64, b: u64) -> bool { a < b }
    LeU64 Predicate ["setp.le.u64", "setp.ls.u64"] (a: u64, b: u64) -> bool { a <= b }
    GtU64 Predicate ["setp.gt.u64", "setp.hi.u64"] (a: u64, b: u64) -> bool { a > b }
    GeU64 Predicate ["setp.ge.u64", "setp.hs.u64"] (a: u64, b: u64) -> bool { a >= b }
    EqS16 Predicate ["setp.eq.s16", "setp.eq.u16", "setp.eq.b16"] (a: u16, b: u16) -> bool { a == b }
    NeS16 Predicate ["setp.ne.s16", "setp.ne.u16", "setp.ne.b16"] (a: u16, b: u16) -> bool { a != b }
    LtS16 Predicate ["setp.lt.s16"] (a: i16, b: i16) -> bool { a < b }
    LeS16 Predicate ["setp.le.s16"] (a: i16, b: i16) -> bool { a <= b }
    GtS16 Predicate ["setp.gt.s16"] (a: i16, b: i16) -> bool { a > b }
    GeS16 Predicate ["setp.ge.s16"] (a: i16, b: i16) -> bool { a >= b }
    LtU16 Predicate ["setp.lt.u16"] (a: u16, b: u16) -> bool { a < b }
    LeU16 Predicate ["setp.le.u16"] (a: u16, b: u16) -> bool { a <= b }
    GtU16 Predicate ["setp.gt.u16"] (a: u16, b: u16) -> bool { a > b }
    GeU16 Predicate ["setp.ge.u16"] (a: u16, b: u16) -> bool { a >= b }
    EqF32 Predicate ["setp.eq.f32"] (a: f32, b: f32) -> bool { a == b }
    NeF32 Predicate ["setp.ne.f32"] (a: f32, b: f32) -> bool { a != b && !a.is_nan() && !b.is_nan() }
    LtF32 Predicate ["setp.lt.f32"] (a: f32, b: f32) -> bool { a < b }
    LeF32 Predicate ["setp.le.f32"] (a: f32, b: f32) -> bool { a <= b }
    GtF32 Predicate ["setp.gt.f32"] (a: f32, b: f32) -> bool { a > b }
    GeF32 Predicate ["setp.ge.f32"] (a: f32, b: f32) -> bool { a >= b }
    EquF32 Predicate ["setp.equ.f32"] (a: f32, b: f32) -> bool { a == b || a.is_nan() || b.is_nan() }
    NeuF32 Predicate ["setp.neu.f32"] (a: f32, b: f32) -> bool { a != b }
    LtuF32 Predicate ["setp.ltu.f32"] (a: f32, b: f32) -> bool { !matches!(a.partial_cmp(&b), Some(Greater | Equal)) }
    LeuF32 Predicate ["setp.leu.f32"] (a: f32, b: f32) -> bool { !matches!(a.partial_cmp(&b), Some(Greater)) }
    GtuF32 Predicate ["setp.gtu.f32"] (a: f32, b: f32) -> bool { !matches!(a.partial_cmp(&b), Some(Less | Equal)) }
    GeuF32 Predicate ["setp.geu.f32"] (a: f32, b: f32) -> bool { !matches!(a.partial_cmp(&b), Some(Less)) }
    NumF32 Predicate ["setp.num.f32"] (a: f32, b: f32) -> bool { !a.is_nan() && !b.is_nan() }
    NanF32 Predicate ["setp.nan.f32"] (a: f32, b: f32) -> bool { a.is_nan() || b.is_nan() }
    EqF64 Predicate ["setp.eq.f64"] (a: f64, b: f64) -> bool { a == b }
    NeF64 Predicate ["setp.ne.f64"] (a: f64, b: f64) -> bool { a != b && !a.is_nan() && !b.is_nan() }
    LtF64 Predicate ["setp.lt.f64"] (a: f64, b: f64) -> bool { a < b }
    LeF64 Predicate ["setp.le.f64"] (a: f64, b: f64) -> bool { a <= b }
    GtF64 Predicate ["setp.gt.f64"] (a: f64, b: f64) -> bool { a > b }
    GeF64 Predicate ["setp.ge.f64"] (a: f64, b: f64) -> bool { a >= b }
    EquF64 Predicate ["setp.equ.f64"] (a: f64, b: f64) -> bool { a == b || a.is_nan() || b.is_nan() }
    NeuF64 Predicate ["setp.neu.f64"] (a: f64, b: f64) -> bool { a != b }
    LtuF64 Predicate ["setp.ltu.f64"] (a: f64, b: f64) -> bool { !matches!(a.partial_cmp(&b), Some(Greater | Equal)) }
    LeuF64 Predicate ["setp.leu.f64"] (a: f64, b: f64) -> bool { !matches!(a.partial_cmp(&b), Some(Greater)) }
    GtuF64 Predicate ["setp.gtu.f64"] (a: f64, b: f64) -> bool { !matches!(a.partial_cmp(&b), Some(Less | Equal)) }
    GeuF64 Predicate ["setp.geu.f64"] (a: f64, b: f64) -> bool { !matches!(a.partial_cmp(&b), Some(Less)) }
    NumF64 Predicate ["setp.num.f64"] (a: f64, b: f64) -> bool { !a.is_nan() && !b.is_nan() }
    NanF64 Predicate ["setp.nan.f64"] (a: f64, b: f64) -> bool { a.is_nan() || b.is_nan() }
    // Selections (9.7.7.1), and logic on predicates.
    Select16 Predicate ["selp.b16", "selp.u16", "selp.s16"] (a: u16, b: u16, p: bool) -> u16 { if p { a } else { b } }
    Select32 Predicate ["selp.b32", "selp.u32", "selp.s32", "selp.f32"] (a: u32, b: u32, p: bool) -> u32 { if p { a } else { b } }
    Select64 Predicate ["selp.b64", "selp.u64", "selp.s64", "selp.f64"] (a: u64, b: u64, p: bool) -> u64 { if p { a } else { b } }

    // 9.7.9 Moves. Loads of addresses of variables are moves of numbers.
    Move16 Move ["mov.b16", "mov.u16", "mov.s16"] (a: u16) -> u16 { a }
    Move32 Move ["mov.b32", "mov.u32", "mov.s32", "mov.f32"] (a: u32) -> u32 { a }
    Move64 Move ["mov.b64", "mov.u64", "mov.s64", "mov.f64"] (a: u64) -> u64 { a }

    // 9.7.9.21 Conversions: integers, by truncation or extension.
    CvtU16U8 Convert ["cvt.u16.u8", "cvt.s16.u8"] (a: u8) -> u16 { u16::from(a) }
    CvtS16S8 Convert ["cvt.s16.s8"] (a: i8) -> i16 { i16::from(a) }
    CvtU32U8 Convert ["cvt.u32.u8", "cvt.s32.u8"] (a: u8) -> u32 { u32::from(a) }
    CvtS32S8 Convert ["cvt.s32.s8"] (a: i8) -> i32 { i32::from(a) }
    CvtU32U16 Convert ["cvt.u32.u16", "cvt.s32.u16"] (a: u16) -> u32 { u32::from(a) }
    CvtS32S16 Convert ["cvt.s32.s16"] (a: i16) -> i32 { i32::from(a) }
    CvtU16U32 Convert ["cvt.u16.u32", "cvt.s16.s32", "cvt.s16.u32", "cvt.u16.s32"] (a: u32) -> u16 { a as u16 }
    CvtU8U32 Convert ["cvt.u8.u32"] (a: u32) -> u8 { a as u8 }
    CvtU64U16 Convert ["cvt.u64.u16", "cvt.s64.u16"] (a: u16) -> u64 { u64::from(a) }
    CvtS64S16 Convert ["cvt.s64.s16"] (a: i16) -> i64 { i64::from(a) }
    CvtU64U32 Convert ["cvt.u64.u32", "cvt.s64.u32"] (a: u32) -> u64 { u64::from(a) }
    CvtS64S32 Convert ["cvt.s64.s32", "cvt.u64.s32"] (a: i32) -> i64 { i64::from(a) }
    // An operand may be wider than the type (9.4.1); then its lower part counts.
    CvtS64Low Convert ["cvt.s64.s32 of 64 bits"] (a: u64) -> i64 { i64::from(a as i32) }
    CvtU64Low Convert ["cvt.u64.u32 of 64 bits"] (a: u64) -> u64 { u64::from(a as u32) }
    CvtU32U64 Convert ["cvt.u32.u64", "cvt.s32.s64", "cvt.s32.u64", "cvt.u32.s64"] (a: u64) -> u32 { a as u32 }
    CvtU16U64 Convert ["cvt.u16.u64", "cvt.s16.s64"] (a: u64) -> u16 { a as u16 }
    // To floats, to the nearest.
    CvtF32U8 Convert ["cvt.rn.f32.u8"] (a: u8) -> f32 { f32::from(a) }
    CvtF32U16 Convert ["cvt.rn.f32.u16"] (a: u16) -> f32 { f32::from(a) }
    CvtF32S16 Convert ["cvt.rn.f32.s16"] (a: i16) -> f32 { f32::from(a) }
    CvtF32U32 Convert ["cvt.rn.f32.u32"] (a: u32) -> f32 { a as f32 }
    CvtF32S32 Convert ["cvt.rn.f32.s32"] (a: i32) -> f32 { a as f32 }
    CvtF32U64 Convert ["cvt.rn.f32.u64"] (a: u64) -> f32 { a as f32 }
    CvtF32S64 Convert ["cvt.rn.f32.s64"] (a: i64) -> f32 { a as f32 }
    CvtF64U32 Convert ["cvt.rn.f64.u32"] (a: u32) -> f64 { f64::from(a) }
    CvtF64S32 Convert ["cvt.rn.f64.s32"] (a: i32) -> f64 { f64::from(a) }
    CvtF64U64 Convert ["cvt.rn.f64.u64"] (a: u64) -> f64 { a as f64 }
    CvtF64S64 Convert ["cvt.rn.f64.s64"] (a: i64) -> f64 { a as f64 }
    // To integers: clamped to the type, NaN becomes 0 (9.7.9.21, "Notes").
    CvtS32F32Rzi Convert ["cvt.rzi.s32.f32"] (a: f32) -> i32 { a as i32 }
    CvtS32F32Rni Convert ["cvt.rni.s32.f32"] (a: f32) -> i32 { a.round_ties_even() as i32 }
    CvtS32F32Rmi Convert ["cvt.rmi.s32.f32"] (a: f32) -> i32 { a.floor() as i32 }
    CvtS32F32Rpi Convert ["cvt.rpi.s32.f32"] (a: f32) -> i32 { a.ceil() as i32 }
    CvtU32F32Rzi Convert ["cvt.rzi.u32.f32"] (a: f32) -> u32 { a as u32 }
    CvtU32F32Rni Convert ["cvt.rni.u32.f32"] (a: f32) -> u32 { a.round_ties_even() as u32 }
    CvtU32F32Rmi Convert ["cvt.rmi.u32.f32"] (a: f32) -> u32 { a.floor() as u32 }
    CvtS64F32Rzi Convert ["cvt.rzi.s64.f32"] (a: f32) -> i64 { a as i64 }
    CvtU64F32Rzi Convert ["cvt.rzi.u64.f32"] (a: f32) -> u64 { a as u64 }
    CvtS32F64Rzi Convert ["cvt.rzi.s32.f64"] (a: f64) -> i32 { a as i32 }
    CvtS32F64Rni Convert ["cvt.rni.s32.f64"] (a: f64) -> i32 { a.round_ties_even() as i32 }
    CvtU32F64Rzi Convert ["cvt.rzi.u32.f64"] (a: f64) -> u32 { a as u32 }
    CvtS64F64Rzi Convert ["cvt.rzi.s64.f64"] (a: f64) -> i64 { a as i64 }
    CvtU64F64Rzi Convert ["cvt.rzi.u64.f64"] (a: f64) -> u64 { a as u64 }
    // Floats: to whole numbers, and between formats.
    CvtF32Rzi Convert ["cvt.rzi.f32.f32"] (a: f32) -> f32 { a.trunc() }
    CvtF32Rni Convert ["cvt.rni.f32.f32"] (a: f32) -> f32 { a.round_ties_even() }
    CvtF32Rmi Convert ["cvt.rmi.f32.f32"] (a: f32) -> f32 { a.floor() }
    CvtF32Rpi Convert ["cvt.rpi.f32.f32"] (a: f32) -> f32 { a.ceil() }
    CvtF64Rzi Convert ["cvt.rzi.f64.f64"] (a: f64) -> f64 { a.trunc() }
    CvtF64Rni Convert ["cvt.rni.f64.f64"] (a: f64) -> f64 { a.round_ties_even() }
    CvtF64Rmi Convert ["cvt.rmi.f64.f64"] (a: f64) -> f64 { a.floor() }
    CvtF64Rpi Convert ["cvt.rpi.f64.f64"] (a: f64) -> f64 { a.ceil() }
    CvtSatF32 Convert ["cvt.sat.f32.f32"] (a: f32) -> f32 { if a > 0.0 { a.min(1.0) } else { 0.0 } }
    CvtF64F32 Convert ["cvt.f64.f32"] (a: f32) -> f64 { f64::from(a) }
    CvtF32F64 Convert ["cvt.rn.f32.f64"] (a: f64) -> f32 { a as f32 }
    CvtF16F32 Convert ["cvt.rn.f16.f32"] (a: f32) -> u16 { half::f16::from_f32(a).to_bits() }
    CvtF32F16 Convert ["cvt.f32.f16"] (a: u16) -> f32 { float::f16_to_f32(a) }
    CvtBf16F32 Convert ["cvt.rn.bf16.f32"] (a: f32) -> u16 { half::bf16::from_f32(a).to_bits() }
    CvtF32Bf16 Convert ["cvt.f32.bf16"] (a: u16) -> f32 { float::bf16_to_f32(a) }
    // The second operand goes to the lower half.
    CvtF16x2 Convert ["cvt.rn.f16x2.f32"] (a: f32, b: f32) -> u32 {
        u32::from(half::f16::from_f32(a).to_bits()) << 16 | u32::from(half::f16::from_f32(b).to_bits())
    }
    CvtBf16x2 Convert ["cvt.rn.bf16x2.f32"] (a: f32, b: f32) -> u32 {
        u32::from(half::bf16::from_f32(a).to_bits()) << 16 | u32::from(half::bf16::from_f32(b).to_bits())
    }
    // To the 10 bits of tf32; `rna`: halves away from zero.
    CvtTf32Rna Convert ["cvt.rna.tf32.f32"] (a: u32) -> u32 { if a >> 23 & 255 == 255 { a } else { a.wrapping_add(0x1000) & 0xffff_e000 } }
    CvtTf32Rn Convert ["cvt.rn.tf32.f32"] (a: u32) -> u32 {
        if a >> 23 & 255 == 255 { a } else { a.wrapping_add(0xfff + (a >> 13 & 1)) & 0xffff_e000 }
    }
}

/// Whether a seed may move the result by one unit of the last place: less than the documented error of every approximation
/// (9.7.3.8 to 9.7.3.22).
pub(super) fn is_approximate(opcode: &str) -> bool {
    opcode.ends_with("f32") && (opcode.contains(".approx") || opcode.contains(".full"))
}
