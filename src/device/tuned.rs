//! Tuned products: which tile and how many splits were the fastest right ones on a card, and which were wrong. A tuner writes
//! them to a file, a device reads that file once when it is opened, and a plan looks its products up.
//!
//! An entry holds for one card, driver, program and set of kernels ([`Card`]), and in it for one product ([`ProductKey`]); any
//! other is as if it were not there. A choice changes in which order a product is summed, through its splits, and nothing else.

use super::driver::Properties;
use super::gpu::Tile;
use super::images::KERNELS;
use crate::error::At;
use crate::weights::{make_folder, write_atomic};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// The variable that names the file, or is `off`.
pub const VARIABLE: &str = "WEFT_TUNED";
/// Incremented when the format changes.
const VERSION: u32 = 1;
/// Cards, drivers and programs that a file remembers; the oldest are forgotten.
const MOST_CARDS: usize = 64;
/// A file of every product of every shipped net on that many cards has a few megabytes.
const MOST_BYTES: u64 = 64 << 20;

/// A product as far as its speed and its correctness depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductKey {
    /// The kernel of the smallest tile: `conv_forward_bf16`, `gemm_nn_any_f16`.
    pub kernel: String,
    /// What is gathered, where that is more than lines of a matrix: the layer's shapes and the batch.
    pub layer: String,
    /// Products that are computed at once.
    pub batch: usize,
    /// m, n, k: [m, k] times [k, n].
    pub size: [usize; 3],
    /// Whether operands consist of whole packs of 16 bytes.
    pub wide: bool,
}

impl fmt::Display for ProductKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [m, n, k] = self.size;
        write!(f, "{} {}x{m}x{n}x{k}", self.kernel, self.batch)?;
        if self.layer.is_empty() { Ok(()) } else { write!(f, " ({})", self.layer) }
    }
}

/// How a product is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// What a block computes.
    pub tile: Tile,
    /// Parts of the sum over k, each in blocks of its own.
    pub splits: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.splits {
            1 => write!(f, "{}", self.tile),
            splits => write!(f, "{} / {splits}", self.tile),
        }
    }
}

/// A product as a launch computes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Which one.
    pub key: ProductKey,
    /// How it is cut.
    pub cut: Cut,
}

/// For what an entry holds: times depend on card and driver, correctness also on the program and its kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// As the driver reports it.
    pub name: String,
    /// Compute capability.
    pub capability: [u32; 2],
    /// Of which there may be fewer than the name says, on a part of a card.
    pub multiprocessors: u32,
    /// The driver's version.
    pub driver: String,
    /// The version of Weft.
    pub weft: String,
    /// A hash of the kernels and of what compiled them.
    pub kernels: String,
}

impl Card {
    /// The card of a device with this program.
    pub fn new(properties: &Properties) -> Self {
        Self {
            name: properties.name.clone(),
            capability: properties.capability,
            multiprocessors: properties.multiprocessors,
            driver: properties.driver.clone(),
            weft: env!("CARGO_PKG_VERSION").into(),
            kernels: KERNELS.into(),
        }
    }
}

/// A way to cut a product whose result was wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrong {
    /// The way.
    pub cut: Cut,
    /// What was wrong with it.
    pub found: String,
}

/// What is known of a product on a card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Which product.
    pub product: ProductKey,
    /// The fastest of those that were right; `None` if none was.
    pub choice: Option<Cut>,
    /// Its seconds.
    pub seconds: Option<f64>,
    /// What the model of costs would have taken.
    pub model: Cut,
    /// Its seconds, if it was right.
    pub model_seconds: Option<f64>,
    /// What was wrong; never chosen.
    pub wrong: Vec<Wrong>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    card: Card,
    records: Vec<Record>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    weft_tuned: u32,
    /// The one that was written last is the last.
    cards: Vec<Entry>,
}

/// What plans of a device look up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuned {
    choices: HashMap<ProductKey, Cut>,
    /// Kernels with the tiles in which they were wrong for any product.
    avoided: HashSet<(String, Tile)>,
}

impl Tuned {
    /// Of records of one card.
    pub fn new(records: &[Record]) -> Self {
        let is_right = |record: &Record, cut: Cut| record.wrong.iter().all(|wrong| wrong.cut != cut);
        // Whatever an edited file says.
        let choice =
            |record: &Record| Some((record.product.clone(), record.choice.filter(|cut| is_right(record, *cut))?));
        let wrong = records.iter().flat_map(|record| record.wrong.iter().map(move |wrong| (record, wrong.cut)));
        Self {
            choices: records.iter().filter_map(choice).collect(),
            avoided: wrong.map(|(record, cut)| (record.product.kernel.clone(), cut.tile)).collect(),
        }
    }

    /// One choice: for the tuner, which tries it.
    pub fn only(product: &ProductKey, cut: Cut) -> Self {
        Self { choices: HashMap::from([(product.clone(), cut)]), ..Self::default() }
    }

    /// Those that hold for a card; none if the file does not exist.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or of another version.
    pub fn load(path: &Path, card: &Card) -> Result<Self> {
        Ok(Self::new(&records(path, card)?))
    }

    /// How a product was found to be fastest.
    pub fn choice(&self, product: &ProductKey) -> Option<Cut> {
        self.choices.get(product).copied()
    }

    /// Whether a model may not take this tile: the product's kernel was wrong with it, for whatever product.
    pub fn avoids(&self, product: &ProductKey, tile: Tile) -> bool {
        !self.avoided.is_empty() && self.avoided.contains(&(product.kernel.clone(), tile))
    }

    /// The number of products with a choice.
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty() && self.avoided.is_empty()
    }
}

/// Where tuned products are: the file that `WEFT_TUNED` names; otherwise `weft/tuned.json` in the user's cache folder. `None` if
/// it says `off`, and where there is no such folder.
pub fn default_path() -> Option<PathBuf> {
    path_from(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn path_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    match variable(VARIABLE) {
        Some(path) if path.as_os_str() == "off" => None,
        Some(path) => Some(path),
        None => {
            // The XDG specification: a relative path is to be ignored.
            let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
            let cache = cache.or_else(|| variable("HOME").map(|home| home.join(".cache")))?;
            Some(cache.join("weft").join("tuned.json"))
        }
    }
}

/// What a file knows of a card.
///
/// # Errors
/// As [`Tuned::load`].
pub fn records(path: &Path, card: &Card) -> Result<Vec<Record>> {
    let cards = read(path)?.cards.into_iter().rev();
    Ok(cards.into_iter().find(|entry| entry.card == *card).map_or_else(Vec::new, |entry| entry.records))
}

/// Adds records of a card to a file, in place of those of the same products; other processes may do the same. A file that is
/// damaged is replaced, with a line in the log.
///
/// # Errors
/// A folder that cannot be made or written to; a file of another version.
pub fn add(path: &Path, card: &Card, new: &[Record]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let _lock = lock(path)?;
    let mut contents = match read(path) {
        Ok(contents) => contents,
        Err(e @ Error::Format(_)) if !is_other_version(path) => {
            log::warn!("{e}; it is written anew");
            Contents::default()
        }
        Err(e) => return Err(e),
    };
    contents.weft_tuned = VERSION;
    let old = contents.cards.iter().position(|entry| entry.card == *card).map(|at| contents.cards.remove(at));
    let mut entry = old.unwrap_or_else(|| Entry { card: card.clone(), records: Vec::new() });
    entry.records.retain(|old| new.iter().all(|new| new.product != old.product));
    entry.records.extend_from_slice(new);
    entry.records.sort_by(|a, b| a.product.cmp(&b.product));
    contents.cards.push(entry);
    let most = contents.cards.len().saturating_sub(MOST_CARDS);
    contents.cards.drain(..most);
    let mut text = serde_json::to_string_pretty(&contents).at(path)?;
    text.push('\n');
    write_atomic(path, |file| file.write_all(text.as_bytes()))
}

/// Held by one process at a time, so that none loses what another one adds. Released when it is dropped.
fn lock(path: &Path) -> Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.lock"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&beside).at(&beside)?;
    // On a file system without locks the file is still whole at any time; an entry may be lost.
    if let Err(e) = file.lock() {
        log::warn!("{}: cannot be locked: {e}", beside.display());
    }
    Ok(file)
}

fn read(path: &Path) -> Result<Contents> {
    let advice = "remove it, or tune again";
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Contents::default()),
        Ok(found) if found.len() > MOST_BYTES || !found.is_file() => {
            return Err(Error::file(path, "is no file of tuned products").advise(advice));
        }
        found => found.at(path)?,
    };
    let text = fs::read(path).at(path)?;
    match version(&text) {
        Some(VERSION) => {}
        Some(other) => {
            let what = format!("tuned products in format {other}, and this Weft reads format {VERSION}");
            return Err(Error::file(path, what).advise("name another file, or remove this one"));
        }
        None => return Err(Error::file(path, "damaged, or no file of tuned products").advise(advice)),
    }
    serde_json::from_slice(&text).map_err(|e| Error::file(path, format!("damaged: {e}")).advise(advice))
}

/// The format's version.
fn version(text: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Head {
        weft_tuned: u32,
    }
    serde_json::from_slice::<Head>(text).ok().map(|head| head.weft_tuned)
}

fn is_other_version(path: &Path) -> bool {
    fs::read(path).ok().and_then(|text| version(&text)).is_some_and(|found| found != VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(driver: &str) -> Card {
        let [name, weft, kernels] = ["card", "0.1.0", "00"].map(str::to_string);
        Card { name, capability: [9, 0], multiprocessors: 132, driver: driver.into(), weft, kernels }
    }

    fn product(m: usize) -> ProductKey {
        let [kernel, layer] = ["conv_forward_bf16", "32 x 8x9x9"].map(str::to_string);
        ProductKey { kernel, layer, batch: 1, size: [m, 64, 576], wide: true }
    }

    fn record(m: usize, tile: Tile, wrong: &[Tile]) -> Record {
        let of = |&tile: &Tile| Wrong { cut: Cut { tile, splits: 2 }, found: "its error is 7.0 times".into() };
        Record {
            product: product(m),
            choice: Some(Cut { tile, splits: 2 }),
            seconds: Some(1.25e-5),
            model: Cut { tile: Tile::Middle, splits: 1 },
            model_seconds: None,
            wrong: wrong.iter().map(of).collect(),
        }
    }

    #[test]
    fn what_is_added_is_found_for_that_card_and_product_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/tuned.json");
        assert!(Tuned::load(&path, &card("1")).unwrap().is_empty());
        add(&path, &card("1"), &[record(100, Tile::Large, &[]), record(200, Tile::Middle, &[Tile::Narrow])]).unwrap();
        add(&path, &card("2"), &[record(100, Tile::Narrow, &[])]).unwrap();
        add(&path, &card("1"), &[record(100, Tile::Middle, &[])]).unwrap();
        let known = records(&path, &card("1")).unwrap();
        assert_eq!(known, [record(100, Tile::Middle, &[]), record(200, Tile::Middle, &[Tile::Narrow])]);
        let tuned = Tuned::load(&path, &card("1")).unwrap();
        let choice = |m| tuned.choice(&product(m)).map(|cut| cut.tile);
        assert_eq!((choice(100), choice(200), choice(300)), (Some(Tile::Middle), Some(Tile::Middle), None));
        assert!(tuned.avoids(&product(300), Tile::Narrow) && !tuned.avoids(&product(300), Tile::Large));
        assert_eq!(Tuned::load(&path, &card("2")).unwrap().choice(&product(100)).unwrap().tile, Tile::Narrow);
        let other = Card { kernels: "01".into(), ..card("1") };
        assert!(Tuned::load(&path, &other).unwrap().is_empty());
        assert!(Tuned::load(&path, &Card { multiprocessors: 16, ..card("1") }).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_no_choice_even_if_the_file_says_so() {
        assert_eq!(Tuned::new(&[record(100, Tile::Large, &[Tile::Large])]).choice(&product(100)), None);
    }

    #[test]
    fn a_damaged_file_is_one_line_and_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuned.json");
        add(&path, &card("1"), &[record(100, Tile::Large, &[])]).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let cut = &whole[..whole.len() / 2];
        let unknown = whole.replace("128x128", "512x512");
        for text in ["", "[]", "{}", "{\"weft_tuned\": \"1\"}", "\u{0}\u{1}", cut, &unknown] {
            fs::write(&path, text).unwrap();
            let e = Tuned::load(&path, &card("1")).unwrap_err().to_string();
            assert!(e.contains("damaged") && e.contains("tune again") && e.lines().count() == 1, "{text}: {e}");
            add(&path, &card("1"), &[record(100, Tile::Large, &[])]).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        }
        assert!(Tuned::load(folder.path(), &card("1")).is_err(), "a folder");
    }

    #[test]
    fn a_file_of_another_version_is_neither_read_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuned.json");
        fs::write(&path, "{\"weft_tuned\": 2, \"more\": []}").unwrap();
        let read = Tuned::load(&path, &card("1")).unwrap_err().to_string();
        let written = add(&path, &card("1"), &[]).unwrap_err().to_string();
        assert!(read == written && read.contains("in format 2"), "{read}");
        assert!(fs::read_to_string(&path).unwrap().contains("more"));
    }

    #[test]
    fn several_writers_lose_nothing_and_old_cards_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuned.json");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for m in 0..5 {
                        add(path, &card("1"), &[record(10 * writer + m, Tile::Large, &[])]).unwrap();
                    }
                });
            }
        });
        assert_eq!(records(&path, &card("1")).unwrap().len(), 20);
        for driver in 0..MOST_CARDS {
            add(&path, &card(&format!("new {driver}")), &[record(1, Tile::Large, &[])]).unwrap();
        }
        assert!(records(&path, &card("1")).unwrap().is_empty());
        assert_eq!(records(&path, &card("new 0")).unwrap().len(), 1);
    }

    #[test]
    fn the_variable_comes_before_the_cache_folder_and_off_is_none() {
        let at = |given: &[(&str, &str)]| {
            path_from(|name| given.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value)))
        };
        let [home, cache] = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "/cache")];
        assert_eq!(at(&[home, cache, (VARIABLE, "here.json")]), Some("here.json".into()));
        assert_eq!(at(&[home, cache, (VARIABLE, "off")]), None);
        assert_eq!(at(&[home, cache]), Some("/cache/weft/tuned.json".into()));
        assert_eq!(at(&[home, ("XDG_CACHE_HOME", "relative")]), Some("/home/a/.cache/weft/tuned.json".into()));
        assert_eq!(at(&[]), None);
    }
}
