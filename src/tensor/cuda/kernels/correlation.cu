// Gradient of the weights of 3 x 3 convolutions on tensor cores in TF32. Features are [B, Y, X, C], channels last, C in fours.
// A block goes through tiles of pixels and keeps the gradient of CHANNELS outputs and CHANNELS inputs in its registers, one tap
// a warp: a product of the tile's output gradients and its images, shifted by the tap.

#define CHANNELS 32
// Distance of pixels in shared memory: threads of a warp then read from different banks.
#define PITCH (CHANNELS + 8)
#define HEIGHT 4
#define WIDTH 16
#define AROUND (WIDTH + 2)
#define TAPS 9

__device__ unsigned int rounded(float value) {
    unsigned int bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// Four channels of pixel (y, x) of an image, or zeros outside of it.
__device__ uint4 four(const float *image, int y, int x, unsigned int height, unsigned int width, unsigned int channels,
                      unsigned int channel) {
    if (y < 0 || x < 0 || y >= (int)height || x >= (int)width || channel >= channels) return make_uint4(0, 0, 0, 0);
    float4 found = *(const float4 *)(image + ((unsigned int)y * width + (unsigned int)x) * channels + channel);
    return make_uint4(rounded(found.x), rounded(found.y), rounded(found.z), rounded(found.w));
}

// c += a b for a of 16 x 8, b of 8 x 8 numbers.
__device__ void multiply(float *c, const unsigned int *a, const unsigned int *b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Writes [gridDim.x, O, taps, C]: every block the sums over its tiles. blockIdx.y counts the parts of the inputs, blockIdx.z
// those of the outputs.
extern "C" __global__ void __launch_bounds__(32 * TAPS, 3)
    correlate(const float *__restrict__ images, const float *__restrict__ gradient, float *__restrict__ sums,
              unsigned int batch, unsigned int height, unsigned int width, unsigned int inputs, unsigned int outputs) {
    __shared__ __align__(16) unsigned int around[(HEIGHT + 2) * AROUND * PITCH];
    __shared__ __align__(16) unsigned int inside[HEIGHT * WIDTH * PITCH];
    unsigned int tap = threadIdx.x / 32, group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
    unsigned int input = blockIdx.y * CHANNELS, output = blockIdx.z * CHANNELS;
    unsigned int across = (width + WIDTH - 1) / WIDTH, down = (height + HEIGHT - 1) / HEIGHT;
    float total[2][4][4] = {};
    for (unsigned int tile = blockIdx.x; tile < batch * down * across; tile += gridDim.x) {
        unsigned int image = tile / (down * across);
        int top = (int)(tile / across % down * HEIGHT), left = (int)(tile % across * WIDTH);
        const float *here = images + image * height * width * inputs;
        const float *slopes = gradient + image * height * width * outputs;
        __syncthreads();
#pragma unroll
        for (unsigned int i = threadIdx.x; i < (HEIGHT + 2) * AROUND * CHANNELS / 4; i += 32 * TAPS) {
            unsigned int pixel = i / (CHANNELS / 4), channel = i % (CHANNELS / 4) * 4;
            int y = top - 1 + (int)(pixel / AROUND), x = left - 1 + (int)(pixel % AROUND);
            *(uint4 *)&around[pixel * PITCH + channel] = four(here, y, x, height, width, inputs, input + channel);
        }
#pragma unroll
        for (unsigned int i = threadIdx.x; i < HEIGHT * WIDTH * CHANNELS / 4; i += 32 * TAPS) {
            unsigned int pixel = i / (CHANNELS / 4), channel = i % (CHANNELS / 4) * 4;
            int y = top + (int)(pixel / WIDTH), x = left + (int)(pixel % WIDTH);
            *(uint4 *)&inside[pixel * PITCH + channel] = four(slopes, y, x, height, width, outputs, output + channel);
        }
        __syncthreads();
#pragma unroll
        for (unsigned int step = 0; step < HEIGHT * WIDTH / 8; step++) {
            unsigned int row = step * 8 / WIDTH, column = step * 8 % WIDTH;
            const unsigned int *a = inside + (row * WIDTH + column + member) * PITCH + group;
            const unsigned int *b = around + ((row + tap / 3) * AROUND + column + tap % 3 + member) * PITCH + group;
            unsigned int left_factor[2][4], right_factor[4][2];
            for (int m = 0; m < 2; m++)
                for (int part = 0; part < 4; part++) left_factor[m][part] = a[part / 2 * 4 * PITCH + m * 16 + part % 2 * 8];
            for (int n = 0; n < 4; n++)
                for (int part = 0; part < 2; part++) right_factor[n][part] = b[part * 4 * PITCH + n * 8];
            for (int m = 0; m < 2; m++)
                for (int n = 0; n < 4; n++) multiply(total[m][n], left_factor[m], right_factor[n]);
        }
    }
    for (int m = 0; m < 2; m++)
        for (int n = 0; n < 4; n++)
            for (int part = 0; part < 4; part++) {
                unsigned int o = output + m * 16 + part / 2 * 8 + group, c = input + n * 8 + member * 2 + part % 2;
                if (o < outputs && c < inputs)
                    sums[((blockIdx.x * outputs + o) * TAPS + tap) * inputs + c] = total[m][n][part];
            }
}

// Adds up [parts, O, taps, C] and writes [O, C, taps].
extern "C" __global__ void gather(const float *__restrict__ sums, float *__restrict__ weights, unsigned int parts,
                                  unsigned int inputs, unsigned int count) {
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    double total = 0;
#pragma unroll 8
    for (unsigned int part = 0; part < parts; part++) total += sums[part * count + i];
    unsigned int c = i % inputs, tap = i / inputs % TAPS, o = i / inputs / TAPS;
    weights[(o * inputs + c) * TAPS + tap] = (float)total;
}
