//! The MPI library of this machine: where it is, and what it is.

use super::abi::{self, Abi};
use crate::dist::launch::{Family, Launch};
use crate::{Error, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};

/// The variable that names the library to use.
pub const CHOICE: &str = "WEFT_MPI";

/// Names of libraries. The standard interface of MPI 5 first: it is the same of every maker.
const MPICH: [&str; 4] = ["libmpi_abi.so.1", "libmpi.so.12", "libmpich.so.12", "libmpi.so"];
const OPEN_MPI: [&str; 3] = ["libmpi.so.40", "libmpi_abi.so.1", "libmpi.so"];

/// A loaded library.
pub struct Loaded {
    pub(super) library: &'static Library,
    pub(super) abi: Abi,
    /// The file, as it was asked for.
    pub path: String,
    /// Its maker and version, as it says itself.
    pub version: String,
}

impl Loaded {
    /// Its binary interface, in words.
    pub fn interface(&self) -> &'static str {
        self.abi.name()
    }
}

/// Loads the library that fits a launcher; without a launcher, any.
///
/// # Errors
/// None is found.
pub fn load(launch: Option<&Launch>) -> Result<Loaded> {
    if let Some(choice) = std::env::var_os(CHOICE) {
        let path = PathBuf::from(choice);
        return open(&path).map_err(|error| {
            // The system's own words name the file.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::device(CHOICE, why).advise("name the file of an MPI library, or unset it")
        })?;
    }
    let names: Vec<&str> = match launch.map(|launch| launch.family) {
        Some(Family::Pmi) => MPICH.to_vec(),
        Some(_) => [&OPEN_MPI[..], &MPICH[..]].concat(),
        None => [&OPEN_MPI[..], &MPICH[..]].concat(),
    };
    let folders: Vec<PathBuf> = folders();
    let beside = folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let beside = beside.filter(|path| path.exists());
    for path in beside.chain(names.iter().map(PathBuf::from)) {
        if let Ok(loaded) = open(&path) {
            return loaded;
        }
    }
    let who = launch.map_or(String::new(), |launch| format!("{} started this process, but ", launch.name()));
    let what = if launch.is_some_and(|launch| launch.family == Family::Pmi) { "mpich" } else { "openmpi-bin" };
    Err(Error::device("MPI", format!("{who}no MPI library is found"))
        .advise(format!("install {what}, or name the library in {CHOICE}, such as {CHOICE}=/opt/mpi/lib/libmpi.so")))
}

/// Folders of libraries that belong to the launcher: beside the program that started this process, then beside those on the
/// PATH. Libraries of the system are found without.
fn folders() -> Vec<PathBuf> {
    let parent = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        // The name of the program, in parentheses, may hold spaces; state and parent follow.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1).map(|parent| format!("/proc/{parent}/exe"))
    });
    let parent = parent.and_then(|path| std::fs::read_link(path).ok());
    let on_path = ["mpiexec", "mpirun"].into_iter().filter_map(on_path);
    let programs = parent.into_iter().chain(on_path.filter_map(|path| std::fs::canonicalize(path).ok()));
    programs.filter_map(|program| Some(program.parent()?.parent()?.join("lib"))).collect()
}

/// A program on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Opens a library: outer an error where there is none that can be loaded, inner where it is no MPI library.
fn open(path: &Path) -> Result<Result<Loaded>, libloading::Error> {
    // SAFETY: MPI libraries have initialisers that only set up their own data. Their plugins look for symbols of the library
    // among those of the process, so these are global.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL)? };
    // MPI cannot be started twice, nor unloaded.
    let library: &'static Library = Box::leak(Box::new(library));
    let path = path.display().to_string();
    Ok(version(library, &path).map(|version| {
        // SAFETY: only whether it exists is asked.
        let open_mpi = || unsafe { library.get::<*mut u8>("ompi_mpi_comm_world") }.is_ok();
        let file = path.rsplit('/').next().unwrap_or(&path);
        let abi = if file.contains("mpi_abi") {
            Abi::Standard
        } else if open_mpi() {
            Abi::OpenMpi
        } else {
            Abi::Mpich
        };
        Loaded { library, abi, path, version }
    }))
}

/// The first line of what the library says about itself, up to its version; may be asked before MPI is started.
fn version(library: &Library, path: &str) -> Result<String> {
    type Version = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
    // SAFETY: its declaration in the MPI standard.
    let version: Version = unsafe { abi::get(library, "MPI_Get_library_version", path)? };
    /// MPI_MAX_LIBRARY_VERSION_STRING of every family is at most this.
    const MOST: usize = 8192;
    let (mut text, mut len) = (vec![0; MOST + 1], 0);
    // SAFETY: the text has room for the longest answer and a zero.
    unsafe { version(text.as_mut_ptr(), &mut len) };
    // SAFETY: the last byte is zero.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy();
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(',').next().unwrap_or_default();
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" ").replace(" Version:", ""))
}
