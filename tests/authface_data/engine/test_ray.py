"""The Ray engine on a cluster of two nodes: its rows are those of the local engine."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest
import ray
from commands import collect_folder, init_workspace
from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR
from ray.cluster_utils import Cluster
from stages import ModelStage, NumberStage, no_picture

from authface_data.engine import ray as ray_engine
from authface_data.engine.run import Engine, run_chain
from authface_data.engine.stage import Chain
from manifests.schema import CAPTIONS, FACES, PHOTOS, SCORES, VERDICTS
from manifests.store import Store
from manifests.support.errors import MissingResourceError, UserError
from manifests.workspace import Workspace

pytestmark = pytest.mark.slow

TIMES = {"created_at", "collected_at"}
LOOPBACK = {"node_ip_address": "127.0.0.1", "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine with one CPU each; the first has, by its own account, one GPU.

    Ray replaces 127.0.0.1 by the outer address of the machine, unless its setting for systems
    without clusters is 0.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
        patch.setenv(ENABLE_RAY_CLUSTERS_ENV_VAR, "0")
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        cluster = Cluster(True, head_node_args={**LOOPBACK, "num_cpus": 1, "num_gpus": 1})
        cluster.add_node(**LOOPBACK, num_cpus=1)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def run(cluster):
    """Take inputs through stages on the cluster; the runs share the connection to it."""

    def run(workspace, stages, inputs, address=cluster.address):
        engine = Engine("ray", 2, address)
        return run_chain(workspace, Chain(stages, no_picture), inputs, title="t", engine=engine)

    return run


def make_inputs(count, **actions):
    return [
        (f"f{number}", {"number": float(number), "action": actions.get(f"f{number}", "")})
        for number in range(count)
    ]


def scores(workspace):
    rows = Store(workspace, SCORES).read().to_pylist()
    return {(row["metric"], row["face_id"]): row["value"] for row in rows}


def test_each_input_gets_one_result(run, workspace, tmp_path):
    inputs = make_inputs(40, f1="drop", f5="raise")
    stages = [NumberStage("m", log_folder=tmp_path), NumberStage("n", batch_size=4)]
    run(workspace, stages, inputs)
    expected = {f"f{number}": number for number in range(40) if number not in (1, 5)}
    assert scores(workspace) == {
        (metric, key): value for metric in ("m", "n") for key, value in expected.items()
    }
    verdicts = Store(workspace, VERDICTS).read().to_pylist()
    assert len(verdicts) == 4
    assert {row["verdict"] for row in verdicts} == {"dropped", "failed"}
    logs = sorted(path.read_text() for path in tmp_path.glob("m-*"))
    run(workspace, stages, inputs)  # finished inputs are not processed again
    assert sorted(path.read_text() for path in tmp_path.glob("m-*")) == logs


def test_killed_worker_loses_no_row(run, workspace, tmp_path):
    """SIGKILL to a worker while both work."""
    killed = []

    def kill_a_worker():
        while not (logs := list(tmp_path.glob("m-*"))):
            time.sleep(0.01)
        killed.append(int(logs[0].read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    inputs = make_inputs(24, **{f"f{number}": "pause" for number in range(24)})
    run(workspace, [NumberStage("m", log_folder=tmp_path)], inputs)
    thread.join()
    assert not psutil.pid_exists(killed[0])
    rows = Store(workspace, SCORES).read().to_pylist()
    assert {row["face_id"]: row["value"] for row in rows} == {f"f{n}": n for n in range(24)}
    assert len(rows) == 24
    assert len(Store(workspace, VERDICTS).read()) == 0


def test_killed_node_loses_no_row(run, cluster, workspace, tmp_path):
    """SIGKILL to a node and its worker while the workers of both nodes work."""
    (node,) = cluster.worker_nodes
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    killed = []

    def kill_the_node():
        while not (has_ended.is_set() or killed):
            time.sleep(0.01)
            workers = {log.read_text().strip() for log in tmp_path.glob("m-*")}
            killed.extend(child for child in raylet.children() if str(child.pid) in workers)
        cluster.remove_node(node, allow_graceful=False)

    has_ended = threading.Event()
    thread = threading.Thread(target=kill_the_node)
    thread.start()
    inputs = make_inputs(24, **{f"f{number}": "pause" for number in range(24)})
    run(workspace, [NumberStage("m", log_folder=tmp_path)], inputs)
    has_ended.set()
    thread.join()
    assert killed
    # A worker ends when it notices that its node is gone.
    _, alive = psutil.wait_procs(killed, timeout=60)
    assert not alive
    cluster.add_node(**LOOPBACK, num_cpus=1)
    rows = Store(workspace, SCORES).read().to_pylist()
    assert {row["face_id"]: row["value"] for row in rows} == {f"f{n}": n for n in range(24)}
    assert len(rows) == 24
    assert len(Store(workspace, VERDICTS).read()) == 0


def test_only_the_input_that_kills_its_worker_fails(run, workspace):
    run(workspace, [NumberStage("m")], make_inputs(8, f2="die"))
    assert scores(workspace) == {("m", f"f{n}"): n for n in range(8) if n != 2}
    (verdict,) = Store(workspace, VERDICTS).read().to_pylist()
    assert (verdict["id"], verdict["verdict"]) == ("f2", "failed")
    assert "worker died" in verdict["reason"]


def test_workers_share_the_models_of_a_server(run, workspace):
    """The cluster has one GPU, by its own account; the model uses none."""
    stages = [ModelStage("double", 2.0, batch_size=3), NumberStage("m")]
    inputs = [(f"f{number}", {"number": number}) for number in [*range(20), -1]]
    run(workspace, stages, inputs)
    rows = [row for row in Store(workspace, SCORES).read().to_pylist() if row["metric"] == "double"]
    assert {row["face_id"]: row["value"] for row in rows} == {f"f{n}": 2 * n for n in range(20)}
    assert len({row["model_revision"] for row in rows}) == 1
    assert {row["device"] for row in rows} == {"cuda:0"}
    (verdict,) = Store(workspace, VERDICTS).read().to_pylist()
    assert verdict["reason"] == "RuntimeError: the model cannot compute -1"


def test_missing_weights_end_the_run(run, workspace):
    with pytest.raises(MissingResourceError, match="the weights are missing"):
        run(workspace, [ModelStage("m", 0.0)], make_inputs(4))
    assert len(Store(workspace, VERDICTS).read()) == 0


def test_wrong_address_is_one_line(run, workspace):
    with pytest.raises(UserError, match=r"cannot use Ray at 127.0.0.1:9: ") as caught:
        run(workspace, [NumberStage()], make_inputs(2), "127.0.0.1:9")
    assert "\n" not in str(caught.value)


def read_rows(root, manifest):
    """Rows of a manifest without the times of their making."""
    rows = Store(Workspace(root), manifest).read().to_pylist()
    for row in rows:
        for name in TIMES & row.keys():
            del row[name]
    return sorted(rows, key=lambda row: [str(row[name]) for name in manifest.key])


def test_commands_give_the_rows_of_the_local_engine(
    cluster, filled, photos, weights, tmp_path, authface_here, monkeypatch
):
    monkeypatch.setattr(ray_engine, "_start_servers", lambda models: [])
    on_cluster = ["--engine", "ray", "--address", cluster.address]
    ray.shutdown()  # every command connects to the cluster
    root = tmp_path / "ws"
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, path in photos.items():
        (folder / name).symlink_to(path)
    (folder / "broken.jpg").write_bytes(b"not a picture")
    for command in (
        init_workspace(root),
        [*collect_folder(root, folder), *on_cluster],
        ["filter", "-w", root, *on_cluster, "--workers", "2"],
        ["caption", "-w", root, *on_cluster],
    ):
        completed = authface_here(*command)
        assert completed.returncode == 0, completed.stderr
    for manifest in (PHOTOS, FACES, SCORES, VERDICTS, CAPTIONS):
        assert read_rows(root, manifest) == read_rows(filled, manifest), manifest.name
    for path in filled.glob("faces/*"):
        assert (root / "faces" / path.name).read_bytes() == path.read_bytes()


def test_missing_package_is_one_line(run, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "authface_data.engine.ray")
    monkeypatch.delattr("authface_data.engine.ray")
    with pytest.raises(MissingResourceError, match=r"needs authface\[ray\]: pip install"):
        run(workspace, [NumberStage()], make_inputs(2))
