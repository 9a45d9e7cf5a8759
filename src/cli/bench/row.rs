//! One row of the interweaving benchmark, as JSON, text and CSV.

use crate::data::table;
use crate::text_table::{TextTable, number, text};

/// Results for one image size and stride. Times are medians.
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
    /// Batch size of patch scanning: the fastest of those that were tried.
    pub patchwise_batch: usize,
    /// The same exactly as in the paper, with interweaved maps in memory. None where the net does not have the paper's
    /// architecture.
    pub interweave_maps_ms: Option<f64>,
    pub interweave_ms: f64,
    /// Time of patch scanning over time of one pass: the median of the per-round ratios.
    pub speedup: f64,
    pub patchwise_gflop: f64,
    pub interweave_gflop: f64,
    pub flop_ratio: f64,
    pub interweave_mib: f64,
    /// Largest absolute difference between features over the largest feature.
    pub max_rel_error: f64,
}

impl Row {
    /// Column names of [`Row::csv`].
    pub const CSV: [&str; 18] = [
        "device",
        "precision",
        "threads",
        "net",
        "height",
        "width",
        "stride",
        "patches",
        "patchwise_ms",
        "patchwise_batch",
        "interweave_maps_ms",
        "interweave_ms",
        "speedup",
        "patchwise_gflop",
        "interweave_gflop",
        "flop_ratio",
        "interweave_mib",
        "max_rel_error",
    ];

    /// The table whose rows are [`Row::cells`]; rows are printed one at a time.
    pub fn table() -> TextTable {
        let number = |(head, least)| number(head).least(least);
        let numbers = [
            ("stride", 6),
            ("patches", 7),
            ("patchwise ms", 12),
            ("as maps", 8),
            ("interweave ms", 13),
            ("speedup", 8),
            ("patchwise GFLOP", 15),
            ("interweave", 10),
            ("ratio", 6),
            ("MiB", 7),
            ("error", 5),
        ];
        TextTable::new([text("image").least(10)].into_iter().chain(numbers.map(number)))
    }

    pub fn cells(&self) -> Vec<String> {
        vec![
            format!("{}x{}", self.image[0], self.image[1]),
            self.stride.to_string(),
            self.patches.to_string(),
            format!("{:.1}", self.patchwise_ms),
            self.interweave_maps_ms.map_or("-".to_string(), |ms| format!("{ms:.1}")),
            format!("{:.1}", self.interweave_ms),
            format!("{:.2}x", self.speedup),
            format!("{:.1}", self.patchwise_gflop),
            format!("{:.2}", self.interweave_gflop),
            format!("{:.1}x", self.flop_ratio),
            format!("{:.1}", self.interweave_mib),
            format!("{:.0e}", self.max_rel_error),
        ]
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
