"""Where the work is done; the store comes out the same everywhere (see test_parts)."""

import os
import platform
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.blocks import build_part
from data_pipelines.cluster import Cluster, compute, has_memory
from data_pipelines.errors import InputError
from data_pipelines.exceedance import _mapped
from data_pipelines.writing import file_aside

SBATCH = """#!/bin/bash
# A queue of one machine: runs the script at once, beside everything else.
cp "$1" {folder}/job.sh
nohup bash {folder}/job.sh > {folder}/job.log 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""


def mark(folder, item):
    """Writes which process did an item."""
    (folder / str(item)).write_text(str(os.getpid()))


def mark_or_die(folder, item):
    """The same, but the first to come takes its process with it."""
    if item == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    mark(folder, item)


@pytest.mark.timeout(180)
def test_the_only_worker_dies_and_the_work_is_done(tmp_path):
    compute(mark_or_die, tmp_path, [0, 1, 2], Cluster("processes", 1))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["0", "1", "2", "died"]


def test_places(monkeypatch):
    with pytest.raises(InputError, match="Did you mean `threads`"):
        Cluster("thread")
    with pytest.raises(InputError, match="not be negative"):
        Cluster("threads", -1)
    with pytest.raises(InputError, match="does not answer"):
        compute(build_part, None, [0], Cluster("tcp://127.0.0.1:9"))
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(InputError, match="needs dask-jobqueue"):
        compute(build_part, None, [0], Cluster("slurm"))


@pytest.mark.timeout(180)
def test_a_batch_queue_does_the_work(tmp_path, monkeypatch):
    """Through dask-jobqueue and its job script, with commands that stand in for Slurm's."""
    pytest.importorskip("dask_jobqueue")
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("scancel", "#!/bin/bash\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    queue = {"memory": "1GB", "interface": "lo", "account": "climate", "walltime": "00:10:00"}
    compute(mark, tmp_path, [0, 1, 2], Cluster("slurm", 1, queue))
    done_by = {(tmp_path / str(k)).read_text() for k in range(3)}
    assert len(done_by) == 1 and done_by != {str(os.getpid())}
    script = (tmp_path / "job.sh").read_text()
    assert "#SBATCH -A climate" in script and "#SBATCH -t 00:10:00" in script


@pytest.mark.parametrize("queue", [{}, {"mem": "4GB"}, {"memory": "4GB", "mem": 3}])
def test_wrong_keys_of_a_queue_are_named(queue):
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(InputError, match=r"`cluster.queue` must be arguments of .*SLURMCluster"):
        compute(mark, None, [0], Cluster("slurm", 1, queue))
    assert has_memory(Cluster("slurm", 1, queue)) == ("memory" in queue)


def test_a_file_aside_is_gone_afterwards_and_so_are_those_of_the_dead(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [tmp_path / f".daily-{platform.node()}-{pid}-x" for pid in (dead.pid, os.getpid())]
    left.append(tmp_path / f".daily-{platform.node()}-{dead.pid}-1-x")  # of a host of that name
    for folder in left:
        folder.mkdir()
    with file_aside(tmp_path, "daily") as path:
        path.write_bytes(b"values")
        assert [folder.exists() for folder in left] == [False, True, True]
    assert sorted(tmp_path.iterdir()) == sorted(left[1:])
    with file_aside(None, "daily") as path:
        assert path is None


def test_a_full_disk_is_an_error_before_the_file_is_mapped(tmp_path, monkeypatch):
    """To write into a hole of a mapped file on a full disk ends the process without a word."""

    def full(*_):
        raise OSError(28, "No space left on device")

    mapped = _mapped(tmp_path / "values", (3, 4, 5))
    assert mapped.shape == (3, 4, 5) and not mapped.any()
    assert (tmp_path / "values").stat().st_blocks * 512 >= 4 * 60  # no hole
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space") as caught:
        _mapped(tmp_path / "more", (3, 4, 5))
    assert caught.value.filename == str(tmp_path / "more")
