//! An emulator on which something is wrong, or that passes for a card.

#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use weft::Result;
use weft::device::{Attributes, Driver, Emulator, EmulatorOptions, Gpu, Graph, Launch, Pinned, Properties, Ptr};

/// What a card says of a bad access, and of all that follows.
const FAULT: &str = "an illegal memory access was encountered";

/// An emulator that differs from others in one thing.
pub struct Altered {
    pub emulator: Emulator,
    /// This kernel does nothing, or is rejected.
    pub broken: Option<(&'static str, bool)>,
    /// As if it were a card with these properties, on which graphs do nothing, and a launch takes as long as `seconds` says.
    pub card: Option<Properties>,
    pub seconds: fn(&Launch) -> f64,
    /// What it rejects takes it down: nothing runs any more.
    pub dies: bool,
    pub is_dead: AtomicBool,
}

impl Altered {
    /// One that does not differ, on which as a card everything would take a millisecond.
    pub fn new(emulator: Emulator) -> Self {
        Self { emulator, broken: None, card: None, seconds: |_| 1e-3, dies: false, is_dead: AtomicBool::new(false) }
    }

    pub fn broken(kernel: &'static str, refuses: bool) -> Gpu {
        let emulator = Emulator::new(EmulatorOptions::default());
        Gpu::new(Arc::new(Self { broken: Some((kernel, refuses)), ..Self::new(emulator) }))
    }

    fn is_broken(&self, launch: &Launch) -> bool {
        self.broken.is_some_and(|(kernel, _)| launch.kernel == kernel)
    }
}

impl Driver for Altered {
    fn properties(&self) -> &Properties {
        self.card.as_ref().unwrap_or(self.emulator.properties())
    }
    fn is_host(&self) -> bool {
        self.card.is_none()
    }
    fn free_memory(&self) -> Result<u64> {
        self.emulator.free_memory()
    }
    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        // What only a card works on may be smaller here.
        self.emulator.allocate(if self.card.is_some() { bytes.min(1 << 20) } else { bytes })
    }
    fn free(&self, memory: Ptr) {
        self.emulator.free(memory);
    }
    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.emulator.upload(to, bytes)
    }
    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.emulator.download(from, bytes)
    }
    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        self.emulator.pinned(bytes)
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.synchronize()?;
        match self.broken {
            Some((_, refuses)) if self.is_broken(launch) => match refuses {
                true => {
                    self.is_dead.store(self.dies, Ordering::Relaxed);
                    Err(weft::Error::new(launch.describe(), FAULT))
                }
                false => Ok(()),
            },
            _ => self.emulator.launch(launch),
        }
    }
    fn synchronize(&self) -> Result<()> {
        if self.is_dead.load(Ordering::Relaxed) { Err(weft::Error::new("cuda:0", FAULT)) } else { Ok(()) }
    }
    fn capture(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
        let kept = launches.iter().filter(|launch| self.card.is_none() && !self.is_broken(launch)).cloned();
        self.emulator.capture(&kept.collect::<Vec<_>>())
    }
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        if self.card.is_some() { Ok(launches.iter().map(self.seconds).collect()) } else { self.emulator.time(launches) }
    }
    fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>> {
        self.emulator.attributes(launch)
    }
    fn kernels(&self) -> Vec<String> {
        self.emulator.kernels()
    }
}
