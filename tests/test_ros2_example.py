"""The ROS 2 package as far as it can be checked without ROS: its code, its names, its files."""

import ast
import importlib
import inspect
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pixelclip_sdk.ros.camera import OUTPUTS, Camera

yaml = pytest.importorskip("yaml")

EXAMPLES = Path(__file__).parents[1] / "examples" / "ros2"
PACKAGE = EXAMPLES / "pixelclip_ros"
SOURCES = sorted(EXAMPLES.rglob("*.py"))
NODE = ast.parse((PACKAGE / "pixelclip_ros" / "node.py").read_text(encoding="utf-8"))
README = (PACKAGE / "README.md").read_text(encoding="utf-8")


def parameters() -> dict[str, object]:
    """The parameters that the node declares, with their defaults."""
    values = next(
        node.value
        for node in NODE.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMETERS"
    )
    return ast.literal_eval(values)


def calls_on(name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(NODE)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == name
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_code_compiles(source):
    compile(source.read_text(encoding="utf-8"), source, "exec")


def test_what_it_imports_of_the_sdk_is_there():
    imports = [node for node in ast.walk(NODE) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.startswith("pixelclip_sdk")]
    assert len(ours) >= 3
    for node in ours:
        module = importlib.import_module(node.module)
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_it_calls_the_camera_as_it_is():
    calls = calls_on("self._camera")
    assert {call.func.attr for call in calls} == {"segment", "label_info", "status", "set_words"}
    for call in calls:
        signature = inspect.signature(getattr(Camera, call.func.attr))
        signature.bind(None, *call.args, **{word.arg: word.value for word in call.keywords})
    made = next(n for n in ast.walk(NODE) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Camera")
    inspect.signature(Camera).bind(*made.args, **{word.arg: word.value for word in made.keywords})


def test_every_method_that_it_calls_on_itself_is_its_own_or_of_rclpy():
    """Names of rclpy's Node and LifecycleNode, looked up in its source."""
    of_rclpy = {
        "add_on_set_parameters_callback",
        "create_lifecycle_publisher",
        "create_publisher",
        "create_service",
        "create_subscription",
        "create_timer",
        "declare_parameter",
        "destroy_lifecycle_publisher",
        "destroy_service",
        "destroy_subscription",
        "destroy_timer",
        "get_clock",
        "get_fully_qualified_name",
        "get_logger",
        "get_parameter",
    }
    own = {node.name for node in ast.walk(NODE) if isinstance(node, ast.FunctionDef)}
    assert {call.func.attr for call in calls_on("self")} <= own | of_rclpy


def test_parameters_are_read_declared_and_documented():
    declared = parameters()
    shown = yaml.safe_load((PACKAGE / "config" / "pixelclip.yaml").read_text(encoding="utf-8"))
    shown = shown["/**"]["ros__parameters"]
    assert shown.keys() == declared.keys()
    assert {name: type(value) for name, value in shown.items()} == {
        name: type(value) for name, value in declared.items()
    }
    read = {call.args[0].value for call in calls_on("self") if call.func.attr == "value" and _constant(call)}
    read |= {f"{name}_topic" for name in OUTPUTS} | {"autostart"}  # Read in a loop, and in `main`.
    assert read == set(declared)
    for name in ("mask", "confidence", "label_info", "overlay"):
        assert f"| `{declared[f'{name}_topic']}` |" in README


def _constant(call: ast.Call) -> bool:
    return isinstance(call.args[0], ast.Constant)


def test_the_package_depends_on_what_it_imports():
    needed = {
        name.partition(".")[0]
        for source in SOURCES
        if source.name != "setup.py"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in [node.module]
    } - {"typing", "pixelclip_sdk"}
    tree = ElementTree.parse(PACKAGE / "package.xml")
    assert needed <= {entry.text for entry in tree.iter("exec_depend")} | {"launch"}
    assert tree.find("export/build_type").text == "ament_python"
    installed = re.findall(r'"((?:launch|config)/[^"]+)"', (PACKAGE / "setup.py").read_text(encoding="utf-8"))
    assert len(installed) == 2
    assert all((PACKAGE / file).is_file() for file in installed)


def test_the_service_is_a_definition_that_ros_reads():
    typesys = pytest.importorskip("rosbags.typesys")
    text = (EXAMPLES / "pixelclip_msgs" / "srv" / "SetClasses.srv").read_text(encoding="utf-8")
    request, response = text.split("---\n")
    fields = {
        name: [
            field
            for field, _ in typesys.get_types_from_msg(part, f"pixelclip_msgs/msg/{name}").popitem()[1][1]
        ]
        for name, part in (("Request", request), ("Response", response))
    }
    assert fields == {"Request": ["classes"], "Response": ["success", "message"]}


def test_the_costmap_example_has_the_topics_and_words_of_the_node():
    example = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.S)[1])
    camera = example["local_costmap"]["local_costmap"]["ros__parameters"]["semantic_segmentation_layer"][
        "camera"
    ]
    declared = parameters()
    for key, name in (("segmentation", "mask"), ("confidence", "confidence"), ("labels", "label_info")):
        assert camera[f"{key}_topic"] == f"/{declared[f'{name}_topic']}"
    config = yaml.safe_load((PACKAGE / "config" / "pixelclip.yaml").read_text(encoding="utf-8"))
    words = config["/**"]["ros__parameters"]["classes"].split(", ")
    named = [word for kind in camera["class_types"] for word in camera[kind]["classes"]]
    assert set(words) - set(named) == {"sky"}
    assert set(named) <= set(words)
