//! The features of all patches of an image, by any of three methods on any device.

use super::bands::Put;
use super::maps::Build;
use super::maps_cpu::MapsCpu;
use super::maps_gpu::MapsGpu;
use super::one_pass_cpu::OnePassCpu;
use super::one_pass_gpu::OnePassGpu;
use super::patches::Patchwise;
use super::plan::{Plan, patches};
use crate::data::photo::Photo;
use crate::device::Launch;
use crate::memory;
use crate::net::{Location, Net, Normalise, Parameters};
use crate::{Error, Result, trace};
use std::sync::Arc;

/// How the features of all patches are computed. All methods give the same features, up to the order of summation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// In one pass over the image, without computing anything twice.
    #[default]
    OnePass,
    /// The interweaved operation exactly as in section 2.2 of the paper: interweaved maps are written and convolved.
    /// Supports nets of the paper's architecture and strides that are multiples of the trunk's.
    Maps,
    /// Patch scanning: the net runs on every patch separately, in batches.
    Patchwise,
}

/// Options of an [`Extractor`].
#[derive(Debug, Clone)]
pub struct ExtractorOptions {
    /// How features are computed.
    pub method: Method,
    /// Bytes that a pass over an image may use before it is split into pieces, which compute their overlap twice. At most half
    /// of the free memory is used.
    pub memory: usize,
    /// Batch size of patch scanning.
    pub batch: usize,
}

impl Default for ExtractorOptions {
    fn default() -> Self {
        Self { method: Method::default(), memory: 512 << 20, batch: 32 }
    }
}

/// Features of the patches of one image.
#[derive(Debug, Clone)]
pub struct Features {
    /// Patches down and across.
    pub patches: [usize; 2],
    /// Length of a feature vector.
    pub dims: usize,
    /// [down, across, dims]; each vector in C, H, W order of the net's last layer.
    pub values: Vec<f32>,
}

impl Features {
    /// Largest difference from `expected`, relative to the largest feature of `expected`; NaN if there is one on either
    /// side, infinite if the shapes differ.
    pub fn error(&self, expected: &Self) -> f64 {
        if (self.patches, self.dims) != (expected.patches, expected.dims) {
            return f64::INFINITY;
        }
        let differences = || self.values.iter().zip(&expected.values).map(|(a, b)| f64::from((a - b).abs()));
        // `max` ignores NaN.
        if differences().any(f64::is_nan) {
            return f64::NAN;
        }
        let difference = differences().fold(0.0, f64::max);
        let largest = expected.values.iter().fold(0.0, |most, v| f64::max(most, v.abs().into()));
        if difference == 0.0 { 0.0 } else { difference / largest }
    }
}

/// Images of one size.
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub count: usize,
    /// Height and width.
    pub size: [usize; 2],
    pixels: Pixels<'a>,
}

#[derive(Clone, Copy)]
enum Pixels<'a> {
    /// [height, width, 3] of one image.
    Rgb(&'a [u8], Normalise),
    /// [images, height, width, 3], normalised.
    Normalised(&'a [f32]),
}

impl Images<'_> {
    /// Normalised values of an image from value `at` on, which is the first value of a pixel.
    pub fn copy(&self, image: usize, at: usize, to: &mut [f32]) {
        match self.pixels {
            Pixels::Rgb(bytes, Normalise { mean, scale }) => {
                let pixels = to.chunks_exact_mut(3).zip(bytes[at..].chunks_exact(3));
                pixels.for_each(|(to, from)| (0..3).for_each(|c| to[c] = (f32::from(from[c]) - mean[c]) * scale));
            }
            Pixels::Normalised(values) => {
                let at = image * self.size[0] * self.size[1] * 3 + at;
                to.copy_from_slice(&values[at..at + to.len()]);
            }
        }
    }
}

/// Receives features as they become available, with the index of their image.
pub(super) type PutImage<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Result<()>;

/// A request to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    /// Patches down and across of a whole image.
    pub whole: [usize; 2],
    pub stride: usize,
    pub images: usize,
    /// Bytes that a pass may use.
    pub memory: usize,
}

/// A method on a device.
pub(super) trait Engine: Send {
    /// Delivers the features of all patches.
    fn run(&mut self, job: Job, images: &Images<'_>, put: PutImage<'_>) -> Result<()>;

    /// The plan of a job, if the method has one.
    fn plan(&mut self, _job: Job) -> Result<Option<&Plan>> {
        Ok(None)
    }

    /// The launches of a job, or of its largest piece that fits in memory; none on the CPU.
    fn launches(&mut self, _job: Job) -> Result<Vec<Launch>> {
        Ok(Vec::new())
    }

    /// Seconds of each layer in the last image, if they are measured.
    fn seconds(&self) -> Option<&[f64]> {
        None
    }
}

/// Extracts features of all overlapping patches of images: dense features, in one pass (the paper's interweaved operation) or
/// by the methods that it is compared with.
///
/// ```
/// use std::sync::Arc;
/// use weft::data::photo::Photo;
/// use weft::device::Device;
/// use weft::interweave::{Extractor, ExtractorOptions};
/// use weft::net::{Net, Parameters, Spec};
///
/// let net = "name = 'edges'\ninput = [3, 16, 16]\n\
///            [[layer]]\nname = 'conv'\ntype = 'conv'\nfilters = 4\nkernel = 16";
/// let net = Arc::new(Net::new(Spec::parse(net, "edges.toml")?)?);
/// let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(1))?;
/// let mut extractor = Extractor::new(net, &parameters, ExtractorOptions::default())?;
/// let features = extractor.extract(&Photo::from_fn(40, 24, |x, y| [x as u8, y as u8, 0]), 8)?;
/// assert_eq!((features.patches, features.dims), ([2, 4], 4));
/// # Ok::<(), weft::Error>(())
/// ```
pub struct Extractor {
    net: Arc<Net>,
    options: ExtractorOptions,
    /// A net of the paper's architecture, for [`Method::Maps`].
    build: Option<Arc<Build>>,
    engine: Box<dyn Engine>,
}

impl Extractor {
    /// Creates an extractor on the device of the parameters.
    ///
    /// # Errors
    /// A net that does not take RGB; parameters of another net; for [`Method::Maps`] a net of a different architecture than the
    /// paper's, with the layer and the reason; out of memory.
    pub fn new(net: Arc<Net>, parameters: &Parameters, options: ExtractorOptions) -> Result<Self> {
        super::check_rgb(&net)?;
        parameters.check(&net)?;
        let build = match options.method {
            Method::Maps => Some(Arc::new(Build::new(net.clone())?)),
            Method::OnePass | Method::Patchwise => None,
        };
        let engine: Box<dyn Engine> = match (&build, options.method, parameters.location()) {
            (_, Method::Patchwise, _) => Box::new(Patchwise::new(net.clone(), parameters, options.batch)?),
            (Some(build), _, Location::Cpu(values)) => Box::new(MapsCpu::new(build.clone(), values.clone())),
            (Some(build), _, Location::Gpu(stored)) => Box::new(MapsGpu::new(build.clone(), stored.clone())),
            (None, _, Location::Cpu(values)) => Box::new(OnePassCpu::new(net.clone(), values.clone())),
            (None, _, Location::Gpu(stored)) => Box::new(OnePassGpu::new(net.clone(), stored.clone())),
        };
        Ok(Self { net, options, build, engine })
    }

    /// The net of a patch.
    pub fn net(&self) -> &Arc<Net> {
        &self.net
    }

    /// Whether patches can be spaced by this number of pixels.
    pub fn takes(&self, stride: usize) -> bool {
        stride > 0 && self.build.as_ref().is_none_or(|build| build.takes(stride))
    }

    /// Patches down and across of an image of `size` (height, width).
    ///
    /// # Errors
    /// A stride of 0, or for [`Method::Maps`] one that is not a multiple of the trunk's; an image smaller than a patch.
    pub fn patches(&self, size: [usize; 2], stride: usize) -> Result<[usize; 2]> {
        match &self.build {
            Some(build) => build.patches(size, stride),
            None => patches(&self.net, size[0], size[1], stride),
        }
    }

    fn job(&self, size: [usize; 2], stride: usize, images: usize) -> Result<Job> {
        Ok(Job { whole: self.patches(size, stride)?, stride, images, memory: self.options.memory })
    }

    /// Features of the patches whose upper left corners are multiples of `stride` and which lie inside the photo.
    ///
    /// # Errors
    /// As [`Extractor::patches`]; a net with a loss; out of memory; a launch that failed.
    pub fn extract(&mut self, photo: &Photo, stride: usize) -> Result<Features> {
        let mut features = self.room([photo.height, photo.width], stride)?;
        self.extract_into(photo, stride, &mut |found| {
            features.values.extend_from_slice(found);
            Ok(())
        })?;
        Ok(features)
    }

    /// The same, passed to `put` as they become available: contiguous vectors of patches, row by row from the top. Only a part
    /// of them is in memory, however large the image.
    ///
    /// # Errors
    /// As [`Extractor::extract`]; those of `put`.
    pub fn extract_into(&mut self, photo: &Photo, stride: usize, put: Put<'_>) -> Result<()> {
        let size = [photo.height, photo.width];
        let images = Images { count: 1, size, pixels: Pixels::Rgb(&photo.rgb, self.net.spec.normalise) };
        let job = self.job(size, stride, 1)?;
        trace::count(|counts| counts.passes += 1);
        self.engine.run(job, &images, &mut |_, features| put(features))
    }

    /// Features of `count` images that are already normalised, [count, height, width, 3], all of `size` (height, width).
    ///
    /// # Errors
    /// As [`Extractor::extract`]; pixels of another length.
    pub fn extract_normalised(
        &mut self,
        pixels: &[f32],
        size: [usize; 2],
        stride: usize,
        count: usize,
    ) -> Result<Vec<Features>> {
        let needed = size[0].saturating_mul(size[1]).saturating_mul(3).saturating_mul(count);
        if pixels.len() != needed {
            let (given, [height, width]) = (pixels.len(), size);
            let found = format!("{given} values are given, but {count} images of {height} x {width} x 3 have {needed}");
            return Err(Error::network(&self.net.spec.place, found));
        }
        let mut found = (0..count).map(|_| self.room(size, stride)).collect::<Result<Vec<Features>>>()?;
        let images = Images { count, size, pixels: Pixels::Normalised(pixels) };
        let job = self.job(size, stride, count)?;
        trace::count(|counts| counts.passes += 1);
        self.engine.run(job, &images, &mut |image, features| {
            found[image].values.extend_from_slice(features);
            Ok(())
        })?;
        Ok(found)
    }

    /// Memory for the features of an image.
    fn room(&self, size: [usize; 2], stride: usize) -> Result<Features> {
        let (patches, dims) = (self.patches(size, stride)?, self.net.output().len());
        let len = patches[0].saturating_mul(patches[1]).saturating_mul(dims);
        let values = memory::reserve(len, "features").map_err(|e| e.advise("use a larger stride"))?;
        Ok(Features { patches, dims, values })
    }

    /// The plan for images of `size` (height, width): of all patches, or of the largest piece that fits in memory. Only
    /// [`Method::OnePass`] has one.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    pub fn plan(&mut self, size: [usize; 2], stride: usize) -> Result<Option<&Plan>> {
        let job = self.job(size, stride, 1)?;
        self.engine.plan(job)
    }

    /// The launches of a pass over `count` images of `size` (height, width), or over the largest piece that fits in memory;
    /// none on the CPU.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    pub fn launches(&mut self, size: [usize; 2], stride: usize, count: usize) -> Result<Vec<Launch>> {
        let job = self.job(size, stride, count)?;
        self.engine.launches(job)
    }

    /// Seconds that each layer took in the last image, summed over all pieces, of [`Method::OnePass`] on the CPU.
    pub fn seconds(&self) -> Option<&[f64]> {
        self.engine.seconds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_share_of_the_largest_and_nan_is_not_lost() {
        let features = |values: &[f32]| Features { patches: [1, 1], dims: values.len(), values: values.to_vec() };
        let expected = features(&[1.0, -4.0, 0.0]);
        assert_eq!(features(&[1.0, -4.0, 0.0]).error(&expected), 0.0);
        assert_eq!(features(&[1.0, -5.0, 0.5]).error(&expected), 0.25);
        for place in 0..3 {
            let mut broken = expected.clone();
            broken.values[place] = f32::NAN;
            assert!(broken.error(&expected).is_nan() && expected.error(&broken).is_nan());
        }
        assert_eq!(features(&[1.0]).error(&expected), f64::INFINITY);
    }
}
