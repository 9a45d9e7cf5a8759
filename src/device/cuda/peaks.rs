//! Peak rates from clocks and widths: FLOPs per clock of one multiprocessor, by compute capability (CUDA C++
//! Programming Guide, "Arithmetic Instructions"; those of the tensor cores from NVIDIA's architecture papers), times
//! multiprocessors, times the highest clock. Cards under a power limit stay below it, so a fraction of peak is never too high.

use crate::device::driver::Peaks;

/// FLOPs per clock of one multiprocessor; a multiply-add is two. Tensor cores without sparsity, f32 accumulation.
struct Rates {
    f32: u32,
    tf32: u32,
    half: u32,
}

/// The dense 16-bit rate computed here against the datasheets: T4 65 TFLOP/s, A100 312, A40 150, RTX 3090 71, L40S 366,
/// RTX 4090 165, H100 SXM 1,070 at the highest clock (989 at the one the datasheet uses), B200 2,240, RTX 5090 209.
fn rates(name: &str, [major, minor]: [u32; 2]) -> Option<Rates> {
    // GeForce cards accumulate in f32 at half the rate of the same chip elsewhere.
    let halved = if name.contains("GeForce") { 2 } else { 1 };
    Some(match (major, minor) {
        // No tf32 and no bf16: those run on the CUDA cores.
        (7, 5) => Rates { f32: 128, tf32: 128, half: 1024 / halved },
        (8, 0) => Rates { f32: 128, tf32: 1024, half: 2048 },
        (8, _) => Rates { f32: 256, tf32: 512 / halved, half: 1024 / halved },
        (9, _) => Rates { f32: 256, tf32: 2048, half: 4096 },
        (10, _) => Rates { f32: 256, tf32: 4096, half: 8192 },
        (12, _) => Rates { f32: 256, tf32: 512 / halved, half: 1024 / halved },
        _ => return None,
    })
}

/// `clock` in Hz, `memory` in bytes per second. `None` for a card that is not in the table, or if the driver reports no clocks.
pub fn peaks(name: &str, capability: [u32; 2], multiprocessors: u32, clock: f64, memory: f64) -> Option<Peaks> {
    let rates = rates(name, capability)?;
    let rate = |flops: u32| f64::from(flops) * f64::from(multiprocessors) * clock;
    let known = clock > 0.0 && memory > 0.0;
    known.then(|| Peaks { f32: rate(rates.f32), tf32: rate(rates.tf32), half: rate(rates.half), memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_peaks_are_the_datasheets() {
        let near = |x: f64, y: f64| (x / y - 1.0).abs() < 0.02;
        let a100 = peaks("NVIDIA A100-SXM4-40GB", [8, 0], 108, 1.41e9, 2.0 * 1.215e9 * 640.0).unwrap();
        assert!(near(a100.f32, 19.5e12) && near(a100.tf32, 156e12) && near(a100.half, 312e12));
        assert!(near(a100.memory, 1555e9));
        let h200 = peaks("NVIDIA H200", [9, 0], 132, 1.98e9, 2.0 * 3.201e9 * 768.0).unwrap();
        assert!(near(h200.f32, 67e12) && near(h200.memory, 4.9e12));
        let rtx4090 = peaks("NVIDIA GeForce RTX 4090", [8, 9], 128, 2.52e9, 1008e9).unwrap();
        assert!(near(rtx4090.f32, 82.6e12) && near(rtx4090.half, 165e12) && near(rtx4090.tf32, 82.6e12));
        assert!(peaks("unknown", [6, 1], 20, 1e9, 1e9).is_none() && peaks("A100", [8, 0], 108, 0.0, 1e9).is_none());
    }
}
