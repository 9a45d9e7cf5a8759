//! A profile without the card: each launch of a net is executed on a device that counts, and [`Prediction`] tells what the counts
//! take on a card.

use super::cards::Card;
use super::floors::Prediction;
use super::{Batch, Step};
use crate::device::{Attributes, Device, Launch, Precision, Work};
use crate::net::{Net, Parameters, Purpose, Session, Timed};
use crate::{Error, Result};
use serde_json::Value;
use simt::ptx::{Counted, Counts, LineCounts};
use std::sync::Arc;

/// A launch, what it executed, and what is predicted for it.
#[derive(Debug, Clone)]
pub struct Predicted {
    pub kernel: String,
    pub layer: String,
    pub is_backward: bool,
    pub work: Work,
    pub launch: Launch,
    /// Attributes of the compiled kernel, where the device knows them.
    pub attributes: Option<Attributes>,
    /// Of the whole grid.
    pub counts: Counts,
    /// By source line, of the blocks that ran.
    pub lines: Vec<LineCounts>,
    /// Blocks that ran, of how many there are.
    pub blocks: [u64; 2],
    pub prediction: Prediction,
}

impl Predicted {
    /// The prediction for a launch that was counted.
    ///
    /// # Errors
    /// As [`Prediction::of`]; no launch.
    pub fn of(timed: Timed, counted: Counted, card: &Card) -> Result<Self> {
        let Timed { kernel, layer, is_backward, work, launch, attributes } = timed;
        let launch = launch.ok_or_else(|| Error::device(&layer, "has no launch"))?;
        let counts = counted.whole();
        let prediction = Prediction::of(&launch, attributes, &counts, card)?;
        let Counted { lines, blocks, .. } = counted;
        Ok(Self { kernel, layer, is_backward, work, launch, attributes, counts, lines, blocks, prediction })
    }

    /// Sectors of 32 bytes of global memory.
    pub fn sectors(&self) -> u64 {
        self.counts.loads.sectors + self.counts.stores.sectors + self.counts.atomics.sectors
    }

    /// Sectors of a request in the mean; none without requests.
    pub fn sectors_per_request(&self) -> Option<f64> {
        let Counts { loads, stores, atomics, .. } = &self.counts;
        let requests = loads.requests + stores.requests + atomics.requests;
        (requests > 0).then(|| self.sectors() as f64 / requests as f64)
    }

    /// Share of the blocks that ran.
    pub fn sampled(&self) -> f64 {
        self.blocks[0] as f64 / self.blocks[1].max(1) as f64
    }
}

/// The predicted profile of a pass.
#[derive(Debug)]
pub struct Forecast {
    /// The device that counted.
    pub device: String,
    pub card: &'static Card,
    pub rows: Vec<Predicted>,
}

impl Forecast {
    /// Predicted seconds of the pass: of all launches.
    pub fn seconds(&self) -> f64 {
        self.rows.iter().map(|row| row.prediction.seconds).sum()
    }

    /// The launches with their predicted times.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let steps = self.rows.iter().map(|row| Step {
            kernel: &row.kernel,
            layer: &row.layer,
            is_backward: row.is_backward,
            seconds: row.prediction.seconds,
            work: row.work,
        });
        steps.collect()
    }
}

/// Predicts a pass over `n` random samples on `card`: forward, and backward if the purpose includes it. `device` executes at most
/// `most_blocks` of each launch, or all. Values in memory are those of a pass only if all blocks run.
///
/// # Errors
/// A device that does not count; a precision or a launch that the card cannot run; insufficient memory for the batch.
pub fn forecast(
    device: &Device,
    net: &Arc<Net>,
    n: usize,
    purpose: Purpose,
    card: &'static Card,
    most_blocks: Option<u64>,
) -> Result<Forecast> {
    let refused = || {
        Error::new(format!("card {}", card.name), format!("{} does not count what a launch executes", device.name()))
            .advise("predict with the device simt:ptx")
    };
    let gpu = device.gpu().filter(|_| device.is_emulated()).ok_or_else(refused)?;
    if gpu.precision != Precision::F32 && card.capability < [8, 0] {
        let found = format!("{} has compute capability 7.5, products in {} need 8.0", card.title, gpu.precision);
        return Err(Error::new(format!("card {}", card.name), found).advise("use the precision f32"));
    }
    let batch = Batch::draw(net, n, purpose)?;
    let parameters = Parameters::on(device, net, net.initial_parameters(1))?;
    let mut session = Session::new(net.clone(), &parameters, n, purpose)?;
    session.prepare(&batch.input, batch.mode(), batch.targets())?;
    let row = |timed: Timed| {
        let counted = timed.launch.as_ref().map(|launch| gpu.driver.count(launch, most_blocks)).transpose()?.flatten();
        Predicted::of(timed, counted.ok_or_else(refused)?, card)
    };
    let rows = session.timed(batch.mode())?.into_iter().map(row).collect::<Result<_>>()?;
    Ok(Forecast { device: device.describe(), card, rows })
}

/// Predictions beside a profile of the same pass on a real card.
#[derive(Debug)]
pub struct Comparison {
    /// The device that was measured.
    pub device: String,
    /// For each row of the forecast, the measured seconds of the launch.
    pub measured: Vec<Option<f64>>,
    /// Of predicted over measured time, the median and the one farthest from 1, with its row; of launches that were measured.
    pub median: f64,
    pub worst: (usize, f64),
}

impl Comparison {
    /// Finds the launches of a forecast in the document of a measured profile: those of the same kernel, layer and pass, in order.
    ///
    /// # Errors
    /// Not such a document; one of which no launch is in the forecast.
    pub fn new(forecast: &Forecast, profile: &Value) -> Result<Self, String> {
        let launches = profile["launches"].as_array().ok_or("no `launches`: not written by weft profile --json")?;
        let mut free: Vec<Option<&Value>> = launches.iter().map(Some).collect();
        let mut take = |row: &Predicted| {
            let pass = if row.is_backward { "backward" } else { "forward" };
            let is = |launch: &Value| {
                launch["kernel"] == row.kernel.as_str()
                    && launch["layer"] == row.layer.as_str()
                    && launch["pass"] == pass
            };
            let found = free.iter_mut().find(|launch| launch.is_some_and(is))?.take()?;
            found["seconds"].as_f64().filter(|seconds| *seconds > 0.0)
        };
        let measured: Vec<Option<f64>> = forecast.rows.iter().map(&mut take).collect();
        let ratio = |(index, seconds): (usize, &Option<f64>)| {
            seconds.map(|seconds| (index, forecast.rows[index].prediction.seconds / seconds))
        };
        let mut ratios: Vec<(usize, f64)> = measured.iter().enumerate().filter_map(ratio).collect();
        ratios.sort_by(|a, b| a.1.total_cmp(&b.1));
        let off = |ratio: &(usize, f64)| ratio.1.ln().abs();
        let worst = ratios.iter().copied().max_by(|a, b| off(a).total_cmp(&off(b)));
        let worst = worst.ok_or("none of its launches is in this pass: another net, precision or pass")?;
        let middle = ratios.len() / 2;
        let median = (ratios[middle].1 + ratios[(ratios.len() - 1) / 2].1) / 2.0;
        let device = profile["device"].as_str().unwrap_or("unknown device").to_string();
        Ok(Self { device, measured, median, worst })
    }

    /// Launches that were measured.
    pub fn matched(&self) -> usize {
        self.measured.iter().flatten().count()
    }
}

/// A device that counts made-up numbers.
#[cfg(test)]
pub mod counting {
    use super::*;
    use crate::device::{Driver, Emulator, EmulatorOptions, Gpu, Graph, Pinned, Properties, Ptr};
    use crate::net::Spec;
    use simt::ptx::Class;

    struct Counting(Emulator);

    /// Every block executes so many f32 instructions, on one line.
    pub const FLOATS: u64 = 1_000;

    impl Driver for Counting {
        fn properties(&self) -> &Properties {
            self.0.properties()
        }
        fn free_memory(&self) -> Result<u64> {
            self.0.free_memory()
        }
        fn is_host(&self) -> bool {
            true
        }
        fn allocate(&self, bytes: usize) -> Result<Ptr> {
            self.0.allocate(bytes)
        }
        fn free(&self, memory: Ptr) {
            self.0.free(memory);
        }
        fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
            self.0.upload(to, bytes)
        }
        fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
            self.0.download(from, bytes)
        }
        fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
            self.0.pinned(bytes)
        }
        fn launch(&self, launch: &Launch) -> Result<()> {
            // Only casts of parameters: a pass is counted, not launched.
            if launch.kernel.starts_with("cast") { self.0.launch(launch) } else { panic!("{}", launch.describe()) }
        }
        fn synchronize(&self) -> Result<()> {
            self.0.synchronize()
        }
        fn capture(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
            self.0.capture(launches)
        }
        fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
            self.0.time(launches)
        }
        fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>> {
            let attributes = Attributes { registers: 64, ..Attributes::default() };
            Ok((!launch.kernel.starts_with("gemm")).then_some(attributes))
        }
        fn count(&self, launch: &Launch, most_blocks: Option<u64>) -> Result<Option<Counted>> {
            let all: u64 = launch.grid.iter().map(|n| u64::from(*n)).product();
            let ran = most_blocks.map_or(all, |most| all.min(most));
            let mut total = Counts::default();
            total.warps[Class::Float as usize] = FLOATS * ran;
            total.lanes[Class::Float as usize] = 16 * FLOATS * ran;
            let lines = vec![LineCounts { file: "product.cuh".into(), line: 7, counts: total }];
            Ok(Some(Counted { total, lines, blocks: [ran, all] }))
        }
        fn kernels(&self) -> Vec<String> {
            self.0.kernels()
        }
    }

    /// A net of two layers on it.
    pub fn net() -> Arc<Net> {
        let text = "name = 'n'\ninput = [3, 33, 32]\n[[layer]]\nname = 'c1'\ntype = 'conv'\nfilters = 4\nkernel = 3\n\
                    [[layer]]\nname = 'fc'\ntype = 'linear'\noutputs = 5\n[[layer]]\nname = 'loss'\ntype = 'softmax_cross_entropy'\n";
        Arc::new(Net::new(Spec::parse(text, "n.toml").unwrap()).unwrap())
    }

    pub fn device(precision: Precision) -> Device {
        let emulator = Emulator::new(EmulatorOptions::default());
        Device::Gpu(Gpu { precision, ..Gpu::new(Arc::new(Counting(emulator))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use counting::{FLOATS, device, net};
    use serde_json::json;

    fn h100() -> &'static Card {
        Card::find("h100").unwrap()
    }

    #[test]
    fn every_launch_of_a_step_is_predicted_from_a_sample() {
        let found = forecast(&device(Precision::Bf16), &net(), 64, Purpose::Training, h100(), Some(2)).unwrap();
        let row = |name: &str| found.rows.iter().find(|row| row.kernel.starts_with(name)).unwrap();
        let conv = row("conv_forward");
        let blocks: u64 = conv.launch.grid.iter().map(|n| u64::from(*n)).product();
        assert!(blocks > 2 && conv.blocks == [2, blocks] && conv.counts.instructions() == FLOATS * blocks, "{conv:?}");
        assert!(conv.sampled() < 1.0 && conv.sectors_per_request().is_none() && !conv.prediction.ignores_registers);
        assert!(row("gemm").prediction.ignores_registers);
        assert!(found.rows.iter().any(|row| row.is_backward));
        let sum: f64 = found.steps().iter().map(|step| step.seconds).sum();
        assert!(sum == found.seconds() && sum >= 1.5e-6 * found.rows.len() as f64);
        let whole = forecast(&device(Precision::F32), &net(), 1, Purpose::Inference, h100(), None).unwrap();
        assert!(whole.rows.iter().all(|row| row.sampled() == 1.0));
    }

    #[test]
    fn what_cannot_be_predicted_is_refused() {
        let refusal = |device: &Device, card: &str| {
            let card = Card::find(card).unwrap();
            forecast(device, &net(), 1, Purpose::Inference, card, None).unwrap_err().to_string()
        };
        let advice = "cpu does not count what a launch executes; predict with the device simt:ptx";
        assert!(refusal(&Device::Cpu, "h100").contains(advice));
        let plain = Device::open("simt").unwrap();
        assert!(refusal(&plain, "h100").contains("emulator does not count"));
        let error = refusal(&device(Precision::F16), "t4");
        assert!(error.contains("card t4: Tesla T4 has compute capability 7.5"), "{error}");
    }

    #[test]
    fn a_comparison_matches_launches_of_one_kernel_layer_and_pass_in_order() {
        let found = forecast(&device(Precision::F32), &net(), 2, Purpose::Inference, h100(), None).unwrap();
        let launch = |row: &Predicted, seconds: f64| json!({ "kernel": row.kernel, "layer": row.layer, "pass": "forward", "seconds": seconds });
        let times = |ratios: &[f64]| -> Vec<Value> {
            let rows = found.rows.iter().zip(ratios);
            rows.map(|(row, ratio)| launch(row, row.prediction.seconds / ratio)).collect()
        };
        let mut launches = times(&[0.5, 1.0, 4.0]);
        launches.insert(0, json!({ "kernel": "other", "layer": "c1", "pass": "forward", "seconds": 1.0 }));
        let real = json!({ "device": "NVIDIA H100", "launches": launches });
        let compared = Comparison::new(&found, &real).unwrap();
        assert_eq!((compared.matched(), compared.worst.0), (3.min(found.rows.len()), 2), "{found:?}");
        assert!((compared.median - 1.0).abs() < 1e-9 && (compared.worst.1 - 4.0).abs() < 1e-9, "{compared:?}");
        assert!(Comparison::new(&found, &json!({})).unwrap_err().contains("launches"));
        assert!(Comparison::new(&found, &json!({ "launches": [] })).unwrap_err().contains("none of its launches"));
    }
}
