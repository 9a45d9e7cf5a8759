// half and bfloat16 in software, rounding to nearest even. Both are aggregates on purpose: g++ emits an instrumented
// initialisation guard for `thread_local T x[]` as soon as T has a constructor. So write __float2half(1.0f), not half(1.0f).
#pragma once
#include "types.h"

SIMT_API float simt_half_to_float(uint16_t h) {
  uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | (mantissa << 13));  // infinity, NaN
  if (exponent != 0) return __uint_as_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  float tiny = (float)mantissa * 0x1p-24f;
  return sign ? -tiny : tiny;
}
SIMT_API uint16_t simt_float_to_half(float x) {
  uint32_t bits = __float_as_uint(x), sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7fff;   // NaN
  if (bits >= 0x477ff000) return sign | 0x7c00;  // 65520 and more round to infinity
  if (bits < 0x38800000)                         // subnormal: adding 0.5 lets the hardware round at 2^-24
    return sign | (uint16_t)(__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000);
  bits += 0xfff + ((bits >> 13) & 1);
  return sign | (uint16_t)((bits - 0x38000000) >> 13);
}
SIMT_API float simt_bfloat_to_float(uint16_t b) { return __uint_as_float((uint32_t)b << 16); }
SIMT_API uint16_t simt_float_to_bfloat(float x) {
  uint32_t bits = __float_as_uint(x);
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

struct __half {
  uint16_t bits;
  __half& operator=(float x) { bits = simt_float_to_half(x); return *this; }
  operator float() const { return simt_half_to_float(bits); }
};
struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16& operator=(float x) { bits = simt_float_to_bfloat(x); return *this; }
  operator float() const { return simt_bfloat_to_float(bits); }
};
struct alignas(4) __half2 { __half x, y; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

SIMT_API float __half2float(__half h) { return h; }
SIMT_API __half __float2half(float x) { return {simt_float_to_half(x)}; }
SIMT_API __half __float2half_rn(float x) { return {simt_float_to_half(x)}; }
SIMT_API __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
SIMT_API float2 __half22float2(__half2 h) { return {h.x, h.y}; }
SIMT_API __half __ushort_as_half(unsigned short b) { return {b}; }
SIMT_API unsigned short __half_as_ushort(__half h) { return h.bits; }
SIMT_API __half2 __halves2half2(__half x, __half y) { return {x, y}; }
SIMT_API __half2 __half2half2(__half x) { return {x, x}; }

SIMT_API float __bfloat162float(__nv_bfloat16 b) { return b; }
SIMT_API __nv_bfloat16 __float2bfloat16(float x) { return {simt_float_to_bfloat(x)}; }
SIMT_API __nv_bfloat16 __float2bfloat16_rn(float x) { return {simt_float_to_bfloat(x)}; }
SIMT_API __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }
SIMT_API float2 __bfloat1622float2(__nv_bfloat162 b) { return {b.x, b.y}; }
SIMT_API __nv_bfloat16 __ushort_as_bfloat16(unsigned short b) { return {b}; }
SIMT_API unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.bits; }
SIMT_API __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
SIMT_API __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }

// Arithmetic rounds after every operation, as the device does. (A product of two halves is exact in a float.)
#define SIMT_HALF_ARITHMETIC(H, H2, from)                                                                      \
  SIMT_API H operator+(H a, H b) { return from((float)a + (float)b); }                                        \
  SIMT_API H operator-(H a, H b) { return from((float)a - (float)b); }                                        \
  SIMT_API H operator*(H a, H b) { return from((float)a * (float)b); }                                        \
  SIMT_API H operator/(H a, H b) { return from((float)a / (float)b); }                                        \
  SIMT_API H operator-(H a) { return {(uint16_t)(a.bits ^ 0x8000)}; }                                         \
  SIMT_API H& operator+=(H& a, H b) { return a = a + b; }                                                     \
  SIMT_API H& operator-=(H& a, H b) { return a = a - b; }                                                     \
  SIMT_API H& operator*=(H& a, H b) { return a = a * b; }                                                     \
  SIMT_API H __hadd(H a, H b) { return a + b; }                                                               \
  SIMT_API H __hsub(H a, H b) { return a - b; }                                                               \
  SIMT_API H __hmul(H a, H b) { return a * b; }                                                               \
  SIMT_API H __hfma(H a, H b, H c) { return from((float)((double)(float)a * (float)b + (float)c)); }          \
  SIMT_API H __hmax(H a, H b) { return from(fmaxf(a, b)); }                                                   \
  SIMT_API H __hmin(H a, H b) { return from(fminf(a, b)); }                                                   \
  SIMT_API H2 __hadd2(H2 a, H2 b) { return {a.x + b.x, a.y + b.y}; }                                          \
  SIMT_API H2 __hmul2(H2 a, H2 b) { return {a.x * b.x, a.y * b.y}; }                                          \
  SIMT_API H2 __hfma2(H2 a, H2 b, H2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }            \
  SIMT_API float __low2float(H2 a) { return a.x; }                                                            \
  SIMT_API float __high2float(H2 a) { return a.y; }
SIMT_HALF_ARITHMETIC(__half, __half2, __float2half)
SIMT_HALF_ARITHMETIC(__nv_bfloat16, __nv_bfloat162, __float2bfloat16)
