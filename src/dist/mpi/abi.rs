//! The three binary interfaces of MPI libraries, on 64-bit Linux: what is called and what is passed, as far as it is used here.
//!
//! A handle is a pointer in Open MPI and in the standard interface of MPI 5, and a C `int` in MPICH and its relatives. All of them
//! are passed as one machine word: an `int` argument takes a register or a stack slot of its own, of which the callee reads the lower half.

use crate::{Error, Result};
use libloading::os::unix::Library;
use std::ffi::{c_char, c_int, c_void};

/// A handle, whatever its type in C.
pub type Handle = usize;

/// The families of libraries with one binary interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// Handles are addresses of the library's own data.
    OpenMpi,
    /// MPICH, Intel MPI, MVAPICH, Cray MPI: handles are integers.
    Mpich,
    /// `libmpi_abi.so` of MPI 5, of any maker: handles are small constants.
    Standard,
}

impl Abi {
    /// The interface in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenMpi => "Open MPI's interface",
            Self::Mpich => "MPICH's interface",
            Self::Standard => "the standard interface of MPI 5",
        }
    }
}

type Ranked = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;

/// The functions and constants of one library.
pub struct Calls {
    pub init_thread: unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int,
    pub finalize: unsafe extern "C" fn() -> c_int,
    pub comm_rank: Ranked,
    pub comm_size: Ranked,
    /// From, count, type, to, count, type, communicator, request.
    pub alltoall:
        unsafe extern "C" fn(*const c_void, c_int, Handle, *mut c_void, c_int, Handle, Handle, *mut Handle) -> c_int,
    /// From, count, type, to, counts, displacements, type, communicator, request.
    pub allgatherv: unsafe extern "C" fn(
        *const c_void,
        c_int,
        Handle,
        *mut c_void,
        *const c_int,
        *const c_int,
        Handle,
        Handle,
        *mut Handle,
    ) -> c_int,
    /// Buffer, count, type, root, communicator, request.
    pub bcast: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, Handle, *mut Handle) -> c_int,
    /// Request, whether it is complete, status.
    pub test: unsafe extern "C" fn(*mut Handle, *mut c_int, *mut c_void) -> c_int,
    pub abort: unsafe extern "C" fn(Handle, c_int) -> c_int,
    pub world: Handle,
    pub float: Handle,
    pub byte: Handle,
    pub status_ignore: *mut c_void,
    /// MPI_THREAD_SERIALIZED.
    pub serialized: c_int,
}

// SAFETY: functions and addresses of a library that is never unloaded; the one pointer is a constant that is not read through.
unsafe impl Send for Calls {}
// SAFETY: as above.
unsafe impl Sync for Calls {}

impl Calls {
    /// Finds everything in a library.
    ///
    /// # Errors
    /// A function that the library lacks.
    pub fn find(library: &Library, abi: Abi, path: &str) -> Result<Self> {
        let address = |name: &str| -> Result<Handle> {
            // SAFETY: only the address is taken.
            let symbol = unsafe { library.get::<*mut c_void>(name) };
            symbol.map(|symbol| symbol.into_raw() as Handle).map_err(|_| lacks(path, name))
        };
        let (world, float, byte, status_ignore, serialized) = match abi {
            Abi::OpenMpi => {
                (address("ompi_mpi_comm_world")?, address("ompi_mpi_float")?, address("ompi_mpi_byte")?, 0, 2)
            }
            Abi::Mpich => (0x4400_0000, 0x4c00_040a, 0x4c00_010d, 1, 2),
            Abi::Standard => (0x101, 0x210, 0x247, 0, 2048),
        };
        // SAFETY: each has the signature of its declaration in the MPI standard, with handles as words (see above).
        unsafe {
            Ok(Self {
                init_thread: get(library, "MPI_Init_thread", path)?,
                finalize: get(library, "MPI_Finalize", path)?,
                comm_rank: get(library, "MPI_Comm_rank", path)?,
                comm_size: get(library, "MPI_Comm_size", path)?,
                alltoall: get(library, "MPI_Ialltoall", path)?,
                allgatherv: get(library, "MPI_Iallgatherv", path)?,
                bcast: get(library, "MPI_Ibcast", path)?,
                test: get(library, "MPI_Test", path)?,
                abort: get(library, "MPI_Abort", path)?,
                world,
                float,
                byte,
                status_ignore: std::ptr::without_provenance_mut(status_ignore),
                serialized,
            })
        }
    }
}

/// A function of a library.
///
/// # Safety
/// `T` must be the type of a pointer to that function.
pub unsafe fn get<T: Copy>(library: &Library, name: &str, path: &str) -> Result<T> {
    // SAFETY: the caller's promise.
    unsafe { library.get::<T>(name) }.map(|symbol| *symbol).map_err(|_| lacks(path, name))
}

fn lacks(path: &str, name: &str) -> Error {
    Error::device(path, format!("is no MPI library with {name}")).advise("use one of MPI 3 or newer")
}
