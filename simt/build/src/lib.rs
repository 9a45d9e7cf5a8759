//! The build-script part of `simt`: compiles a folder of `.cu` files into two static libraries, fast and checked, and a
//! Rust table of the kernels in them.
//!
//! A kernel is launched by name, so every `extern "C" __global__` function is found by preprocessing its
//! file, renamed per variant, and listed in a generated translation unit whose templates deduce its argument types.
//!
//! ```no_run
//! // build.rs
//! simt_build::Kernels::new("kernels").compile("kernels").unwrap();
//! ```
//! and in the crate: `simt::include_kernels!("kernels");`, which defines `KERNELS`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io};

/// Larger stack frames are rejected when a kernel is compiled: each coroutine has a stack of 64 KiB.
const FRAME_LIMIT: usize = 24 << 10;

/// A `.cu` file whose first line starts with this is not compiled for the host.
pub const DEVICE_ONLY: &str = "// simt: device-only";

/// An error in a build script, with a message for the user.
#[derive(Debug)]
pub struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simt-build: {}", self.0)
    }
}
impl std::error::Error for Error {}

/// The folder that contains `simt.cuh`; pass it to nvcc too (`-I`).
pub fn include_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
    dir.canonicalize().unwrap_or(dir)
}

/// A folder of `.cu` files and how to compile them.
pub struct Kernels {
    folder: PathBuf,
    includes: Vec<PathBuf>,
    defines: Vec<(String, String)>,
}

impl Kernels {
    /// All `.cu` files directly in `folder` (relative to the crate), which is also on the include path.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Kernels { folder: folder.into(), includes: Vec::new(), defines: Vec::new() }
    }

    /// Adds a folder to the include path.
    pub fn include(mut self, dir: impl Into<PathBuf>) -> Self {
        self.includes.push(dir.into());
        self
    }

    /// Defines a preprocessor macro.
    pub fn define(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.defines.push((name.into(), value.into()));
        self
    }

    /// Compiles everything twice into `OUT_DIR` and writes `simt_<name>.rs` for `simt::include_kernels!("<name>")`.
    /// A file whose text, headers and flags are unchanged is not compiled again.
    pub fn compile(&self, name: &str) -> Result<(), Error> {
        let out = PathBuf::from(variable("OUT_DIR")?);
        let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
        let package = variable("CARGO_PKG_NAME")?;
        let prefix = format!("simt_{}_{}", identifier(&package.to_string_lossy()), identifier(name));
        let folder = root.join(&self.folder);
        let compiler = compiler()?;
        let includes: Vec<PathBuf> = self.includes.iter().map(|dir| root.join(dir)).collect();
        let mut headers = 0;
        for dir in includes.iter().chain([&folder, &include_dir()]) {
            println!("cargo:rerun-if-changed={}", dir.display());
            headers = hash_of(&(headers, hash_headers(dir)?));
        }
        let mut fast = flags(&compiler.path);
        fast.include(&folder).includes(&includes);
        for (key, value) in &self.defines {
            fast.define(key, value.as_str());
        }
        let mut checked = fast.clone();
        checked.flag("-fsanitize=thread,bounds,signed-integer-overflow,integer-divide-by-zero,alignment");
        let arguments = checked.try_get_compiler().map_err(|error| Error(error.to_string()))?.args().to_vec();
        let common = hash_of(&(headers, compiler.macros, arguments, VERSION));

        let mut sources = Vec::new();
        for file in cuda_files(&folder)? {
            let text = read(&file)?;
            if !text.starts_with(DEVICE_ONLY) {
                let stem = identifier(&file.file_stem().unwrap_or_default().to_string_lossy());
                let hash = hash_of(&(common, &text, &file));
                sources.push(Source { file, table: format!("{prefix}_{stem}"), hash });
            }
        }
        let results = in_parallel(&sources, |source| source.compile(&fast, &checked, &out));
        let (mut externs, mut rows) = (String::new(), String::new());
        let mut owners: BTreeMap<String, &Path> = BTreeMap::new();
        for (source, result) in sources.iter().zip(results) {
            for kernel in result? {
                if let Some(other) = owners.insert(kernel.clone(), &source.file) {
                    let (other, file) = (other.display(), source.file.display());
                    return Err(Error(format!("kernel `{kernel}` is defined in {other} and in {file}: rename one")));
                }
            }
            for (variant, library) in [("fast", &mut fast), ("checked", &mut checked)] {
                let _ = writeln!(externs, "    static {}_{variant}: u8;", source.table);
                library.object(source.object(&out, variant));
            }
            let table = &source.table;
            let _ = writeln!(rows, "    [(&raw const {table}_fast).cast(), (&raw const {table}_checked).cast()],");
        }
        let rust = format!(
            "// SAFETY: each is the first byte of a table that simt-build generated.\n\
             unsafe extern \"C\" {{\n{externs}}}\n\
             const TABLES: &[[*const simt::Entry; 2]] = &[\n{rows}];\n\
             /// The kernels of `{name}`.\n\
             // SAFETY: each table was generated by simt-build and ends with an empty name.\n\
             pub static KERNELS: simt::Module = unsafe {{ simt::Module::new(TABLES) }};\n"
        );
        write(&out.join(format!("simt_{name}.rs")), &rust)?;
        if !sources.is_empty() {
            archive(fast, &format!("{prefix}_fast"))?;
            archive(checked, &format!("{prefix}_checked"))?;
        }
        Ok(())
    }
}

/// The compilation of one `.cu` file to two objects.
struct Source {
    file: PathBuf,
    /// Name of its table of kernels, without the variant; unique in the executable.
    table: String,
    /// Hash of everything that the objects depend on.
    hash: u64,
}

impl Source {
    fn object(&self, out: &Path, variant: &str) -> PathBuf {
        out.join(format!("{}_{variant}.o", self.table))
    }

    /// Builds both objects, unless they exist already. Returns the names of the kernels.
    fn compile(&self, fast: &cc::Build, checked: &cc::Build, out: &Path) -> Result<Vec<String>, Error> {
        let stamp = out.join(format!("{}.stamp", self.table));
        let mark = format!("{:016x}", self.hash);
        let variants = [("fast", fast), ("checked", checked)];
        if let Ok(last) = fs::read_to_string(&stamp)
            && let Some(names) = last.strip_prefix(&mark)
            && variants.iter().all(|(variant, _)| self.object(out, variant).exists())
        {
            return Ok(names.split_whitespace().map(str::to_owned).collect());
        }
        let _ = fs::remove_file(&stamp);
        let kernels = kernel_names(&preprocess(fast, &self.file)?);
        for (variant, build) in variants {
            let table = format!("{}_{variant}", self.table);
            let unit = out.join(format!("{table}.cpp"));
            write(&unit, &translation_unit(&self.file, &kernels, &table))?;
            let mut build = build.clone();
            build.file(&unit).cargo_metadata(false);
            let objects = build.try_compile_intermediates();
            let objects = objects.map_err(|error| Error(format!("{} ({variant}): {error}", self.file.display())))?;
            for object in objects {
                let target = self.object(out, variant);
                fs::rename(&object, &target).map_err(|error| Error(format!("{}: {error}", target.display())))?;
            }
        }
        write(&stamp, &format!("{mark} {}", kernels.join(" ")))?;
        Ok(kernels)
    }
}

/// Part of every hash: objects of another version of this crate are not used.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " 2");

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Hash of all headers in a folder and its sub-folders.
fn hash_headers(dir: &Path) -> Result<u64, Error> {
    let mut hash = 0;
    for path in entries(dir)? {
        if path.is_dir() {
            hash = hash_of(&(hash, hash_headers(&path)?));
        } else if path.extension().is_some_and(|extension| ["cuh", "h", "hpp", "inc"].iter().any(|e| extension == *e)) {
            hash = hash_of(&(hash, &path, read(&path)?));
        }
    }
    Ok(hash)
}

/// Runs `work` on each item, on as many threads as cargo allows, and returns the results in order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Relaxed)
                    && let Some(item) = items.get(index)
                {
                    let result = work(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Compiles the C++ part of the emulator. Only the `simt` crate needs this.
#[doc(hidden)]
pub fn compile_runtime(source: &Path) -> Result<(), Error> {
    println!("cargo:rerun-if-changed={}", source.display());
    println!("cargo:rerun-if-changed={}", include_dir().display());
    println!("cargo:include={}", include_dir().display());
    let mut build = flags(&compiler()?.path);
    build.file(source).opt_level(3);
    archive(build, "simt_runtime")
}

/// Flags common to kernels and run time. Kernels are always optimised: they dominate the time of tests.
fn flags(compiler: &OsString) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).compiler(compiler).std("c++17").cpp_link_stdlib(None).include(include_dir()).opt_level(2);
    build.warnings(true).extra_warnings(false).pic(true);
    for flag in [
        "-g1",             // line tables: findings name file and line
        "-fno-exceptions", // nothing may unwind through a coroutine
        "-fno-rtti",
        "-fno-extern-tls-init", // __shared__ never has a constructor
        "-ftls-model=initial-exec",
        "-fno-omit-frame-pointer",
        "-Wno-unknown-pragmas", // #pragma unroll
        "-Wno-subobject-linkage",
        "-Wno-unused", // a kernel need not use everything that the shim and its parameters offer
        "-Wno-psabi",
    ] {
        build.flag(flag);
    }
    build.flag(format!("-Werror=frame-larger-than={FRAME_LIMIT}"));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && target_is_host() {
        build.flag("-march=x86-64-v3");
    }
    build
}

fn target_is_host() -> bool {
    env::var("TARGET").ok() == env::var("HOST").ok()
}

struct Compiler {
    path: OsString,
    /// Its predefined macros, which identify its version.
    macros: String,
}

/// g++ from `SIMT_CXX`, otherwise `CXX`, otherwise `g++`. It must be GCC: clang's instrumentation misses copies of vector types.
fn compiler() -> Result<Compiler, Error> {
    for name in ["SIMT_CXX", "CXX"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let chosen = env::var_os("SIMT_CXX").or_else(|| env::var_os("CXX")).unwrap_or_else(|| "g++".into());
    let shown = chosen.to_string_lossy().into_owned();
    let advice = "install g++ 9 or later (Debian and Ubuntu: apt install g++) or set SIMT_CXX to it";
    let output = Command::new(&chosen)
        .args(["-x", "c++", "-dM", "-E", "/dev/null"])
        .output()
        .map_err(|error| Error(format!("cannot run the C++ compiler `{shown}` ({error}); {advice}")))?;
    let macros = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || !macros.contains("__GNUC__") || macros.contains("__clang__") {
        return Err(Error(format!("`{shown}` is not g++, and others miss accesses in the checked variant; {advice}")));
    }
    Ok(Compiler { path: chosen, macros })
}

/// Runs the preprocessor on one file, with `__global__` kept as a marker.
fn preprocess(build: &cc::Build, file: &Path) -> Result<String, Error> {
    let tool = build.try_get_compiler().map_err(|error| Error(error.to_string()))?;
    let mut command = tool.to_command();
    let output = command
        .args(["-E", "-P", "-DSIMT_SCAN", "-x", "c++"])
        .arg(file)
        .output()
        .map_err(|error| Error(format!("cannot run the preprocessor on {}: {error}", file.display())))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Error(format!("{} does not preprocess:\n{message}", file.display())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Names of the functions declared `extern "C" __global__` in preprocessed text, each once, in order.
fn kernel_names(preprocessed: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut before = "";
    for part in preprocessed.split("__simt_global__") {
        let is_extern = before.trim_end().ends_with("extern \"C\"");
        if is_extern && let Some(open) = part.find('(') {
            let head = part[..open].trim_end();
            let start = head.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |index| index + 1);
            if !names.iter().any(|name| name == &head[start..]) {
                names.push(head[start..].to_owned());
            }
        }
        before = part;
    }
    names
}

/// The `.cu` file inside a namespace, its kernels renamed so that both variants of many modules link, and their table.
fn translation_unit(file: &Path, kernels: &[String], table: &str) -> String {
    let mut text = String::from("#include \"simt.cuh\"\n");
    for kernel in kernels {
        let _ = writeln!(text, "#define {kernel} {table}__{kernel}");
    }
    let _ = writeln!(text, "namespace {table}_code {{\n#include \"{}\"\n}}", file.display());
    let _ = writeln!(text, "extern \"C\" const SimtEntry {table}[] = {{");
    for kernel in kernels {
        let _ = writeln!(text, "    SIMT_ENTRY(\"{kernel}\", {table}_code::{kernel}),");
    }
    text + "    {nullptr, nullptr, nullptr, 0}};\n"
}

fn archive(build: cc::Build, library: &str) -> Result<(), Error> {
    build.try_compile(library).map_err(|error| Error(format!("{library}: {error}")))?;
    println!("cargo:rustc-link-lib=m");
    Ok(())
}

fn cuda_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let mut stems: BTreeMap<String, &Path> = BTreeMap::new();
    for file in &files {
        let stem = identifier(&file.file_stem().unwrap_or_default().to_string_lossy());
        if let Some(other) = stems.insert(stem, file) {
            let (other, file) = (other.display(), file.display());
            return Err(Error(format!("{other} and {file} differ only in punctuation: rename one")));
        }
    }
    Ok(files)
}

/// The entries of a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |error: io::Error| Error(format!("cannot list {}: {error}", folder.display()));
    let paths = fs::read_dir(folder).map_err(fail)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    paths.sort();
    Ok(paths)
}

fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn variable(name: &str) -> Result<OsString, Error> {
    env::var_os(name).ok_or_else(|| Error(format!("{name} is not set: call this from a build script")))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| Error(format!("cannot read {}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|error| Error(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_behind_bounds_and_return_types() {
        let text = "extern \"C\" __simt_global__ void  relu_f32(const float* x) {}\n\
                    extern \"C\" __simt_global__ void copy(int n) { f(1); }";
        assert_eq!(kernel_names(text), ["relu_f32", "copy"]);
    }

    #[test]
    fn templates_are_not_kernels_that_can_be_launched_by_name() {
        assert!(kernel_names("template <int N> __simt_global__ void tile(float* x) {}").is_empty());
    }

    #[test]
    fn a_declaration_and_its_definition_count_once() {
        let text = "extern \"C\" __simt_global__ void a(int); extern \"C\" __simt_global__ void a(int n) {}";
        assert_eq!(kernel_names(text), ["a"]);
    }
}
