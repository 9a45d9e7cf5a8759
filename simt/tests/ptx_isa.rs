//! Every arithmetic instruction of the PTX engine against values worked out from the definitions of the ISA: one row or more
//! per opcode, the edges included, and no opcode without a row. The rows are one kernel that stores its results.

use simt::{Buffer, Launch, Ptx, args};
use std::collections::HashSet;
use std::fmt::Write as _;

/// An opcode, its operands as text, and the bits of the result.
struct Row(&'static str, String, u64);

fn row(opcode: &'static str, operands: impl Into<String>, result: u64) -> Row {
    Row(opcode, operands.into(), result)
}

/// A float as an operand.
fn f(x: f32) -> String {
    format!("0f{:08X}", x.to_bits())
}

fn d(x: f64) -> String {
    format!("0d{:016X}", x.to_bits())
}

fn ff(a: f32, b: f32) -> String {
    format!("{}, {}", f(a), f(b))
}

fn dd(a: f64, b: f64) -> String {
    format!("{}, {}", d(a), d(b))
}

fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

/// Two's complement in 64 bits; results are compared in the width of their type.
fn s(x: i64) -> u64 {
    x as u64
}

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;
const TINY: f32 = f32::from_bits(1);

fn integers() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kinds, low, high) in [
        (["s16", "u16"], 0x8000u64, 0x7fffu64),
        (["s32", "u32"], 0x8000_0000, 0x7fff_ffff),
        (["s64", "u64"], 1 << 63, (1 << 63) - 1),
    ] {
        for kind in kinds {
            let name = |operation: &str| -> &'static str { format!("{operation}.{kind}").leak() };
            rows.push(row(name("add"), format!("{high}, 1"), low)); // wraps
            rows.push(row(name("sub"), "3, 5", s(-2)));
            rows.push(row(name("mul.lo"), format!("{high}, 2"), s(-2)));
            rows.push(row(name("mad.lo"), format!("{high}, 2, 7"), 5));
            let signed = kind.starts_with('s');
            rows.push(row(name("div"), "-7, 2", if signed { s(-3) } else { high - 3 })); // toward zero
            rows.push(row(name("rem"), "-7, 2", if signed { s(-1) } else { 1 })); // the sign of the dividend
            rows.push(row(name("min"), "-1, 1", if signed { s(-1) } else { 1 }));
            rows.push(row(name("max"), "-1, 1", if signed { 1 } else { s(-1) }));
            for (comparison, of_signed) in [("lt", 1), ("le", 1), ("gt", 0), ("ge", 0)] {
                let holds = if signed { of_signed } else { 1 - of_signed };
                rows.push(row(name(&format!("setp.{comparison}")), "-1, 1", holds));
                let of_equal = u64::from(comparison.ends_with('e'));
                rows.push(row(name(&format!("setp.{comparison}")), "5, 5", of_equal));
            }
        }
        let width = kinds[0].trim_start_matches('s');
        for kind in [format!("s{width}"), format!("u{width}"), format!("b{width}")] {
            for (operation, equal) in [("eq", 1), ("ne", 0)] {
                rows.push(row(format!("setp.{operation}.{kind}").leak(), "-1, -1", equal));
                rows.push(row(format!("setp.{operation}.{kind}").leak(), "-1, 1", 1 - equal));
            }
            rows.push(row(format!("selp.{kind}").leak(), "3, 4, 1", 3));
            rows.push(row(format!("selp.{kind}").leak(), "3, 4, 0", 4));
            rows.push(row(format!("mov.{kind}").leak(), "-9", s(-9)));
        }
        let name = |operation: &str| -> &'static str { format!("{operation}.b{width}").leak() };
        rows.push(row(name("and"), "12, 10", 8));
        rows.push(row(name("or"), "12, 10", 14));
        rows.push(row(name("xor"), "12, 10", 6));
        rows.push(row(name("not"), "0", s(-1)));
        rows.push(row(name("shl"), "3, 2", 12));
        rows.push(row(name("shl"), "3, 64", 0)); // clamped, not masked
        for kind in ["u", "b"] {
            let name: &'static str = format!("shr.{kind}{width}").leak();
            rows.push(row(name, format!("{low}, 1"), low >> 1));
            rows.push(row(name, format!("{low}, 100"), 0));
        }
        rows.push(row(format!("shr.s{width}").leak(), format!("{low}, 100"), s(-1)));
        rows.push(row(format!("shr.s{width}").leak(), "-8, 1", s(-4)));
        rows.push(row(format!("neg.s{width}").leak(), format!("{low}"), low)); // the lowest number stays
        rows.push(row(format!("neg.s{width}").leak(), "5", s(-5)));
    }
    for width in [32, 64] {
        let low = 1u64 << (width - 1);
        rows.push(row(format!("abs.s{width}").leak(), "-5", 5));
        rows.push(row(format!("abs.s{width}").leak(), format!("{low}"), low));
        for (operation, of) in [("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")] {
            let name: &'static str = format!("setp.{operation}.u{width}").leak();
            rows.push(row(name, "-1, 1", u64::from(of.starts_with('g'))));
            rows.push(row(name, "5, 5", u64::from(of.ends_with('e'))));
        }
        rows.push(row(format!("popc.b{width}").leak(), "-1", width));
        rows.push(row(format!("popc.b{width}").leak(), "0", 0));
        rows.push(row(format!("clz.b{width}").leak(), "0", width));
        rows.push(row(format!("clz.b{width}").leak(), "1", width - 1));
        rows.push(row(format!("brev.b{width}").leak(), "1", low));
    }
    rows.extend([
        row("mul.hi.u32", "-1, -1", 0xffff_fffe),
        row("mul.hi.s32", "-1, -1", 0),
        row("mul.hi.s32", "0x80000000, 2", s(-1)),
        row("mul.hi.u64", "-1, -1", s(-2)),
        row("mul.hi.s64", "-1, 3", s(-1)),
        row("mul.wide.u16", "0xffff, 0xffff", 0xfffe_0001),
        row("mul.wide.s16", "0xffff, 5", s(-5)),
        row("mul.wide.u32", "-1, -1", 0xffff_fffe_0000_0001),
        row("mul.wide.s32", "-1, 7", s(-7)),
        row("mad.wide.u32", "-1, 2, 1", 0x1_ffff_ffff),
        row("mad.wide.s32", "-3, 5, 1", s(-14)),
        // The lowest number over -1 overflows: the result is the number itself, without a trap.
        row("div.s32", "0x80000000, -1", 0x8000_0000),
        row("rem.s32", "0x80000000, -1", 0),
        row("bfind.u32", "0", 0xffff_ffff),
        row("bfind.u32", "0x00010000", 16),
        row("bfe.u32", "0xabcd1234, 8, 8", 0x12),
        row("bfe.u32", "0xabcd1234, 28, 8", 0xa), // beyond the top: zeros
        row("bfe.u32", "-1, 3, 0", 0),
        row("bfe.s32", "0x0000f000, 12, 4", s(-1)),
        row("bfe.s32", "0x80000000, 30, 8", s(-2)), // beyond the top: the sign
        row("bfe.s32", "-1, 5, 0", 0),
        row("bfi.b32", "0xff, 0, 8, 4", 0xf00),
        row("bfi.b32", "0xff, 0x12345678, 32, 8", 0x1234_5678),
        row("bfi.b32", "0, -1, 0, 32", 0),
        row("lop3.b32", "0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa, 0x80", 0x8080_8080), // and
        row("lop3.b32", "0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa, 0x96", 0x9696_9696), // xor
        row("shf.l.wrap.b32", "0x80000001, 0x2, 33", 0x5),
        row("shf.r.wrap.b32", "0x80000001, 0x3, 33", 0xc000_0000),
        row("shf.l.clamp.b32", "0x80000001, 0x2, 33", 0x8000_0001),
        row("shf.r.clamp.b32", "0x80000001, 0x3, 33", 0x3),
        row("prmt.b32", "0x33221100, 0x77665544, 0x7410", 0x7744_1100),
        row("prmt.b32", "0x00000080, 0, 0x0008", 0x8080_80ff), // copies the sign
        row("cvt.u16.u8", "0x1ff", 0xff),
        row("cvt.s16.u8", "0x1ff", 0xff),
        row("cvt.s16.s8", "0x80", s(-128)),
        row("cvt.u32.u8", "0x1ff", 0xff),
        row("cvt.s32.u8", "0x1ff", 0xff),
        row("cvt.s32.s8", "0x80", s(-128)),
        row("cvt.u32.u16", "0xffff", 0xffff),
        row("cvt.s32.u16", "0xffff", 0xffff),
        row("cvt.s32.s16", "0xffff", s(-1)),
        row("cvt.u16.u32", "0x12345678", 0x5678),
        row("cvt.s16.s32", "0x12345678", 0x5678),
        row("cvt.s16.u32", "0x12345678", 0x5678),
        row("cvt.u16.s32", "0x12345678", 0x5678),
        row("cvt.u8.u32", "0x12345678", 0x78),
        row("cvt.u64.u16", "0xffff", 0xffff),
        row("cvt.s64.u16", "0xffff", 0xffff),
        row("cvt.s64.s16", "0xffff", s(-1)),
        row("cvt.u64.u32", "-1", 0xffff_ffff),
        row("cvt.s64.u32", "-1", 0xffff_ffff),
        row("cvt.s64.s32", "-1", s(-1)),
        row("cvt.u64.s32", "-1", s(-1)),
        row("cvt.u32.u64", "0x123456789", 0x2345_6789),
        row("cvt.s32.s64", "0x123456789", 0x2345_6789),
        row("cvt.s32.u64", "0x123456789", 0x2345_6789),
        row("cvt.u32.s64", "0x123456789", 0x2345_6789),
        row("cvt.u16.u64", "0x123456789", 0x6789),
        row("cvt.s16.s64", "0x123456789", 0x6789),
    ]);
    rows
}

fn floats() -> Vec<Row> {
    let third = 1.0f32 / 3.0;
    let up = f32::EPSILON; // of 1
    let mut rows = vec![
        row("add.f32", ff(1.0, up / 2.0), bits(1.0)), // half goes to even
        row("add.rn.f32", ff(1.0 + up, up / 2.0), bits(1.0 + 2.0 * up)),
        row("add.f32", ff(TINY, TINY), 2), // subnormal numbers are numbers
        row("add.rz.f32", ff(1.0, up * 0.75), bits(1.0)),
        row("add.rm.f32", ff(-1.0, -TINY), bits(-1.0 - up)),
        row("add.rp.f32", ff(1.0, TINY), bits(1.0 + up)),
        row("sub.f32", ff(1.0, 1.0), 0),
        row("sub.rn.f32", ff(-0.0, 0.0), bits(-0.0)),
        row("mul.f32", ff(3.0, -0.0), bits(-0.0)),
        row("mul.rn.f32", ff(1e30, 1e30), bits(INF)),
        row("mul.rz.f32", ff(1e30, 1e30), bits(f32::MAX)),
        row("mul.rm.f32", ff(third, 3.0), bits(1.0f32)), // 1 + 2^-25 exactly
        row("mul.rp.f32", ff(third, 3.0), bits(1.0 + up)),
        // (1 + e)(1 - e) - 1 = -e^2 exactly: rounded once.
        row("fma.rn.f32", format!("{}, {}, {}", f(1.0 + up), f(1.0 - up), f(-1.0)), bits(-up * up)),
        row("fma.rz.f32", format!("{}, {}, {}", f(1.0), f(1.0), f(-TINY)), bits(1.0 - up / 2.0)),
        row("fma.rm.f32", format!("{}, {}, {}", f(1.0), f(1.0), f(TINY)), bits(1.0)),
        row("fma.rp.f32", format!("{}, {}, {}", f(1.0), f(1.0), f(TINY)), bits(1.0 + up)),
        row("min.f32", ff(NAN, 2.0), bits(2.0)),
        row("min.f32", ff(0.0, -0.0), bits(-0.0)),
        row("max.NaN.f32", ff(2.0, NAN), 0x7fff_ffff),
        row("max.NaN.f32", ff(-NAN, 2.0), 0x7fff_ffff),
        row("max.NaN.f32", ff(-0.0, 0.0), bits(0.0)),
        row("max.NaN.f32", ff(f32::NEG_INFINITY, -3.0), bits(-3.0)),
        row("max.f32", ff(2.0, NAN), bits(2.0)),
        row("max.f32", ff(-0.0, 0.0), bits(0.0)),
        row("abs.f32", f(-2.5), bits(2.5)),
        row("neg.f32", f(0.0), bits(-0.0)),
        row("copysign.f32", ff(-1.0, 3.0), bits(-3.0)), // the sign of the first, the rest of the second
        row("div.rn.f32", ff(1.0, 3.0), bits(third)),
        row("div.rn.f32", ff(1.0, -0.0), bits(-INF)),
        row("rcp.rn.f32", f(-INF), bits(-0.0)),
        row("sqrt.rn.f32", f(2.0), bits(std::f32::consts::SQRT_2)),
        row("sqrt.rn.f32", f(-0.0), bits(-0.0)),
        row("div.approx.f32", ff(6.0, 3.0), bits(2.0)),
        row("div.full.f32", ff(6.0, 3.0), bits(2.0)),
        row("div.approx.ftz.f32", ff(TINY, 1.0), 0),
        row("div.full.ftz.f32", ff(-TINY, 1.0), bits(-0.0)),
        row("rcp.approx.f32", f(4.0), bits(0.25)),
        row("rcp.approx.ftz.f32", f(TINY), bits(INF)),
        row("sqrt.approx.f32", f(9.0), bits(3.0)),
        row("sqrt.approx.ftz.f32", f(TINY), 0),
        row("rsqrt.approx.f32", f(4.0), bits(0.5)),
        row("rsqrt.approx.ftz.f32", f(0.0), bits(INF)),
        row("ex2.approx.f32", f(-INF), 0),
        row("ex2.approx.f32", f(-149.0), 1),
        row("ex2.approx.ftz.f32", f(-149.0), 0),
        row("ex2.approx.ftz.f32", f(3.0), bits(8.0)),
        row("lg2.approx.f32", f(TINY), bits(-149.0)),
        row("lg2.approx.ftz.f32", f(TINY), bits(-INF)),
        row("sin.approx.f32", f(-0.0), bits(-0.0)),
        row("cos.approx.f32", f(0.0), bits(1.0)),
        row("tanh.approx.f32", f(-INF), bits(-1.0)),
        row("selp.f32", format!("{}, {}, 0", f(1.0), f(2.0)), bits(2.0)),
        row("mov.f32", f(7.0), bits(7.0)),
    ];
    let wide = |a: f64| a.to_bits();
    rows.extend([
        row("add.f64", dd(0.1, 0.2), wide(0.1 + 0.2)),
        row("add.rn.f64", dd(1.0, 1e-30), wide(1.0)),
        row("sub.f64", dd(1.0, 3.0), wide(-2.0)),
        row("sub.rn.f64", dd(1.0, 1.0), 0),
        row("mul.f64", dd(-0.0, 2.0), wide(-0.0)),
        row("mul.rn.f64", dd(3.0, 5.0), wide(15.0)),
        row(
            "fma.rn.f64",
            format!("{}, {}, {}", d(1.0 + f64::EPSILON), d(1.0 - f64::EPSILON), d(-1.0)),
            wide(-f64::EPSILON.powi(2)),
        ),
        row("min.f64", dd(f64::NAN, 2.0), wide(2.0)),
        row("max.f64", dd(-0.0, 0.0), 0),
        row("abs.f64", d(-2.5), wide(2.5)),
        row("neg.f64", d(2.5), wide(-2.5)),
        row("div.rn.f64", dd(1.0, 3.0), wide(1.0 / 3.0)),
        row("rcp.rn.f64", d(8.0), wide(0.125)),
        row("sqrt.rn.f64", d(2.0), wide(std::f64::consts::SQRT_2)),
        row("rcp.approx.ftz.f64", d(f64::from_bits(1)), wide(f64::INFINITY)),
        row("rcp.approx.ftz.f64", d(3.0), wide(1.0 / 3.0) & 0xffff_ffff_0000_0000),
        row("selp.f64", format!("{}, {}, 1", d(1.0), d(2.0)), wide(1.0)),
        row("mov.f64", d(7.0), wide(7.0)),
    ]);
    // Comparisons of 1 with 2, 2 with 2, and NaN with 2.
    for (name, results) in [
        ("eq", [0, 1, 0]),
        ("ne", [1, 0, 0]),
        ("lt", [1, 0, 0]),
        ("le", [1, 1, 0]),
        ("gt", [0, 0, 0]),
        ("ge", [0, 1, 0]),
        ("equ", [0, 1, 1]),
        ("neu", [1, 0, 1]),
        ("ltu", [1, 0, 1]),
        ("leu", [1, 1, 1]),
        ("gtu", [0, 0, 1]),
        ("geu", [0, 1, 1]),
        ("num", [1, 1, 0]),
        ("nan", [0, 0, 1]),
    ] {
        for (a, result) in [1.0f32, 2.0, NAN].into_iter().zip(results) {
            rows.push(row(format!("setp.{name}.f32").leak(), ff(a, 2.0), result));
            rows.push(row(format!("setp.{name}.f64").leak(), dd(a.into(), 2.0), result));
        }
    }
    rows
}

fn conversions() -> Vec<Row> {
    let mut rows = vec![
        row("cvt.rn.f32.u8", "0x1ff", bits(255.0)),
        row("cvt.rn.f32.u16", "0xffff", bits(65535.0)),
        row("cvt.rn.f32.s16", "0xffff", bits(-1.0)),
        row("cvt.rn.f32.u32", "-1", bits(4_294_967_296.0)),
        row("cvt.rn.f32.s32", "16777217", bits(16_777_216.0)), // half goes to even
        row("cvt.rn.f32.u64", "-1", bits(18_446_744_073_709_551_616.0)),
        row("cvt.rn.f32.s64", "-1", bits(-1.0)),
        row("cvt.rn.f64.u32", "-1", 4_294_967_295.0f64.to_bits()),
        row("cvt.rn.f64.s32", "-1", (-1.0f64).to_bits()),
        row("cvt.rn.f64.u64", "-1", 18_446_744_073_709_551_616.0f64.to_bits()),
        row("cvt.rn.f64.s64", "-1", (-1.0f64).to_bits()),
        row("cvt.rzi.s32.f32", f(-2.7), s(-2)),
        row("cvt.rzi.s32.f32", f(3e9), 0x7fff_ffff), // clamped
        row("cvt.rzi.s32.f32", f(NAN), 0),
        row("cvt.rni.s32.f32", f(2.5), 2),
        row("cvt.rmi.s32.f32", f(-2.1), s(-3)),
        row("cvt.rpi.s32.f32", f(2.1), 3),
        row("cvt.rzi.u32.f32", f(-1.0), 0),
        row("cvt.rzi.u32.f32", f(5e9), 0xffff_ffff),
        row("cvt.rni.u32.f32", f(3.5), 4),
        row("cvt.rmi.u32.f32", f(3.9), 3),
        row("cvt.rzi.s64.f32", f(-3.9), s(-3)),
        row("cvt.rzi.u64.f32", f(3.9), 3),
        row("cvt.rzi.s32.f64", d(-1e10), 0x8000_0000),
        row("cvt.rni.s32.f64", d(-2.5), s(-2)),
        row("cvt.rzi.u32.f64", d(-1.0), 0),
        row("cvt.rzi.s64.f64", d(-3.9), s(-3)),
        row("cvt.rzi.u64.f64", d(1e30), u64::MAX),
        row("cvt.sat.f32.f32", f(-0.5), 0),
        row("cvt.sat.f32.f32", f(1.5), bits(1.0)),
        row("cvt.sat.f32.f32", f(0.25), bits(0.25)),
        row("cvt.sat.f32.f32", f(NAN), 0), // NaN becomes +0
        row("cvt.f64.f32", f(0.1), f64::from(0.1f32).to_bits()),
        row("cvt.rn.f32.f64", d(0.1), bits(0.1)),
        row("cvt.rn.f32.f64", d(1e300), bits(INF)),
        row("cvt.rn.f16.f32", f(1.0), 0x3c00),
        row("cvt.rn.f16.f32", f(65520.0), 0x7c00), // half of the last step goes to infinity
        row("cvt.rn.f16.f32", f(2.0f32.powi(-25)), 0), // half of the least number goes to even
        row("cvt.f32.f16", "0x0001", bits(2.0f32.powi(-24))),
        row("cvt.f32.f16", "0xfc00", bits(-INF)),
        row("cvt.rn.bf16.f32", f(1.0 + 2.0f32.powi(-8)), 0x3f80), // half goes to even
        row("cvt.rn.bf16.f32", f(1.0 + 3.0 * 2.0f32.powi(-8)), 0x3f82),
        row("cvt.f32.bf16", "0xc000", bits(-2.0)),
        row("cvt.rn.f16x2.f32", ff(1.0, -2.0), 0x3c00_c000), // the first goes to the upper half
        row("cvt.rn.bf16x2.f32", ff(1.0, -2.0), 0x3f80_c000),
        row("cvt.rna.tf32.f32", f(1.0 + 2.0f32.powi(-11)), bits(1.0 + 2.0f32.powi(-10))), // half goes away from zero
        row("cvt.rna.tf32.f32", f(-INF), bits(-INF)),
        row("cvt.rn.tf32.f32", f(1.0 + 2.0f32.powi(-11)), bits(1.0)), // half goes to even
        row("cvt.rn.tf32.f32", f(1.0 + 3.0 * 2.0f32.powi(-11)), bits(1.0 + 2.0f32.powi(-9))),
    ];
    for (mode, results) in [("rzi", [-2.0f32, 2.0]), ("rni", [-2.0, 2.0]), ("rmi", [-3.0, 2.0]), ("rpi", [-2.0, 3.0])] {
        for (x, result) in [-2.5f32, 2.5].into_iter().zip(results) {
            rows.push(row(format!("cvt.{mode}.f32.f32").leak(), f(x), bits(result)));
            rows.push(row(format!("cvt.{mode}.f64.f64").leak(), d(x.into()), f64::from(result).to_bits()));
        }
    }
    rows
}

/// Bits of a result: of the first type in the opcode, twice those for `mul.wide` and `mad.wide`; 1 for a predicate.
fn width(opcode: &str) -> u32 {
    if opcode.starts_with("setp") {
        return 1;
    }
    if opcode.starts_with("popc") || opcode.starts_with("clz") {
        return 32;
    }
    let types = opcode.split('.').filter(|part| part.ends_with(|c: char| c.is_ascii_digit()));
    let bits = types.clone().find_map(|part| match part {
        "bf16x2" | "f16x2" | "tf32" => Some(32),
        "bf16" => Some(16),
        part => part.strip_prefix(['s', 'u', 'b', 'f'])?.parse().ok(),
    });
    let bits = bits.unwrap_or_else(|| panic!("no type in {opcode}"));
    if opcode.contains(".wide") { 2 * bits } else { bits }
}

#[test]
fn every_arithmetic_instruction_computes_what_the_isa_defines() {
    let rows: Vec<Row> = integers().into_iter().chain(floats()).chain(conversions()).collect();
    let tested: HashSet<&str> = rows.iter().map(|row| row.0).collect();
    let untested: Vec<&str> = simt::ptx::opcodes().filter(|opcode| !tested.contains(opcode)).collect();
    assert!(untested.is_empty(), "no row for {untested:?}");

    let mut text = String::from(
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry table(.param .u64 out) {\n\
         .reg .pred %p;\n.reg .b32 %r;\n.reg .b64 %rd, %to;\nld.param.u64 %to, [out];\n",
    );
    for (index, Row(opcode, operands, _)) in rows.iter().enumerate() {
        let (to, store) = match width(opcode) {
            1 => ("%p", "selp.b32 %r, 1, 0, %p;\nst.global.u32"),
            64 => ("%rd", "st.global.u64"),
            _ => ("%r", "st.global.u32"),
        };
        let from = if to == "%rd" { "%rd" } else { "%r" };
        let _ = writeln!(text, "{opcode} {to}, {operands};\n{store} [%to+{}], {from};", 8 * index);
    }
    text += "ret;\n}\n";
    let ptx = Ptx::parse(&text).unwrap();
    let out = Buffer::from_slice(&vec![0u64; rows.len()]);
    // With one thread and with all lanes of a warp: the vector code and the masked one.
    for threads in [1, 32] {
        ptx.launch("table", &Launch::new(1, threads), &args![out]).unwrap_or_else(|e| panic!("{e}"));
        let mut wrong = Vec::new();
        for (Row(opcode, operands, expected), found) in rows.iter().zip(out.to_vec::<u64>()) {
            let mask = u64::MAX >> (64 - width(opcode));
            if found & mask != expected & mask {
                wrong.push(format!("{opcode} {operands}: {:#x}, should be {:#x}", found & mask, expected & mask));
            }
        }
        assert!(wrong.is_empty(), "{threads} threads:\n{}", wrong.join("\n"));
    }
}
