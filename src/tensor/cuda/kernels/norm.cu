// Group normalisation, modulation and SiLU.

// Sums of x and x^2 of an image, blockIdx.y: [B, parts, 2, C].
template <int N>
__device__ void moment_sums_by(const REAL *__restrict__ x, REAL *sums, unsigned int pixels, unsigned int channels) {
    unsigned int units = channels / N;
    const Several<REAL, N> *image = (const Several<REAL, N> *)x + blockIdx.y * pixels * units;
    auto add = [=](unsigned int unit, unsigned int first, unsigned int last, unsigned int step, REAL *total) {
#pragma unroll 8
        for (unsigned int p = first; p < last; p += step) {
            Several<REAL, N> found = image[p * units + unit];
            for (int n = 0; n < N; n++) {
                total[n] += found.value[n];
                total[N + n] += found.value[n] * found.value[n];
            }
        }
    };
    channel_totals<N, 2>(pixels, channels, add, sums + (blockIdx.y * gridDim.x + blockIdx.x) * 2 * channels);
}

BY_ONE_AND_FOUR(moment_sums, (const REAL *x, REAL *sums, unsigned int pixels, unsigned int channels),
                (x, sums, pixels, channels))

// Adds up the parts of both sums of each channel of an image, [parts, 2, C], into `shared`, [2, C].
__device__ void add_parts(const REAL *sums, unsigned int parts, unsigned int channels, double *shared) {
    for (unsigned int i = threadIdx.x; i < 2 * channels; i += blockDim.x) {
        double total = 0;
#pragma unroll 8
        for (unsigned int part = 0; part < parts; part++) total += sums[part * 2 * channels + i];
        shared[i] = total;
    }
    __syncthreads();
}

// Mean and 1 / standard deviation of every channel's group, [B, 2, C]; one block per image.
extern "C" __global__ void moments(const REAL *sums, REAL *result, unsigned int parts, unsigned int channels,
                                   unsigned int groups, unsigned int pixels, double epsilon) {
    extern __shared__ double shared[];
    add_parts(sums + blockIdx.x * parts * 2 * channels, parts, channels, shared);
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

__device__ float sigmoid(float z) { return __fdividef(1.0f, 1.0f + expf(-z)); }
__device__ double sigmoid(double z) { return 1.0 / (1.0 + exp(-z)); }

// Normalisation and modulation of N channels of an image, blockIdx.y. Rows of scale and shift are `stride` apart.
template <int N> struct Modulation {
    REAL mean[N], scaling[N], slope[N], shift[N];
    __device__ Modulation(const REAL *scale, const REAL *shifts, const REAL *moments, unsigned int unit, unsigned int channels,
                          unsigned int stride) {
        for (int n = 0; n < N; n++) {
            unsigned int c = unit * N + n;
            mean[n] = moments[blockIdx.y * 2 * channels + c];
            scaling[n] = moments[(blockIdx.y * 2 + 1) * channels + c];
            slope[n] = 1 + scale[blockIdx.y * stride + c];
            shift[n] = shifts[blockIdx.y * stride + c];
        }
    }
    __device__ REAL normal(int n, REAL x) const { return (x - mean[n]) * scaling[n]; }
    // What the SiLU is taken of.
    __device__ REAL modulated(int n, REAL normal) const { return normal * slope[n] + shift[n]; }
    // Gradient in that, given the gradient of the SiLU.
    __device__ REAL back(int n, REAL normal, REAL gradient) const {
        REAL z = modulated(n, normal), s = sigmoid(z);
        return gradient * s * (1 + z * (1 - s));
    }
};

// SiLU(normal (1 + scale) + shift).
template <int N>
__device__ void modulate_by(const REAL *__restrict__ x, const REAL *__restrict__ scale, const REAL *__restrict__ shift,
                            const REAL *__restrict__ moments, REAL *__restrict__ y, unsigned int pixels, unsigned int channels,
                            unsigned int stride) {
    Walk<N> walk(pixels, channels);
    const Several<REAL, N> *source = (const Several<REAL, N> *)x + blockIdx.y * pixels * walk.units;
    Several<REAL, N> *target = (Several<REAL, N> *)y + blockIdx.y * pixels * walk.units;
    if (walk.row >= walk.down) return;
    for (unsigned int unit = walk.column; unit < walk.units; unit += walk.across) {
        Modulation<N> modulation(scale, shift, moments, unit, channels, stride);
#pragma unroll 4
        for (unsigned int p = walk.first + walk.row; p < walk.last; p += walk.down) {
            Several<REAL, N> found = source[p * walk.units + unit], result;
            for (int n = 0; n < N; n++) {
                REAL z = modulation.modulated(n, modulation.normal(n, found.value[n]));
                result.value[n] = z * sigmoid(z);
            }
            target[p * walk.units + unit] = result;
        }
    }
}

BY_ONE_AND_FOUR(modulate,
                (const REAL *x, const REAL *scale, const REAL *shift, const REAL *moments, REAL *y, unsigned int pixels,
                 unsigned int channels, unsigned int stride),
                (x, scale, shift, moments, y, pixels, channels, stride))

// Sums of dz and dz normal: [B, parts, 2, C].
template <int N>
__device__ void gradient_sums_by(const REAL *__restrict__ x, const REAL *__restrict__ scale, const REAL *__restrict__ shift,
                                 const REAL *__restrict__ moments, const REAL *__restrict__ gradient, REAL *sums,
                                 unsigned int pixels, unsigned int channels, unsigned int stride) {
    unsigned int units = channels / N, start = blockIdx.y * pixels * units;
    const Several<REAL, N> *image = (const Several<REAL, N> *)x + start;
    const Several<REAL, N> *slopes = (const Several<REAL, N> *)gradient + start;
    auto add = [=](unsigned int unit, unsigned int first, unsigned int last, unsigned int step, REAL *total) {
        Modulation<N> modulation(scale, shift, moments, unit, channels, stride);
#pragma unroll 4
        for (unsigned int p = first; p < last; p += step) {
            Several<REAL, N> found = image[p * units + unit], slope = slopes[p * units + unit];
            for (int n = 0; n < N; n++) {
                REAL normal = modulation.normal(n, found.value[n]), dz = modulation.back(n, normal, slope.value[n]);
                total[n] += dz;
                total[N + n] += dz * normal;
            }
        }
    };
    channel_totals<N, 2>(pixels, channels, add, sums + (blockIdx.y * gridDim.x + blockIdx.x) * 2 * channels);
}

BY_ONE_AND_FOUR(gradient_sums,
                (const REAL *x, const REAL *scale, const REAL *shift, const REAL *moments, const REAL *gradient, REAL *sums,
                 unsigned int pixels, unsigned int channels, unsigned int stride),
                (x, scale, shift, moments, gradient, sums, pixels, channels, stride))

// Gradients of scale, whose rows are `stride` apart, and `step` numbers after them those of shift; and the group means
// [B, 2, C] of dn and dn normal, dn being dz (1 + scale).
extern "C" __global__ void gradient_means(const REAL *sums, const REAL *scale, REAL *of_scale, REAL *means, unsigned int parts,
                                          unsigned int channels, unsigned int groups, unsigned int pixels,
                                          unsigned int stride, unsigned int step) {
    extern __shared__ double shared[];
    add_parts(sums + blockIdx.x * parts * 2 * channels, parts, channels, shared);
    for (unsigned int c = threadIdx.x; c < channels; c += blockDim.x) {
        unsigned int i = blockIdx.x * stride + c;
        of_scale[i] = (REAL)shared[channels + c];
        of_scale[i + step] = (REAL)shared[c];
        shared[c] *= 1 + (double)scale[i];
        shared[channels + c] *= 1 + (double)scale[i];
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

// Gradient in x: (dn - mean(dn) - normal mean(dn normal)) / standard deviation, plus `others` if there are any.
template <int N>
__device__ void modulate_back_by(const REAL *__restrict__ x, const REAL *__restrict__ scale, const REAL *__restrict__ shift,
                                 const REAL *__restrict__ moments, const REAL *__restrict__ means,
                                 const REAL *__restrict__ gradient, const REAL *__restrict__ others, REAL *__restrict__ result,
                                 unsigned int pixels, unsigned int channels, unsigned int stride) {
    Walk<N> walk(pixels, channels);
    unsigned int start = blockIdx.y * pixels * walk.units;
    const Several<REAL, N> *image = (const Several<REAL, N> *)x + start;
    const Several<REAL, N> *slopes = (const Several<REAL, N> *)gradient + start;
    const Several<REAL, N> *more = (const Several<REAL, N> *)others + start;
    Several<REAL, N> *target = (Several<REAL, N> *)result + start;
    if (walk.row >= walk.down) return;
    for (unsigned int unit = walk.column; unit < walk.units; unit += walk.across) {
        Modulation<N> modulation(scale, shift, moments, unit, channels, stride);
        REAL first[N], second[N];
        for (int n = 0; n < N; n++) {
            first[n] = means[blockIdx.y * 2 * channels + unit * N + n];
            second[n] = means[(blockIdx.y * 2 + 1) * channels + unit * N + n];
        }
#pragma unroll 4
        for (unsigned int p = walk.first + walk.row; p < walk.last; p += walk.down) {
            unsigned int i = p * walk.units + unit;
            Several<REAL, N> found = image[i], slope = slopes[i], sum;
            for (int n = 0; n < N; n++) sum.value[n] = 0;
            if (others) sum = more[i];
            for (int n = 0; n < N; n++) {
                REAL normal = modulation.normal(n, found.value[n]);
                REAL dn = modulation.back(n, normal, slope.value[n]) * modulation.slope[n];
                sum.value[n] += (dn - first[n] - normal * second[n]) * modulation.scaling[n];
            }
            target[i] = sum;
        }
    }
}

BY_ONE_AND_FOUR(modulate_back,
                (const REAL *x, const REAL *scale, const REAL *shift, const REAL *moments, const REAL *means,
                 const REAL *gradient, const REAL *others, REAL *result, unsigned int pixels, unsigned int channels,
                 unsigned int stride),
                (x, scale, shift, moments, means, gradient, others, result, pixels, channels, stride))
