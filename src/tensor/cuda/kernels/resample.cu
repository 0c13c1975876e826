// Changes of image size, number of channels and scale.

// Sums over 2 x 2 pixels, times `factor`; the result is [B, height, width, N units].
template <int N>
__device__ void coarsen_by(const REAL *x, REAL *y, unsigned int height, unsigned int width, unsigned int units, REAL factor,
                           unsigned int total) {
    const Several<REAL, N> *source = (const Several<REAL, N> *)x;
    EACH(i, total) {
        unsigned int unit = i % units, column = i / units % width, row = i / units / width;
        unsigned int corner = ((row * 2) * (2 * width) + column * 2) * units + unit, below = corner + 2 * width * units;
        Several<REAL, N> a = source[corner], b = source[corner + units], c = source[below], d = source[below + units], result;
        for (int n = 0; n < N; n++) result.value[n] = factor * (a.value[n] + b.value[n] + c.value[n] + d.value[n]);
        ((Several<REAL, N> *)y)[i] = result;
    }
}

// Each pixel four times, times `factor`; the result is [B, height, width, N units].
template <int N>
__device__ void refine_by(const REAL *x, REAL *y, unsigned int height, unsigned int width, unsigned int units, REAL factor,
                          unsigned int total) {
    EACH(i, total) {
        unsigned int unit = i % units, column = i / units % width, row = i / units / width;
        Several<REAL, N> found = ((const Several<REAL, N> *)x)[(row / 2 * (width / 2) + column / 2) * units + unit];
        for (int n = 0; n < N; n++) found.value[n] *= factor;
        ((Several<REAL, N> *)y)[i] = found;
    }
}

#define RESAMPLING (const REAL *x, REAL *y, unsigned int height, unsigned int width, unsigned int units, REAL factor, unsigned int total)
BY_ONE_AND_FOUR(coarsen, RESAMPLING, (x, y, height, width, units, factor, total))
BY_ONE_AND_FOUR(refine, RESAMPLING, (x, y, height, width, units, factor, total))

// [B, height / 2, width / 2, N units], each pixel four times, and [B, height, width, N others] as
// [B, height, width, N (units + others)].
template <int N>
__device__ void join_by(const REAL *x, const REAL *y, REAL *result, unsigned int height, unsigned int width,
                        unsigned int units, unsigned int others, unsigned int total) {
    const Several<REAL, N> *coarse = (const Several<REAL, N> *)x, *fine = (const Several<REAL, N> *)y;
    EACH(i, total) {
        unsigned int unit = i % (units + others), pixel = i / (units + others);
        unsigned int column = pixel % width, row = pixel / width;
        ((Several<REAL, N> *)result)[i] = unit < units
                                              ? coarse[(row / 2 * (width / 2) + column / 2) * units + unit]
                                              : fine[pixel * others + unit - units];
    }
}

BY_ONE_AND_FOUR(join,
                (const REAL *x, const REAL *y, REAL *result, unsigned int height, unsigned int width, unsigned int units,
                 unsigned int others, unsigned int total),
                (x, y, result, height, width, units, others, total))

// Channels from N first on of [pixels, N units] as [pixels, N chosen].
template <int N>
__device__ void part_by(const REAL *x, REAL *y, unsigned int units, unsigned int first, unsigned int chosen,
                        unsigned int total) {
    EACH(i, total)
    ((Several<REAL, N> *)y)[i] = ((const Several<REAL, N> *)x)[i / chosen * units + first + i % chosen];
}

BY_ONE_AND_FOUR(part, (const REAL *x, REAL *y, unsigned int units, unsigned int first, unsigned int chosen, unsigned int total),
                (x, y, units, first, chosen, total))

// Every image, of `each` numbers, times its factor.
extern "C" __global__ void scale(const REAL *x, const REAL *factors, REAL *y, unsigned int each, unsigned int total) {
    EACH(i, total) y[i] = x[i] * factors[i / each];
}
