//! The driver for NVIDIA GPUs: CUDA's driver API through cudarc, loaded at run time, so that one binary runs with and
//! without it. One context, one stream; a lock serialises the calls, so that a capture contains only its own launches.
//!
//! cudarc's safe layer owns context and stream. Below it everything is a plain handle of the driver API, because memory,
//! launches and graphs are owned here ([`super::Memory`], [`Program`](super::Program)).

mod peaks;
mod pinned;
mod probe;
mod staging;

pub use probe::{DriverInfo, Refusal, fits, probe, properties};

use super::driver::{Attributes, Driver, Graph, Launch, Pinned, Properties, Ptr};
use crate::{Error, Result, trace};
use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{
    self, CUevent, CUevent_flags, CUfunction, CUfunction_attribute_enum as FunctionAttribute, CUgraphExec,
    CUgraphInstantiate_flags, CUmodule, CUresult, CUstream, CUstreamCaptureMode,
};
use cudarc::driver::{CudaContext, CudaStream};
use pinned::HostMemory;
use staging::Staging;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Dynamic shared memory that a kernel may use without opting in to more.
const PLAIN_SHARED: u32 = 48 << 10;

/// A fat binary per `.cu` file, and the architectures they have machine code for: [`super::IMAGES`] and
/// [`super::ARCHITECTURES`].
#[derive(Debug, Clone, Copy)]
pub struct Code<'a> {
    pub images: &'a [(&'a str, &'a [u8])],
    pub architectures: &'a [&'a str],
    /// The compiler's version line.
    pub compiler: &'a str,
}

impl Code<'static> {
    /// The GPU code of this binary.
    pub const OWN: Self = Self { images: super::IMAGES, architectures: super::ARCHITECTURES, compiler: super::NVCC };
}

/// An NVIDIA GPU.
pub struct Cuda {
    core: Arc<Core>,
    properties: Properties,
}

/// The part that captured graphs need as well.
struct Core {
    /// `cuda:N`, for messages.
    place: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    modules: Vec<CUmodule>,
    functions: Mutex<HashMap<String, Function>>,
    /// Held while work is submitted to the stream.
    staging: Mutex<Staging>,
    shared_per_block: u32,
}

// SAFETY: handles of the driver API may be used by any thread that binds the context, which every call here does first.
unsafe impl Send for Core {}
// SAFETY: as above; the parts of the API that are not thread-safe (captures) run under the lock.
unsafe impl Sync for Core {}

/// A kernel that has been looked up.
#[derive(Clone, Copy)]
struct Function {
    handle: CUfunction,
    registers: u32,
    static_shared: u32,
    local: u32,
    /// Opted in to the maximum dynamic shared memory.
    is_raised: bool,
    /// Size of its parameter struct, if the driver reports it.
    parameters: Option<usize>,
}

/// The step at which an upload failed.
enum UploadFault {
    /// Allocating this amount of pinned memory.
    Pin(usize, DriverError),
    Copy(DriverError),
}

impl Cuda {
    /// Opens GPU `ordinal` with the GPU code of this binary.
    ///
    /// # Errors
    /// No GPU code in this build, no driver or one that is too old, no such GPU, one that is too old or busy; each with
    /// advice.
    pub fn open(ordinal: usize) -> Result<Self, Refusal> {
        Self::open_with(ordinal, Code::OWN)
    }

    /// The first usable GPU.
    ///
    /// # Errors
    /// As [`Cuda::open`], of the first.
    pub fn open_any() -> Result<(usize, Self), Refusal> {
        let mut first = None;
        let devices = if super::IMAGES.is_empty() { 1 } else { probe()?.devices };
        for ordinal in 0..devices {
            match Self::open(ordinal) {
                Ok(cuda) => return Ok((ordinal, cuda)),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
        Err(first.unwrap_or_else(|| Error::device("cuda", "no GPU").into()))
    }

    /// Opens GPU `ordinal` with other GPU code.
    ///
    /// # Errors
    /// As [`Cuda::open`].
    pub fn open_with(ordinal: usize, code: Code<'_>) -> Result<Self, Refusal> {
        if code.images.is_empty() {
            let error = Error::device("cuda", "this weft was built without GPU code (no nvcc, or WEFT_CUDA=off)")
                .advise("install the CUDA toolkit and build with WEFT_CUDA=require, or use the device cpu");
            return Err(Refusal { error, plain: true });
        }
        let found = probe()?;
        let properties = properties(ordinal, found)?;
        let place = format!("cuda:{ordinal}");
        let [major, minor] = properties.capability;
        if !fits(properties.capability, code.architectures) {
            let what = format!(
                "{} has compute capability {major}.{minor}, but this weft was built for sm_{}",
                properties.name,
                code.architectures.join(", sm_")
            );
            let advice = format!("build with WEFT_CUDA_ARCHS={major}{minor}, or use another device");
            return Err(Error::device(place, what).advise(advice).into());
        }
        let context = CudaContext::new(ordinal).map_err(|e| probe::hindered(&place, ordinal, e))?;
        // SAFETY: cudarc's event tracking is not used here: all work is on one stream.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(|e| retaining(&place, e))?;
        let mut core = Core {
            place,
            context,
            stream,
            modules: Vec::new(),
            functions: Mutex::default(),
            staging: Mutex::default(),
            shared_per_block: properties.shared_per_block,
        };
        core.load(code, found)?;
        Ok(Self { core: Arc::new(core), properties })
    }
}

impl Core {
    /// Loads the images that have code for this GPU.
    fn load(&mut self, code: Code<'_>, found: DriverInfo) -> Result<()> {
        self.bind()?;
        let mut unfit = None;
        for (name, image) in code.images {
            // The driver reads the image's header as words.
            let mut words = vec![0u64; image.len().div_ceil(8) + 1];
            bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..image.len()].copy_from_slice(image);
            // SAFETY: a fat binary as generated by nvcc, aligned and zero-padded.
            match unsafe { result::module::load_data(words.as_ptr().cast()) } {
                Ok(module) => self.modules.push(module),
                // An image for other architectures only.
                Err(e) if e.0 == CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => unfit = Some((name, e)),
                Err(e) => return Err(self.refused_code(name, e, code, found)),
            }
        }
        match (self.modules.is_empty(), unfit) {
            (true, Some((name, e))) => Err(self.refused_code(name, e, code, found)),
            _ => Ok(()),
        }
    }

    fn refused_code(&self, image: &str, error: DriverError, code: Code<'_>, found: DriverInfo) -> Error {
        let [major, minor] = found.version;
        let what = format!(
            "the driver (for CUDA {major}.{minor}) refuses the code of kernels/{image}.cu, made by {}: {}",
            code.compiler,
            explain(error)
        );
        Error::device(&self.place, what).advise("update the driver, or build with an nvcc that is not newer than it")
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| self.failed(e))
    }

    fn raw_stream(&self) -> CUstream {
        self.stream.cu_stream()
    }

    /// Acquires the lock to submit work to the stream, with the context bound.
    fn lock(&self) -> Result<MutexGuard<'_, Staging>> {
        let guard = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        self.bind()?;
        Ok(guard)
    }

    fn failed(&self, error: DriverError) -> Error {
        blame(Error::device(&self.place, explain(error)), error)
    }

    /// The kernel of a launch, ready for its shared memory.
    fn function(&self, launch: &Launch) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |e: DriverError| blame(Error::device(launch.describe(), explain(e)), e);
        let function = match functions.get_mut(&launch.kernel) {
            Some(function) => function,
            None => {
                let handle = self.find(&launch.kernel).map_err(at)?.ok_or_else(|| {
                    let what = format!("{} has no such kernel: there is no code of it for this GPU", self.place);
                    Error::device(launch.describe(), what)
                })?;
                functions.entry(launch.kernel.clone()).or_insert(look(handle).map_err(at)?)
            }
        };
        if let Some(size) = function.parameters
            && size != launch.parameters.len()
        {
            let what = format!("{} bytes of parameters, but the kernel takes {size}", launch.parameters.len());
            return Err(Error::device(launch.describe(), what));
        }
        if launch.shared > PLAIN_SHARED && !function.is_raised {
            let most = self.shared_per_block.saturating_sub(function.static_shared);
            let which = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a loaded module.
            unsafe { result::function::set_function_attribute(function.handle, which, most as i32) }.map_err(at)?;
            function.is_raised = true;
        }
        let most = self.shared_per_block.saturating_sub(function.static_shared);
        if launch.shared > most {
            return Err(Error::device(launch.describe(), format!("{} gives a block of it {most} bytes", self.place)));
        }
        Ok(*function)
    }

    /// Looks up a kernel by name, in the first module that has it.
    fn find(&self, name: &str) -> Result<Option<CUfunction>, DriverError> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        for &module in &self.modules {
            // SAFETY: a loaded module.
            match unsafe { result::module::get_function(module, name.clone()) } {
                Ok(function) => return Ok(Some(function)),
                Err(e) if e.0 == CUresult::CUDA_ERROR_NOT_FOUND => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Submits a launch to the stream; the caller holds the lock.
    fn start(&self, launch: &Launch) -> Result<()> {
        let function = self.function(launch)?;
        let [x, y, z] = launch.grid;
        // The driver copies the struct before it returns.
        let mut arguments = [launch.parameters.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the only parameter is a struct of the size that the kernel takes; the validity of the addresses in it is the
        // caller's responsibility, as for every launch.
        let result = unsafe {
            let block = (launch.block, 1, 1);
            result::launch_kernel(function.handle, (x, y, z), block, launch.shared, self.raw_stream(), &mut arguments)
        };
        result.map_err(|e| blame(Error::device(launch.describe(), explain(e)), e))
    }

    /// Captures what `work` submits to the stream; the caller holds the lock.
    fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<CUgraphExec> {
        let failed = |e: DriverError| self.failed(e).within("graph capture");
        let stream = self.raw_stream();
        // SAFETY: a stream of this context. A capture that has begun is always ended, even after an error; the graph is not
        // needed once it is instantiated.
        unsafe {
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            result::stream::begin_capture(stream, mode).map_err(failed)?;
            let worked = work();
            let graph = result::stream::end_capture(stream);
            if let (Err(error), Ok(graph)) = (&worked, &graph) {
                if !graph.is_null() {
                    let _ = result::graph::destroy(*graph);
                }
                return Err(error.clone());
            }
            worked?;
            let graph = graph.map_err(failed)?;
            let made = result::graph::instantiate(graph, CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            let executable = made.map_err(failed)?;
            if let Err(e) = result::graph::upload(executable, stream) {
                let _ = result::graph::exec_destroy(executable);
                return Err(failed(e));
            }
            Ok(executable)
        }
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: a stream of this context.
        unsafe { result::stream::synchronize(self.raw_stream()) }.map_err(|e| self.failed(e))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        let _ = self.wait();
        // SAFETY: nothing is running any more, and these have no other users.
        unsafe {
            self.staging.get_mut().unwrap_or_else(PoisonError::into_inner).release();
            for &module in &self.modules {
                let _ = result::module::unload(module);
            }
        }
    }
}

impl Driver for Cuda {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<u64> {
        self.core.bind()?;
        let (free, _) = result::mem_get_info().map_err(|e| self.core.failed(e))?;
        Ok(free as u64)
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        self.core.bind()?;
        // SAFETY: contents are undefined, as the trait says.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Ptr(address)),
            Err(e) if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = result::mem_get_info().map_or(0, |(free, _)| free as u64);
                let (name, memory) = (&self.properties.name, self.properties.memory);
                let what = format!(
                    "out of memory: {} asked for, {} of {} free on {name}",
                    size(bytes as u64),
                    size(free),
                    size(memory)
                );
                Err(Error::device(&self.core.place, what))
            }
            Err(e) => Err(self.core.failed(e)),
        }
    }

    fn free(&self, memory: Ptr) {
        if self.core.bind().is_ok() {
            // SAFETY: from `allocate`, by the trait's contract; the driver waits for work that uses it.
            let _ = unsafe { result::free_sync(memory.0) };
        }
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        trace::uploaded(bytes.len());
        let mut staging = self.core.lock()?;
        // SAFETY: the context is bound, and `to` lies in memory of `allocate` with room, by the trait's contract.
        unsafe { staging.upload(to.0, bytes, self.core.raw_stream()) }.map_err(|stage| match stage {
            UploadFault::Pin(bytes, e) => pinned::unpinned(&self.core, bytes, e),
            UploadFault::Copy(e) => self.core.failed(e),
        })
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        trace::downloaded(bytes.len());
        let _guard = self.core.lock()?;
        if !bytes.is_empty() {
            // SAFETY: `from` is in memory of `allocate`, by the trait's contract; `bytes` is borrowed until the wait ends.
            let copied = unsafe { result::memcpy_dtoh_async(bytes, from.0, self.core.raw_stream()) };
            // Wait even after an error: the copy may have begun.
            let waited = self.core.wait();
            copied.map_err(|e| self.core.failed(e))?;
            waited?;
        }
        Ok(())
    }

    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        Ok(Box::new(HostMemory::new(self.core.clone(), bytes)?))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let _guard = self.core.lock()?;
        self.core.start(launch)
    }

    fn synchronize(&self) -> Result<()> {
        self.core.bind()?;
        self.core.wait()
    }

    fn capture(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
        let _guard = self.core.lock()?;
        // Code may be loaded on first use, which a capture does not allow.
        launches.iter().try_for_each(|launch| self.core.function(launch).map(|_| ()))?;
        let executable = self.core.record(|| launches.iter().try_for_each(|launch| self.core.start(launch)))?;
        let name = match launches {
            [] => "an empty graph".to_string(),
            [first, ..] => format!("graph of {} launches from {}", launches.len(), first.describe()),
        };
        Ok(Box::new(Captured { core: self.core.clone(), executable, name }))
    }

    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        let _guard = self.core.lock()?;
        launches.iter().try_for_each(|launch| self.core.function(launch).map(|_| ()))?;
        let events = Events::new(&self.core, launches.len() + 1)?;
        // As one graph, so that short kernels do not wait for the host in between.
        let marked = |mark: &dyn Fn(CUevent) -> Result<(), DriverError>| {
            mark(events.0[0]).map_err(|e| self.core.failed(e))?;
            launches.iter().zip(&events.0[1..]).try_for_each(|(launch, &event)| {
                self.core.start(launch)?;
                mark(event).map_err(|e| self.core.failed(e))
            })
        };
        let stream = self.core.raw_stream();
        // SAFETY: events and stream of this context.
        let external = |event| unsafe { sys::cuEventRecordWithFlags(event, stream, 1).result() };
        match self.core.record(|| marked(&external)) {
            Ok(executable) => {
                // SAFETY: created just now; destroyed after it has run.
                unsafe {
                    let started = result::graph::launch(executable, stream).map_err(|e| self.core.failed(e));
                    let waited = self.core.wait();
                    let _ = result::graph::exec_destroy(executable);
                    started?;
                    waited?;
                }
            }
            // A driver that cannot record events in a graph: launch individually, including host gaps between short kernels.
            Err(_) => {
                // SAFETY: as above.
                marked(&|event| unsafe { event::record(event, stream) })?;
                self.core.wait()?;
            }
        }
        let seconds = |pair: &[CUevent]| {
            // SAFETY: both have been recorded.
            let ms = unsafe { event::elapsed(pair[0], pair[1]) }.map_err(|e| self.core.failed(e))?;
            Ok(f64::from(ms) * 1e-3)
        };
        events.0.windows(2).map(seconds).collect()
    }

    fn run_in_ranges(&self, launches: &[Launch]) -> Result<bool> {
        // SAFETY: only checks whether the library can be loaded.
        if !unsafe { cudarc::nvtx::sys::is_culib_present() } {
            return Ok(false);
        }
        for layer in launches.chunk_by(|a, b| a.label == b.label) {
            let _range = cudarc::nvtx::scoped_range(&layer[0].label);
            layer.iter().try_for_each(|launch| self.launch(launch))?;
            self.synchronize()?;
        }
        Ok(true)
    }

    fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>> {
        self.core.bind()?;
        let Function { handle, registers, static_shared, local, .. } = self.core.function(launch)?;
        // SAFETY: a function of a loaded module.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(handle, launch.block as i32, launch.shared as usize)
        };
        let blocks = blocks.map_err(|e| blame(Error::device(launch.describe(), explain(e)), e))?;
        Ok(Some(Attributes { registers, static_shared, local, blocks_per_multiprocessor: blocks.unsigned_abs() }))
    }

    fn kernels(&self) -> Vec<String> {
        if self.core.bind().is_err() {
            return Vec::new();
        }
        let listed = ["cuModuleGetFunctionCount", "cuModuleEnumerateFunctions", "cuFuncGetName"];
        let names: BTreeSet<String> = if listed.iter().all(|name| probe::has(name)) {
            self.core.modules.iter().flat_map(|&module| names(module)).collect()
        } else {
            // Before CUDA 12.4: the kernels that the emulator also has.
            #[cfg(feature = "simt")]
            let known = super::emulator::kernels();
            #[cfg(not(feature = "simt"))]
            let known = std::iter::empty::<&str>();
            known.filter(|name| matches!(self.core.find(name), Ok(Some(_)))).map(str::to_string).collect()
        };
        names.into_iter().collect()
    }
}

/// Names of the kernels of a module; CUDA 12.4.
fn names(module: CUmodule) -> Vec<String> {
    let mut count = 0;
    // SAFETY: a loaded module; the list has room for the number that the driver reports; names live as long as the module.
    unsafe {
        if sys::cuModuleGetFunctionCount(&mut count, module).result().is_err() {
            return Vec::new();
        }
        let mut functions: Vec<CUfunction> = vec![std::ptr::null_mut(); count as usize];
        if sys::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module).result().is_err() {
            return Vec::new();
        }
        let name = |function: CUfunction| {
            let mut name = std::ptr::null();
            sys::cuFuncGetName(&mut name, function).result().ok()?;
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        };
        functions.into_iter().filter_map(name).collect()
    }
}

/// Attributes of a kernel; querying them loads its code if necessary.
fn look(handle: CUfunction) -> Result<Function, DriverError> {
    // SAFETY: a function of a loaded module.
    let number = |which| unsafe { result::function::get_function_attribute(handle, which) }.map(i32::unsigned_abs);
    let parameters = || {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: writes two numbers.
        let asked = unsafe { sys::cuFuncGetParamInfo(handle, 0, &mut offset, &mut size).result() };
        asked.is_ok().then_some(size)
    };
    Ok(Function {
        handle,
        registers: number(FunctionAttribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
        static_shared: number(FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
        local: number(FunctionAttribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
        is_raised: false,
        // CUDA 12.4.
        parameters: probe::has("cuFuncGetParamInfo").then(parameters).flatten(),
    })
}

/// Timing events; destroyed when dropped.
struct Events(Vec<CUevent>);

impl Events {
    fn new(core: &Core, count: usize) -> Result<Self> {
        let mut events = Self(Vec::with_capacity(count));
        for _ in 0..count {
            events.0.push(event::create(CUevent_flags::CU_EVENT_DEFAULT).map_err(|e| core.failed(e))?);
        }
        Ok(events)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for &event in &self.0 {
            // SAFETY: created in `new`; the context is bound, because they are used within one call.
            let _ = unsafe { event::destroy(event) };
        }
    }
}

/// A captured graph.
struct Captured {
    core: Arc<Core>,
    executable: CUgraphExec,
    name: String,
}

// SAFETY: as for `Core`; launched only under the lock.
unsafe impl Send for Captured {}
// SAFETY: launches of it take the driver's lock.
unsafe impl Sync for Captured {}

impl Graph for Captured {
    fn launch(&self) -> Result<()> {
        let _guard = self.core.lock()?;
        // SAFETY: an executable graph and a stream of this context.
        let result = unsafe { result::graph::launch(self.executable, self.core.raw_stream()) };
        result.map_err(|e| blame(Error::device(&self.name, explain(e)), e))
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if let Ok(_guard) = self.core.lock() {
            let _ = self.core.wait();
            // SAFETY: it is not running any more.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
    }
}

/// The driver's message for an error, `an illegal memory access was encountered (CUDA error 700)`; calls the driver, so only
/// after a probe.
fn explain(error: DriverError) -> String {
    let number = error.0 as u32;
    match error.error_string() {
        Ok(text) => format!("{} (CUDA error {number})", text.to_string_lossy()),
        Err(_) => format!("CUDA error {number}"),
    }
}

fn retaining(place: &str, error: DriverError) -> Error {
    Error::device(place, explain(error)).advise("see what nvidia-smi says")
}

/// Advice on finding the kernel that caused an error reported by a later call.
fn blame(error: Error, cause: DriverError) -> Error {
    use CUresult as E;
    match cause.0 {
        E::CUDA_ERROR_ILLEGAL_ADDRESS
        | E::CUDA_ERROR_MISALIGNED_ADDRESS
        | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | E::CUDA_ERROR_INVALID_PC
        | E::CUDA_ERROR_HARDWARE_STACK_ERROR
        | E::CUDA_ERROR_ASSERT
        | E::CUDA_ERROR_LAUNCH_TIMEOUT
        | E::CUDA_ERROR_LAUNCH_FAILED => {
            error.advise("an earlier kernel may have failed: WEFT_SYNC=1 names the one that did")
        }
        _ => error,
    }
}

/// `1.5 GiB`
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
