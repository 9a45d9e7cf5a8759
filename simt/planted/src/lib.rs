//! Kernels for the tests of `simt`: [`clean::KERNELS`] are correct, each of [`bugs::KERNELS`] has one planted bug.

pub mod clean {
    simt::include_kernels!("clean");
}
pub mod bugs {
    simt::include_kernels!("bugs");
}

/// The lines of a source file with the comment `// BUG <kernel>`: where a finding may point. A race has two.
pub fn planted_lines(source: &str, kernel: &str) -> Vec<u32> {
    let mark = format!("// BUG {kernel}");
    let marked = source.lines().enumerate().filter(|(_, line)| line.ends_with(&mark));
    marked.map(|(index, _)| index as u32 + 1).collect()
}
