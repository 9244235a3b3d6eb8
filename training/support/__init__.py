"""Helpers of the training commands: processes, devices, optional packages, arguments.

Nothing here knows the method.
"""
