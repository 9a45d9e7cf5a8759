//! The face-attribute system: takes a photo and returns its face and forty attributes. LNet_o and LNet_s localise the face, ANet
//! computes features of overlapping patches of the enlarged face region, and linear SVMs predict attributes from the features,
//! with scores averaged over the patches (paper, Fig. 2).

mod features;
mod training;
mod window;
mod workers;

pub use features::{Anet, FaceFeatures};
pub use training::{FaceSample, FaceSamples};
pub use window::FaceWindow;
pub use workers::Workers;

use crate::data::photo::{Photo, Rect};
use crate::device::Device;
use crate::locate::{CalibrationSample, Detection, Localiser, Locate, Map};
use crate::settings::{Document, Mistake};
use crate::shipped::{Folder, Source};
use crate::svm::{self, Svm};
use crate::{Error, Result, trace};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `model.toml`: the nets of a bundle and how they are combined. Paths are relative to its folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Name of the model.
    pub name: String,
    /// How faces are found.
    pub locate: Locate,
    /// How features are extracted.
    pub anet: Anet,
    /// The linear SVMs, written by `weft svm train`.
    pub svm: PathBuf,
    /// Positions of the values in the file.
    #[serde(skip)]
    document: Document,
}

/// Name of the file that describes a bundle.
pub const BUNDLE: &str = "model.toml";

impl Bundle {
    /// Reads the file that describes a bundle.
    ///
    /// # Errors
    /// A missing or unreadable file, unknown or missing keys, values out of range.
    pub fn load(source: impl Into<Source>) -> Result<Self> {
        Self::of(Document::load(source, "give the folder of a model bundle")?)
    }

    /// Like [`Bundle::load`], from a document that has already been read.
    ///
    /// # Errors
    /// Unknown or missing keys, values out of range.
    pub fn of(document: Document) -> Result<Self> {
        let bundle: Self = document.read()?;
        bundle.locate.check().map_err(|mistake| document.mistake(&mistake))?;
        Ok(Self { document, ..bundle })
    }

    /// The error for a mistake in the file.
    fn mistake(&self, mistake: &Mistake) -> Error {
        self.document.mistake(mistake)
    }
}

/// Photos are shrunk so that their longer side has at most this many pixels: finer detail does not reach any net.
const WORKING_SIDE: usize = 1024;

/// A model bundle, loaded.
///
/// ```
/// use weft::data::photo::Photo;
/// use weft::device::Device;
/// use weft::face::Model;
/// use weft::shipped::Folder;
///
/// let mut model = Model::load(Folder::model(), &Device::Cpu)?;
/// let photo = Photo::open("tests/photos/eileen-collins.jpg")?;
/// let Some(face) = model.locate(&photo)? else { panic!("there is a face") };
/// let scores = model.scores(&photo, &face)?;
/// let smiling = model.attributes()?.iter().position(|name| name == "Smiling").unwrap();
/// assert!(scores[smiling] > 0.0);
/// # Ok::<(), weft::Error>(())
/// ```
pub struct Model {
    /// The bundle that it was loaded from.
    pub bundle: Bundle,
    localiser: Localiser,
    features: FaceFeatures,
    svm: Option<Svm>,
    svm_file: Source,
}

/// A face in a photo.
#[derive(Debug, Clone)]
pub struct Face {
    /// In pixels of the photo; may extend beyond it.
    pub rect: Rect,
    /// The core square of the face, relative to which all windows around it are defined.
    pub core: Rect,
    /// The head-and-shoulders window.
    pub head: Rect,
    /// Mean response around the face.
    pub score: f32,
    /// The response maps of LNet_o and LNet_s, in pixels of the photo.
    pub maps: [Map; 2],
}

impl Model {
    /// Loads the bundle in `folder`, or the built-in one for [`Folder::Shipped`]; its nets run on `device`.
    ///
    /// # Errors
    /// A missing or unreadable file, nets or weights that do not fit.
    pub fn load(folder: impl Into<Folder>, device: &Device) -> Result<Self> {
        let folder = folder.into();
        let bundle = Bundle::load(folder.file(BUNDLE)?)?;
        let localiser = Localiser::load(&bundle.locate, &folder, device)?;
        let features = FaceFeatures::load(&bundle, &folder, device)?;
        let svm_file = folder.file(&bundle.svm)?;
        let svm = if svm_file.exists() { Some(Svm::load(&svm_file)?) } else { None };
        if let Some(svm) = svm.as_ref().filter(|svm| svm.dims() != features.dims()) {
            let found = format!("is for {} features, but ANet gives {}", svm.dims(), features.dims());
            return Err(Error::file(svm_file.to_string(), found).advise("train it again with `weft svm train`"));
        }
        Ok(Self { bundle, localiser, features, svm, svm_file })
    }

    /// Another model with the same parameters, to work on another photo at the same time, on another thread.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn sharing(&self) -> Result<Self> {
        let (bundle, svm, svm_file) = (self.bundle.clone(), self.svm.clone(), self.svm_file.clone());
        Ok(Self { bundle, localiser: self.localiser.sharing()?, features: self.features.sharing()?, svm, svm_file })
    }

    /// Names of the attributes.
    ///
    /// # Errors
    /// A bundle without SVMs.
    pub fn attributes(&self) -> Result<&[String]> {
        Ok(&self.svm()?.names)
    }

    fn svm(&self) -> Result<&Svm> {
        self.svm.as_ref().ok_or_else(|| {
            Error::new(&self.svm_file, "is missing, so there are no attributes").advise("make it with `weft svm train`")
        })
    }

    /// Path of the bundle's SVMs; `None` for the built-in bundle.
    pub fn svm_path(&self) -> Option<&Path> {
        self.svm_file.path()
    }

    /// Length of a feature vector.
    pub fn dims(&self) -> usize {
        self.features.dims()
    }

    /// The minimum score of a face returned by [`Model::locate`].
    pub fn threshold(&self) -> f32 {
        self.bundle.locate.threshold
    }

    /// The best face of a photo; `None` if none reaches the bundle's threshold.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn locate(&mut self, photo: &Photo) -> Result<Option<Face>> {
        Ok(self.detect(photo, self.threshold())?.into_iter().next())
    }

    /// Every face of a photo whose score is `floor` or more, best first; may be empty.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn detect(&mut self, photo: &Photo, floor: f32) -> Result<Vec<Face>> {
        let (small, scale) = trace::span("resampling", String::new, || photo.fit_within(WORKING_SIDE));
        let faces = self.localiser.detect(&small, floor)?;
        Ok(faces.into_iter().map(|found| self.face(found, scale)).collect())
    }

    /// Calibration samples of LNet_o and LNet_s for a face, in one or several windows, given its core square in pixels of the
    /// photo.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn calibration_samples(&mut self, photo: &Photo, core: Rect) -> Result<[Vec<CalibrationSample>; 2]> {
        let (small, scale) = photo.fit_within(WORKING_SIDE);
        let [x, y, width, height] = [core.x, core.y, core.width, core.height].map(|pixels| pixels * scale);
        self.localiser.calibration_samples(&small, Rect::new(x, y, width, height))
    }

    /// Converts pixels of a photo that was scaled by `scale` to pixels of the original.
    fn face(&self, Detection { head, core, score, maps }: Detection, scale: f32) -> Face {
        let up = |r: Rect| Rect::new(r.x / scale, r.y / scale, r.width / scale, r.height / scale);
        let maps = maps.map(|map| Map {
            origin: (map.origin.0 / scale, map.origin.1 / scale),
            step: (map.step.0 / scale, map.step.1 / scale),
            ..map
        });
        Face { rect: self.bundle.locate.boxes.face.around(up(core)), core: up(core), head: up(head), score, maps }
    }

    /// Checks that LNet_s can localise an attribute.
    ///
    /// # Errors
    /// An attribute that it was not trained on.
    pub fn check_attribute(&self, attribute: &str) -> Result<()> {
        self.localiser.channel(attribute).map(|_| ())
    }

    /// LNet_s's response map for an attribute in the head-and-shoulders window of a face.
    ///
    /// # Errors
    /// An attribute that LNet_s was not trained on; insufficient memory.
    pub fn attribute_map(&mut self, photo: &Photo, face: &Face, attribute: &str) -> Result<Map> {
        self.localiser.respond_to(photo, face.head, attribute)
    }

    /// The frame around a face from which ANet's patches are taken, in pixels of the photo.
    pub fn frame(&self, face: &Face) -> Rect {
        self.bundle.anet.frame().around(face.core)
    }

    /// Features [patches, dims] of the patches of a face.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn features(&mut self, photo: &Photo, face: &Face) -> Result<Vec<f32>> {
        self.features_in(photo, self.frame(face))
    }

    /// Features [patches, dims] of the patches of a known frame.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn features_in(&mut self, photo: &Photo, frame: Rect) -> Result<Vec<f32>> {
        self.features.features(photo, frame)
    }

    /// A score per attribute of a face; positive means present.
    ///
    /// # Errors
    /// A bundle without SVMs; insufficient memory.
    pub fn scores(&mut self, photo: &Photo, face: &Face) -> Result<Vec<f32>> {
        let features = self.features(photo, face)?;
        self.scores_of(&features)
    }

    /// Like [`Model::scores`], from features [patches, dims].
    ///
    /// # Errors
    /// A bundle without SVMs; features whose length does not match.
    pub fn scores_of(&self, features: &[f32]) -> Result<Vec<f32>> {
        let svm = self.svm()?;
        let patches = features.len() / svm.dims();
        let features = svm::Features { rows: patches, dims: svm.dims(), data: features };
        trace::span("svms", String::new, || svm::average_over_patches(&svm.scores(features)?, svm.names.len(), patches))
    }
}
