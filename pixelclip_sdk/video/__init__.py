"""Video: sources of frames, the pipeline that segments them, and the writer of video files.

What happens to one frame is in `segmenter`, not here.
"""
