// What `kernels.cu` needs of CUDA, for a C++ compiler: the threads of a launch run one after the other.
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

#include KERNELS

extern "C" int launch_by_name(
    const char* name, unsigned grid_x, unsigned grid_y, unsigned block_x, unsigned block_y, void** arguments)
{
    Dim grid{grid_x, grid_y, 1}, block{block_x, block_y, 1};
    if (!std::strcmp(name, "resize"))
        launch(resize, grid, block, arguments);
    else if (!std::strcmp(name, "check_finite"))
        launch(check_finite, grid, block, arguments);
    else if (!std::strcmp(name, "label"))
        launch(label, grid, block, arguments);
    else
        return 1;
    return 0;
}
