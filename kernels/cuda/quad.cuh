/* Four neighbours of a row, in one load or store: how kernels over rows go through them. */
#ifndef GALLEY_QUAD_CUH
#define GALLEY_QUAD_CUH

#include "dev.cuh"

struct alignas(16) quad {
    float v[4];
};

DEV struct quad quad_load(const float *p)
{
    return *(const struct quad *)p;
}

#endif
