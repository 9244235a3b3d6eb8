"""Helpers of the training commands: devices, processes, distributed training, arguments.

Nothing here knows the method.
"""
