# PyInstaller expects this file name.
# ruff: noqa: N999
"""Collect the bundled model and class lists, and the modules that are imported by name."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

datas = collect_data_files("pixelclip_sdk")
hiddenimports = collect_submodules("pixelclip_sdk", filter=lambda name: "_pyinstaller" not in name)
