//! The attributes of all photos in a folder: a face is located in each, and its strongest attributes are listed.
//!
//! In the repository's folder: `cargo run --release --example attributes [FOLDER] [auto|cpu|cuda|simt]`

use weft::data::Problems;
use weft::data::folder::photos;
use weft::data::photo::Photo;
use weft::device::Device;
use weft::face::Model;

fn main() -> weft::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or("tests/photos".into());
    let device = Device::open(&arguments.next().unwrap_or("auto".into()))?;
    let mut model = Model::load("weights", &device)?;

    // Strict: the first file that cannot be read as a photo is an error.
    let photos = photos(&folder, &mut Problems::new(true))?;
    let mut faces = 0;
    for path in &photos {
        let photo = Photo::open(path)?;
        let Some(face) = model.locate(&photo)? else {
            println!("{}: no face", path.display());
            continue;
        };
        faces += 1;
        let scores = model.scores(&photo, &face)?;
        let mut present: Vec<(&String, f32)> =
            model.attributes()?.iter().zip(scores).filter(|(_, s)| *s > 0.0).collect();
        present.sort_by(|a, b| b.1.total_cmp(&a.1));
        let [x, y, width, height] = [face.rect.x, face.rect.y, face.rect.width, face.rect.height];
        println!("{}: face of {width:.0} x {height:.0} pixels at ({x:.0}, {y:.0})", path.display());
        present.iter().take(8).for_each(|(name, score)| println!("  {name:20} {score:5.2}"));
    }
    println!("{faces} faces in {} photos", photos.len());
    if faces == 0 { Err(weft::Error::new(folder, "no photo shows a face")) } else { Ok(()) }
}
