//! The paper's literal form of the interweaved operation on a GPU: one program from the pixels to the features. The maps of all
//! phases of a bank are one batch, written by one launch of kernels/interweave.cu and convolved by the kernels of any other
//! layer; a bank's maps take the place of those of the bank before.

use super::bands::{Band, Put, pieces, waiting};
use super::budget;
use super::maps::{Build, Interweaving, Unweaving, dense};
use super::patchwise::Features;
use super::plan::fitting;
use crate::Result;
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::device::{Gpu, Launch, Memory, Program, Ptr, Recorder};
use crate::kernel_parameters;
use crate::net::{GpuParameters, Net, NetParameter};
use crate::ops::conv::Filter;
use crate::ops::gpu::{self, BLOCK, GpuForward, GpuTargets, cover, lanes};
use crate::ops::{Kind, Operation, Shape, nhwc_to_nchw};
use std::ops::Range;
use std::sync::Arc;

/// Bytes beyond which an image is done in several pieces.
const MEMORY: usize = 2 << 30;

kernel_parameters! {
    /// kernels/interweave.cu
    InterweaveParams: 104 {
        responses: Ptr, maps: Ptr,
        phases_h: u32, phases_w: u32, map_h: u32, map_w: u32, c: u32,
        a: u32, b: u32, grid_w: u32,
        cell_h: u32, cell_w: u32, tile_h: u32, tile_w: u32, period_h: u32, period_w: u32, step_h: u32, step_w: u32,
        patches_h: u32, patches_w: u32, h: u32, w: u32,
        lanes: u32, unused: u32,
    }
}

kernel_parameters! {
    /// kernels/interweave.cu
    UnweaveParams: 88 {
        maps: Ptr, patches: Ptr,
        phases_w: u32, map_h: u32, map_w: u32, c: u32,
        tile_h: u32, tile_w: u32, period_h: u32, period_w: u32,
        patches_h: u32, patches_w: u32, block_h: u32, block_w: u32, top: u32, left: u32, h: u32, w: u32,
        lanes: u32, unused: u32,
    }
}

impl Interweaving {
    /// From responses `[grid, h, w, c]` to maps `[maps, h, w, c]`, in the storage type.
    pub fn record(&self, responses: Ptr, maps: Ptr, to: &mut Recorder<'_>) {
        let (phases, map, tile, period) = (self.maps(), self.map(), self.tile(), self.period());
        let lanes = lanes(to.precision(), map.c, &[responses, maps]);
        let parameters = InterweaveParams {
            responses,
            maps,
            phases_h: phases.h as u32,
            phases_w: phases.w as u32,
            map_h: map.h as u32,
            map_w: map.w as u32,
            c: map.c as u32,
            a: self.bank[0] as u32,
            b: self.bank[1] as u32,
            grid_w: self.grid.w as u32,
            cell_h: self.cell.h as u32,
            cell_w: self.cell.w as u32,
            tile_h: tile.h as u32,
            tile_w: tile.w as u32,
            period_h: period.h as u32,
            period_w: period.w as u32,
            step_h: self.step.h as u32,
            step_w: self.step.w as u32,
            patches_h: self.patches.h as u32,
            patches_w: self.patches.w as u32,
            h: self.response.h as u32,
            w: self.response.w as u32,
            lanes: lanes as u32,
            unused: 0,
        };
        let count = phases.h * phases.w * map.len();
        let bytes = 2 * count * to.precision().bytes();
        let launch = Launch::new(to.stored("interweave"), cover(count / lanes), BLOCK, &parameters);
        to.launch(launch.work(0, bytes as u64));
    }
}

impl Unweaving {
    /// From values `[maps, h, w, c]` to the bank's block of `[patches, h, w, c]`, in the storage type.
    pub fn record(&self, values: Ptr, patches: Ptr, to: &mut Recorder<'_>) {
        let Self { weave, values: map, tile, block, output } = *self;
        let lanes = lanes(to.precision(), map.c, &[values, patches]);
        let period = weave.period();
        let parameters = UnweaveParams {
            maps: values,
            patches,
            phases_w: weave.maps().w as u32,
            map_h: map.h as u32,
            map_w: map.w as u32,
            c: map.c as u32,
            tile_h: tile.h as u32,
            tile_w: tile.w as u32,
            period_h: period.h as u32,
            period_w: period.w as u32,
            patches_h: weave.patches.h as u32,
            patches_w: weave.patches.w as u32,
            block_h: block.h as u32,
            block_w: block.w as u32,
            top: (weave.bank[0] * block.h) as u32,
            left: (weave.bank[1] * block.w) as u32,
            h: output.h as u32,
            w: output.w as u32,
            lanes: lanes as u32,
            unused: 0,
        };
        let count = weave.patches.h * weave.patches.w * block.h * block.w * map.c;
        let bytes = 2 * count * to.precision().bytes();
        let launch = Launch::new(to.stored("unweave"), cover(count / lanes), BLOCK, &parameters);
        to.launch(launch.work(0, bytes as u64));
    }
}

/// Runs a net of the paper's build on all patches of images.
pub struct GpuMapInterweaver {
    build: Build,
    parameters: Arc<GpuParameters>,
    memory: usize,
    prepared: Option<Prepared>,
}

/// Everything that a size of image and a stride need.
struct Prepared {
    key: ([usize; 2], usize),
    /// Patches of a piece of the image.
    piece: [usize; 2],
    program: Program,
    _memory: Vec<Memory>,
    /// Pixels of a piece, and the last layer's output for its patches, both in f32.
    pixels: Ptr,
    features: Ptr,
}

impl GpuMapInterweaver {
    /// # Errors
    /// A net that [`super::MapInterweaver`] refuses.
    pub fn new(net: Arc<Net>, parameters: Arc<GpuParameters>, normalise: Normalise) -> Result<Self> {
        Ok(Self { build: Build::new(net, normalise)?, parameters, memory: MEMORY, prepared: None })
    }

    /// Sets the memory, in bytes, that an image may take before it is done in pieces.
    #[must_use]
    pub fn with_memory(mut self, bytes: usize) -> Self {
        (self.memory, self.prepared) = (bytes, None);
        self
    }

    /// Whether patches may be that many pixels apart.
    pub fn takes(&self, stride: usize) -> bool {
        self.build.takes(stride)
    }

    /// Features of the patches whose upper left corners are multiples of `stride` and which lie inside the photo.
    ///
    /// # Errors
    /// A stride that is no multiple of the trunk's, or 0; an image smaller than a patch; out of memory.
    pub fn extract(&mut self, photo: &Photo, stride: usize) -> Result<Features> {
        let whole = self.build.patches([photo.height, photo.width], stride)?;
        Features::gather(whole, self.build.net.output().len(), |put| self.extract_into(photo, stride, put))
    }

    /// The same, handed to `put` as they come.
    ///
    /// # Errors
    /// As [`GpuMapInterweaver::extract`]; what `put` says.
    pub fn extract_into(&mut self, photo: &Photo, stride: usize, put: Put<'_>) -> Result<()> {
        let value = self.build.values(photo);
        self.run(value, [photo.height, photo.width], stride, put)
    }

    /// Features of an image that is already normalised, [height, width, 3].
    ///
    /// # Errors
    /// As [`GpuMapInterweaver::extract`].
    pub fn extract_normalised(&mut self, pixels: &[f32], size: [usize; 2], stride: usize) -> Result<Features> {
        assert_eq!(pixels.len(), size[0] * size[1] * 3, "pixels of another size");
        let whole = self.build.patches(size, stride)?;
        Features::gather(whole, self.build.net.output().len(), |put| self.run(|i| pixels[i], size, stride, put))
    }

    /// `value(i)` is value `i` of the normalised image.
    fn run(&mut self, value: impl Fn(usize) -> f32, size: [usize; 2], stride: usize, put: Put<'_>) -> Result<()> {
        let whole = self.build.patches(size, stride)?;
        self.prepare(whole, stride)?;
        let (gpu, output) = (self.parameters.gpu(), self.build.net.output());
        let dims = output.len();
        let Some(prepared) = &mut self.prepared else { unreachable!("it has been prepared") };
        let [down, across] = prepared.piece;
        let mut band = Band::new(whole, prepared.piece, dims)?;
        for corner in pieces(whole, prepared.piece) {
            let pixels = self.build.cut(&value, size[1], corner, prepared.piece, stride)?;
            gpu.driver.upload(prepared.pixels, bytemuck::cast_slice(&pixels))?;
            prepared.program.run(gpu)?;
            let features: Vec<f32> = gpu.download(prepared.features, down * across * dims)?;
            for (row, features) in features.chunks_exact(across * dims).enumerate() {
                nhwc_to_nchw(output, features, &mut band.vectors(corner, row, 0)[..features.len()]);
            }
            band.flush(corner, put)?;
        }
        Ok(())
    }

    /// The launches of a pass over an image of this size, or over the largest piece that fits in memory.
    ///
    /// # Errors
    /// As [`GpuMapInterweaver::extract`].
    pub fn program(&mut self, size: [usize; 2], stride: usize) -> Result<&mut Program> {
        let whole = self.build.patches(size, stride)?;
        Ok(&mut self.prepare(whole, stride)?.program)
    }

    fn prepare(&mut self, whole: [usize; 2], stride: usize) -> Result<&mut Prepared> {
        let key = (whole, stride);
        let known = self.prepared.take().filter(|prepared| prepared.key == key);
        let prepared = match known {
            Some(known) => known,
            None => {
                let gpu = self.parameters.gpu();
                let bytes = |piece| Ok(Work::new(&self.build, piece, stride)?.bytes(gpu));
                let piece = fitting(whole, budget(self.memory, gpu.driver.free_memory()?), bytes)?;
                let piece = waiting(whole, piece, self.build.net.output().len());
                let work = Work::new(&self.build, piece, stride)?;
                Writer::new(&self.build, &self.parameters).program(&work, key)?
            }
        };
        Ok(self.prepared.insert(prepared))
    }
}

/// A layer bound to larger maps.
struct Layer {
    number: usize,
    op: Box<dyn Operation>,
}

/// What has to be done for so many patches.
struct Work {
    patches: [usize; 2],
    input: Shape,
    trunk: Vec<Layer>,
    /// A bank of the first local layer, and how many there are.
    response: Filter,
    banks: usize,
    weaves: Vec<Interweaving>,
    between: Vec<Layer>,
    /// A bank of the second local layer, and the output of all of them for a patch.
    second: Filter,
    blocks: Shape,
    rest: Vec<Layer>,
}

impl Work {
    fn new(build: &Build, patches: [usize; 2], stride: usize) -> Result<Self> {
        let (net, [first, second], [f, g]) = (&build.net, build.local, build.filters());
        let input = build.input(patches, stride);
        let (trunk, shape) = chain(net, 0..first, input)?;
        let response = dense(f, shape);
        let weaves = build.weaves(response.output, patches, stride);
        let (between, shape) = chain(net, first + 1..second, weaves[0].map())?;
        let (rest, _) = chain(net, second + 1..net.layers.len(), g.output)?;
        let (banks, second, blocks) = (f.banks(), dense(g, shape), g.output);
        Ok(Self { patches, input, trunk, response, banks, weaves, between, second, blocks, rest })
    }

    /// Maps of a bank.
    fn maps(&self) -> usize {
        let maps = self.weaves[0].maps();
        maps.h * maps.w
    }

    /// Bytes of all values and scratch.
    fn bytes(&self, gpu: &Gpu) -> u128 {
        let (maps, patches) = (self.maps(), self.patches[0] * self.patches[1]);
        let steps = [(&self.trunk, 1), (&self.between, maps), (&self.rest, patches)];
        let layers = steps.iter().flat_map(|(layers, n)| layers.iter().map(|layer| (&*layer.op, *n)));
        let banks: [(&dyn Operation, usize); 2] = [(&self.response, 1), (&self.second, maps)];
        let values = |n: usize, shape: Shape| n as u128 * shape.len() as u128;
        let ops = layers.chain(banks).map(|(op, n)| (values(n, op.output()), op.gpu_forward_workspace(n, gpu) as u128));
        let (sum, scratch) = ops.fold((0, 0), |sum, op| (sum.0 + op.0, sum.1 + op.1));
        let responses = values(self.banks - 1, self.response.output);
        let sum = sum + responses + values(maps, self.weaves[0].map()) + values(patches, self.blocks);
        gpu.precision.bytes() as u128 * sum + scratch + 4 * self.input.len() as u128
    }
}

/// Layers one after the other from an input of this shape, and the shape of what comes out. Dropout does nothing.
fn chain(net: &Net, layers: Range<usize>, mut shape: Shape) -> Result<(Vec<Layer>, Shape)> {
    let mut bound = Vec::new();
    for number in layers {
        if !matches!(net.layers[number].op.kind(), Kind::Dropout) {
            let op = net.rebind(number, &[shape])?;
            shape = op.output();
            bound.push(Layer { number, op });
        }
    }
    Ok((bound, shape))
}

/// A layer with its memory, for `n` maps.
#[derive(Clone, Copy)]
struct Step<'a> {
    layer: usize,
    op: &'a dyn Operation,
    n: usize,
    output: Ptr,
    workspace: Ptr,
}

/// Writes the program of a size and stride.
struct Writer<'a> {
    build: &'a Build,
    parameters: &'a GpuParameters,
    memory: Vec<Memory>,
    to: Recorder<'a>,
}

impl<'a> Writer<'a> {
    fn new(build: &'a Build, parameters: &'a GpuParameters) -> Self {
        Self { build, parameters, memory: Vec::new(), to: Recorder::new(parameters.gpu()) }
    }

    fn program(mut self, work: &Work, key: ([usize; 2], usize)) -> Result<Prepared> {
        let [first, second] = self.build.local;
        let patches = work.patches[0] * work.patches[1];

        let pixels = self.allocate(4 * work.input.len())?;
        let input = self.narrow(pixels, work.input.len())?;
        let trunk = self.steps(&work.trunk, 1)?;
        let trunk = self.layers(&trunk, input);

        let response = work.response.output.len();
        let responses = self.values(work.banks * response)?;
        let workspace = self.workspace(&work.response, 1)?;
        self.label(first);
        for bank in 0..work.banks {
            let output = responses.offset(self.size() * bank * response);
            let step = Step { layer: first, op: &work.response, n: 1, output, workspace };
            self.bank(step, bank, work.banks, trunk);
        }

        let n = work.maps();
        let maps = self.values(n * work.weaves[0].map().len())?;
        let between = self.steps(&work.between, n)?;
        let step = self.step(second, &work.second, n)?;
        let blocks = self.values(patches * work.blocks.len())?;
        for (bank, weave) in work.weaves.iter().enumerate() {
            self.to.label("interweave");
            weave.record(responses, maps, &mut self.to);
            let pooled = self.layers(&between, maps);
            self.label(second);
            self.bank(step, bank, work.weaves.len(), pooled);
            self.to.label("unweave");
            self.build.unweave(*weave, work.second.output).record(step.output, blocks, &mut self.to);
        }

        let rest = self.steps(&work.rest, patches)?;
        let values = self.layers(&rest, blocks);
        let features = self.widen(values, patches * self.build.net.output().len())?;
        let program = Program::new(self.to.launches);
        Ok(Prepared { key, piece: work.patches, program, _memory: self.memory, pixels, features })
    }

    /// Bytes of a value.
    fn size(&self) -> usize {
        self.to.precision().bytes()
    }

    fn label(&mut self, layer: usize) {
        self.to.label(&self.build.net.layers[layer].name);
    }

    fn allocate(&mut self, bytes: usize) -> Result<Ptr> {
        let memory = self
            .to
            .gpu
            .memory(bytes)
            .map_err(|e| e.within("interweaved maps").advise("use --method interweave, which takes less memory"))?;
        let ptr = memory.ptr;
        self.memory.push(memory);
        Ok(ptr)
    }

    /// Memory for values as they are stored.
    fn values(&mut self, count: usize) -> Result<Ptr> {
        self.allocate(self.size() * count)
    }

    fn workspace(&mut self, op: &dyn Operation, n: usize) -> Result<Ptr> {
        match op.gpu_forward_workspace(n, self.to.gpu) {
            0 => Ok(Ptr::NULL),
            bytes => self.allocate(bytes),
        }
    }

    fn step<'b>(&mut self, layer: usize, op: &'b dyn Operation, n: usize) -> Result<Step<'b>> {
        let (output, workspace) = (self.values(n * op.output().len())?, self.workspace(op, n)?);
        Ok(Step { layer, op, n, output, workspace })
    }

    fn steps<'b>(&mut self, layers: &'b [Layer], n: usize) -> Result<Vec<Step<'b>>> {
        layers.iter().map(|layer| self.step(layer.number, &*layer.op, n)).collect()
    }

    /// f32 as it is stored.
    fn narrow(&mut self, from: Ptr, count: usize) -> Result<Ptr> {
        if self.size() == 4 {
            return Ok(from);
        }
        let stored = self.values(count)?;
        self.to.label("input");
        gpu::narrow(&mut self.to, from, stored, count);
        Ok(stored)
    }

    /// What is stored in f32.
    fn widen(&mut self, from: Ptr, count: usize) -> Result<Ptr> {
        if self.size() == 4 {
            return Ok(from);
        }
        let wide = self.allocate(4 * count)?;
        self.to.label("features");
        gpu::widen(&mut self.to, from, wide, count);
        Ok(wide)
    }

    /// Layers one after the other; where the last one's output lies.
    fn layers(&mut self, steps: &[Step<'_>], from: Ptr) -> Ptr {
        steps.iter().fold(from, |from, step| {
            self.label(step.layer);
            let params = self.parameters.addresses(self.build.net.layers[step.layer].parameters.clone());
            self.record(*step, from, &params);
            step.output
        })
    }

    /// One of a local layer's `banks` banks.
    fn bank(&mut self, step: Step<'_>, bank: usize, banks: usize, from: Ptr) {
        let tensors = self.build.net.layers[step.layer].parameters.clone();
        let of_bank = |(address, tensor): (Ptr, &NetParameter)| {
            // Weights lie there as they are stored, biases in f32.
            let size = if tensor.tensor.fan_in > 0 { self.size() } else { 4 };
            address.offset(size * bank * (tensor.range.len() / banks))
        };
        let addresses = self.parameters.addresses(tensors.clone());
        let params: Vec<Ptr> = addresses.into_iter().zip(&self.build.net.parameters[tensors]).map(of_bank).collect();
        self.record(step, from, &params);
    }

    fn record(&mut self, step: Step<'_>, from: Ptr, params: &[Ptr]) {
        let pass = GpuForward {
            n: step.n,
            training: false,
            stream: 0,
            step: Ptr::NULL,
            inputs: &[from],
            params,
            targets: GpuTargets { classes: Ptr::NULL, values: Ptr::NULL },
            output: step.output,
            workspace: step.workspace,
        };
        step.op.record_forward(pass, &mut self.to);
    }
}
