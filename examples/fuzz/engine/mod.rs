//! A fuzzer that knows Weft's formats: small files of each, damage that knows what it damages, and the readers with what
//! follows them, run inside worker processes with a limit of memory and of time.
//!
//! The one idea: an input is a function of (seed, number). So a worker writes down the number alone before it runs an input,
//! and whatever ends it (a panic that aborts, a stack that overflows, a limit), its parent makes the same input again,
//! keeps it, and starts the next worker behind it.

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

/// One format: where its files come from, how they are damaged, and who reads them.
pub struct Format {
    pub name: &'static str,
    /// How often it is chosen, relative to the others.
    weight: u32,
    /// Bytes that reading one input may take at once.
    pub memory: usize,
    /// One of these stands in each of its errors; none: any will do.
    places: &'static [&'static str],
    seeds: fn() -> Vec<Vec<u8>>,
    mutate: fn(&mut Vec<u8>, &[Vec<u8>], &mut Rng),
    target: fn(&mut Bench, &[u8]) -> Outcome,
}

/// The format of the planted faults: chosen only by its name.
pub const PLANTED: &str = "planted";

/// What readers of settings, annotations and weights may take.
const SMALL: usize = 256 * MIB;
/// What a photo may take: the largest that is decoded, as the decoder and as Weft hold it.
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

/// The number of a format in [`FORMATS`].
pub fn format_named(name: &str) -> Option<usize> {
    FORMATS.iter().position(|format| format.name == name)
}

/// The whole files of a format that damage starts from.
fn seeds_of(format: usize) -> &'static [Vec<u8>] {
    static SEEDS: [OnceLock<Vec<Vec<u8>>>; FORMATS.len()] = [const { OnceLock::new() }; FORMATS.len()];
    SEEDS[format].get_or_init(FORMATS[format].seeds)
}

/// Writes the whole files of all formats into folders of their names.
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

/// Input `number` of `seed` and its format, one of `only` (all, if that is empty).
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
