// Smoothing over time: the steps of `smoothing.py`, in its order. The average, and the grey picture of the frame
// before, are of one source, and stay on the GPU between its frames. Threads are independent, and each kernel reads what
// the one before has written.

__device__ __forceinline__ float between_0_and_1(float value) { return min(max(value, 0.0f), 1.0f); }

// Facts of each cell of the grid, planes `(height, width)`: how much its picture changed, 0–1; the sum of its logits and
// of their squares; and the largest change of a logit. A cell has `side` × `side` pixels of grey, as three equal channels.
extern "C" __global__ void compare(
    const float* logits, const float* average, int count, int height, int width, const uint8* grey,
    const uint8* before, int side, float still, float span, double* facts)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    float squares = 0.0f;
    for (int i = 0; i < side; i++) {
        for (int j = 0; j < side; j++) {
            int pixel = ((y * side + i) * width * side + x * side + j) * 3;
            float difference = (float)grey[pixel] - (float)before[pixel];
            squares += difference * difference;
        }
    }
    int plane = height * width, cell = y * width + x;
    float largest = 0.0f;
    double sum = 0.0, square = 0.0;
    for (int k = 0; k < count; k++) {
        long long at = (long long)k * plane + cell;
        float value = logits[at];
        largest = max(largest, fabsf(value - average[at]));
        sum += value;
        square += (double)value * value;
    }
    facts[cell] = between_0_and_1((sqrtf(squares / (float)(side * side)) - still) / span);
    facts[plane + cell] = sum;
    facts[2 * plane + cell] = square;
    facts[3 * plane + cell] = largest;
}

// The sum of each row of `width` numbers.
extern "C" __global__ void add_rows(const double* values, int rows, int width, double* sums)
{
    int y = blockIdx.x * blockDim.x + threadIdx.x;
    if (y >= rows) return;
    double sum = 0.0;
    for (int x = 0; x < width; x++) sum += values[(long long)y * width + x];
    sums[y] = sum;
}

// The weight of the new logits in each cell; 1 everywhere where the average starts anew: because of `anew`, because the
// average is `spoiled`, or at a cut. `sums` are of the rows of the first three `facts`.
extern "C" __global__ void follow(
    const double* facts, const double* sums, int count, int height, int width, int reach, float noise, float span,
    float cut, float weight, float rest, int anew, const int* spoiled, float* weights)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    double changes = 0.0, sum = 0.0, square = 0.0;
    for (int i = 0; i < height; i++) {
        changes += sums[i];
        sum += sums[height + i];
        square += sums[2 * height + i];
    }
    int plane = height * width, cell = y * width + x;
    if (anew || *spoiled || changes / plane > cut) {
        weights[cell] = 1.0f;
        return;
    }
    double mean = sum / ((double)count * plane);
    float deviation = (float)sqrt(max(square / ((double)count * plane) - mean * mean, 0.0));
    float clear = between_0_and_1(((float)facts[3 * plane + cell] / max(deviation, 1e-6f) - noise) / span);
    float changed = 0.0f;
    for (int i = max(y - reach, 0); i <= min(y + reach, height - 1); i++)
        for (int j = max(x - reach, 0); j <= min(x + reach, width - 1); j++)
            changed = max(changed, (float)facts[i * width + j]);
    weights[cell] = weight + rest * (changed * clear);
}

// Smooth the logits, and keep them. `found` says whether one is NaN or infinite: then the average is spoiled.
extern "C" __global__ void blend(
    const float* weights, int count, int plane, float* average, float* logits, const int* found, int* spoiled)
{
    int cell = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y * blockDim.y + threadIdx.y;
    if (cell >= plane || k >= count) return;
    if (cell == 0 && k == 0) *spoiled = *found;
    long long at = (long long)k * plane + cell;
    float value = logits[at];
    if (weights[cell] < 1.0f) value = average[at] + weights[cell] * (value - average[at]);
    average[at] = logits[at] = value;
}
