"""A ROS 2 node for pixelclip-sdk; all it computes is in `pixelclip_sdk.ros`."""
