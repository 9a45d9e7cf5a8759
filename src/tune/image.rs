//! The products of a pass over whole images, of all their patches at once: tried in that pass.

use super::{Pass, Tuner, groups, tolerance};
use crate::device::{Device, Gpu, Launch, Precision, ProductKey};
use crate::interweave::{Extractor, ExtractorOptions};
use crate::memory;
use crate::net::{Net, Parameters};
use crate::ops::tolerance::Tolerance;
use crate::rng::Rng;
use crate::{Error, Result};
use std::sync::Arc;

/// Patches down and across on an emulator.
const EMULATED_PATCHES: usize = 3;

/// Tries the products of the interweaved operation on images of `size` (height, width), with a patch at every `stride` pixels.
///
/// # Errors
/// As [`Extractor::extract`]; a device that failed; those of the tuner's `done`.
pub fn images(tuner: &mut Tuner<'_>, net: &Arc<Net>, size: [usize; 2], stride: usize) -> Result<()> {
    let patch = [net.spec.input.h, net.spec.input.w];
    let enough = [0, 1].map(|axis| size[axis].min(patch[axis] + (EMULATED_PATCHES - 1) * stride));
    let tried = if tuner.is_card() { size } else { enough };
    let mut pass = ImagePass::new(net, tried, stride, tuner.gpu.precision)?;
    tuner.all(&mut pass, "", tried != size)
}

struct ImagePass {
    net: Arc<Net>,
    size: [usize; 2],
    stride: usize,
    precision: Precision,
    /// Rounded to the precision.
    parameters: Vec<f32>,
    pixels: Vec<f32>,
    /// Features in f32.
    want: Option<Vec<f32>>,
    /// Those whose launches may still be started.
    kept: Vec<Extractor>,
}

impl ImagePass {
    fn new(net: &Arc<Net>, size: [usize; 2], stride: usize, precision: Precision) -> Result<Self> {
        let mut rng = Rng::new(1, 0);
        let mut parameters = net.initial_parameters(1);
        for tensor in &net.parameters {
            let values = &mut parameters[tensor.range.clone()];
            match tensor.tensor.fan_in {
                0 => values.fill_with(|| 0.1 * rng.normal()),
                _ => values.iter_mut().for_each(|x| *x = precision.round_factor(*x)),
            }
        }
        let len = size[0] * size[1] * 3;
        let mut pixels = memory::reserve(len, "random pixels")?;
        pixels.extend((0..len).map(|_| precision.round_factor(rng.range(-1.0, 1.0))));
        Ok(Self { net: net.clone(), size, stride, precision, parameters, pixels, want: None, kept: Vec::new() })
    }

    fn extractor(&self, gpu: &Gpu) -> Result<Extractor> {
        let parameters = Parameters::on(&Device::Gpu(gpu.clone()), &self.net, self.parameters.clone())?;
        Extractor::new(self.net.clone(), &parameters, ExtractorOptions::default())
    }

    fn features(&self, extractor: &mut Extractor) -> Result<Vec<f32>> {
        let found = extractor.extract_normalised(&self.pixels, self.size, self.stride, 1)?;
        Ok(found.into_iter().flat_map(|features| features.values).collect())
    }
}

impl Pass for ImagePass {
    fn launches(&mut self, gpu: &Gpu) -> Result<Vec<Launch>> {
        self.extractor(gpu)?.launches(self.size, self.stride, 1)
    }

    fn reference(&mut self, gpu: &Gpu, _: &ProductKey) -> Result<Vec<f32>> {
        if self.want.is_none() {
            self.want = Some(self.features(&mut self.extractor(gpu)?)?);
        }
        Ok(self.want.clone().unwrap_or_default())
    }

    fn tolerance(&self, product: &ProductKey) -> Tolerance {
        tolerance(self.precision, self.net.layers.len(), product.size[2])
    }

    fn make_room(&mut self, _: &[Gpu]) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, gpu: &Gpu, product: &ProductKey) -> Result<(Vec<f32>, Vec<Launch>)> {
        let mut extractor = self.extractor(gpu)?;
        let launches = extractor.launches(self.size, self.stride, 1)?;
        let features = self.features(&mut extractor)?;
        let is_own = |group: &&[Launch]| group[0].product.as_ref().is_some_and(|found| found.key == *product);
        let own = groups(&launches).filter(is_own).collect::<Vec<_>>().concat();
        if own.is_empty() {
            return Err(Error::device(product, "is not in the pass any more"));
        }
        if !gpu.driver.is_host() {
            self.kept.push(extractor);
        }
        Ok((features, own))
    }

    fn clear(&mut self) {
        self.kept.clear();
    }
}
