"""``ros2 launch pixelclip_ros pixelclip.launch.py``: the node with its parameters."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """The node; ``params_file`` and ``namespace`` may be given."""
    default = PathJoinSubstitution([FindPackageShare("pixelclip_ros"), "config", "pixelclip.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=default),
            DeclareLaunchArgument("namespace", default_value=""),
            LifecycleNode(
                package="pixelclip_ros",
                executable="pixelclip",
                name="pixelclip",
                namespace=LaunchConfiguration("namespace"),
                parameters=[LaunchConfiguration("params_file")],
                output="screen",
            ),
        ]
    )
