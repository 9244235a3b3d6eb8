// What `kernels.cu` needs of CUDA, for a C++ compiler: the threads of a launch run one after the other.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};
static thread_local Dim blockIdx, threadIdx, blockDim, gridDim;

template <class T> static T min(T a, T b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }

template <class... A, std::size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<A*>(arguments[I])...);
}

// The arguments are pointers to the values, as for cuLaunchKernel.
template <class... A>
static void launch(void (*kernel)(A...), Dim grid, Dim block, void** arguments)
{
    gridDim = grid;
    blockDim = block;
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
            for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++)
                for (threadIdx.x = 0; threadIdx.x < block.x; threadIdx.x++)
                    call(kernel, arguments, std::index_sequence_for<A...>());
}
