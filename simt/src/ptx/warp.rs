//! The registers of a warp: 32 lanes side by side, so that an instruction is a loop that the compiler makes into vector code.

/// Lanes of a warp.
pub(super) const WARP: usize = 32;

/// Index of a register in its file. Constants and special registers have registers of their own, so that every operand is one.
pub(super) type Reg = u32;

/// How many registers of each file a kernel has, and which have the same value in every block.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub words: usize,
    pub doubles: usize,
    pub predicates: usize,
    /// Registers that hold numbers of the program.
    pub word_constants: Vec<(Reg, u32)>,
    pub double_constants: Vec<(Reg, u64)>,
    pub predicate_constants: Vec<(Reg, bool)>,
}

/// Registers, and which lanes of each have been written.
#[derive(Default)]
pub(super) struct Warp {
    words: Vec<[u32; WARP]>,
    doubles: Vec<[u64; WARP]>,
    predicates: Vec<u32>,
    defined_words: Vec<u32>,
    defined_doubles: Vec<u32>,
    defined_predicates: Vec<u32>,
    /// Lanes in which the current instruction has read a register that was never written.
    pub undefined: u32,
}

impl Warp {
    /// Room for a kernel's registers; none counts as written.
    pub fn begin(&mut self, files: &Files) {
        self.words.resize(files.words.max(self.words.len()), [0; WARP]);
        self.doubles.resize(files.doubles.max(self.doubles.len()), [0; WARP]);
        self.predicates.resize(files.predicates.max(self.predicates.len()), 0);
        for (defined, len) in [
            (&mut self.defined_words, self.words.len()),
            (&mut self.defined_doubles, self.doubles.len()),
            (&mut self.defined_predicates, self.predicates.len()),
        ] {
            defined.clear();
            defined.resize(len, 0);
        }
        for &(register, value) in &files.word_constants {
            self.set_word(register, u32::MAX, &[value; WARP]);
        }
        for &(register, value) in &files.double_constants {
            self.set_double(register, u32::MAX, &[value; WARP]);
        }
        for &(register, value) in &files.predicate_constants {
            self.set_predicate(register, u32::MAX, if value { u32::MAX } else { 0 });
        }
        self.undefined = 0;
    }

    #[inline(always)]
    pub fn word(&mut self, register: Reg) -> [u32; WARP] {
        self.undefined |= !self.defined_words[register as usize];
        self.words[register as usize]
    }

    #[inline(always)]
    pub fn double(&mut self, register: Reg) -> [u64; WARP] {
        self.undefined |= !self.defined_doubles[register as usize];
        self.doubles[register as usize]
    }

    #[inline(always)]
    pub fn predicate(&mut self, register: Reg) -> u32 {
        self.undefined |= !self.defined_predicates[register as usize];
        self.predicates[register as usize]
    }

    #[inline(always)]
    pub fn set_word(&mut self, register: Reg, mask: u32, values: &[u32; WARP]) {
        self.defined_words[register as usize] |= mask;
        blend(&mut self.words[register as usize], mask, values);
    }

    #[inline(always)]
    pub fn set_double(&mut self, register: Reg, mask: u32, values: &[u64; WARP]) {
        self.defined_doubles[register as usize] |= mask;
        blend(&mut self.doubles[register as usize], mask, values);
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, register: Reg, mask: u32, bits: u32) {
        self.defined_predicates[register as usize] |= mask;
        let to = &mut self.predicates[register as usize];
        *to = (*to & !mask) | (bits & mask);
    }
}

/// Replaces the values of the lanes in `mask`.
#[inline(always)]
fn blend<T: Copy>(to: &mut [T; WARP], mask: u32, values: &[T; WARP]) {
    if mask == u32::MAX {
        *to = *values;
    } else {
        for (lane, (to, value)) in to.iter_mut().zip(values).enumerate() {
            *to = if mask >> lane & 1 != 0 { *value } else { *to };
        }
    }
}

/// The lanes of a mask.
#[inline(always)]
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            lane
        })
    })
}
