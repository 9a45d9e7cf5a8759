//! Photos and their annotations: CelebA, image folders, boxes, synthetic faces; decoding, cropping, prefetching.

pub mod draw;
pub mod photo;
pub mod synth;
