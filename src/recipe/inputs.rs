//! Inputs shared by several kinds of steps: models and annotated photos.

use crate::Result;
use crate::data::celeba::{CelebA, Split};
use crate::error::At;
use crate::eval::photos::Photos;
use crate::provenance::{Fingerprint, Provenance};
use std::fs;
use std::path::Path;

/// Names of the files of a bundle, sorted: all files in its folder that are not hidden, except a step's own record.
pub fn bundle_files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !name.starts_with('.') && name != super::record::FILE {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Adds every file of a bundle.
pub fn model(list: &mut Provenance, folder: &Path) -> Result<()> {
    for name in bundle_files(folder)? {
        list.file(format!("model/{name}"), folder.join(&name))?;
    }
    Ok(())
}

/// Adds the photos of some splits and all of their annotations.
pub fn data(list: &mut Provenance, root: &Path, splits: &[Split]) -> Result<()> {
    let celeba = CelebA::open(root, false)?;
    let mut print = Fingerprint::default();
    print.text(&celeba.attribute_names.join(" "));
    let parts = splits.iter().map(|split| celeba.split(*split)).collect::<Result<Vec<_>>>()?;
    for sample in parts.into_iter().flatten() {
        let attributes: String = sample.attributes.iter().map(|present| if *present { '1' } else { '0' }).collect();
        let bbox = sample.bbox.map_or(String::new(), |b| format!("{} {} {} {}", b.x, b.y, b.width, b.height));
        let identity = sample.identity.map_or(String::new(), |identity| identity.to_string());
        print.photo(&sample.path)?.text(&attributes).text(&bbox).text(&identity);
    }
    list.set("photos", print.finish());
    Ok(())
}

/// Adds photos to be measured and all of their annotations.
pub fn photos(list: &mut Provenance, photos: &Photos) -> Result<()> {
    let mut print = Fingerprint::default();
    for photo in &photos.items {
        let known = format!("{:?} {:?}", photo.boxes, photo.attributes);
        print.photo(&photo.path)?.text(&known);
    }
    list.set("photos", print.finish());
    Ok(())
}

/// The seed of a step that does not specify one.
pub fn seed() -> u64 {
    1
}
