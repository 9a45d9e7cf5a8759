//! A line of the benchmark of the interweaved operation, as JSON, text and CSV.

use crate::data::table;

/// One size and stride. Times are medians.
#[derive(Debug, serde::Serialize)]
pub struct Row {
    pub device: String,
    pub precision: &'static str,
    pub threads: usize,
    pub net: String,
    /// Height, width.
    pub image: [usize; 2],
    pub stride: usize,
    pub patches: usize,
    pub patchwise_ms: f64,
    /// Patches of a batch of patch scanning: the fastest of some.
    pub patchwise_batch: usize,
    /// The same to the letter of the paper: interweaved maps in memory. None where the net is not of the paper's build.
    pub interweave_maps_ms: Option<f64>,
    pub interweave_ms: f64,
    /// Patch scanning's time over the other's: the median of the rounds' ratios.
    pub speedup: f64,
    pub patchwise_gflop: f64,
    pub interweave_gflop: f64,
    pub flop_ratio: f64,
    pub interweave_mib: f64,
    /// Largest difference of a feature over the largest feature.
    pub max_rel_error: f64,
}

impl Row {
    pub const HEADER: &'static str = "image      stride  patches   patchwise   as maps  interweave  speedup   GFLOP: patchwise  interweave  ratio      MiB  error";
    pub const CSV: &'static str = "device,precision,threads,net,height,width,stride,patches,patchwise_ms,patchwise_batch,interweave_maps_ms,interweave_ms,speedup,\
        patchwise_gflop,interweave_gflop,flop_ratio,interweave_mib,max_rel_error";

    pub fn text(&self) -> String {
        format!(
            "{:<10} {:>6}  {:>7}  {:>7.1} ms  {:>8}  {:>7.1} ms  {:>6.2}x            {:>7.1}     {:>7.2} {:>5.1}x  {:>7.1}  {:.0e}",
            format!("{}x{}", self.image[0], self.image[1]),
            self.stride,
            self.patches,
            self.patchwise_ms,
            self.interweave_maps_ms.map_or("-".to_string(), |ms| format!("{ms:.1}")),
            self.interweave_ms,
            self.speedup,
            self.patchwise_gflop,
            self.interweave_gflop,
            self.flop_ratio,
            self.interweave_mib,
            self.max_rel_error
        )
    }

    pub fn csv(&self) -> String {
        let Row { device, precision, threads, net, image: [h, w], stride, patches, patchwise_batch, .. } = self;
        table::line([
            device.clone(),
            precision.to_string(),
            threads.to_string(),
            net.clone(),
            h.to_string(),
            w.to_string(),
            stride.to_string(),
            patches.to_string(),
            format!("{:.3}", self.patchwise_ms),
            patchwise_batch.to_string(),
            self.interweave_maps_ms.map_or(String::new(), |ms| format!("{ms:.3}")),
            format!("{:.3}", self.interweave_ms),
            format!("{:.3}", self.speedup),
            format!("{:.4}", self.patchwise_gflop),
            format!("{:.4}", self.interweave_gflop),
            format!("{:.3}", self.flop_ratio),
            format!("{:.2}", self.interweave_mib),
            format!("{:e}", self.max_rel_error),
        ])
    }
}
