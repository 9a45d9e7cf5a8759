//! Compiled kernels and their arguments.
//!
//! The one idea: the C++ compiler knows each kernel's parameters, so it writes a table of names, argument sizes and a
//! function that unpacks the `void**` array of `cuLaunchKernel`. Every launch is held against that table.

use crate::memory::{Allocation, Buffer, DevicePtr, find};
use crate::{Error, Variant};
use bytemuck::NoUninit;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::sync::Arc;

/// `SimtArgument` of entry.h.
#[repr(C)]
pub(crate) struct ArgumentInfo {
    size: u32,
    align: u32,
    pointer: u8,
}

pub(crate) type Call = unsafe extern "C" fn(*mut *mut c_void);

/// `SimtEntry` of entry.h: a kernel of one variant.
#[repr(C)]
#[doc(hidden)]
pub struct Entry {
    name: *const c_char,
    call: Option<Call>,
    args: *const ArgumentInfo,
    count: usize,
}

/// The kernels of one folder, each in both variants. Made by [`crate::include_kernels!`].
pub struct Module {
    /// One pair (fast, checked) of tables per `.cu` file.
    tables: &'static [[*const Entry; 2]],
}

// SAFETY: the tables are constants.
unsafe impl Sync for Module {}

impl Module {
    /// # Safety
    /// Each pointer is a table that `simt-build` generated: entries up to one without a name. And the kernels in them are
    /// the caller's own: a fast launch of a kernel that writes out of bounds does just that.
    #[doc(hidden)]
    pub const unsafe fn new(tables: &'static [[*const Entry; 2]]) -> Module {
        Module { tables }
    }

    fn entries(&self, variant: Variant) -> impl Iterator<Item = &'static Entry> {
        self.tables.iter().flat_map(move |pair| {
            let table = pair[variant as usize];
            // SAFETY: by the contract of `new`, entries up to one without a name, for ever.
            (0..).map(move |index| unsafe { &*table.add(index) }).take_while(|entry| !entry.name.is_null())
        })
    }

    /// The names of all kernels, in the order of files and of lines.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries(Variant::Fast).map(Entry::name)
    }

    pub(crate) fn find(&self, name: &str, variant: Variant) -> Result<&'static Entry, Error> {
        self.entries(variant).find(|entry| entry.name() == name).ok_or_else(|| {
            let known: Vec<_> = self.names().collect();
            Error::Launch(format!(
                "no kernel `{name}`; kernels are functions declared `extern \"C\" __global__`, here: {}",
                known.join(", ")
            ))
        })
    }
}

impl Entry {
    pub(crate) fn name(&self) -> &'static str {
        // SAFETY: a string literal of the generated table; an empty name would be a null pointer.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap_or("?")
    }

    pub(crate) fn call(&self) -> Option<Call> {
        self.call
    }

    fn arguments(&self) -> &'static [ArgumentInfo] {
        // SAFETY: the generated table gives the address and number of its own argument descriptions.
        unsafe { std::slice::from_raw_parts(self.args, self.count) }
    }

    /// Count, sizes, pointer-ness, and that each pointer is null or lies in a live buffer.
    pub(crate) fn check(&self, args: &[Arg], buffers: &[Arc<Allocation>]) -> Result<(), Error> {
        let (name, expected) = (self.name(), self.arguments());
        let fail = |message: String| Err(Error::Launch(format!("{name}: {message}")));
        if args.len() != expected.len() {
            return fail(format!("{} arguments given, the kernel takes {}", args.len(), expected.len()));
        }
        for (index, (arg, info)) in args.iter().zip(expected).enumerate() {
            let is_pointer = info.pointer != 0;
            if arg.pointer.is_some_and(|given| given != is_pointer) {
                let word = |pointer| if pointer { "a pointer" } else { "a value" };
                return fail(format!("argument {index} is {}, given {}", word(is_pointer), word(!is_pointer)));
            }
            if arg.size.is_some_and(|size| size != info.size as usize) {
                let given = arg.size.unwrap_or_default();
                return fail(format!("argument {index} has {} bytes, given {given}", info.size));
            }
            if is_pointer {
                // SAFETY: an argument of pointer type is 8 readable bytes, by its constructor.
                let address = unsafe { arg.data.cast::<usize>().read_unaligned() };
                let end_of = |buffer: &Arc<Allocation>| buffer.base + buffer.len == address;
                if address != 0 && find(buffers, address).is_none() && !buffers.iter().any(end_of) {
                    return fail(format!("argument {index} ({address:#x}) points into no live buffer"));
                }
                if address % info.align as usize != 0 {
                    return fail(format!("argument {index} ({address:#x}) is not aligned to {} bytes", info.align));
                }
            }
        }
        Ok(())
    }

    /// Copies of the arguments, each aligned for any type.
    pub(crate) fn copy_arguments(&self, args: &[Arg]) -> Vec<Vec<Line>> {
        let copy = |(arg, info): (&Arg, &ArgumentInfo)| {
            let mut value = vec![Line([0; 128]); (info.size as usize).div_ceil(size_of::<Line>())];
            // SAFETY: an argument has the size of its parameter (checked, or by the contract of `untyped`).
            unsafe {
                std::ptr::copy_nonoverlapping(arg.data.cast::<u8>(), value.as_mut_ptr().cast(), info.size as usize)
            };
            value
        };
        args.iter().zip(self.arguments()).map(copy).collect()
    }

    /// Every buffer the arguments lead to: pointers, and addresses inside structures passed by value.
    pub(crate) fn reachable<'b>(&self, args: &[Arg], buffers: &'b [Arc<Allocation>]) -> Vec<&'b Arc<Allocation>> {
        let mut found = Vec::new();
        for (arg, info) in args.iter().zip(self.arguments()) {
            for word in 0..info.size as usize / 8 {
                // SAFETY: inside the `info.size` bytes of the argument.
                let address = unsafe { arg.data.cast::<usize>().add(word).read_unaligned() };
                found.extend(find(buffers, address));
            }
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|index| &buffers[index]).collect()
    }
}

/// Storage for an argument; entry.h asserts that none needs a larger alignment.
#[derive(Clone, Copy)]
#[repr(align(128))]
pub(crate) struct Line(#[expect(dead_code, reason = "kernels read it")] [u8; 128]);

/// One kernel argument: where its bytes are, and what is known of its type.
#[derive(Clone, Copy)]
pub struct Arg<'a> {
    pub(crate) data: *const c_void,
    size: Option<usize>,
    pointer: Option<bool>,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> Arg<'a> {
    /// A structure by value, given as its bytes.
    pub fn bytes(bytes: &'a [u8]) -> Arg<'a> {
        Arg { data: bytes.as_ptr().cast(), size: Some(bytes.len()), pointer: Some(false), borrowed: PhantomData }
    }

    /// An element of a `void**` argument array, of unknown type: only pointers into no buffer are noticed.
    ///
    /// # Safety
    /// `data` points to as many initialised bytes as the kernel's parameter has, for as long as the launch takes.
    pub unsafe fn untyped(data: *const c_void) -> Arg<'a> {
        Arg { data, size: None, pointer: None, borrowed: PhantomData }
    }
}

/// A number or a structure, by value.
impl<'a, T: NoUninit> From<&'a T> for Arg<'a> {
    fn from(value: &'a T) -> Self {
        let data = std::ptr::from_ref(value).cast();
        Arg { data, size: Some(size_of::<T>()), pointer: Some(false), borrowed: PhantomData }
    }
}
/// The buffer's address.
impl<'a> From<&'a Buffer> for Arg<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        let data = buffer.address_cell().cast();
        Arg { data, size: Some(size_of::<DevicePtr>()), pointer: Some(true), borrowed: PhantomData }
    }
}
impl<'a> From<&'a DevicePtr> for Arg<'a> {
    fn from(pointer: &'a DevicePtr) -> Self {
        let data = std::ptr::from_ref(pointer).cast();
        Arg { data, size: Some(size_of::<DevicePtr>()), pointer: Some(true), borrowed: PhantomData }
    }
}
