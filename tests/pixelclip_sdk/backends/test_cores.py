import os

import pytest

from pixelclip_sdk.backends import cores as _cores
from pixelclip_sdk.backends.cores import default_threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight cores, of which two threads each share one if asked; files as Linux has them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, path in (("_CGROUP", "cgroup"), ("_OWN_CGROUP", "self"), ("_CPUS", "cpus")):
        monkeypatch.setattr(_cores, name, tmp_path / path)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return write


@pytest.mark.usefixtures("machine")
def test_without_limits_all_cores():
    assert default_threads() == 8


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("10000 100000", 1),
        ("max 100000", 8),
        ("9900000 100000", 8),
    ],
)
def test_the_quota_of_a_version_2_group(machine, text, threads):
    machine(self="0::/app", cgroup__app__cpu_dot_max=text)
    assert default_threads() == threads


def test_a_group_above_may_be_the_narrower_one(machine):
    machine(
        self="0::/pod/app",
        cgroup__pod__app__cpu_dot_max="max 100000",
        cgroup__pod__cpu_dot_max="150000 100000",
    )
    assert default_threads() == 2


def test_a_container_whose_group_has_another_name_inside(machine):
    machine(self="0::/docker/0123", cgroup__cpu_dot_max="300000 100000")
    assert default_threads() == 3
    machine(self="0::/../other")
    assert default_threads() == 3


@pytest.mark.parametrize(("quota", "threads"), [("150000", 2), ("-1", 8)])
def test_the_quota_of_a_version_1_group(machine, tmp_path, quota, threads):
    machine(self="4:memory:/x\n2:cpu,cpuacct:/app")
    folder = tmp_path / "cgroup" / "cpu" / "app"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert default_threads() == threads


def test_two_threads_of_one_core_count_once(machine, monkeypatch):
    for core in range(8):
        machine(**{f"cpus__cpu{core}__topology__thread_siblings_list": f"{core % 4},{core % 4 + 4}"})
    assert default_threads() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 2})
    assert default_threads() == 2


def test_systems_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1
