//! Host memory: how much is free, and allocations that return an error instead of aborting the process. Allocations whose size
//! depends on user input are checked first and refused with one line: what is needed, what is free and what would fit.

use crate::{Error, Result};
use bytemuck::Zeroable;
use std::fmt::Display;
use std::fs;
use std::path::Path;

/// Allocations below this are not checked against the free memory: a query takes half a millisecond.
const SMALL: u128 = 64 << 20;

/// Bytes that this process may still allocate: the minimum of the system's available memory, of what its control groups leave
/// and of what its limits on address space and data leave. Where this is not reported (not on Linux) there is no bound.
pub fn available() -> u64 {
    [system(), groups(), limits()].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// A zeroed vector of `len` values, untouched pages included: they cost nothing until they are used. `what` names its purpose
/// and may be empty.
///
/// # Errors
/// More than is free: how much is needed, and how much is free.
pub fn zeroed<T: Zeroable>(len: usize, what: impl Display) -> Result<Vec<T>> {
    let bytes = len as u128 * size_of::<T>() as u128;
    check(&what, bytes)?;
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| refused(what, bytes, available()))
}

/// An empty vector with capacity for `len` values.
///
/// # Errors
/// As [`zeroed`].
pub fn reserve<T>(len: usize, what: impl Display) -> Result<Vec<T>> {
    let bytes = len as u128 * size_of::<T>() as u128;
    check(&what, bytes)?;
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| refused(what, bytes, available()))?;
    Ok(values)
}

/// Extends `values` with zeros to `len` values, if it is shorter.
///
/// # Errors
/// As [`zeroed`]; the vector is unchanged.
pub fn grow<T: Zeroable + Clone>(values: &mut Vec<T>, len: usize, what: impl Display) -> Result<()> {
    if values.is_empty() && len > 0 {
        *values = zeroed(len, what)?;
    } else if let Some(more) = len.checked_sub(values.len()).filter(|more| *more > 0) {
        let bytes = more as u128 * size_of::<T>() as u128;
        check(&what, bytes)?;
        values.try_reserve_exact(more).map_err(|_| refused(what, bytes, available()))?;
        values.resize(len, T::zeroed());
    }
    Ok(())
}

/// Checks that `bytes` can be allocated.
///
/// # Errors
/// As [`zeroed`].
pub fn check(what: impl Display, bytes: u128) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    let free = available();
    if bytes <= usable(free) { Ok(()) } else { Err(refused(what, bytes, free)) }
}

/// Checks that the bytes `cost(n)`, which grow with `n` (samples, for example), fit into `free` bytes.
///
/// # Errors
/// How much is needed, how much is free, and how many would fit.
pub fn fit(what: impl Display, n: usize, free: u64, cost: impl Fn(usize) -> u128) -> Result<()> {
    let needed = cost(n);
    if needed <= usable(free) {
        return Ok(());
    }
    // [low, high): fits, does not fit.
    let (mut low, mut high) = (0, n);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if cost(middle) <= usable(free) { low = middle } else { high = middle }
    }
    let advice = match low {
        0 => "not even 1 fits".to_string(),
        most => format!("at most {} fits", thousands(two_digits(most))),
    };
    Err(refused(what, needed, free).advise(advice))
}

/// The message of [`check`].
pub fn refused(what: impl Display, needed: u128, free: u64) -> Error {
    Error::memory(what, format!("needs {} of memory, {} are free", size(needed), size(free.into())))
}

/// The part of the free memory to plan with: the rest is left to the remainder of the program.
pub fn usable(free: u64) -> u128 {
    u128::from(free - free / 16)
}

/// `812 bytes`, `3.1 MB`, `21 GB`: decimal units.
pub fn size(bytes: u128) -> String {
    const UNITS: [&str; 8] = ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let (mut value, mut unit) = (bytes as f64 / 1e3, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1e3, unit + 1);
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// `6,800`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// Rounded down to two digits, because the free memory changes continually.
fn two_digits(number: usize) -> usize {
    let unit = 10usize.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

/// Memory that the system can provide without swapping.
fn system() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kilobytes| kilobytes.saturating_mul(1024))
}

/// What the control groups of this process and their parents leave, in version 2 or 1.
fn groups() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().filter_map(|line| group(line, Path::new("/sys/fs/cgroup"))).min()
}

/// One line of /proc/self/cgroup: `number:controllers:path`. In a container the path may not exist, but the root does.
fn group(line: &str, mount: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, [limit, usage, cache]) = match controllers {
        "" => (mount.to_path_buf(), ["memory.max", "memory.current", "inactive_file"]),
        _ if controllers.split(',').any(|name| name == "memory") => {
            (mount.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"])
        }
        _ => return None,
    };
    let left = |folder: &Path| {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = number(limit)?;
        // Page cache can be reclaimed.
        let cached = field(&fs::read_to_string(folder.join("memory.stat")).ok()?, cache).unwrap_or(0);
        Some(limit.saturating_sub(number(usage)?.saturating_sub(cached)))
    };
    let inside = root.join(path.trim_start_matches('/'));
    inside.ancestors().take_while(|folder| folder.starts_with(&root)).filter_map(left).min()
}

/// What `ulimit -v` and `ulimit -d` leave.
fn limits() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let left = |name: &str, used: &str| {
        // "unlimited" is not a number.
        let limit = field(&limits, name)?;
        Some(limit.saturating_sub(field(&status, used)?.saturating_mul(1024)))
    };
    [left("Max address space", "VmSize:"), left("Max data size", "VmData:")].into_iter().flatten().min()
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_read_well() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (9_949_000, "9.9 MB"),
            (9_990_000, "10 MB"),
            (999_600_000, "1.0 GB"),
            (3_100_000_000_000_000, "3.1 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert!(size(u128::MAX).ends_with(" YB"));
        assert_eq!([7, 999, 1000, 6800, 12_345_678].map(thousands), ["7", "999", "1,000", "6,800", "12,345,678"]);
        assert_eq!([0, 7, 99, 101, 6899].map(two_digits), [0, 7, 99, 100, 6800]);
    }

    #[test]
    fn what_is_refused_says_what_fits() {
        let cost = |n: usize| 1000 * n as u128 + 5;
        assert!(fit("--batch", 15, 16_006, cost).is_ok());
        let error = |n: usize, free: u64| fit(format!("--batch {n}"), n, free, cost).unwrap_err().to_string();
        assert_eq!(error(16, 16_006), "--batch 16: needs 16 kB of memory, 16 kB are free; at most 15 fits");
        assert_eq!(error(3, 900), "--batch 3: needs 3.0 kB of memory, 900 bytes are free; not even 1 fits");
        assert_eq!(
            error(usize::MAX, 7_900_000),
            format!("--batch {}: needs 18 ZB of memory, 7.9 MB are free; at most 7,400 fits", usize::MAX)
        );
    }

    #[test]
    fn too_much_is_an_error_and_little_is_not() {
        assert!(available() > 1 << 20);
        for len in [1 << 46, usize::MAX / 8, usize::MAX] {
            let error = zeroed::<f32>(len, "the arena").unwrap_err().to_string();
            assert!(error.starts_with("the arena: needs ") && error.ends_with(" are free"), "{error}");
            assert!(reserve::<u64>(len, "a table").is_err());
            let mut few = vec![1.0f32];
            assert!(grow(&mut few, len, "").is_err() && few == [1.0]);
        }
        let mut values: Vec<f32> = zeroed(3, "").unwrap();
        assert_eq!(values, [0.0; 3]);
        values[0] = 2.0;
        grow(&mut values, 5, "").unwrap();
        grow(&mut values, 1, "").unwrap();
        assert_eq!(values, [2.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(reserve::<u8>(9, "").unwrap().capacity() >= 9);
    }

    #[test]
    fn control_groups_of_both_versions_bound_what_is_there() {
        let mount = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = mount.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a/memory.max", "1000\n");
        put("a/memory.current", "700\n");
        put("a/memory.stat", "anon 600\ninactive_file 100\n");
        put("a/b/memory.max", "max\n");
        put("a/b/memory.current", "10\n");
        put("a/b/memory.stat", "inactive_file 0\n");
        assert_eq!(group("0::/a/b", mount.path()), Some(400));
        assert_eq!(group("0::/", mount.path()), None);
        put("memory/memory.limit_in_bytes", "5000\n");
        put("memory/memory.usage_in_bytes", "5500\n");
        put("memory/memory.stat", "total_inactive_file 600\n");
        assert_eq!(group("4:cpu,memory:/not/seen/here", mount.path()), Some(100));
        assert_eq!(group("3:cpuset:/", mount.path()), None);
    }
}
