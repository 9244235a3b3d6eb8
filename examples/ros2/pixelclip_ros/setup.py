"""Installs the node, its launch file and its parameters."""

from setuptools import setup

NAME = "pixelclip_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/pixelclip.launch.py"]),
        (f"share/{NAME}/config", ["config/pixelclip.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="PixelCLIP SDK",
    maintainer_email="nobody@example.com",
    description="Open-vocabulary semantic segmentation of camera images",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"pixelclip = {NAME}.node:main"]},
)
