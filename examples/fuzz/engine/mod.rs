//! A fuzzer that knows Weft's formats: small files of each, format-aware mutations, and the readers with the code that uses their
//! results, run in worker processes with memory and time limits.
//!
//! Key idea: an input is a function of (seed, number). A worker therefore records only the number before it runs an input, and
//! whatever ends it (a panic that aborts, a stack overflow, a limit), its parent regenerates the same input, keeps it, and starts
//! the next worker after it.

mod campaign;
mod memory;
mod mutate;
mod pictures;
mod seeds;
mod targets;
mod tensors;
mod worker;

pub use campaign::{Options, Progress, Report, Work, run};
pub use worker::serve;

use std::path::Path;
use std::sync::OnceLock;
use targets::{Bench, Outcome};
use weft::rng::Rng;
use weft::{Error, Result};

const MIB: usize = 1 << 20;

/// One format: the source of its files, how they are mutated, and which reader they are given to.
pub struct Format {
    pub name: &'static str,
    /// How often it is chosen, relative to the other formats.
    weight: u32,
    /// Memory limit for one input, in bytes.
    pub memory: usize,
    /// Each of its errors must contain one of these; if empty, any error is accepted.
    places: &'static [&'static str],
    seeds: fn() -> Vec<Vec<u8>>,
    mutate: fn(&mut Vec<u8>, &[Vec<u8>], &mut Rng),
    target: fn(&mut Bench, &[u8]) -> Outcome,
}

/// The format of the planted faults: selected only by name.
pub const PLANTED: &str = "planted";

/// Limit for readers of settings, annotations and weights.
const SMALL: usize = 256 * MIB;
/// Limit for photos: the largest that is decoded, in the decoder's and in Weft's representation.
const PHOTO: usize = 2048 * MIB;

/// All formats.
pub const FORMATS: &[Format] = &[
    format(
        "weights",
        110,
        SMALL,
        &["weights.safetensors", "converted.safetensors"],
        seeds::weights,
        tensors::safetensors,
        targets::weights,
    ),
    format("svm", 60, SMALL, &["svm.safetensors"], seeds::svm, tensors::safetensors, targets::svm),
    format(
        "checkpoint",
        60,
        SMALL,
        &["checkpoint.safetensors"],
        seeds::checkpoint,
        tensors::safetensors,
        targets::checkpoint,
    ),
    format(
        "run",
        40,
        SMALL,
        &["input.safetensors", "run0.toml", "run1.toml"],
        seeds::run,
        tensors::safetensors,
        targets::run,
    ),
    format("net", 130, SMALL, &["net.toml"], seeds::net, mutate::toml, targets::net),
    format("training", 80, SMALL, &["training.toml"], seeds::training, mutate::toml, targets::training),
    format("recipe", 50, SMALL, &["recipe.toml"], seeds::recipe, mutate::toml, targets::recipe),
    format("bundle", 80, SMALL, &["model"], seeds::bundle, mutate::toml, targets::bundle),
    format("record", 40, SMALL, &["step.json"], seeds::record, mutate::text, targets::record),
    format("tuned", 30, SMALL, &["tuned.json"], seeds::tuned, mutate::text, targets::tuned),
    format("set", 60, SMALL, &["--set", "training.toml", "recipe.toml"], seeds::set, mutate::text, targets::set),
    format("command", 40, SMALL, &[], seeds::command, mutate::text, targets::command),
    format("celeba", 70, SMALL, &["celeba"], seeds::celeba, mutate::csv, targets::celeba),
    format("boxes", 80, SMALL, &["boxes.csv"], seeds::boxes, mutate::csv, targets::boxes),
    format("detections", 40, SMALL, &["detections.csv"], seeds::detections, mutate::csv, targets::detections),
    format("jpeg", 40, PHOTO, &["photo"], pictures::jpegs, pictures::jpeg, targets::photo),
    format("png", 40, PHOTO, &["photo"], pictures::pngs, pictures::png, targets::photo),
    format("tiff", 40, PHOTO, &["photo"], pictures::tiffs, pictures::tiff, targets::photo),
    format("bmp", 25, PHOTO, &["photo"], pictures::bmps, pictures::bmp, targets::photo),
    format("webp", 25, PHOTO, &["photo"], pictures::webps, pictures::webp, targets::photo),
    format("gif", 25, PHOTO, &["photo"], pictures::gifs, pictures::gif, targets::photo),
    format("pnm", 25, PHOTO, &["photo"], pictures::pnms, pictures::pnm, targets::photo),
    format(PLANTED, 0, SMALL, &["planted"], seeds::planted, |_, _, _| (), targets::planted),
];

type Target = fn(&mut Bench, &[u8]) -> Outcome;
type Mutate = fn(&mut Vec<u8>, &[Vec<u8>], &mut Rng);

const fn format(
    name: &'static str,
    weight: u32,
    memory: usize,
    places: &'static [&'static str],
    seeds: fn() -> Vec<Vec<u8>>,
    mutate: Mutate,
    target: Target,
) -> Format {
    Format { name, weight, memory, places, seeds, mutate, target }
}

/// The index of a format in [`FORMATS`].
pub fn format_named(name: &str) -> Option<usize> {
    FORMATS.iter().position(|format| format.name == name)
}

/// The valid files of a format from which mutations start.
fn seeds_of(format: usize) -> &'static [Vec<u8>] {
    static SEEDS: [OnceLock<Vec<Vec<u8>>>; FORMATS.len()] = [const { OnceLock::new() }; FORMATS.len()];
    SEEDS[format].get_or_init(FORMATS[format].seeds)
}

/// Writes the valid files of all formats to folders named after them.
pub fn write_seeds(folder: &Path) -> Result<()> {
    for (number, format) in FORMATS.iter().enumerate().filter(|(_, format)| format.weight > 0) {
        let folder = folder.join(format.name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
        for (i, seed) in seeds_of(number).iter().enumerate() {
            let path = folder.join(i.to_string());
            std::fs::write(&path, seed).map_err(|e| Error::file(path, e))?;
        }
    }
    Ok(())
}

/// Input `number` of `seed` and its format, which is one of `only` (any, if that is empty).
pub fn input(seed: u64, number: u64, only: &[usize]) -> (usize, Vec<u8>) {
    let mut rng = Rng::new(seed, number);
    let format = if only.is_empty() {
        let mut ticket = rng.below(FORMATS.iter().map(|format| format.weight as usize).sum());
        let drawn = |format: &Format| {
            let weight = format.weight as usize;
            ticket.checked_sub(weight).map(|rest| ticket = rest).is_none()
        };
        FORMATS.iter().position(drawn).unwrap_or(0)
    } else {
        only[rng.below(only.len())]
    };
    let seeds = seeds_of(format);
    let mut data = seeds[rng.below(seeds.len())].clone();
    if rng.chance(0.98) {
        let mut go_on = true;
        while go_on {
            (FORMATS[format].mutate)(&mut data, seeds, &mut rng);
            go_on = rng.chance(0.5);
        }
    }
    (format, data)
}
