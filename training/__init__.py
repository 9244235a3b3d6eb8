"""PixelCLIP's fine-tuning and evaluation, with torch. The commands lie here, their parts in the folders.

Nothing here is part of the wheel, and the SDK never imports it.
"""
