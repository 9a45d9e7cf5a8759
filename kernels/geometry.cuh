// Geometry of a convolution, common to the implicit and the explicit algorithm. Mirrored in src/ops/conv/cuda.rs.
#pragma once
#include "weft.cuh"

struct Geometry {
  int n, in_h, in_w, in_c, out_h, out_w, out_c;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  int groups;
  int grid_h, grid_w;    // regions
  int cell_h, cell_w;    // input pixels between adjacent regions
  int block_h, block_w;  // output pixels of a region
};
PARAMETERS(Geometry, 80);
