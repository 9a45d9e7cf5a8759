//! The files embedded in the program: the model, the nets and the recipes that ship with Weft, so that the bare binary works on
//! any machine and from any folder. Files named by users are read from disk; a [`Source`] is either kind.

use crate::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// An embedded file.
#[derive(Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Its name, without a folder.
    pub name: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
}

/// A table of the files in one folder of the repository.
macro_rules! shipped {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(Shipped { name: $name, bytes: include_bytes!(concat!("../", $folder, "/", $name)) }),*]
    };
}

/// The model bundle, which `--model` replaces.
const MODEL: &[Shipped] = shipped!("weights":
    "model.toml", "lnet_o.toml", "lnet_o.safetensors", "lnet_s.toml", "lnet_s.safetensors", "anet.toml", "anet.safetensors",
    "svm.safetensors",
);
/// Nets of the model, which have weights.
const MODEL_NETS: [&str; 3] = ["anet", "lnet_o", "lnet_s"];
/// Nets without weights.
const NETS: &[Shipped] = shipped!("nets": "anet_deepid2.toml", "lnet_half.toml");
/// Training files, recipes, and the template of a bundle.
const RECIPES: &[Shipped] = shipped!("weights/recipes":
    "ablations.toml", "anet-attributes-scratch.toml", "anet-attributes-wild.toml", "anet-attributes.toml",
    "anet-identities.toml", "celeba-mini.toml", "lnet-o-tags.toml", "lnet-objects.toml", "lnet-s-tags.toml", "model.toml",
);

/// The folder next to the program in which a model overrides the embedded one.
const BESIDE: &str = "weights";

fn find(table: &'static [Shipped], name: &str) -> Option<&'static Shipped> {
    table.iter().find(|file| file.name == name)
}

/// An input file: on disk, or embedded in the program.
///
/// ```
/// use weft::net::{Net, Unknown};
/// use weft::shipped::Source;
///
/// let source = Source::net("anet");
/// let net = Net::load(&source)?;
/// let loaded = net.load_parameters(source.weights()?, Unknown::Ignore)?;
/// assert_eq!(loaded.values.len(), net.parameter_len());
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path.
    Disk(PathBuf),
    /// Built in.
    Shipped(&'static Shipped),
}

impl<P: AsRef<Path>> From<P> for Source {
    fn from(path: P) -> Self {
        Self::Disk(path.as_ref().to_path_buf())
    }
}

impl From<&Source> for Source {
    fn from(source: &Source) -> Self {
        source.clone()
    }
}

/// The form used in messages.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Shipped(file) => write!(f, "built-in {}", file.name),
        }
    }
}

impl Source {
    /// A network description: the bare name of a built-in net, unless a file with exactly that name exists; otherwise a path.
    pub fn net(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let shipped = || {
            let name = path.to_str()?;
            let table = if MODEL_NETS.contains(&name) { MODEL } else { NETS };
            find(table, &format!("{name}.toml"))
        };
        match shipped() {
            Some(file) if !path.is_file() => Self::Shipped(file),
            _ => Self::from(path),
        }
    }

    /// Names of all built-in nets, on one line.
    pub fn net_names() -> String {
        let others = NETS.iter().map(|file| stem(file.name));
        MODEL_NETS.into_iter().chain(others).collect::<Vec<_>>().join(", ")
    }

    /// The weights that ship with a built-in net.
    ///
    /// # Errors
    /// A net on disk, or a built-in one without weights.
    pub fn weights(&self) -> Result<Self> {
        let file = match self {
            Self::Shipped(net) => find(MODEL, &format!("{}.safetensors", stem(net.name))),
            Self::Disk(_) => None,
        };
        file.map(Self::Shipped).ok_or_else(|| {
            Error::new(self, "has no built-in weights")
                .advise(format!("give a file of weights; {} have their own", MODEL_NETS.join(", ")))
        })
    }

    /// The path, if it is a file on disk.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Disk(path) => Some(path),
            Self::Shipped(_) => None,
        }
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path().is_none_or(Path::exists)
    }
}

/// The folder of a model bundle: on disk, or embedded in the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    /// A path.
    Disk(PathBuf),
    /// Built in.
    Shipped,
}

impl<P: AsRef<Path>> From<P> for Folder {
    fn from(path: P) -> Self {
        Self::Disk(path.as_ref().to_path_buf())
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Shipped => f.write_str("built in"),
        }
    }
}

impl Folder {
    /// The default model: in the folder `weights` next to the program if that contains a bundle, otherwise the one embedded in
    /// the program.
    pub fn model() -> Self {
        let program = std::env::current_exe().ok();
        let beside = program.as_deref().and_then(Path::parent).map(|folder| folder.join(BESIDE));
        match beside {
            Some(folder) if folder.join("model.toml").is_file() => Self::Disk(folder),
            _ => Self::Shipped,
        }
    }

    /// A file of the bundle.
    ///
    /// # Errors
    /// A name that is not in the built-in bundle.
    pub fn file(&self, name: impl AsRef<Path>) -> Result<Source> {
        let name = name.as_ref();
        match self {
            Self::Disk(folder) => Ok(folder.join(name).into()),
            Self::Shipped => name
                .to_str()
                .and_then(|name| find(MODEL, name))
                .map(Source::Shipped)
                .ok_or_else(|| Error::new("built-in model", format!("has no file {}", name.display()))),
        }
    }
}

/// Names of the recipes and training files, and their purpose: the first sentence of their comment.
pub fn recipes() -> impl Iterator<Item = (&'static str, String)> {
    RECIPES.iter().map(|file| {
        let comment = text(file).lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        let comment = comment.collect::<Vec<_>>().join(" ");
        let end = [". ", ": "].into_iter().filter_map(|end| comment.find(end)).min();
        (stem(file.name), comment[..end.unwrap_or(comment.len())].trim_end_matches('.').to_string())
    })
}

/// A recipe or training file under a header that says how to use it and where the files that it names come from.
///
/// # Errors
/// No recipe of that name.
pub fn recipe(name: &str) -> Result<String> {
    let Some(file) = RECIPES.iter().find(|file| stem(file.name) == name) else {
        let names: Vec<&str> = RECIPES.iter().map(|file| stem(file.name)).collect();
        return Err(Error::new(name, "no such recipe").advise(format!("known: {}", names.join(", "))));
    };
    let text = text(file);
    let mut header =
        format!("# Printed by: weft train --show {name}\n# Relative paths start at the folder that weft runs in.\n");
    for file in RECIPES.iter().filter(|file| text.contains(&format!("\"weights/recipes/{}\"", file.name))) {
        header += &format!("# It reads: weft train --show {} > weights/recipes/{}\n", stem(file.name), file.name);
    }
    if MODEL.iter().any(|file| text.contains(&format!("\"weights/{}\"", file.name))) {
        header += "# It reads: weft weights export weights\n";
    }
    Ok(format!("{header}\n{text}"))
}

/// The files of the built-in model.
pub fn model() -> &'static [Shipped] {
    MODEL
}

fn stem(name: &'static str) -> &'static str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Shipped TOML is UTF-8; a test reads all of it.
fn text(file: &'static Shipped) -> &'static str {
    std::str::from_utf8(file.bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_net_and_recipe_of_the_repository_is_shipped() {
        let names = |folder: &str, ending: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let mut names: Vec<String> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(ending))
                .collect();
            names.sort();
            names
        };
        let listed = |table: &[Shipped], ending: &str| {
            let mut names: Vec<String> = table.iter().map(|file| file.name.to_string()).collect();
            names.retain(|name| name.ends_with(ending));
            names.sort();
            names
        };
        assert_eq!(listed(RECIPES, ""), names("weights/recipes", ""));
        for ending in [".toml", ".safetensors"] {
            assert_eq!(listed(MODEL, ending), names("weights", ending));
        }
        // Nets of the paper's width have the same names as those in the model.
        assert_eq!([listed(NETS, ""), vec!["lnet_o.toml".into(), "lnet_s.toml".into()]].concat(), {
            let mut names = names("nets", ".toml");
            names.retain(|name| name != "anet.toml");
            names
        });
    }

    #[test]
    fn a_bare_name_is_a_built_in_net_and_all_else_a_path() {
        for name in Source::net_names().split(", ") {
            assert!(Source::net(name).path().is_none(), "{name}");
        }
        for path in ["anet.toml", "./anet", "nets/anet", "Anet", ""] {
            assert_eq!(Source::net(path), Source::Disk(path.into()));
        }
        assert_eq!(Source::net("anet").weights().unwrap().to_string(), "built-in anet.safetensors");
        let error = Source::net("lnet_half").weights().unwrap_err().to_string();
        assert!(error.contains("no built-in weights") && error.contains("anet, lnet_o, lnet_s"), "{error}");
    }

    #[test]
    fn a_recipe_says_where_the_files_that_it_names_come_from() {
        for (name, about) in recipes() {
            assert!(!about.is_empty() && about.len() < 200, "{name}: {about}");
            let text = recipe(name).unwrap();
            assert!(text.parse::<toml::Table>().is_ok(), "{text}");
        }
        let text = recipe("celeba-mini").unwrap();
        assert!(
            text.contains("# It reads: weft train --show lnet-s-tags > weights/recipes/lnet-s-tags.toml\n"),
            "{text}"
        );
        assert!(recipe("ablations").unwrap().contains("weft weights export weights"));
        assert!(recipe("celeba").unwrap_err().to_string().contains("known: ablations, "));
    }
}
