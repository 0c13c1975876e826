// Convolutions as matrix products, and the gradient of the bias.

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

// Adds up the products of pixels and taps, [pixels, outputs, taps]: each pixel takes from every neighbour what the tap that leads
// there gives, and bias and other images if there are any.
extern "C" __global__ void collect(const REAL *products, const REAL *bias, const REAL *others, REAL *y, unsigned int height,
                                   unsigned int width, unsigned int outputs, unsigned int kernel, unsigned int total) {
    EACH(i, total) {
        unsigned int o = i % outputs, pixel = i / outputs, taps = kernel * kernel;
        int column = (int)(pixel % width), row = (int)(pixel / width % height);
        REAL sum = (bias ? bias[o] : REAL(0)) + (others ? others[i] : REAL(0));
        for (unsigned int tap = 0; tap < taps; tap++) {
            int dy = (int)(tap / kernel) - (int)(kernel / 2), dx = (int)(tap % kernel) - (int)(kernel / 2);
            if (column + dx < 0 || column + dx >= (int)width || row + dy < 0 || row + dy >= (int)height) continue;
            unsigned int there = (unsigned int)((int)pixel + dy * (int)width + dx);
            sum += products[(there * outputs + o) * taps + tap];
        }
        y[i] = sum;
    }
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

// One row added to every row of `rows`, or to zeros.
extern "C" __global__ void add_row(const REAL *row, const REAL *rows, REAL *result, unsigned int length, unsigned int total) {
    EACH(i, total) result[i] = row[i % length] + (rows ? rows[i] : REAL(0));
}

// Sums over pixels: [parts, C].
template <int N>
__device__ void channel_sums_by(const REAL *__restrict__ values, REAL *sums, unsigned int pixels, unsigned int channels) {
    const Several<REAL, N> *source = (const Several<REAL, N> *)values;
    unsigned int units = channels / N;
    auto add = [=](unsigned int unit, unsigned int first, unsigned int last, unsigned int step, REAL *total) {
#pragma unroll 8
        for (unsigned int p = first; p < last; p += step) {
            Several<REAL, N> found = source[p * units + unit];
            for (int n = 0; n < N; n++) total[n] += found.value[n];
        }
    };
    channel_totals<N, 1>(pixels, channels, add, sums + blockIdx.x * channels);
}

BY_ONE_AND_FOUR(channel_sums, (const REAL *values, REAL *sums, unsigned int pixels, unsigned int channels),
                (values, sums, pixels, channels))
