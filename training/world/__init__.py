"""A world of drawn scenes, in which the paper's ablations run on a CPU. No product code uses it."""
