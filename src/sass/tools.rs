//! The tools that take GPU code apart, cuobjdump and nvdisasm of the CUDA toolkit, and fat binaries found in a program.

use crate::error::At;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the two tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    cuobjdump: PathBuf,
    nvdisasm: PathBuf,
}

/// What a kernel takes of a multiprocessor, in bytes except registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Per thread.
    pub registers: u32,
    /// Per thread, in local memory: spills, and arrays that did not fit into registers.
    pub stack: u32,
    /// Static, per block; on sm_90 with the 1024 bytes that the system keeps there.
    pub shared: u32,
}

impl Tools {
    /// Each tool: the one that `CUOBJDUMP` or `NVDISASM` names, else beside the nvcc of this build, in `CUDA_HOME/bin` or
    /// `CUDA_PATH/bin`, on PATH, in `/usr/local/cuda/bin`.
    ///
    /// # Errors
    /// A tool that is not there.
    pub fn find() -> Result<Self> {
        Ok(Self { cuobjdump: find("cuobjdump")?, nvdisasm: find("nvdisasm")? })
    }

    /// Writes the machine code of a fat binary for an architecture such as `90a` to a folder: one file per `.cu` file.
    ///
    /// # Errors
    /// Not a fat binary; a folder that cannot be written.
    pub fn extract(&self, image: &[u8], arch: &str, folder: &Path) -> Result<Vec<PathBuf>> {
        let fat = folder.join("image.fatbin");
        fs::write(&fat, image).at(&fat)?;
        let arch = format!("sm_{arch}");
        let mut command = Command::new(&self.cuobjdump);
        output(command.args(["-arch", &arch, "-xelf", "all", "image.fatbin"]).current_dir(folder))?;
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).at(folder)? {
            let path = entry.at(folder)?.path();
            if path.extension() == Some(OsStr::new("cubin")) && path.to_string_lossy().contains(&format!(".{arch}.")) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// What each kernel in a file of machine code takes.
    ///
    /// # Errors
    /// A file that cuobjdump does not read.
    pub fn resources(&self, cubin: &Path) -> Result<BTreeMap<String, Resources>> {
        Ok(resources(&output(Command::new(&self.cuobjdump).arg("--dump-resource-usage").arg(cubin))?))
    }

    /// The text of a file of machine code, with source lines.
    ///
    /// # Errors
    /// A file that nvdisasm does not read.
    pub fn disassemble(&self, cubin: &Path) -> Result<String> {
        output(Command::new(&self.nvdisasm).args(["-c", "-gi"]).arg(cubin))
    }
}

fn find(tool: &str) -> Result<PathBuf> {
    let variable = tool.to_uppercase();
    if let Some(named) = env::var_os(&variable).filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Error::new(variable, format_args!("there is no file {}", path.display())))
        };
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os).map(|home| Path::new(&home).join("bin"));
    let mut folders: Vec<PathBuf> = option_env!("WEFT_CUDA_BIN").map(PathBuf::from).into_iter().chain(homes).collect();
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders.push("/usr/local/cuda/bin".into());
    folders.into_iter().map(|folder| folder.join(tool)).find(|path| path.is_file()).ok_or_else(|| {
        Error::new(tool, "not found beside nvcc, in CUDA_HOME/bin or on PATH").advise(format_args!(
            "install the CUDA toolkit, or `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`, or set {variable}"
        ))
    })
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let result = command.output().at(Path::new(&program))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr).trim().to_owned();
        return Err(Error::new(program.display(), if said.is_empty() { result.status.to_string() } else { said }));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Reads ` Function NAME:` and, in the line after it, `REG:34 STACK:0 SHARED:1024 LOCAL:0`.
fn resources(text: &str) -> BTreeMap<String, Resources> {
    let mut found = BTreeMap::new();
    let mut name = "";
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Function ") {
            name = rest.trim_end_matches(':');
            continue;
        }
        let field = |name: &str| -> Option<u32> {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':')?.parse().ok())
        };
        if let Some(registers) = field("REG") {
            let stack = field("STACK").unwrap_or_default() + field("LOCAL").unwrap_or_default();
            let shared = field("SHARED").unwrap_or_default();
            found.insert(name.to_owned(), Resources { registers, stack, shared });
        }
    }
    found
}

/// The fat binaries inside a file, such as another build of this program: they begin with a number of their own and a length.
pub fn images(file: &[u8]) -> Vec<&[u8]> {
    /// 0xba55ed50, then the version, 1, and the size of the header, 16.
    const START: [u8; 8] = [0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
    /// The header of what follows: PTX (1) or machine code (2), and its version.
    const ENTRIES: [[u8; 4]; 2] = [[1, 0, 1, 1], [2, 0, 1, 1]];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = file.get(at..).filter(|rest| rest.len() > 20) {
        let length = <[u8; 8]>::try_from(&rest[8..16]).map(u64::from_le_bytes).unwrap_or_default();
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(16);
        let is_image = rest.starts_with(&START) && ENTRIES.iter().any(|entry| rest[16..].starts_with(entry));
        match rest.get(..end).filter(|_| is_image) {
            Some(image) => {
                found.push(image);
                at += end;
            }
            None => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_as_cuobjdump_writes_them() {
        let text = "Resource usage:\n Common:\n  GLOBAL:0\n Function gemm_nn_f16:\n  REG:34 STACK:8 SHARED:8704 LOCAL:4 \
                    CONSTANT[0]:388 TEXTURE:0\n Function fill:\n  REG:8 STACK:0 SHARED:0 LOCAL:0\n";
        let found = resources(text);
        assert_eq!(found["gemm_nn_f16"], Resources { registers: 34, stack: 12, shared: 8704 });
        assert_eq!((found.len(), found["fill"].registers), (2, 8));
    }

    #[test]
    fn images_are_found_between_other_bytes() {
        let header = [0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
        let image = [&header[..], &8u64.to_le_bytes(), &[2, 0, 1, 1, 7, 7, 7, 7]].concat();
        let file = [b"program ", &header[..], b" alone ", &image, b"and", &image, &image[..20]].concat();
        assert_eq!(images(&file), [&image[..], &image]);
        assert_eq!(images(&image[..image.len() - 1]), [&[0u8; 0]; 0], "cut off");
    }
}
