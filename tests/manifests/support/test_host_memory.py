"""Free memory of the machine, and what the limit of a container leaves."""

from types import SimpleNamespace

import psutil
import pytest

from manifests.support import host_memory


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A job with a limit, and a step of it without one; the process belongs to the step."""
    folder = tmp_path / "cgroup"
    (folder / "job_1" / "step_0").mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("1:name=other:/x\n0::/job_1/step_0\n")
    monkeypatch.setattr(host_memory, "CGROUPS", folder)
    monkeypatch.setattr(host_memory, "OWN_CGROUP", own)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    set_limit(folder / "job_1" / "step_0", "max", 500)
    return folder


def set_limit(group, limit, usage, cached=0):
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{usage}\n")
    (group / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")


@pytest.mark.parametrize(
    ("limit", "usage", "cached", "expected"),
    [
        (4_000, 1_500, 0, 2_500),
        (4_000, 1_500, 1_000, 3_500),
        (4_000, 4_100, 0, 0),
        (50_000, 500, 0, 10_000),
        ("max", 500, 0, 10_000),
    ],
)
def test_the_limit_of_any_enclosing_group_counts(groups, limit, usage, cached, expected):
    set_limit(groups / "job_1", limit, usage, cached)
    assert host_memory.available_bytes() == expected


def test_limit_of_version_1_counts(groups):
    (groups.parent / "own").write_text("4:cpu,memory:/job_1\n0::/\n")
    job = groups / "memory" / "job_1"
    job.mkdir(parents=True)
    (job / "memory.limit_in_bytes").write_text("4000\n")
    (job / "memory.usage_in_bytes").write_text("1500\n")
    (job / "memory.stat").write_text("total_inactive_file 200\n")
    assert host_memory.available_bytes() == 2_700


def test_without_groups_the_memory_of_the_machine_counts(groups, monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "OWN_CGROUP", tmp_path / "missing")
    assert host_memory.available_bytes() == 10_000
