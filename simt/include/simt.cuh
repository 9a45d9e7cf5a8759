// The one header that a .cu file includes. nvcc gets CUDA and PTX wrappers; a host compiler gets the emulator's shim.
// Both provide the same names, so a .cu file needs no #ifdef.
#pragma once
#ifdef __CUDACC__
#include "simt/device.cuh"
#else
#include "simt/types.h"
#include "simt/half.h"
#include "simt/warp.h"
#include "simt/atomic.h"
#include "simt/tensor.h"
#include "simt/entry.h"
#endif
