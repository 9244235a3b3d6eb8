"""The node: parameters, topics and states of ROS around `pixelclip_sdk.ros.camera.Camera`.

It runs in one thread, so words never change while an image is segmented.
"""

import array
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from pixelclip_msgs.srv import SetClasses
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from vision_msgs.msg import LabelInfo, VisionClass

from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.ros.camera import Camera
from pixelclip_sdk.ros.messages import MessageTypes

PARAMETERS = {
    "autostart": True,
    "model": "pixelclip-lite",
    "device": "auto",
    "classes": "",
    "background": "",
    "min_confidence": 0.0,
    "smooth": 0.3,
    "rotate": 0,
    "input_topic": "image_raw",
    "mask_topic": "segmentation/mask",
    "confidence_topic": "segmentation/confidence",
    "label_info_topic": "segmentation/label_info",
    "overlay_topic": "segmentation/overlay",
    "publish_overlay": False,
}

NEWEST = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
RESULTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)

TYPES = MessageTypes(
    image=Image,
    label_info=LabelInfo,
    vision_class=VisionClass,
    data=lambda values: array.array("B", values.tobytes()),
)


class PixelClipNode(LifecycleNode):
    """Configured: the model is loaded. Active: images are segmented while somebody subscribes."""

    def __init__(self) -> None:
        super().__init__("pixelclip")
        for name, default in PARAMETERS.items():
            self.declare_parameter(name, default)
        self.add_on_set_parameters_callback(self._set_parameters)
        self._segmenter: Segmenter | None = None
        self._camera: Camera | None = None
        self._results: dict[str, Any] = {}
        self._others: list[Any] = []
        self._images: Any = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer: Any = None

    def value(self, name: str) -> Any:
        """The value of a parameter."""
        return self.get_parameter(name).value

    # States. rclpy drops what a callback raises, so errors are logged here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, and offer topics and the service."""
        try:
            self._load()
        except PixelClipError as error:
            self.get_logger().error(str(error))
            self.close()
            return TransitionCallbackReturn.FAILURE
        topics = {"mask": Image, "confidence": Image}
        if self.value("publish_overlay"):
            topics["overlay"] = Image
        for name, kind in topics.items():
            topic = self.value(f"{name}_topic")
            self._results[name] = self.create_lifecycle_publisher(kind, topic, RESULTS)
        topic = self.value("label_info_topic")
        self._results["label_info"] = self.create_lifecycle_publisher(LabelInfo, topic, LATCHED)
        self._others = [
            self.create_subscription(String, "segmentation/classes", self._words_came, 10),
            self.create_service(SetClasses, "segmentation/set_classes", self._words_asked),
        ]
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish the names and subscribe to the images."""
        code = super().on_activate(state)  # From here on, publishers publish.
        self._publish_names()
        topic = self.value("input_topic")
        kind = CompressedImage if topic.endswith("/compressed") else Image
        self._images = self.create_subscription(kind, topic, self._image_came, NEWEST)
        self._timer = self.create_timer(1.0, self._publish_status)
        return code

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the images."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    on_shutdown = on_error = on_cleanup

    def _load(self) -> None:
        self._segmenter = Segmenter.from_pretrained(
            self.value("model"),
            device=self.value("device"),
            background=self.value("background") or None,
            min_confidence=self.value("min_confidence") or None,
        )
        rotate, smooth = self.value("rotate"), self.value("smooth")
        self._camera = Camera(self._segmenter, TYPES, rotate=rotate, smooth=smooth)
        if self.value("classes"):
            self._camera.set_words(self.value("classes"))
            self._segmenter.warm_up()
        self.get_logger().info(self._segmenter.engine_description)

    def _stop(self) -> None:
        if self._images is not None:
            self.destroy_subscription(self._images)
        if self._timer is not None:
            self.destroy_timer(self._timer)
        self._images = self._timer = None

    def close(self) -> None:
        """Release the model and everything that `on_configure` made."""
        self._stop()
        for publisher in self._results.values():
            self.destroy_lifecycle_publisher(publisher)
        if self._others:
            subscription, service = self._others
            self.destroy_subscription(subscription)
            self.destroy_service(service)
        self._results, self._others, self._camera = {}, [], None
        if self._segmenter is not None:
            self._segmenter.close()
            self._segmenter = None

    # Images.

    def _image_came(self, message: Any) -> None:
        wanted = [
            name
            for name, publisher in self._results.items()
            if name != "label_info" and publisher.get_subscription_count()
        ]
        try:
            made = self._camera.segment(message, wanted)
        except PixelClipError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        for name, result in made:
            self._results[name].publish(result)

    def _publish_names(self) -> None:
        names = self._camera.label_info(Header(stamp=self.get_clock().now().to_msg()))
        if names is not None:
            self._results["label_info"].publish(names)

    def _publish_status(self) -> None:
        status = self._camera.status()
        entry = DiagnosticStatus(
            level=bytes([status.level]),
            name=f"{self.get_fully_qualified_name()}: segmentation",
            message=status.message,
            values=[KeyValue(key=key, value=value) for key, value in status.values.items()],
        )
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(DiagnosticArray(header=header, status=[entry]))

    # Words: by topic, by service, by parameter.

    def _set_words(self, words: str) -> str:
        """Change the words; return what is wrong with them."""
        try:
            self._camera.set_words(words)
        except PixelClipError as error:
            return str(error)
        if self._images is not None:  # Otherwise when the node becomes active.
            self._publish_names()
        return ""

    def _words_came(self, message: String) -> None:
        if problem := self._set_words(message.data):
            self.get_logger().error(problem)

    def _words_asked(self, request: Any, response: Any) -> Any:
        response.message = self._set_words(request.classes)
        response.success = not response.message
        return response

    def _set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            problem = ""
            if self._camera is None or parameter.name not in PARAMETERS:
                continue
            if parameter.name == "classes":
                problem = self._set_words(parameter.value)
            else:
                problem = f"{parameter.name} is read when the node is configured: clean it up first"
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)


def main() -> None:
    """Run the node until Ctrl-C."""
    rclpy.init()
    node = PixelClipNode()
    try:
        if node.value("autostart") and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
