//! Functions called by kernels: those of the shim, and the hooks that the compiler inserts in the checked variant.
//!
//! With `-fsanitize=thread,bounds,...` g++ reports every access and every arithmetic error to functions of the sanitizers'
//! run-time library. That library is not linked; these functions replace it. Outside a launch they do nothing.

use crate::check::Access;
use crate::finding::{Kind, Place, Problem};
use crate::memory::POISON;
use crate::scheduler::{AsyncCopy, Block, Operation, current};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

fn place(file: *const c_char, line: c_int) -> Place {
    Place::Source { file, line }
}

// ---- the shim (abi.h)

// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_syncthreads(vote: c_int, file: *const c_char, line: c_int) -> c_int {
    current().map_or(0, |block| block.barrier(vote != 0, place(file, line)) as c_int)
}

/// # Safety
/// `input` and `output` have the types that `operation` expects, on the caller's stack.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
unsafe extern "C" fn simt_collective(
    mask: u32,
    operation: Operation,
    input: *const c_void,
    output: *mut c_void,
    traits: c_int,
    file: *const c_char,
    line: c_int,
) {
    if let Some(block) = current() {
        // SAFETY: as for this function.
        unsafe { block.collective(mask, operation, input, output, traits, place(file, line)) }
    }
}

// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_dynamic_shared() -> *mut c_void {
    current().map_or(null_mut(), Block::dynamic_shared)
}

// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_threadfence() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    if let Some(block) = current().filter(|block| block.checked) {
        block.checker.borrow_mut().fence();
    }
}

/// `__trap`, or a failed assertion.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_trap(file: *const c_char, line: c_int) {
    if let Some(block) = current() {
        block.fail(Problem::new(Kind::Trap, "the kernel stopped itself: __trap or assert"), place(file, line));
    }
}

/// An access by the shim itself: an atomic.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_access_at(address: usize, size: usize, kind: c_int, file: *const c_char, line: c_int) {
    let access = [Access::Read, Access::Write, Access::Atomic][kind.clamp(0, 2) as usize];
    if let Some(block) = current() {
        aligned(block, address, size, place(file, line));
        check(block, address, size, access, place(file, line));
    }
}

/// The row of a matrix that ldmatrix reads for one lane.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_shared_row(address: usize, size: usize, file: *const c_char, line: c_int) {
    if let Some(block) = current() {
        aligned(block, address, size, place(file, line));
        check_shared(block, address, size, Access::Read, place(file, line));
    }
}

/// `cp.async`: the destination is poisoned now and filled at the wait, so that a missing wait is visible in both variants.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_async_copy(
    shared: usize,
    global: usize,
    size: c_uint,
    valid: c_uint,
    file: *const c_char,
    line: c_int,
) {
    let Some(block) = current() else { return };
    let (size, valid, place) = (size as usize, valid.min(size) as usize, place(file, line));
    aligned(block, shared, size, place);
    aligned(block, global, size, place);
    if valid > 0 {
        check(block, global, valid, Access::Read, place);
    }
    check_shared(block, shared, size, Access::Write, place);
    if block.checked {
        block.checker.borrow_mut().copying(block.lane(), shared, size, true);
    }
    // SAFETY: `shared` is the destination given by the kernel, aligned to `size`, an even number; in the checked variant it is
    // known to be shared memory.
    unsafe { std::slice::from_raw_parts_mut(shared as *mut u16, size / 2) }.fill(POISON);
    let mut copies = block.copies[block.lane() as usize].borrow_mut();
    let group = copies.committed;
    block.copied.set(true);
    copies.queue.push_back(AsyncCopy { group, shared, global, size, valid });
}

// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_async_commit() {
    if let Some(block) = current() {
        block.copies[block.lane() as usize].borrow_mut().committed += 1;
    }
}

/// Completes the copies of all but the latest `pending` groups.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_async_wait(pending: c_uint) {
    let Some(block) = current() else { return };
    let mut copies = block.copies[block.lane() as usize].borrow_mut();
    let arrived = copies.committed.saturating_sub(pending);
    while copies.queue.front().is_some_and(|copy| copy.group < arrived)
        && let Some(copy) = copies.queue.pop_front()
    {
        // SAFETY: source and destination were checked when the copy was issued (in the fast variant: are those given by the
        // kernel); they are in different memories.
        unsafe {
            std::ptr::copy_nonoverlapping(copy.global as *const u8, copy.shared as *mut u8, copy.valid);
            std::ptr::write_bytes((copy.shared + copy.valid) as *mut u8, 0, copy.size - copy.valid);
        }
        if block.checked {
            block.checker.borrow_mut().copying(block.lane(), copy.shared, copy.size, false);
        }
    }
}

// ---- -fsanitize=thread (called through runtime.cpp, which knows the return address)

// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_access(address: usize, size: usize, write: c_int, is_aligned: c_int, code: usize) {
    let Some(block) = current() else { return };
    if block.slab.contains(address) {
        return; // a local variable
    }
    if is_aligned != 0 {
        aligned(block, address, size, Place::Code(code));
    }
    let access = if write != 0 { Access::Write } else { Access::Read };
    check(block, address, size, access, Place::Code(code));
}

/// Called on entry to a function whose frame ends at `frame`.
// SAFETY: no other library defines names that begin with `simt_`.
#[unsafe(no_mangle)]
extern "C" fn simt_function(frame: usize, code: usize) {
    if let Some(block) = current().filter(|block| block.slab.nearly_full(frame)) {
        let detail = "recursion or local arrays need more stack than the 60 KiB of a coroutine";
        block.fail(Problem::new(Kind::StackOverflow, detail), Place::Code(code));
    }
}

fn aligned(block: &Block, address: usize, size: usize, place: Place) {
    if !address.is_multiple_of(size) {
        let detail = format!("{address:#x} is not a multiple of {size}");
        block.fail(Problem::new(Kind::Misaligned, detail), place);
    }
}

#[inline]
fn check(block: &Block, address: usize, size: usize, access: Access, place: Place) {
    if !block.checked || block.slab.contains(address) {
        return;
    }
    let result = block.checker.borrow_mut().access(block.lane(), address, size, access);
    if let Err(problem) = result {
        report(block, problem, place);
    }
}

fn check_shared(block: &Block, address: usize, size: usize, access: Access, place: Place) {
    if !block.checked {
        return;
    }
    let result = block.checker.borrow_mut().access_shared(block.lane(), address, size, access);
    if let Err(problem) = result {
        report(block, problem, place);
    }
}

fn report(block: &Block, problem: Box<Problem>, place: Place) {
    if problem.kind == Kind::UninitialisedShared {
        block.suspect(problem, place);
    } else {
        block.fail(problem, place);
    }
}

// ---- -fsanitize=bounds,signed-integer-overflow,integer-divide-by-zero,alignment

/// The common initial part of the data that g++ passes to every handler.
#[repr(C)]
struct SourceLocation {
    file: *const c_char,
    line: u32,
    column: u32,
}

/// # Safety
/// `at` is null or the data of a handler.
unsafe fn undefined(at: *const SourceLocation, kind: Kind, detail: String) {
    let Some(block) = current() else { return };
    let problem = Problem::new(kind, detail);
    // SAFETY: by the contract of this function.
    let place = unsafe { at.as_ref() }.map_or(Place::Unknown, |at| place(at.file, at.line as c_int));
    block.fail(problem, place);
}

macro_rules! handlers {
    ($($name:ident($($operand:ident),+) => $kind:ident, $text:literal;)+) => {$(
        /// # Safety
        /// Called by code that g++ generated, with its own constant data.
        // SAFETY: the sanitizers' library, which also defines this name, is not linked.
#[unsafe(no_mangle)]
        unsafe extern "C" fn $name(at: *const SourceLocation, $($operand: usize),+) {
            // SAFETY: as for this function.
            unsafe { undefined(at, Kind::$kind, format!($text, $($operand as isize),+)) }
        }
    )+};
}
handlers! {
    __ubsan_handle_out_of_bounds(index) => IndexOutOfBounds, "index {} is outside the array";
    __ubsan_handle_add_overflow(a, b) => IntegerOverflow, "{} + {} overflows";
    __ubsan_handle_sub_overflow(a, b) => IntegerOverflow, "{} - {} overflows";
    __ubsan_handle_mul_overflow(a, b) => IntegerOverflow, "{} * {} overflows";
    __ubsan_handle_negate_overflow(a) => IntegerOverflow, "-({}) overflows";
    __ubsan_handle_divrem_overflow(a, b) => DivisionByZero, "{} / {}";
    __ubsan_handle_type_mismatch_v1(address) => Misaligned, "address {:#x} is null or not aligned for its type";
}
