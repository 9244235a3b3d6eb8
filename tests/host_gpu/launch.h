// Starts a kernel by its name; `host.h` and the kernels are included before.
#define KERNEL(name)                                                                                                   \
    if (!std::strcmp(wanted, #name)) return launch(name, grid, block, arguments), 0;

extern "C" int launch_by_name(
    const char* wanted, unsigned grid_x, unsigned grid_y, unsigned block_x, unsigned block_y, void** arguments)
{
    Dim grid{grid_x, grid_y, 1}, block{block_x, block_y, 1};
    KERNEL(resize)
    KERNEL(nv12)
    KERNEL(check_finite)
    KERNEL(label)
    KERNEL(grey)
    KERNEL(affinity)
    KERNEL(peak)
    KERNEL(keep)
    KERNEL(total)
    KERNEL(prior)
    KERNEL(consult)
    KERNEL(decide)
    KERNEL(gather)
    KERNEL(spread)
    KERNEL(average)
    KERNEL(fit)
    KERNEL(trace)
    KERNEL(compare)
    KERNEL(add_rows)
    KERNEL(follow)
    KERNEL(blend)
    return 1;
}
