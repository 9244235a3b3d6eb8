"""Frames and labels in the memory of an NVIDIA GPU: kernels, arrays, and the pipeline around an encoder.

`kernels.cu`, `edges.cu` and `smooth.cu` are the arithmetic, `compiler` turns it into machine code, `tables`
are what it needs of a size. `frames` reads arrays of other libraries and `arrays` hands ours out. `jpeg`
decodes files, and `video` makes frames of decoded video. `pipeline` runs it all on streams, `edges` the part
of it that makes labels follow edges, and `smooth` the part that smooths video over time. `asks` are the
frames that wait for an engine, `started` is one under way, and `results` makes results of it.
Engines lie in `backends`; words and settings do not belong here.
"""
