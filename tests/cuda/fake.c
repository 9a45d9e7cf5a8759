// A libcuda.so.1 for machines without a GPU: device memory is host memory, and a stream keeps what it is given until
// somebody waits, so that what is freed or overwritten too early shows. It knows the kernels fill_f32 and fill_f16
// (kernels/pointwise.cu), of which the second faults. WEFT_FAKE_CUDA says what is wrong with it: none, old, busy,
// second (the first of two GPUs is busy), ancient, code, or nothing. Built with -DLACKS it has no cuGraphUpload.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
       NO_BINARY_FOR_GPU = 209, UNSUPPORTED_PTX = 222, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, DEVICE_UNAVAILABLE = 46,
       STREAM_CAPTURE_INVALIDATED = 901 };
enum { MEMORY = 8 << 20, PLAIN_SHARED = 48 << 10, SHARED = 99 << 10, LARGEST_QUEUE = 4096 };

static int is(const char *mode) {
  const char *set = getenv("WEFT_FAKE_CUDA");
  return set && !strcmp(set, mode);
}

typedef struct {
  const char *name;
  int raised;
} Function;
typedef struct {
  int done;
  double at;
} Event;
typedef struct {
  enum { COPY, LAUNCH, RECORD } what;
  void *to;
  const void *from;
  size_t bytes;
  Function *function;
  unsigned char parameters[24];
  Event *event;
} Work;
typedef struct {
  int count;
  Work work[];
} Graph;
typedef struct {
  void *out;
  uint64_t count;
  float value;
} Fill;

static Function functions[] = {{"fill_f32", 0}, {"fill_f16", 0}};
static Work queue[LARGEST_QUEUE], captured[LARGEST_QUEUE];
static int queued, capturing, captures, sticky;
static size_t used;
static double now;
static void *context;

static void perform(const Work *w) {
  now += 1.0;
  if (w->what == COPY) memcpy(w->to, w->from, w->bytes);
  if (w->what == RECORD) {
    w->event->done = 1;
    w->event->at = now;
  }
  if (w->what == LAUNCH) {
    Fill p;
    memcpy(&p, w->parameters, sizeof p);
    if (w->function != functions) sticky = ILLEGAL_ADDRESS;
    else
      for (uint64_t i = 0; i < p.count; i++) ((float *)p.out)[i] = p.value;
  }
}
static int run(const Event *until) {
  int done = 0;
  while (done < queued && !sticky) {
    const Work *w = &queue[done++];
    perform(w);
    if (until && w->what == RECORD && w->event == until) break;
  }
  memmove(queue, queue + done, (queued - done) * sizeof(Work));
  queued -= done;
  return sticky;
}
static int put(Work w) {
  if (sticky) return sticky;
  if (capturing) {
    captured[captures++] = w;
    return OK;
  }
  if (queued == LARGEST_QUEUE) run(0);
  queue[queued++] = w;
  return OK;
}

int cuInit(unsigned flags) { return is("none") ? NO_DEVICE : OK; }
int cuDriverGetVersion(int *version) { *version = is("old") ? 11040 : 12080; return OK; }
int cuGetErrorName(int error, const char **text) { *text = "CUDA_ERROR"; return OK; }
int cuGetErrorString(int error, const char **text) {
  *text = error == ILLEGAL_ADDRESS     ? "an illegal memory access was encountered"
          : error == UNSUPPORTED_PTX   ? "the provided PTX was compiled with an unsupported toolchain."
          : error == INVALID_VALUE     ? "invalid argument"
          : error == OUT_OF_MEMORY     ? "out of memory"
                                       : "some error";
  return OK;
}
int cuDeviceGetCount(int *count) { *count = is("second") ? 2 : 1; return OK; }
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal < 2 ? OK : INVALID_DEVICE;
}
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Fake GPU", length); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  switch (which) {
    case 13: *value = 1410000; break;                       // clock, kHz
    case 16: *value = 108; break;                           // multiprocessors
    case 20: *value = is("busy") || is("second") ? 3 : 0; break;  // compute mode
    case 36: *value = 1215000; break;                       // memory clock, kHz
    case 37: *value = 5120; break;                          // bus width
    case 39: *value = 2048; break;                          // threads per multiprocessor
    case 75: *value = is("ancient") ? 5 : 8; break;
    case 76: *value = 0; break;
    case 81: *value = 164 << 10; break;
    case 97: *value = SHARED; break;
    case 115: *value = 1; break;
    default: *value = 0;
  }
  return OK;
}
int cuDevicePrimaryCtxRetain(void **made, int device) {
  if (is("busy") || (is("second") && device == 0)) return DEVICE_UNAVAILABLE;
  *made = context = malloc(1);
  return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxGetCurrent(void **current) { *current = context; return OK; }
int cuCtxSetCurrent(void *set) { context = set; return OK; }
int cuCtxSynchronize(void) { return run(0); }

int cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1); return OK; }
int cuStreamDestroy_v2(void *stream) { free(stream); return OK; }
int cuStreamSynchronize(void *stream) { return capturing ? STREAM_CAPTURE_INVALIDATED : run(0); }
int cuStreamBeginCapture_v2(void *stream, int mode) { capturing = 1; captures = 0; return OK; }
int cuStreamEndCapture(void *stream, Graph **graph) {
  capturing = 0;
  *graph = malloc(sizeof(Graph) + captures * sizeof(Work));
  (*graph)->count = captures;
  memcpy((*graph)->work, captured, captures * sizeof(Work));
  return OK;
}
int cuGraphInstantiateWithFlags(Graph **made, const Graph *graph, unsigned long long flags) {
  size_t size = sizeof(Graph) + graph->count * sizeof(Work);
  *made = memcpy(malloc(size), graph, size);
  return OK;
}
#ifndef LACKS
int cuGraphUpload(Graph *graph, void *stream) { return OK; }
#endif
int cuGraphLaunch(Graph *graph, void *stream) {
  for (int i = 0; i < graph->count; i++) put(graph->work[i]);
  return sticky;
}
int cuGraphExecDestroy(Graph *graph) { memset(graph, 0xff, sizeof(Graph)); free(graph); return OK; }
int cuGraphDestroy(Graph *graph) { memset(graph, 0xff, sizeof(Graph)); free(graph); return OK; }

int cuMemAlloc_v2(void **memory, size_t bytes) {
  if (sticky) return sticky;
  if (used + bytes > MEMORY) return OUT_OF_MEMORY;
  used += bytes;
  size_t *block = aligned_alloc(256, (bytes + 511) / 256 * 256);
  *block = bytes;
  *memory = (char *)block + 256;
  memset(*memory, 0xff, bytes);
  return OK;
}
int cuMemFree_v2(char *memory) {
  run(0);
  used -= *(size_t *)(memory - 256);
  free(memory - 256);
  return OK;
}
int cuMemGetInfo_v2(size_t *left, size_t *total) { *left = MEMORY - used; *total = MEMORY; return OK; }
int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) { *memory = malloc(bytes); return OK; }
int cuMemFreeHost(void *memory) { free(memory); return OK; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
  return put((Work){COPY, to, from, bytes});
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
  return put((Work){COPY, to, from, bytes});
}

int cuModuleLoadData(void **module, const char *image) {
  if (is("code")) return UNSUPPORTED_PTX;
  if ((uintptr_t)image % 8) return INVALID_IMAGE;
  if (!strcmp(image, "another architecture")) return NO_BINARY_FOR_GPU;
  *module = malloc(1);
  **(char **)module = image[0];
  return OK;
}
int cuModuleUnload(void *module) { free(module); return OK; }
int cuModuleGetFunction(Function **function, const char *module, const char *name) {
  if (*module == 'p')  // "pointwise"
    for (int i = 0; i < 2; i++)
      if (!strcmp(functions[i].name, name)) {
        *function = &functions[i];
        return OK;
      }
  return NOT_FOUND;
}
int cuModuleGetFunctionCount(unsigned *count, const char *module) { *count = *module == 'p' ? 2 : 0; return OK; }
int cuModuleEnumerateFunctions(Function **list, unsigned count, void *module) {
  for (unsigned i = 0; i < count; i++) list[i] = &functions[i];
  return OK;
}
int cuFuncGetName(const char **name, const Function *function) { *name = function->name; return OK; }
int cuFuncGetParamInfo(const Function *function, size_t index, size_t *offset, size_t *size) {
  *size = sizeof(Fill);
  return OK;
}
int cuFuncGetAttribute(int *value, int which, const Function *function) {
  *value = which == 4 ? 32 : which == 1 ? 1024 : 0;  // registers, static shared memory
  return OK;
}
int cuFuncSetAttribute(Function *function, int which, int value) {
  if (which != 8 || value > SHARED - 1024) return INVALID_VALUE;
  function->raised = 1;
  return OK;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const Function *function, int block, size_t shared) {
  *blocks = 2048 / block;
  return OK;
}
int cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  if (bx == 0 || bx > 1024 || y > 65535 || (shared > PLAIN_SHARED && !function->raised)) return INVALID_VALUE;
  Work w = {LAUNCH};
  w.function = function;
  memcpy(w.parameters, parameters[0], sizeof w.parameters);
  return put(w);
}

int cuEventCreate(Event **event, unsigned flags) { *event = calloc(1, sizeof(Event)); return OK; }
int cuEventDestroy_v2(Event *event) { free(event); return OK; }
int cuEventRecord(Event *event, void *stream) {
  event->done = 0;
  Work w = {RECORD};
  w.event = event;
  return put(w);
}
int cuEventRecordWithFlags(Event *event, void *stream, unsigned flags) {
  return capturing && flags == 1 ? cuEventRecord(event, stream) : INVALID_VALUE;
}
int cuEventSynchronize(Event *event) { return event->done ? sticky : run(event); }
int cuEventElapsedTime(float *ms, const Event *start, const Event *end) {
  if (!start->done || !end->done) return INVALID_VALUE;
  *ms = (float)(end->at - start->at);
  return OK;
}
