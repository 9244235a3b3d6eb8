// From a frame to the model's input, and from the logits of its grid to labels.
//
// NVRTC compiles this file, `edges.cu` and `smooth.cu`, as one, for the GPU at hand, and tests compile them with a C++
// compiler. So they have no #include.
// Products and sums must not be fused (--fmad=false): then both builds, and the CPU's path, round alike.

typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;

// Pillow's fixed point: 22 bits after the point.
#define POINT 22
#define HALF (1 << (POINT - 1))

// Neighbouring rows of labels that a thread computes; `tables.ROWS` has the same number.
#define ROWS 4

// One value of the frame after the box filter that `reducing_gap` of Pillow's resize starts with.
__device__ __forceinline__ int reduced(
    const uint8* channel, long long row, long long column, int height, int width, int factor_y, int factor_x,
    uint32 whole, uint32 last_column, uint32 last_row, uint32 corner, int y, int x)
{
    int top = y * factor_y, left = x * factor_x;
    int bottom = min(top + factor_y, height), right = min(left + factor_x, width);
    const uint8* start = channel + top * row + left * column;
    if (factor_y == 1 && factor_x == 1) return *start;
    bool short_y = bottom - top < factor_y, short_x = right - left < factor_x;
    uint32 scale = short_y ? (short_x ? corner : last_row) : (short_x ? last_column : whole);
    uint32 sum = (bottom - top) * (right - left) / 2;
    for (int i = top; i < bottom; i++, start += row) {
        const uint8* pixel = start;
        for (int j = left; j < right; j++, pixel += column) sum += *pixel;
    }
    return (int)((sum * scale) >> 24);
}

// Resize a frame to the model's input, bit for bit as Pillow's bilinear filter after `reduced`. A thread makes
// one pixel of the input `(out_height, out_width, 3)`; below and right of `(height, width)` it is grey.
extern "C" __global__ void resize(
    const uint8* frame, long long row, long long column, long long red, long long green, long long blue,
    int frame_height, int frame_width, int factor_y, int factor_x,
    uint32 whole, uint32 last_column, uint32 last_row, uint32 corner,
    const int* y_start, const int* y_count, const int* y_weights, int y_taps,
    const int* x_start, const int* x_count, const int* x_weights, int x_taps,
    int height, int width, int out_height, int out_width, uint8* out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    uint8* target = out + ((long long)y * out_width + x) * 3;
    if (x >= width || y >= height) {
        target[0] = 123;
        target[1] = 117;
        target[2] = 104;
        return;
    }
    const int *across = x_weights + x * x_taps, *down = y_weights + y * y_taps;
    for (int c = 0; c < 3; c++) {
        const uint8* channel = frame + (c == 0 ? red : c == 1 ? green : blue);
        int sum = HALF;
        for (int i = 0; i < y_count[y]; i++) {
            int line = HALF;
            for (int j = 0; j < x_count[x]; j++)
                line += across[j] * reduced(
                    channel, row, column, frame_height, frame_width, factor_y, factor_x, whole, last_column,
                    last_row, corner, y_start[y] + i, x_start[x] + j);
            // Pillow rounds to 8 bits between the two directions.
            sum += down[i] * min(max(line >> POINT, 0), 255);
        }
        target[c] = (uint8)min(max(sum >> POINT, 0), 255);
    }
}

// A decoded video frame, with a brightness for each pixel and colours (U, V) for each block of 2 × 2 (NV12), to RGB
// `(height, width, 3)`. Bit for bit as FFmpeg's swscale does it on x86-64. A thread makes one pixel.
extern "C" __global__ void nv12(
    const uint8* bright, long long bright_row, const uint8* colours, long long colours_row, int height, int width,
    int black, int scale, int red_v, int green_u, int green_v, int blue_u, uint8* out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const uint8* pair = colours + (y / 2) * colours_row + x / 2 * 2;
    int level = (bright[y * bright_row + x] * 8 - black) * scale >> 16;
    int u = (pair[0] - 128) * 8, v = (pair[1] - 128) * 8;
    int values[3] = {level + (v * red_v >> 16), level + (u * green_u >> 16) + (v * green_v >> 16),
                     level + (u * blue_u >> 16)};
    uint8* target = out + ((long long)y * width + x) * 3;
    for (int c = 0; c < 3; c++) target[c] = (uint8)min(max(values[c], 0), 255);
}

__device__ __forceinline__ int luma(const uint8* pixel, long long green, long long blue)
{
    return (pixel[0] * 19595 + pixel[green] * 38470 + pixel[blue] * 7471 + 0x8000) >> 16;  // As Pillow.
}

// Brightness `(height, width)` of a frame of any layout.
extern "C" __global__ void grey(
    const uint8* frame, long long row, long long column, long long red, long long green, long long blue,
    int height, int width, uint8* out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    out[(long long)y * width + x] =
        (uint8)luma(frame + y * row + x * column + red, green - red, blue - red);
}

// Write 1 to `found` if a logit is NaN or infinite.
extern "C" __global__ void check_finite(const float* logits, long long count, int* found)
{
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        if (!(logits[i] - logits[i] == 0.0f)) *found = 1;
}

// Write a label of 16 bits if `wide`, else of 8.
__device__ __forceinline__ void put_label(void* labels, long long at, int value, int wide)
{
    if (wide)
        ((uint16*)labels)[at] = (uint16)value;
    else
        ((uint8*)labels)[at] = (uint8)value;
}

// Interpolate logits `(K, grid_height, grid_width)` to `(height, width)`, and keep the best class of each pixel.
//
// `classes` are the rows of the logits that compete, ascending: of equal values, the first wins. A winner from
// `names` on, or one below the threshold, is unknown. `lower`, `upper` and `weight` say, for each row or column of
// pixels, between which points of the grid it lies. A thread computes ROWS pixels below each other. Their points
// are mostly the same, so each is interpolated across once. `scores` may be null.
extern "C" __global__ void label(
    const float* logits, int grid_height, int grid_width, const int* classes, int count,
    const int* y_lower, const int* y_upper, const float* y_weight,
    const int* x_lower, const int* x_upper, const float* x_weight,
    int height, int width, float threshold, int names, int unknown, int wide, void* labels, float* scores)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    if (x >= width || y >= height) return;
    int left = x_lower[x], right = x_upper[x];
    float across = x_weight[x];
    int lower[ROWS], upper[ROWS], winner[ROWS];
    float down[ROWS], best[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int at = min(y + i, height - 1);
        lower[i] = y_lower[at] * grid_width;
        upper[i] = y_upper[at] * grid_width;
        down[i] = y_weight[at];
        winner[i] = -1;
        best[i] = 0.0f;
    }
    long long plane = (long long)grid_height * grid_width;
    for (int k = 0; k < count; k++) {
        int row = classes[k];
        const float* grid = logits + row * plane;
        float top = 0.0f, bottom = 0.0f;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (i == 0 || lower[i] != lower[i - 1] || upper[i] != upper[i - 1]) {
                const float* line = grid + lower[i];
                top = (line[right] - line[left]) * across + line[left];
                line = grid + upper[i];
                bottom = (line[right] - line[left]) * across + line[left];
            }
            float value = (bottom - top) * down[i] + top;
            if (winner[i] < 0 || value > best[i]) {
                best[i] = value;
                winner[i] = row;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (y + i >= height) break;
        long long at = (long long)(y + i) * width + x;
        bool known = winner[i] >= 0 && winner[i] < names && best[i] >= threshold;
        int value = known ? winner[i] : unknown;
        put_label(labels, at, value, wide);
        if (scores) scores[at] = best[i];
    }
}
