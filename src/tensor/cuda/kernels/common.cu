// What all kernels share. REAL is float or double; FACTOR is what matrix products multiply: REAL or BRAIN. Features are
// [B, Y, X, C], channels last. Every count of numbers is below 2^31.

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

// Defines the kernel `name`, which reads one channel at a time, and `name_four`, which reads four.
#define BY_ONE_AND_FOUR(name, parameters, arguments)                         \
    extern "C" __global__ void name parameters { name##_by<1> arguments; }   \
    extern "C" __global__ void name##_four parameters { name##_by<4> arguments; }

// How the threads of a block share out the pixels of a part of [pixels, channels], N neighbouring channels at a time: a thread
// keeps its channels and walks over pixels.
template <int N> struct Walk {
    unsigned int units, across, down, row, column, first, last;
    __device__ Walk(unsigned int pixels, unsigned int channels) {
        units = channels / N;
        across = units < blockDim.x ? units : blockDim.x;
        down = blockDim.x / across;
        row = threadIdx.x / across;
        column = threadIdx.x % across;
        unsigned int share = (pixels + gridDim.x - 1) / gridDim.x;
        first = blockIdx.x * share < pixels ? blockIdx.x * share : pixels;
        last = first + share < pixels ? first + share : pixels;
    }
};

// Sums over a block's pixels of M values for each channel. `add` is given a thread's channels / N, its pixels as first, last and
// distance, and where to add value m of channel n: [m * N + n]. Writes result[m * channels + channel].
template <int N, int M, typename Add>
__device__ void channel_totals(unsigned int pixels, unsigned int channels, Add add, REAL *result) {
    __shared__ REAL sums[M * N][256];
    Walk<N> walk(pixels, channels);
    for (unsigned int start = 0; start < walk.units; start += walk.across) {
        REAL total[M * N];
        for (int k = 0; k < M * N; k++) total[k] = 0;
        if (walk.row < walk.down && start + walk.column < walk.units)
            add(start + walk.column, walk.first + walk.row, walk.last, walk.down, total);
        for (int k = 0; k < M * N; k++) sums[k][threadIdx.x] = total[k];
        __syncthreads();
        for (unsigned int i = threadIdx.x; i < M * N * walk.across; i += blockDim.x) {
            unsigned int k = i / walk.across, column = i % walk.across;
            double all = 0;
            for (unsigned int row = 0; row < walk.down; row++) all += sums[k][row * walk.across + column];
            if (start + column < walk.units) result[k / N * channels + (start + column) * N + k % N] = (REAL)all;
        }
        __syncthreads();
    }
}
