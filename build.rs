//! Compiles the CUDA kernels of `kernels/`: for the host through simt-build, and for GPUs with nvcc where there is one.
//!
//! The one idea: a GPU build needs nothing but nvcc. One fat binary per `.cu` file (machine code per architecture and
//! PTX for later cards) is put into the crate as bytes, through the generated `images.rs`; no CUDA library is linked.
//!
//! - `WEFT_CUDA=auto` (default) builds without GPU code if there is no nvcc; `require` fails then; `off` never looks.
//! - `WEFT_CUDA_ARCHS="80 90a"` builds for these architectures only.
//! - nvcc comes from `NVCC`, `CUDA_HOME` or `CUDA_PATH`, PATH, the usual folders, or a Python environment with
//!   NVIDIA's wheels (`VIRTUAL_ENV`, or `.venv` here).
//!
//! A file whose first line is `// simt: device-only` is compiled by nvcc only; architectures may follow on that line.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

/// Both sides of the kernels need the emulator's header.
#[cfg(any(feature = "cuda", feature = "simt"))]
use simt_build::{DEVICE_ONLY, include_dir};
#[cfg(not(any(feature = "cuda", feature = "simt")))]
const DEVICE_ONLY: &str = "";
#[cfg(not(any(feature = "cuda", feature = "simt")))]
fn include_dir() -> PathBuf {
    PathBuf::new()
}

/// Built for by default, as far as nvcc knows them; the suffix `a` (wgmma, TMA) is not portable to later cards.
const ARCHITECTURES: [&str; 5] = ["75", "80", "86", "89", "90a"];
const FLAGS: [&str; 8] = [
    "-O3",
    "--std=c++17",
    "-lineinfo",
    "-Wno-deprecated-gpu-targets",
    "-Xptxas",
    "-v",
    "-fatbin",
    "-Xfatbin=-compress-all", // a fifth of the size
];
const KERNELS: &str = "kernels";
/// The emulator executes PTX, too.
const EMBED_PTX: bool = cfg!(all(feature = "cuda", feature = "simt"));
const INSTALL: &str = "install the CUDA toolkit 12 or later, or `pip install nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm \
    nvidia-cuda-cccl nvidia-cuda-runtime` into a virtual environment, or set NVCC";

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    for name in ["WEFT_CUDA", "WEFT_CUDA_ARCHS", "NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "VIRTUAL_ENV", "NVCC_CCBIN"]
    {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={KERNELS}");
    match host().and_then(|()| device()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The emulator's kernels, for the feature `simt`.
#[cfg(feature = "simt")]
fn host() -> Result<()> {
    simt_build::Kernels::new(KERNELS).compile(KERNELS).map_err(|error| error.to_string())
}

#[cfg(not(feature = "simt"))]
fn host() -> Result<()> {
    Ok(())
}

/// Everything for GPUs, for the feature `cuda`.
fn device() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    if cfg!(not(feature = "cuda")) {
        return write_images(&out, &[], &[], "");
    }
    let mode = env::var("WEFT_CUDA").unwrap_or_default();
    let nvcc = match mode.as_str() {
        "off" => None,
        "" | "auto" => {
            let nvcc = Nvcc::find()?;
            if nvcc.is_none() {
                println!(
                    "cargo:warning=no nvcc found: weft is built without GPU code (--device cpu and simt work). To have \
                     it, {INSTALL}; WEFT_CUDA=off silences this"
                );
            }
            nvcc
        }
        "require" => Some(Nvcc::find()?.ok_or(format!("WEFT_CUDA=require, but no nvcc was found: {INSTALL}"))?),
        other => return Err(format!("WEFT_CUDA={other}: must be auto, require or off")),
    };
    let Some(nvcc) = nvcc else { return write_images(&out, &[], &[], "") };

    let files = cuda_files()?;
    let headers = hash_headers()?;
    let archs = nvcc.architectures()?;
    let jobs = files.iter().map(|file| Job::new(file, &archs, &nvcc, headers, &out)).collect::<Result<Vec<_>>>()?;
    let jobs: Vec<Job> = jobs.into_iter().filter(|job| !job.archs.is_empty()).collect();
    let stale: Vec<&Job> = jobs.iter().filter(|job| !job.is_done()).collect();
    let threads = number_of_jobs() / stale.len().max(1);
    let failures: Vec<String> =
        in_parallel(&stale, |job| job.run(&nvcc, threads.max(1))).into_iter().filter_map(Result::err).collect();
    if !failures.is_empty() {
        return Err(format!("{}\n(WEFT_CUDA=off builds without GPU code)", failures.join("\n")));
    }
    println!("cargo:rustc-env=WEFT_CUDA_BIN={}", nvcc.path.parent().unwrap_or(Path::new("")).display());
    write_images(&out, &jobs, &archs, &nvcc.version)
}

/// What the crate sees: `src/device/images.rs` includes it.
fn write_images(out: &Path, jobs: &[Job], archs: &[String], version: &str) -> Result<()> {
    let (mut rows, mut texts, mut resources) = (String::new(), String::new(), String::new());
    for job in jobs {
        let _ = writeln!(rows, "    ({:?}, include_bytes!({:?})),", job.stem, job.output);
        if EMBED_PTX {
            let _ = writeln!(texts, "    include_bytes!({:?}),", job.ptx);
        }
        let path = job.output.with_extension("ptxas.txt");
        let report = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for (kernel, numbers) in resources_of(&report, archs.last().map_or("", String::as_str)) {
            let _ = writeln!(resources, "    ({kernel:?}, {numbers:?}),");
        }
    }
    let highest = archs.last().map_or("", String::as_str);
    let kernels = hash_kernels(archs, version)?;
    let text = format!(
        "/// One fat binary per `.cu` file: its name without extension, and its bytes. Empty without GPU code.\n\
         pub static IMAGES: &[(&str, &[u8])] = &[\n{rows}];\n\
         /// What they hold machine code for, as `80` or `90a`; PTX of the lowest and the highest is there, too.\n\
         pub const ARCHITECTURES: &[&str] = &{archs:?};\n\
         /// The compiler's version line; empty without GPU code.\n\
         pub const NVCC: &str = {version:?};\n\
         /// A hash of the kernels, of the flags and of the compiler.\n\
         pub const KERNELS: &str = \"{kernels:016x}\";\n\
         /// PTX of each `.cu` file for [`PTX_ARCHITECTURE`], deflated: what the emulator's second engine executes.\n\
         #[cfg(feature = \"simt\")]\n\
         pub(crate) static PTX: &[&[u8]] = &[\n{texts}];\n\
         #[cfg(feature = \"simt\")]\n\
         pub(crate) const PTX_ARCHITECTURE: &str = {highest:?};\n\
         /// What ptxas says of each kernel there: registers, bytes of static shared memory, bytes of stack.\n\
         #[cfg(feature = \"simt\")]\n\
         pub(crate) static RESOURCES: &[(&str, [u32; 3])] = &[\n{resources}];\n"
    );
    let path = out.join("images.rs");
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// From `nvcc -Xptxas -v`: a kernel's line, then one with its stack, then one with registers and shared memory.
fn resources_of(report: &str, arch: &str) -> Vec<(String, [u32; 3])> {
    let before = |line: &str, word: &str| -> u32 {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|found| *found == word);
        let of_bytes = |at: usize| if words[at - 1] == "bytes" { words[at - 2] } else { words[at - 1] };
        at.filter(|at| *at > 1).and_then(|at| of_bytes(at).parse().ok()).unwrap_or(0)
    };
    let (mut found, mut kernel, mut stack) = (Vec::new(), None, 0);
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut quoted = rest.split('\'');
            let name = quoted.next().unwrap_or_default();
            kernel = (quoted.nth(1) == Some(&format!("sm_{arch}"))).then(|| name.to_owned());
        } else if line.contains("stack frame") {
            stack = before(line, "stack");
        } else if line.contains(" registers")
            && let Some(kernel) = kernel.take()
        {
            found.push((kernel, [before(line, "registers"), before(line, "smem"), stack]));
        }
    }
    found
}

struct Nvcc {
    path: PathBuf,
    version: String,
}

impl Nvcc {
    /// The first nvcc that is there; one that was named and does not run is an error.
    fn find() -> Result<Option<Nvcc>> {
        if let Some(named) = env::var_os("NVCC").filter(|named| !named.is_empty()) {
            let found = Nvcc::at(PathBuf::from(&named));
            let shown = named.to_string_lossy();
            return found.map(Some).map_err(|error| format!("NVCC={shown} does not run ({error})"));
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        folders
            .extend(["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os).map(|home| Path::new(&home).join("bin")));
        folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
        folders.push("/usr/local/cuda/bin".into());
        let mut versions = children(Path::new("/usr/local"));
        versions.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cuda-")));
        folders.extend(versions.iter().rev().map(|path| path.join("bin")));
        folders.push("/opt/cuda/bin".into());
        let environments = env::var_os("VIRTUAL_ENV").map(PathBuf::from).into_iter().chain([PathBuf::from(".venv")]);
        for environment in environments {
            // lib/python3.12/site-packages/nvidia/cu13/bin
            for python in children(&environment.join("lib")) {
                folders.extend(children(&python.join("site-packages/nvidia")).iter().map(|path| path.join("bin")));
            }
        }
        let mut paths = folders.into_iter().map(|folder| folder.join("nvcc")).filter(|path| path.is_file());
        Ok(paths.find_map(|path| Nvcc::at(path).ok()))
    }

    fn at(path: PathBuf) -> Result<Nvcc> {
        let path = path.canonicalize().unwrap_or(path); // cargo and nvcc may run in other folders
        let text = output(Command::new(&path).arg("--version"))?;
        let version = text.lines().rev().find(|line| line.contains("release")).unwrap_or_default().trim().to_owned();
        Ok(Nvcc { path, version })
    }

    /// Those wanted and known, lowest first.
    fn architectures(&self) -> Result<Vec<String>> {
        let known = output(Command::new(&self.path).arg("--list-gpu-arch"))?;
        let known: BTreeSet<u32> =
            known.lines().filter_map(|line| number(line.trim().strip_prefix("compute_")?)).collect();
        let named = env::var("WEFT_CUDA_ARCHS").unwrap_or_default();
        let named: Vec<&str> = named.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
        let wanted = if named.is_empty() { ARCHITECTURES.to_vec() } else { named.clone() };
        let mut chosen = Vec::new();
        for arch in wanted.into_iter().map(plain) {
            let number =
                number(arch).ok_or_else(|| format!("WEFT_CUDA_ARCHS: `{arch}` is no architecture; write 80 or 90a"))?;
            if known.contains(&number) {
                chosen.push((number, arch.to_owned()));
            } else if !named.is_empty() {
                return Err(format!(
                    "WEFT_CUDA_ARCHS: `{arch}` is not known to {} ({})",
                    self.path.display(),
                    self.version
                ));
            }
        }
        chosen.sort();
        chosen.dedup();
        if chosen.is_empty() {
            return Err(format!("{} knows none of sm_{}", self.path.display(), ARCHITECTURES.join(", sm_")));
        }
        Ok(chosen.into_iter().map(|(_, arch)| arch).collect())
    }
}

/// `80` of `sm_80`.
fn plain(arch: &str) -> &str {
    arch.strip_prefix("sm_").or_else(|| arch.strip_prefix("compute_")).unwrap_or(arch)
}

/// 90 of `90a`.
fn number(arch: &str) -> Option<u32> {
    arch.strip_suffix(['a', 'f']).unwrap_or(arch).parse().ok()
}

/// One `.cu` file to be compiled for all its architectures.
struct Job {
    stem: String,
    source: PathBuf,
    archs: Vec<String>,
    arguments: Vec<String>,
    output: PathBuf,
    /// The deflated PTX of the highest architecture.
    ptx: PathBuf,
    /// Of everything the output depends on; kept beside it.
    hash: String,
}

impl Job {
    fn new(source: &Path, archs: &[String], nvcc: &Nvcc, headers: u64, out: &Path) -> Result<Job> {
        let text = fs::read_to_string(source).map_err(|error| format!("cannot read {}: {error}", source.display()))?;
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut archs = archs.to_vec();
        let named = text.lines().next().and_then(|line| line.strip_prefix(DEVICE_ONLY)).unwrap_or_default();
        let named: Vec<&str> = named.split([' ', ',']).map(plain).filter(|word| number(word).is_some()).collect();
        if !named.is_empty() {
            archs.retain(|arch| named.contains(&arch.as_str()));
        }
        let mut arguments: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        for dir in [Path::new(KERNELS).canonicalize().unwrap_or_default(), include_dir()] {
            arguments.push(format!("-I{}", dir.display()));
        }
        for arch in &archs {
            arguments.push(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
        }
        // PTX is for cards that no machine code fits. That of the lowest runs everywhere, but has no tensor cores on sm_75,
        // so that of the highest is there for later cards; code for `90a` is for one card only.
        let portable: Vec<&String> =
            archs.iter().filter(|arch| arch.bytes().all(|byte| byte.is_ascii_digit())).collect();
        for arch in BTreeSet::from_iter(portable.first().into_iter().chain(portable.last())) {
            arguments.push(format!("-gencode=arch=compute_{arch},code=compute_{arch}"));
        }
        let mut hasher = DefaultHasher::new();
        (&text, headers, &arguments, &nvcc.version, &nvcc.path, env::var_os("NVCC_CCBIN")).hash(&mut hasher);
        let hash = format!("{:016x}", hasher.finish());
        let output = out.join(format!("{stem}.fatbin"));
        let ptx = out.join(format!("{stem}.ptx.z"));
        Ok(Job { output, ptx, stem, source: source.to_owned(), archs, arguments, hash })
    }

    fn is_done(&self) -> bool {
        let last = fs::read_to_string(self.output.with_extension("stamp"));
        last.is_ok_and(|last| last == self.hash) && self.output.is_file() && (!EMBED_PTX || self.ptx.is_file())
    }

    /// Leaves the fat binary, the PTX, what ptxas says of registers and spills (`<stem>.ptxas.txt`), and the stamp.
    fn run(&self, nvcc: &Nvcc, threads: usize) -> Result<()> {
        let stamp = self.output.with_extension("stamp");
        let _ = fs::remove_file(&stamp);
        let mut command = Command::new(&nvcc.path);
        command.args(&self.arguments).arg(format!("--threads={threads}")).arg(&self.source).arg("-o").arg(&self.output);
        let kept = self.output.with_extension("kept");
        if EMBED_PTX {
            fs::create_dir_all(&kept).map_err(|error| format!("{}: {error}", kept.display()))?;
            command.arg("--keep").arg("--keep-dir").arg(&kept);
        }
        let result = command.output().map_err(|error| format!("cannot run {}: {error}", nvcc.path.display()))?;
        let report = String::from_utf8_lossy(&result.stderr);
        if !result.status.success() {
            let said: Vec<&str> = report.lines().filter(|line| !line.starts_with("ptxas info")).collect();
            return Err(format!("nvcc failed on {}:\n{}", self.source.display(), said.join("\n")));
        }
        for line in report.lines().filter(|line| line.contains("warning")) {
            println!("cargo:warning={line}");
        }
        let write =
            |path: &Path, text: &str| fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
        write(&self.output.with_extension("ptxas.txt"), &report)?;
        self.pack_ptx(&kept)?;
        write(&stamp, &self.hash)
    }

    /// The PTX among nvcc's intermediate files, without its debug sections, deflated.
    #[cfg(all(feature = "cuda", feature = "simt"))]
    fn pack_ptx(&self, kept: &Path) -> Result<()> {
        let arch = self.archs.last().map_or("", String::as_str);
        let names = [format!("{}.compute_{arch}.ptx", self.stem), format!("{}.ptx", self.stem)];
        let path = names.iter().map(|name| kept.join(name)).find(|path| path.is_file());
        let path =
            path.ok_or_else(|| format!("nvcc left no PTX of {} in {}", self.source.display(), kept.display()))?;
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = text.split("\t.section").next().unwrap_or_default();
        let file = fs::File::create(&self.ptx).map_err(|error| format!("{}: {error}", self.ptx.display()))?;
        let mut packer = flate2::write::DeflateEncoder::new(file, flate2::Compression::best());
        std::io::Write::write_all(&mut packer, text.as_bytes())
            .and_then(|()| packer.finish())
            .map_err(|error| format!("{}: {error}", self.ptx.display()))?;
        let _ = fs::remove_dir_all(kept);
        Ok(())
    }

    #[cfg(not(all(feature = "cuda", feature = "simt")))]
    fn pack_ptx(&self, _kept: &Path) -> Result<()> {
        Ok(())
    }
}

/// The `.cu` files directly in the folder; those in folders below are experiments.
fn cuda_files() -> Result<Vec<PathBuf>> {
    let mut files = children(Path::new(KERNELS));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    Ok(files)
}

fn hash_headers() -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut folders = vec![PathBuf::from(KERNELS), include_dir()];
    while let Some(folder) = folders.pop() {
        for path in children(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cuh" || extension == "h") {
                let text = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                (&path, text).hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

/// Of what the GPU code is made from, wherever it lies: texts of the kernels and headers, architectures, flags and compiler.
fn hash_kernels(archs: &[String], version: &str) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    (archs, version, FLAGS).hash(&mut hasher);
    for path in children(Path::new(KERNELS))
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "cu" || end == "cuh"))
    {
        let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        (path.file_name(), text).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// What is in a folder, in order; nothing if it cannot be listed.
fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn output(command: &mut Command) -> Result<String> {
    let result = command.output().map_err(|error| error.to_string())?;
    if !result.status.success() {
        return Err(String::from_utf8_lossy(&result.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn number_of_jobs() -> usize {
    env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1)
}

/// Runs `work` on each item, on as many threads as cargo allows.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..number_of_jobs().clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                    let result = work(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
