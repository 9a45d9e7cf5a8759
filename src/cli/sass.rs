//! `weft sass`: what the compiler made of the kernels in this program, as tables, as a comparison, or against budgets.

#[cfg(feature = "simt")]
use super::progress::Progress;
use super::{print, print_json};
use crate::device::ARCHITECTURES;
#[cfg(feature = "simt")]
use crate::doctor;
use crate::error::At;
#[cfg(feature = "simt")]
use crate::sass::Executed;
use crate::sass::{self, Budgets, Change, Class, Kernel, Line, Mix, Part, Tools, changes};
use crate::text_table::{Column, TextTable, number, text};
use crate::weights::keep_inputs;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show the machine code of the GPU kernels: registers, spills, loops and their instructions by source line. Needs no GPU, but
/// cuobjdump and nvdisasm of the CUDA toolkit.
#[derive(clap::Args)]
pub struct Args {
    /// One kernel, with its loops [default: a row for each kernel]
    kernel: Option<String>,
    /// Architecture, as 90a [default: the highest in this program]
    #[arg(long)]
    arch: Option<String>,
    /// Number of source lines shown of each loop, those with the most instructions
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = super::numbers::count())]
    lines: usize,
    /// Compare with another build of this program: show what differs from it
    #[arg(long, value_name = "OTHER_BINARY")]
    diff: Option<PathBuf>,
    /// Compare with the budgets in a file; exit with 1 if a kernel costs more
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "diff"])]
    budgets: Option<PathBuf>,
    /// Write what the kernels cost now to a file of budgets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "diff", "budgets", "json"])]
    write_budgets: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.write_budgets {
        keep_inputs("--write-budgets", path, std::env::current_exe().ok().as_deref())?;
    }
    let images = sass::embedded()?;
    let tools = Tools::find()?;
    let budgets = args.budgets.as_deref().map(|path| load(path, args.arch.as_deref())).transpose()?;
    let named = args.arch.as_deref().map(|arch| arch.strip_prefix("sm_").unwrap_or(arch));
    let arch = named.or(budgets.as_ref().map(|budgets| budgets.arch.as_str())).unwrap_or(sass::highest());
    if !ARCHITECTURES.contains(&arch) {
        let found = format!("this program has no GPU code for sm_{arch}");
        return Err(Error::new("--arch", found).advise(format_args!("it has that for {}", ARCHITECTURES.join(", "))));
    }
    let mut kernels = sass::kernels(&tools, &images, arch, args.kernel.as_deref())?;
    if args.write_budgets.is_some() || args.budgets.is_some() {
        execute(&mut kernels, arch)?;
    }
    if let Some(path) = &args.write_budgets {
        Budgets::record(&kernels, sass::compiler(), arch).save(path)?;
        print(format_args!("{}: {} kernels for sm_{arch}", path.display(), kernels.len()))?;
    } else if let Some(budgets) = &budgets {
        return check(budgets, &kernels, args.json);
    } else if let Some(other) = &args.diff {
        let file = std::fs::read(other).at(other)?;
        let images = sass::images(&file);
        if images.is_empty() {
            return Err(Error::file(other, "has no GPU code").advise("give a weft program built with it"));
        }
        // A kernel that the other build does not have is a difference, not a mistake.
        let there = sass::resources(&tools, &images, arch).map_err(|e| e.within(other.display()))?;
        let is_wanted = args.kernel.as_ref().is_none_or(|name| there.contains_key(name));
        let old = is_wanted.then(|| sass::kernels(&tools, &images, arch, args.kernel.as_deref())).transpose()?;
        let old = old.unwrap_or_default();
        compare(&old, &kernels, arch, args)?;
    } else if args.json {
        print_json(&document(&kernels, arch, args.kernel.is_some()))?;
    } else if args.kernel.is_some() {
        for kernel in &kernels {
            print(one(kernel, arch, args.lines))?;
        }
    } else {
        print(all(&kernels, arch))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Budgets, if they can be compared with this build.
fn load(path: &Path, arch: Option<&str>) -> Result<Budgets> {
    let budgets = Budgets::load(path)?;
    if budgets.compiler != sass::compiler() {
        let found = format!("is for nvcc {}, this program was built with {}", budgets.compiler, sass::compiler());
        return Err(Error::file(path, found).advise("build with that version, or --write-budgets"));
    }
    match arch.filter(|arch| arch.strip_prefix("sm_").unwrap_or(arch) != budgets.arch) {
        Some(arch) => {
            Err(Error::new(format_args!("--arch {arch}"), format_args!("the budgets are for {}", budgets.arch)))
        }
        None => Ok(budgets),
    }
}

/// Counts what the kernels execute, if this program has the PTX of that architecture and an emulator for it.
#[cfg(feature = "simt")]
fn execute(kernels: &mut [Kernel], arch: &str) -> Result<()> {
    if arch != sass::highest() {
        return Ok(());
    }
    let progress = Progress::new(doctor::checks() as u64, "checks");
    let (report, mut executed) = doctor::count(|done| progress.set(done))?;
    if report.failed() > 0 {
        let found = format_args!("{} checks failed, so that their counts mean nothing", report.failed());
        return Err(Error::new("the kernels", found).advise("see `weft doctor --device simt:ptx`"));
    }
    for kernel in kernels {
        kernel.executed = executed.remove(&kernel.name).map(|counted| Executed::new(&counted));
    }
    Ok(())
}

#[cfg(not(feature = "simt"))]
fn execute(_: &mut [Kernel], _: &str) -> Result<()> {
    Ok(())
}

fn check(budgets: &Budgets, kernels: &[Kernel], as_json: bool) -> Result<ExitCode> {
    let verdict = budgets.check(kernels);
    if as_json {
        print_json(&json!({ "regressions": verdict.regressions, "improvements": verdict.improvements }))?;
    } else {
        for line in &verdict.regressions {
            print(format_args!("over budget: {line}"))?;
        }
        for line in &verdict.improvements {
            print(format_args!("improved: {line}"))?;
        }
        let counts = (kernels.len(), verdict.regressions.len(), verdict.improvements.len());
        print(format_args!("{} kernels: {} numbers over budget, {} improved", counts.0, counts.1, counts.2))?;
    }
    Ok(if verdict.regressions.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is compared and listed, by the names of JSON; the loop is the main loop.
fn numbers(kernel: &Kernel) -> [(&'static str, u32); 8] {
    [
        ("registers", kernel.resources.registers),
        ("shared", kernel.resources.shared),
        ("stack", kernel.resources.stack),
        ("spill", kernel.spill),
        ("bytes", kernel.bytes),
        ("instructions", kernel.whole.count()),
        ("loop", kernel.main_loop().map_or(0, Part::count)),
        ("after", kernel.after.count()),
    ]
}

fn columns() -> impl Iterator<Item = Column> {
    let heads = numbers(&Kernel::default()).map(|(name, _)| number(name));
    ["kernel", "file"].map(text).into_iter().chain(heads)
}

fn all(kernels: &[Kernel], arch: &str) -> String {
    let rows = kernels.iter().map(|kernel| {
        let names = [kernel.name.clone(), kernel.file.clone()].into_iter();
        names.chain(numbers(kernel).map(|(_, count)| count.to_string())).collect()
    });
    let table = TextTable::new(columns()).print(rows);
    format!("sm_{arch}, nvcc {}, {} kernels\n\n{table}", sass::compiler(), kernels.len())
}

/// Parts of a kernel in the order of their execution: how they are called, from where to where, and what is in them.
fn parts(kernel: &Kernel) -> Vec<(String, String, &Part)> {
    let named = |name: &str, part| (name.to_owned(), String::new(), part);
    let mut parts = vec![named(if kernel.main.is_some() { "before" } else { "body" }, &kernel.before)];
    parts.extend(kernel.loops.iter().enumerate().map(|(at, found)| {
        let main = if kernel.main == Some(at) { ", main" } else { "" };
        let innermost = if found.innermost { ", innermost" } else { "" };
        let name = format!("{}loop {}{innermost}{main}", "  ".repeat(found.depth - 1), at + 1);
        (name, format!("{:04x}-{:04x}", found.start, found.end), &found.part)
    }));
    parts.extend([named("after", &kernel.after), named("called", &kernel.subroutines), named("all", &kernel.whole)]);
    parts.retain(|(_, _, part)| part.count() > 0);
    parts
}

fn one(kernel: &Kernel, arch: &str, lines: usize) -> String {
    let heads: Vec<Class> = kernel.whole.mix.classes().map(|(class, _)| class).collect();
    let columns = [text("part"), text("address"), number("instructions")].into_iter();
    let columns = columns.chain(heads.iter().map(|class| number(class.name())));
    let parts = parts(kernel);
    let rows = parts.iter().map(|(name, place, part)| {
        let counts = heads.iter().map(|class| part.mix[*class].to_string());
        [name.clone(), place.clone(), part.count().to_string()].into_iter().chain(counts).collect()
    });
    let table = TextTable::new(columns).print(rows);
    let sizes: Vec<String> = numbers(kernel)[..5].iter().map(|(name, count)| format!("{name} {count}")).collect();
    let mut found = format!("{} ({}), sm_{arch}: {}\n\n{table}", kernel.name, kernel.file, sizes.join(", "));
    for (name, _, part) in parts.iter().filter(|(name, ..)| name != "all") {
        let _ = write!(found, "\n\n{}\n{}", name.trim_start(), by_line(part, lines));
    }
    found
}

/// `product.cuh:197`; a dash for instructions that are nobody's.
fn line_name((file, line): &Line) -> String {
    if file.is_empty() { "-".into() } else { format!("{file}:{line}") }
}

fn mix_text(mix: &Mix) -> String {
    let classes: Vec<String> = mix.classes().map(|(class, count)| format!("{} {count}", class.name())).collect();
    classes.join(", ")
}

fn by_line(part: &Part, most: usize) -> String {
    let mut lines: Vec<(&Line, &Mix)> = part.lines.iter().collect();
    lines.sort_by_key(|(_, mix)| Reverse(mix.count()));
    let row = |(line, mix): &(&Line, &Mix)| vec![line_name(line), mix.count().to_string(), mix_text(mix)];
    let table = TextTable::new([text("line"), number("instructions"), text("of them")]);
    let mut found = table.print(lines.iter().take(most).map(row));
    if lines.len() > most {
        let rest: u32 = lines[most..].iter().map(|(_, mix)| mix.count()).sum();
        let _ = write!(found, "\n{rest} more in {} lines", lines.len() - most);
    }
    found
}

fn classes(mix: &Mix) -> Value {
    let classes = mix.classes().map(|(class, count)| (class.name().to_owned(), count.into()));
    Value::Object(classes.collect::<Map<_, _>>())
}

fn part_json(part: &Part) -> Map<String, Value> {
    let line = |((file, line), mix): (&Line, &Mix)| {
        let file = Some(file).filter(|file| !file.is_empty());
        json!({ "file": file, "line": line, "instructions": mix.count(), "classes": classes(mix) })
    };
    let lines: Vec<Value> = part.lines.iter().map(line).collect();
    let found = [("instructions", part.count().into()), ("classes", classes(&part.mix)), ("lines", lines.into())];
    found.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

fn numbers_json(kernel: &Kernel) -> Map<String, Value> {
    numbers(kernel).map(|(name, count)| (name.to_owned(), count.into())).into_iter().collect()
}

fn document(kernels: &[Kernel], arch: &str, with_code: bool) -> Value {
    let kernel = |kernel: &Kernel| {
        let mut found = Map::from_iter([
            ("name".to_owned(), kernel.name.clone().into()),
            ("file".to_owned(), kernel.file.clone().into()),
        ]);
        found.extend(numbers_json(kernel));
        if with_code {
            let loops = kernel.loops.iter().enumerate().map(|(at, it)| {
                let mut found = part_json(&it.part);
                found.insert("address".into(), json!([it.start, it.end]));
                found.insert("depth".into(), it.depth.into());
                found.insert("innermost".into(), it.innermost.into());
                found.insert("main".into(), (kernel.main == Some(at)).into());
                Value::Object(found)
            });
            let parts = json!({
                "before": part_json(&kernel.before),
                "loops": loops.collect::<Vec<_>>(),
                "after": part_json(&kernel.after),
                "called": part_json(&kernel.subroutines),
                "all": part_json(&kernel.whole),
            });
            found.insert("parts".into(), parts);
        }
        Value::Object(found)
    };
    let kernels: Vec<Value> = kernels.iter().map(kernel).collect();
    json!({ "arch": arch, "compiler": sass::compiler(), "kernels": kernels })
}

/// Prints the kernels whose numbers differ, and those that only one build has; of one kernel also its lines.
fn compare(old: &[Kernel], new: &[Kernel], arch: &str, args: &Args) -> Result<()> {
    let name = |kernel: &Kernel| kernel.name.clone();
    let missing = |from: &[Kernel], of: &[Kernel]| -> Vec<String> {
        of.iter().filter(|kernel| from.iter().all(|other| other.name != kernel.name)).map(name).collect()
    };
    let (added, removed) = (missing(old, new), missing(new, old));
    let pairs = new.iter().filter_map(|new| old.iter().find(|old| old.name == new.name).map(|old| (old, new)));
    let changed: Vec<_> = pairs.filter(|(old, new)| numbers(old) != numbers(new)).collect();
    if args.json {
        let kernels = changed.iter().map(|(old, new)| {
            let lines = args.kernel.is_some().then(|| {
                let line = |Change { line: (file, line), old, new }| json!({ "file": file, "line": line, "old": old, "new": new });
                let parts = line_changes(old, new).into_iter();
                let parts = parts.map(|(name, lines)| (name.to_owned(), lines.into_iter().map(line).collect()));
                Value::Object(parts.collect())
            });
            json!({ "name": new.name, "old": numbers_json(old), "new": numbers_json(new), "lines": lines })
        });
        let kernels: Vec<Value> = kernels.collect();
        return print_json(&json!({ "arch": arch, "changed": kernels, "added": added, "removed": removed }));
    }
    let rows = changed.iter().map(|(old, new)| {
        let cell = |((_, old), (_, new)): ((&str, u32), (&str, u32))| match old == new {
            true => new.to_string(),
            false => format!("{old} -> {new}"),
        };
        let cells = numbers(old).into_iter().zip(numbers(new)).map(cell);
        [new.name.clone(), new.file.clone()].into_iter().chain(cells).collect()
    });
    let mut found = String::new();
    if !changed.is_empty() {
        let _ = writeln!(found, "{}\n", TextTable::new(columns()).print(rows));
    }
    for (old, new) in changed.iter().filter(|_| args.kernel.is_some()) {
        for (name, mut lines) in line_changes(old, new) {
            lines.sort_by_key(|change| Reverse(change.old.abs_diff(change.new)));
            let row = |it: &Change| vec![line_name(&it.line), it.old.to_string(), it.new.to_string()];
            let table = TextTable::new([text("line"), number("old"), number("new")]);
            let _ = writeln!(found, "{name}\n{}\n", table.print(lines.iter().take(args.lines).map(row)));
        }
    }
    for (what, names) in [("only here", &added), ("only there", &removed)].iter().filter(|(_, names)| !names.is_empty())
    {
        let _ = writeln!(found, "{what}: {}", names.join(", "));
    }
    print(format_args!("{found}sm_{arch}: {} of {} kernels differ", changed.len() + added.len(), new.len()))
}

/// The lines whose numbers differ, by part.
fn line_changes(old: &Kernel, new: &Kernel) -> Vec<(&'static str, Vec<Change>)> {
    let pairs = old.lines().into_iter().zip(new.lines());
    let found = pairs.map(|((part, old), (_, new))| (part, changes(&old, &new)));
    found.filter(|(_, lines)| !lines.is_empty()).collect()
}
