import json
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from search.inside_ray import replaced


def test_what_was_replaced_is_put_back_even_after_an_error():
    ray = SimpleNamespace(start="Ray's start", stop="Ray's stop")
    seen = []

    def use():
        seen.extend([ray.start, ray.stop])
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"), replaced(ray, start="ours"):
        use()
    assert seen == ["ours", "Ray's stop"]
    assert ray.start == "Ray's start"


@pytest.mark.ray
def test_a_ray_started_here_is_no_more_than_trials_need_and_has_their_workers_ready(tmp_path):
    script = """
        import json, os, subprocess, time
        from search.cluster import connect
        from search.inside_ray import ready_workers

        def processes(parent):
            rows = subprocess.getoutput(f"ps -ww -o pid=,args= --ppid {parent}").splitlines()
            return {int(row.split()[0]): row.split(maxsplit=1)[1] for row in rows}

        def idle():
            children = processes(os.getpid())
            [raylet] = [pid for pid, words in children.items() if "/raylet/raylet" in words]
            return [pid for pid, words in processes(raylet).items() if words.startswith("ray::IDLE")]

        class Trial:
            def process(self):
                return os.getpid()

        with connect(cpus=2):
            from ray.tune.execution.class_cache import _ActorClassCache
            import ray

            end = time.monotonic() + 60
            while len(idle()) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            ready = idle()
            with ready_workers():
                trials = [_ActorClassCache().get(Trial).remote() for _ in range(2)]
            used = ray.get([trial.process.remote() for trial in trials])
            started = [words for words in processes(os.getpid()).values() if "ray" in words]
        print(json.dumps({"ready": sorted(ready), "used": sorted(used), "started": started}))
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    seen = json.loads(finished.stdout.splitlines()[-1])
    assert len(seen["ready"]) == 2
    assert seen["used"] == seen["ready"]
    assert sorted(words.split()[0].rpartition("/")[2] for words in seen["started"]) == ["gcs_server", "raylet"]
