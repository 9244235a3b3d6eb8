// Labels along edges: the steps of `refine.py`, in its order. A class is a place in `classes`, the rows of the logits
// that compete. Arrays of classes have room for all of them, and hold something for those that were `kept`. Threads are
// independent, and each kernel reads what the one before has written.

// How alike points `(count)` are: `places` has their positions in standard deviations, two each.
extern "C" __global__ void affinity(
    const uint8* colours, const float* places, int count, float deviation, float* out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= count || y >= count) return;
    float sum = 0.0f;
    for (int i = 0; i < 3; i++) {
        float difference = (float)(colours[y * 3 + i] - colours[x * 3 + i]) / deviation;
        sum += difference * difference;
    }
    for (int i = 0; i < 2; i++) {
        float difference = places[y * 2 + i] - places[x * 2 + i];
        sum += difference * difference;
    }
    out[y * count + x] = x == y ? 0.0f : expf(max(sum * -0.5f, -40.0f));
}

// Where in a grid the point `i` of its part of `width` columns lies.
__device__ __forceinline__ int inside(int i, int width, int grid_width) { return i / width * grid_width + i % width; }

// The largest logit at each of `points` points.
extern "C" __global__ void peak(
    const float* logits, int plane, int grid_width, int width, int points, const int* classes, int count, float* top)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= points) return;
    const float* point = logits + inside(i, width, grid_width);
    float best = point[(long long)classes[0] * plane];
    for (int k = 1; k < count; k++) best = max(best, point[(long long)classes[k] * plane]);
    top[i] = best;
}

// Keep a class whose logit comes near the largest one at some point.
extern "C" __global__ void keep(
    const float* logits, int plane, int grid_width, int width, int points, const int* classes, int count,
    const float* top, float temperature, float least, int* kept)
{
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= count) return;
    const float* grid = logits + (long long)classes[k] * plane;
    int found = 0;
    for (int i = 0; i < points && !found; i++)
        found = (grid[inside(i, width, grid_width)] - top[i]) / temperature > least;
    kept[k] = found;
}

// The sum of the odds of the classes that were kept, at each point.
extern "C" __global__ void total(
    const float* logits, int plane, int grid_width, int width, int points, const int* classes, int count,
    const float* top, float temperature, const int* kept, float* sums)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= points) return;
    const float* point = logits + inside(i, width, grid_width);
    float sum = 0.0f;
    for (int k = 0; k < count; k++)
        if (kept[k]) sum += expf((point[(long long)classes[k] * plane] - top[i]) / temperature);
    sums[i] = sum;
}

// Probabilities at the points that agree, interpolated, and their logarithms.
extern "C" __global__ void prior(
    const float* logits, int plane, int grid_width, int width, const int* classes, int count, const float* top,
    float temperature, const int* kept, const float* sums, const int* y_lower, const int* y_upper,
    const float* y_weight, const int* x_lower, const int* x_upper, const float* x_weight, int points, int columns,
    float* chance, float* evidence)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= points || k >= count || !kept[k]) return;
    const float* grid = logits + (long long)classes[k] * plane;
    int y = i / columns, x = i % columns;
    float side[2];
    for (int right = 0; right < 2; right++) {
        int column = right ? x_upper[x] : x_lower[x];
        float end[2];
        for (int below = 0; below < 2; below++) {
            int row = below ? y_upper[y] : y_lower[y], point = row * width + column;
            end[below] = expf((grid[row * grid_width + column] - top[point]) / temperature) / sums[point];
        }
        side[right] = (end[1] - end[0]) * y_weight[y] + end[0];
    }
    float value = (side[1] - side[0]) * x_weight[x] + side[0];
    chance[(long long)k * points + i] = value;
    evidence[(long long)k * points + i] = logf(value + 1e-6f);
}

// What each point thinks of each class after it has heard the others, before the softmax.
extern "C" __global__ void consult(
    const float* chance, const float* evidence, const float* alike, const int* kept, int count, int points,
    float weight, float* opinion, int* won)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= points || k >= count) return;
    if (i == 0) won[k] = 0;
    if (!kept[k]) return;
    const float* others = chance + (long long)k * points;
    float heard = 0.0f, all = 0.0f;
    for (int j = 0; j < points; j++) {
        float trust = alike[j * points + i];
        heard += others[j] * trust;
        all += trust;
    }
    long long at = (long long)k * points + i;
    opinion[at] = evidence[at] + heard * (weight / (all + 1e-6f));
}

// Softmax over the classes at each point, and which classes win at one.
extern "C" __global__ void decide(
    const float* opinion, const int* kept, int count, int points, float* chance, int* won)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= points) return;
    bool any = false;
    float best = 0.0f, sum = 0.0f;
    for (int k = 0; k < count; k++) {
        if (!kept[k]) continue;
        float value = opinion[(long long)k * points + i];
        best = any ? max(best, value) : value;
        any = true;
    }
    for (int k = 0; k < count; k++) {
        if (!kept[k]) continue;
        long long at = (long long)k * points + i;
        chance[at] = expf(max(opinion[at] - best, -40.0f));
        sum += chance[at];
    }
    int winner = -1;
    for (int k = 0; k < count; k++) {
        if (!kept[k]) continue;
        long long at = (long long)k * points + i;
        chance[at] /= sum;
        if (winner < 0 || chance[at] > chance[(long long)winner * points + i]) winner = k;
    }
    if (winner >= 0) won[winner] = 1;
}

// List the classes that won, ascending; at most `room`, which are all if the logits are numbers.
extern "C" __global__ void gather(const int* won, int count, int room, int* winners, int* found)
{
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= count) return;
    int before = 0;
    for (int i = 0; i < k; i++) before += won[i];
    if (won[k] && before < room) winners[before] = k;
    if (k == count - 1) *found = min(before + won[k], room);
}

// Planes `(height, width)`: first the brightness, then the winners' probabilities; and all of them times brightness.
extern "C" __global__ void spread(
    const float* chance, int points, int columns, const int* winners, const int* found, const uint8* image,
    const int* y_lower, const int* y_upper, const float* y_weight, const int* x_lower, const int* x_upper,
    const float* x_weight, int height, int width, float* plain, float* lit)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= height * width || k > *found) return;
    float light = (float)luma(image + i * 3, 1, 2), value = light;
    if (k > 0) {
        const float* grid = chance + (long long)winners[k - 1] * points;
        int y = i / width, x = i % width;
        const float *upper = grid + y_lower[y] * columns, *lower = grid + y_upper[y] * columns;
        float left = (lower[x_lower[x]] - upper[x_lower[x]]) * y_weight[y] + upper[x_lower[x]];
        float right = (lower[x_upper[x]] - upper[x_upper[x]]) * y_weight[y] + upper[x_upper[x]];
        value = (right - left) * x_weight[x] + left;
    }
    long long at = (long long)k * height * width + i;
    plain[at] = value;
    lit[at] = value * light;
}

// The mean over a window along a column (`step` is the width) or a row (1) of a plane.
__device__ __forceinline__ float mean(const float* value, int place, int length, int step, int radius)
{
    int first = max(place - radius, 0), last = min(place + radius, length - 1);
    float sum = 0.0f;
    for (int i = first; i <= last; i++) sum += value[(i - place) * step];
    return sum / (float)(last - first + 1);
}

// Means of two kinds of planes, along columns or along rows.
extern "C" __global__ void average(
    const float* plain, const float* lit, const int* found, int height, int width, int radius, int along_rows,
    float* plain_out, float* lit_out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= height * width || k > *found) return;
    int place = along_rows ? i % width : i / width, length = along_rows ? width : height, step = along_rows ? 1 : width;
    long long at = (long long)k * height * width + i;
    plain_out[at] = mean(plain + at, place, length, step, radius);
    lit_out[at] = mean(lit + at, place, length, step, radius);
}

// From means along columns to the slope and the offset of each winner's probability over brightness.
extern "C" __global__ void fit(
    const float* plain, const float* lit, const int* found, int height, int width, int radius, float flat,
    float* slope, float* offset)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y + 1;
    if (i >= height * width || k > *found) return;
    int x = i % width;
    long long at = (long long)k * height * width + i;
    float light = mean(plain + i, x, width, 1, radius), square = mean(lit + i, x, width, 1, radius);
    float level = mean(plain + at, x, width, 1, radius), product = mean(lit + at, x, width, 1, radius);
    float steep = (product - level * light) / (max(square - light * light, 0.0f) + flat);
    slope[at] = steep;
    offset[at] = level - steep * light;
}

// The label of each pixel: the winner whose function of brightness is largest. `scores` are those of `label`: pixels
// below the threshold are unknown, as are winners from `names` on. A thread computes ROWS pixels below each other.
extern "C" __global__ void trace(
    const float* slope, const float* offset, int grid_height, int grid_width, const int* winners, const int* found,
    const int* classes, const uint8* guide, const int* y_lower, const int* y_upper, const float* y_weight,
    const int* x_lower, const int* x_upper, const float* x_weight, int height, int width, const float* scores,
    float threshold, int names, int unknown, int wide, void* labels)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    if (x >= width || y >= height) return;
    int left = x_lower[x], right = x_upper[x];
    float across = x_weight[x];
    int lower[ROWS], upper[ROWS], winner[ROWS];
    float down[ROWS], light[ROWS], best[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int at = min(y + i, height - 1);
        lower[i] = y_lower[at] * grid_width;
        upper[i] = y_upper[at] * grid_width;
        down[i] = y_weight[at];
        light[i] = (float)guide[(long long)at * width + x];
        winner[i] = -1;
        best[i] = 0.0f;
    }
    long long plane = (long long)grid_height * grid_width;
    for (int k = 0; k < *found; k++) {
        const float *steep = slope + (k + 1) * plane, *base = offset + (k + 1) * plane;
        float steep_top = 0.0f, steep_more = 0.0f, base_top = 0.0f, base_more = 0.0f;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (i == 0 || lower[i] != lower[i - 1] || upper[i] != upper[i - 1]) {
                const float *one = steep + lower[i], *other = steep + upper[i];
                steep_top = (one[right] - one[left]) * across + one[left];
                steep_more = (other[right] - other[left]) * across + other[left] - steep_top;
                one = base + lower[i];
                other = base + upper[i];
                base_top = (one[right] - one[left]) * across + one[left];
                base_more = (other[right] - other[left]) * across + other[left] - base_top;
            }
            float value = (steep_more * down[i] + steep_top) * light[i] + (base_more * down[i] + base_top);
            if (winner[i] < 0 || value > best[i]) {
                best[i] = value;
                winner[i] = k;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (y + i >= height) break;
        long long at = (long long)(y + i) * width + x;
        int row = winner[i] < 0 ? names : classes[winners[winner[i]]];
        int value = row < names && scores[at] >= threshold ? row : unknown;
        put_label(labels, at, value, wide);
    }
}
