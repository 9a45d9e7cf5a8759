//! The operations implemented directly from their formulas, in f64 and NCHW: one loop nest each, without optimisation.

use weft::rng::philox;

/// `[n, c, h, w]`.
#[derive(Clone)]
pub struct Map {
    pub n: usize,
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub values: Vec<f64>,
}

impl Map {
    /// Computes each value from its sample, channel, row and column.
    pub fn of([n, c, h, w]: [usize; 4], mut value: impl FnMut(usize, usize, usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(n * c * h * w);
        for sample in 0..n {
            for channel in 0..c {
                for y in 0..h {
                    for x in 0..w {
                        values.push(value(sample, channel, y, x));
                    }
                }
            }
        }
        Self { n, c, h, w, values }
    }

    pub fn scalar(value: f64) -> Self {
        Self::of([1, 1, 1, 1], |_, _, _, _| value)
    }

    pub fn shape(&self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }

    pub fn at(&self, n: usize, c: usize, y: usize, x: usize) -> f64 {
        self.values[((n * self.c + c) * self.h + y) * self.w + x]
    }

    /// The value at row `y` and column `x` of the map padded by `pad` on every side, or `None` in the padding.
    fn inside(&self, n: usize, c: usize, y: usize, x: usize, [above, before]: [usize; 2]) -> Option<f64> {
        let (y, x) = (y.checked_sub(above)?, x.checked_sub(before)?);
        (y < self.h && x < self.w).then(|| self.at(n, c, y, x))
    }

    pub fn each(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.iter().map(|&x| f(x)).collect(), ..*self }
    }
}

/// Geometry of a window.
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub pad: [usize; 2],
}

/// weight `[filters, c / groups, kh, kw]`
pub fn conv(map: &Map, window: &Window, groups: usize, weight: &[f64], bias: Option<&[f64]>, filters: usize) -> Map {
    let Window { kernel: [kh, kw], stride, pad } = *window;
    let channels = map.c / groups;
    let h = (map.h + 2 * pad[0] - kh) / stride[0] + 1;
    let w = (map.w + 2 * pad[1] - kw) / stride[1] + 1;
    Map::of([map.n, filters, h, w], |n, o, y, x| {
        let group = o / (filters / groups);
        let mut sum = bias.map_or(0.0, |bias| bias[o]);
        for c in 0..channels {
            for i in 0..kh {
                for j in 0..kw {
                    let read = map.inside(n, group * channels + c, y * stride[0] + i, x * stride[1] + j, pad);
                    sum += weight[((o * channels + c) * kh + i) * kw + j] * read.unwrap_or(0.0);
                }
            }
        }
        sum
    })
}

/// Cells of a local convolution, per axis.
pub struct Cells {
    pub grid: [usize; 2],
    pub span: [usize; 2],
    pub halo: bool,
}

/// weight `[banks, filters, c, kh, kw]`, bias `[banks, filters]`: pixel (y, x) has bank (a, b) = (y / B, x / B) and remainder (u,
/// v), and its tap (i, j) reads (a cell + u + i, b cell + v + j).
pub fn local_conv(
    map: &Map,
    kernel: [usize; 2],
    cells: &Cells,
    weight: &[f64],
    bias: Option<&[f64]>,
    filters: usize,
) -> Map {
    let Cells { grid, span, halo } = *cells;
    let [kh, kw] = kernel;
    let cell = |axis: usize, size: usize| {
        let beyond = if halo { kernel[axis] - 1 } else { 0 };
        (size - beyond) / (grid[axis] + span[axis] - 1)
    };
    let cell = [cell(0, map.h), cell(1, map.w)];
    let block = |axis: usize| span[axis] * cell[axis] - if halo { 0 } else { kernel[axis] - 1 };
    let block = [block(0), block(1)];
    Map::of([map.n, filters, grid[0] * block[0], grid[1] * block[1]], |n, o, y, x| {
        let (a, u) = (y / block[0], y % block[0]);
        let (b, v) = (x / block[1], x % block[1]);
        let filter = (a * grid[1] + b) * filters + o;
        let mut sum = bias.map_or(0.0, |bias| bias[filter]);
        for c in 0..map.c {
            for i in 0..kh {
                for j in 0..kw {
                    let read = map.at(n, c, a * cell[0] + u + i, b * cell[1] + v + j);
                    sum += weight[((filter * map.c + c) * kh + i) * kw + j] * read;
                }
            }
        }
        sum
    })
}

/// weight `[outputs, c h w]`
pub fn linear(map: &Map, weight: &[f64], bias: Option<&[f64]>, outputs: usize) -> Map {
    let len = map.c * map.h * map.w;
    Map::of([map.n, outputs, 1, 1], |n, o, _, _| {
        let mut sum = bias.map_or(0.0, |bias| bias[o]);
        for i in 0..len {
            sum += weight[o * len + i] * map.values[n * len + i];
        }
        sum
    })
}

/// Number of windows along an axis. With `ceil`, one more window may extend past the end if the last one stops short, but it must
/// not start in the padding at the end.
fn windows(size: usize, kernel: usize, stride: usize, pad: usize, ceil: bool) -> usize {
    let padded = size + 2 * pad;
    let mut count = 1;
    loop {
        let (start, previous_end) = (count * stride, (count - 1) * stride + kernel);
        let fits = start + kernel <= padded;
        if !(fits || ceil && previous_end < padded && start < size + pad) {
            return count;
        }
        count += 1;
    }
}

/// Applies a statistic to the values of each window, and the number of its positions inside the padded map.
fn pooled(map: &Map, window: &Window, ceil: bool, mut statistic: impl FnMut(&[f64], usize) -> f64) -> Map {
    let Window { kernel, stride, pad } = *window;
    let h = windows(map.h, kernel[0], stride[0], pad[0], ceil);
    let w = windows(map.w, kernel[1], stride[1], pad[1], ceil);
    let mut values = Vec::new();
    Map::of([map.n, map.c, h, w], |n, c, y, x| {
        values.clear();
        let mut places = 0;
        for i in 0..kernel[0] {
            for j in 0..kernel[1] {
                let (y, x) = (y * stride[0] + i, x * stride[1] + j);
                places += usize::from(y < map.h + 2 * pad[0] && x < map.w + 2 * pad[1]);
                values.extend(map.inside(n, c, y, x, pad));
            }
        }
        statistic(&values, places)
    })
}

/// The maximum, after recording its distance from the second-largest value. Zeros come from a ReLU or a mask below, where all of
/// them are constant; other ties are a kink.
fn maximum(values: &[f64], kink: &mut f64) -> f64 {
    let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let is_tie = top != 0.0 && values.iter().filter(|&&v| v == top).count() > 1;
    let below = values.iter().copied().filter(|&v| v < top).fold(f64::NEG_INFINITY, f64::max);
    let second = if is_tie { top } else { below };
    *kink = kink.min(top - second);
    top
}

pub fn max_pool(map: &Map, window: &Window, ceil: bool, kink: &mut f64) -> Map {
    pooled(map, window, ceil, |values, _| maximum(values, kink))
}

/// Padding counts in the mean; positions beyond it do not.
pub fn avg_pool(map: &Map, window: &Window, ceil: bool) -> Map {
    pooled(map, window, ceil, |values, places| values.iter().sum::<f64>() / places as f64)
}

fn global(map: &Map, mut statistic: impl FnMut(&[f64]) -> f64) -> Map {
    let area = map.h * map.w;
    Map::of([map.n, map.c, 1, 1], |n, c, _, _| statistic(&map.values[(n * map.c + c) * area..][..area]))
}

pub fn global_max(map: &Map, kink: &mut f64) -> Map {
    global(map, |values| maximum(values, kink))
}

pub fn global_avg(map: &Map) -> Map {
    global(map, |values| values.iter().sum::<f64>() / values.len() as f64)
}

/// log(mean(exp(r x))) / r
pub fn global_lse(map: &Map, r: f64) -> Map {
    global(map, |values| {
        let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = values.iter().map(|x| (r * (x - top)).exp()).sum::<f64>() / values.len() as f64;
        top + mean.ln() / r
    })
}

/// y = x / (k + alpha / size * sum of squares)^beta over the `size` channels from c - size / 2 on.
pub fn lrn(map: &Map, size: usize, alpha: f64, beta: f64, k: f64) -> Map {
    Map::of(map.shape(), |n, c, y, x| {
        let mut sum = 0.0;
        for other in 0..map.c {
            if other + size / 2 >= c && other + size / 2 < c + size {
                sum += map.at(n, other, y, x).powi(2);
            }
        }
        map.at(n, c, y, x) / (k + alpha / size as f64 * sum).powf(beta)
    })
}

/// y = (x - mean) / sqrt(variance + eps) * weight + bias over a sample's group of channels at all places.
pub fn group_norm(map: &Map, groups: usize, eps: f64, weight: &[f64], bias: &[f64]) -> Map {
    let channels = map.c / groups;
    let len = channels * map.h * map.w;
    // Groups of all samples lie one after the other.
    let moments = map.values.chunks(len).map(|values| {
        let mean = values.iter().sum::<f64>() / len as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len as f64)
    });
    let moments: Vec<(f64, f64)> = moments.collect();
    Map::of(map.shape(), |n, c, y, x| {
        let (mean, variance) = moments[n * groups + c / channels];
        (map.at(n, c, y, x) - mean) / (variance + eps).sqrt() * weight[c] + bias[c]
    })
}

/// max(x, 0), after recording the distance of the values from 0; exact zeros come from a ReLU or a mask below.
pub fn relu(map: &Map, kink: &mut f64) -> Map {
    map.values.iter().filter(|&&x| x != 0.0).for_each(|x| *kink = kink.min(x.abs()));
    map.each(|x| x.max(0.0))
}

pub fn sigmoid(map: &Map) -> Map {
    map.each(|x| 1.0 / (1.0 + (-x).exp()))
}

/// log(sum over channels of exp(x)) at one position.
fn log_sum(map: &Map, n: usize, y: usize, x: usize) -> f64 {
    let values = || (0..map.c).map(|c| map.at(n, c, y, x));
    let top = values().fold(f64::NEG_INFINITY, f64::max);
    top + values().map(|v| (v - top).exp()).sum::<f64>().ln()
}

pub fn softmax(map: &Map) -> Map {
    Map::of(map.shape(), |n, c, y, x| (map.at(n, c, y, x) - log_sum(map, n, y, x)).exp())
}

/// The mask is part of the contract between devices: word `i % 4` of Philox block `i / 4`, where i counts values in the order n,
/// h, w, c; a value is dropped if the word's upper 24 bits as a fraction are below the rate.
pub fn dropout(map: &Map, rate: f64, seed: u64, layer: usize) -> Map {
    const MASKS: u32 = u32::from_be_bytes(*b"mask");
    Map::of(map.shape(), |n, c, y, x| {
        let i = ((n * map.h + y) * map.w + x) * map.c + c;
        let words = philox([(i / 4) as u32, 0, layer as u32, MASKS], [seed as u32, (seed >> 32) as u32]);
        let fraction = f64::from(words[i % 4] >> 8) / f64::from(1 << 24);
        if fraction < rate { 0.0 } else { map.at(n, c, y, x) / (1.0 - rate) }
    })
}

/// Concatenates along channels.
pub fn concat(maps: &[&Map]) -> Map {
    let channels = maps.iter().map(|map| map.c).sum();
    Map::of([maps[0].n, channels, maps[0].h, maps[0].w], |n, c, y, x| {
        let (mut map, mut c) = (0, c);
        while c >= maps[map].c {
            c -= maps[map].c;
            map += 1;
        }
        maps[map].at(n, c, y, x)
    })
}

/// Mean over samples and positions of -log softmax(x)[class].
pub fn softmax_cross_entropy(map: &Map, classes: &[u32]) -> f64 {
    let mut sum = 0.0;
    for n in 0..map.n {
        for y in 0..map.h {
            for x in 0..map.w {
                let class = classes[(n * map.h + y) * map.w + x] as usize;
                sum += log_sum(map, n, y, x) - map.at(n, class, y, x);
            }
        }
    }
    sum / (map.n * map.h * map.w) as f64
}

/// Mean over all values of -t log s - (1 - t) log(1 - s), where s = sigmoid(x); written with log s = -log(1 + exp(-x)).
pub fn sigmoid_cross_entropy(map: &Map, targets: &[f32]) -> f64 {
    let minus_log = |x: f64| if x > 0.0 { (-x).exp().ln_1p() } else { x.exp().ln_1p() - x };
    let terms = map.values.iter().zip(targets).map(|(&x, &t)| {
        let t = f64::from(t);
        t * minus_log(x) + (1.0 - t) * minus_log(-x)
    });
    terms.sum::<f64>() / map.values.len() as f64
}

/// Mean over the pairs of equal identity of the squared distance of their features; 0 without pairs.
pub fn similarity(map: &Map, identities: &[u32]) -> f64 {
    let features: Vec<&[f64]> = map.values.chunks(map.c * map.h * map.w).collect();
    let (mut sum, mut pairs) = (0.0, 0);
    for i in 0..map.n {
        for j in i + 1..map.n {
            if identities[i] == identities[j] {
                sum += features[i].iter().zip(features[j]).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
                pairs += 1;
            }
        }
    }
    if pairs == 0 { 0.0 } else { sum / f64::from(pairs) }
}
