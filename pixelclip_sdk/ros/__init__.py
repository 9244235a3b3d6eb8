"""ROS: pictures out of messages, results into messages, and bags. Nothing here imports rclpy.

The functions take and make objects with the fields of the messages: those of rclpy in a node
(`examples/ros2/pixelclip_ros`), those of `rosbags` in bags and tests. `images` and `messages` are functions,
`camera` is what a node does with its images, `bag` and `parts` read and write bags (extra ``ros``).
"""
