// Convolution, normalisation and resampling on a GPU. REAL is float or double; FACTOR is what matrix products multiply: REAL
// or BRAIN. Features are [B, Y, X, C], channels last. Every count of numbers is below 2^31.

// A float without its lower 16 bits, rounded to nearest even (bfloat16).
struct BRAIN {
    unsigned short bits;
    __device__ BRAIN() {}
    __device__ BRAIN(float value) {
        unsigned int all = __float_as_uint(value);
        bits = (unsigned short)((all + 0x7fffu + ((all >> 16) & 1u)) >> 16);
    }
};

#define EACH(index, count)                                                                      \
    for (unsigned int index = blockIdx.x * blockDim.x + threadIdx.x; index < (count);           \
         index += gridDim.x * blockDim.x)

template <typename T, int N> struct alignas(N * sizeof(T) > 16 ? 16 : N * sizeof(T)) Several {
    T value[N];
};

// The kernel x kernel neighbourhood of every pixel, N channels at a time: [pixels, kernel^2, units, N].
template <int N>
__device__ void unfolded(const REAL *images, FACTOR *columns, unsigned int height, unsigned int width, unsigned int units,
                         unsigned int kernel, unsigned int total) {
    const Several<REAL, N> *source = (const Several<REAL, N> *)images;
    Several<FACTOR, N> *target = (Several<FACTOR, N> *)columns;
    EACH(i, total) {
        unsigned int unit = i % units, rest = i / units;
        unsigned int tap = rest % (kernel * kernel), pixel = rest / (kernel * kernel);
        int dy = (int)(tap / kernel) - (int)(kernel / 2), dx = (int)(tap % kernel) - (int)(kernel / 2);
        int x = (int)(pixel % width) + dx, y = (int)(pixel / width % height) + dy;
        bool inside = x >= 0 && x < (int)width && y >= 0 && y < (int)height;
        Several<FACTOR, N> result;
        if (inside) {
            Several<REAL, N> found = source[((int)pixel + dy * (int)width + dx) * (int)units + (int)unit];
            for (int n = 0; n < N; n++) result.value[n] = FACTOR(found.value[n]);
        } else {
            for (int n = 0; n < N; n++) result.value[n] = FACTOR(REAL(0));
        }
        target[i] = result;
    }
}

extern "C" __global__ void unfold(const REAL *images, FACTOR *columns, unsigned int height, unsigned int width,
                                  unsigned int units, unsigned int kernel, unsigned int total) {
    unfolded<1>(images, columns, height, width, units, kernel, total);
}

extern "C" __global__ void unfold_four(const REAL *images, FACTOR *columns, unsigned int height, unsigned int width,
                                       unsigned int units, unsigned int kernel, unsigned int total) {
    unfolded<4>(images, columns, height, width, units, kernel, total);
}

// Weights [O, C, taps] as [O, taps, C].
extern "C" __global__ void arrange(const REAL *weights, FACTOR *matrix, unsigned int outputs, unsigned int inputs,
                                   unsigned int taps) {
    EACH(i, outputs * inputs * taps) {
        unsigned int c = i % inputs, tap = i / inputs % taps, o = i / inputs / taps;
        matrix[i] = FACTOR(weights[(o * inputs + c) * taps + tap]);
    }
}

// Weights [O, C, taps] as those of the adjoint, [C, taps, O].
extern "C" __global__ void arrange_adjoint(const REAL *weights, FACTOR *matrix, unsigned int outputs, unsigned int inputs,
                                           unsigned int taps) {
    EACH(i, outputs * inputs * taps) {
        unsigned int o = i % outputs, tap = i / outputs % taps, c = i / outputs / taps;
        matrix[i] = FACTOR(weights[(o * inputs + c) * taps + taps - 1 - tap]);
    }
}

// The inverse of `arrange`, for the gradient of the weights.
extern "C" __global__ void restore(const REAL *matrix, REAL *weights, unsigned int outputs, unsigned int inputs,
                                   unsigned int taps) {
    EACH(i, outputs * inputs * taps) {
        unsigned int c = i % inputs, tap = i / inputs % taps, o = i / inputs / taps;
        weights[(o * inputs + c) * taps + tap] = matrix[i];
    }
}

// One row in the place of every row.
extern "C" __global__ void repeat_row(const REAL *row, REAL *rows, unsigned int length, unsigned int total) {
    EACH(i, total) rows[i] = row[i % length];
}

// Sums of N values of each channel over the rows [first, last) of a block of threads. Writes result[n * channels + c].
template <int N, typename Values>
__device__ void channel_totals(unsigned int first, unsigned int last, unsigned int channels, Values values, REAL *result) {
    __shared__ REAL sums[N][256];
    unsigned int across = channels < blockDim.x ? channels : blockDim.x;
    unsigned int down = blockDim.x / across;
    unsigned int column = threadIdx.x % across, row = threadIdx.x / across;
    for (unsigned int start = 0; start < channels; start += across) {
        unsigned int channel = start + column;
        REAL total[N];
        for (int n = 0; n < N; n++) total[n] = 0;
        if (row < down && channel < channels)
            for (unsigned int r = first + row; r < last; r += down) {
                REAL value[N];
                values(r, channel, value);
                for (int n = 0; n < N; n++) total[n] += value[n];
            }
        for (int n = 0; n < N; n++) sums[n][threadIdx.x] = total[n];
        __syncthreads();
        if (row == 0 && channel < channels)
            for (int n = 0; n < N; n++) {
                double all = 0;
                for (unsigned int r = 0; r < down; r++) all += sums[n][r * across + column];
                result[n * channels + channel] = (REAL)all;
            }
        __syncthreads();
    }
}

// Sums over rows: block s adds up its share of [rows, C] and writes [gridDim.x, C].
extern "C" __global__ void channel_sums(const REAL *values, REAL *sums, unsigned int rows, unsigned int channels) {
    unsigned int share = (rows + gridDim.x - 1) / gridDim.x;
    unsigned int first = blockIdx.x * share, last = first + share < rows ? first + share : rows;
    auto value = [=](unsigned int r, unsigned int c, REAL *v) { v[0] = values[r * channels + c]; };
    channel_totals<1>(first, last, channels, value, sums + blockIdx.x * channels);
}

// Sums of x and x^2: [B, parts, 2, C], image blockIdx.y, part blockIdx.x.
extern "C" __global__ void moment_sums(const REAL *x, REAL *sums, unsigned int pixels, unsigned int channels) {
    unsigned int share = (pixels + gridDim.x - 1) / gridDim.x;
    unsigned int first = blockIdx.x * share, last = first + share < pixels ? first + share : pixels;
    const REAL *image = x + blockIdx.y * pixels * channels;
    auto value = [=](unsigned int r, unsigned int c, REAL *v) {
        REAL found = image[r * channels + c];
        v[0] = found;
        v[1] = found * found;
    };
    channel_totals<2>(first, last, channels, value, sums + (blockIdx.y * gridDim.x + blockIdx.x) * 2 * channels);
}

// The sum over the parts of an image of one value of one channel.
__device__ double part_sum(const REAL *sums, unsigned int parts, unsigned int channels, unsigned int which, unsigned int c) {
    double total = 0;
    for (unsigned int part = 0; part < parts; part++) total += sums[(part * 2 + which) * channels + c];
    return total;
}

// Mean and 1 / standard deviation of every channel's group, [B, 2, C]; one block per image, one thread per channel.
extern "C" __global__ void moments(const REAL *sums, REAL *result, unsigned int parts, unsigned int channels,
                                   unsigned int groups, unsigned int pixels, double epsilon) {
    extern __shared__ double shared[];
    const REAL *mine = sums + blockIdx.x * parts * 2 * channels;
    for (unsigned int c = threadIdx.x; c < channels; c += blockDim.x) {
        shared[c] = part_sum(mine, parts, channels, 0, c);
        shared[channels + c] = part_sum(mine, parts, channels, 1, c);
    }
    __syncthreads();
    unsigned int size = channels / groups;
    for (unsigned int c = threadIdx.x; c < channels; c += blockDim.x) {
        double first = 0, second = 0, count = (double)size * pixels;
        for (unsigned int i = c / size * size; i < c / size * size + size; i++) {
            first += shared[i];
            second += shared[channels + i];
        }
        double mean = first / count, variance = second / count - mean * mean;
        result[(blockIdx.x * 2) * channels + c] = (REAL)mean;
        result[(blockIdx.x * 2 + 1) * channels + c] = (REAL)(1.0 / sqrt((variance > 0 ? variance : 0) + epsilon));
    }
}

// SiLU(normal (1 + scale) + shift).
extern "C" __global__ void modulate(const REAL *x, const REAL *scale, const REAL *shift, const REAL *moments, REAL *y,
                                    unsigned int pixels, unsigned int channels, unsigned int total) {
    EACH(i, total) {
        unsigned int c = i % channels, image = i / channels / pixels;
        const REAL *mine = moments + image * 2 * channels;
        REAL z = (x[i] - mine[c]) * mine[channels + c] * (1 + scale[image * channels + c]) + shift[image * channels + c];
        y[i] = z / (1 + exp(-z));
    }
}

// Gradient in z of the SiLU, given the gradient of its value.
__device__ REAL through_silu(REAL z, REAL gradient) {
    REAL s = 1 / (1 + exp(-z));
    return gradient * s * (1 + z * (1 - s));
}

// Sums of dz and dz normal: [B, parts, 2, C].
extern "C" __global__ void gradient_sums(const REAL *x, const REAL *scale, const REAL *shift, const REAL *moments,
                                         const REAL *gradient, REAL *sums, unsigned int pixels, unsigned int channels) {
    unsigned int share = (pixels + gridDim.x - 1) / gridDim.x;
    unsigned int first = blockIdx.x * share, last = first + share < pixels ? first + share : pixels;
    unsigned int image = blockIdx.y;
    auto value = [=](unsigned int r, unsigned int c, REAL *v) {
        unsigned int i = (image * pixels + r) * channels + c;
        REAL normal = (x[i] - moments[image * 2 * channels + c]) * moments[(image * 2 + 1) * channels + c];
        v[0] = through_silu(normal * (1 + scale[image * channels + c]) + shift[image * channels + c], gradient[i]);
        v[1] = v[0] * normal;
    };
    channel_totals<2>(first, last, channels, value, sums + (image * gridDim.x + blockIdx.x) * 2 * channels);
}

// Gradients of scale and shift [B, C], and the group means [B, 2, C] of dn and dn normal, dn being dz (1 + scale).
extern "C" __global__ void gradient_means(const REAL *sums, const REAL *scale, REAL *of_scale, REAL *of_shift, REAL *means,
                                          unsigned int parts, unsigned int channels, unsigned int groups,
                                          unsigned int pixels) {
    extern __shared__ double shared[];
    const REAL *mine = sums + blockIdx.x * parts * 2 * channels;
    for (unsigned int c = threadIdx.x; c < channels; c += blockDim.x) {
        double first = part_sum(mine, parts, channels, 0, c), second = part_sum(mine, parts, channels, 1, c);
        unsigned int i = blockIdx.x * channels + c;
        of_shift[i] = (REAL)first;
        of_scale[i] = (REAL)second;
        shared[c] = first * (1 + (double)scale[i]);
        shared[channels + c] = second * (1 + (double)scale[i]);
    }
    __syncthreads();
    unsigned int size = channels / groups;
    for (unsigned int c = threadIdx.x; c < channels; c += blockDim.x) {
        double first = 0, second = 0, count = (double)size * pixels;
        for (unsigned int i = c / size * size; i < c / size * size + size; i++) {
            first += shared[i];
            second += shared[channels + i];
        }
        means[(blockIdx.x * 2) * channels + c] = (REAL)(first / count);
        means[(blockIdx.x * 2 + 1) * channels + c] = (REAL)(second / count);
    }
}

// Gradient in x: (dn - mean(dn) - normal mean(dn normal)) / standard deviation.
extern "C" __global__ void modulate_back(const REAL *x, const REAL *scale, const REAL *shift, const REAL *moments,
                                         const REAL *means, const REAL *gradient, REAL *result, unsigned int pixels,
                                         unsigned int channels, unsigned int total) {
    EACH(i, total) {
        unsigned int c = i % channels, image = i / channels / pixels;
        unsigned int first = image * 2 * channels + c, second = first + channels, here = image * channels + c;
        REAL normal = (x[i] - moments[first]) * moments[second];
        REAL slope = 1 + scale[here];
        REAL dn = through_silu(normal * slope + shift[here], gradient[i]) * slope;
        result[i] = (dn - means[first] - normal * means[second]) * moments[second];
    }
}

// Sums over 2 x 2 pixels, times `factor`; the result is [B, height, width, C].
extern "C" __global__ void coarsen(const REAL *x, REAL *y, unsigned int height, unsigned int width, unsigned int channels,
                                   REAL factor, unsigned int total) {
    EACH(i, total) {
        unsigned int c = i % channels, column = i / channels % width, row = i / channels / width;
        const REAL *corner = x + ((row * 2) * (2 * width) + column * 2) * channels + c;
        unsigned int below = 2 * width * channels;
        y[i] = factor * (corner[0] + corner[channels] + corner[below] + corner[below + channels]);
    }
}

// Each pixel four times, times `factor`; the result is [B, height, width, C].
extern "C" __global__ void refine(const REAL *x, REAL *y, unsigned int height, unsigned int width, unsigned int channels,
                                  REAL factor, unsigned int total) {
    EACH(i, total) {
        unsigned int c = i % channels, column = i / channels % width, row = i / channels / width;
        y[i] = factor * x[(row / 2 * (width / 2) + column / 2) * channels + c];
    }
}
