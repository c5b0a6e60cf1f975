"""A real study, Keras on Ray, whose run folder is lost and comes back from a bucket."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainable.synthetic import draw_study

spec = importlib.util.spec_from_file_location("stores", Path(__file__).parent / "fakes" / "object_storage.py")
stores = importlib.util.module_from_spec(spec)
sys.modules["stores"] = stores
spec.loader.exec_module(stores)

STUDY = """
data: {path: images, groups: groups.csv, image_size: 32, positive_class: lesion}
model: {architecture: vgg16, weights: random}
space:
  learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  freeze_depth: {type: int, low: 3, high: 5}
training: {batch_size: 8}
budget: {trials: 2, epochs: 1}
final: {finalists: 1, repeats: 1}
"""


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_finished_search_comes_back_from_its_bucket_with_its_model(tmp_path):
    draw_study(tmp_path, images_per_class=15, image_size=32, seed=1)
    (tmp_path / "study.yaml").write_text(STUDY)
    with stores.object_store() as store, stores.line_to(store) as line:
        store.bucket("bucket")
        command = [sys.executable, "-c", "from search.cli import main; main()", "search", "study.yaml", "--final"]
        command += ["--set", f"storage_copy={line.address()}"]

        def search():
            finished = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, **stores.CREDENTIALS},
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
            assert finished.returncode == 0, finished.stderr
            return finished.stdout + finished.stderr

        search()
        run = tmp_path / "runs" / "study"
        final, best = content(run / "final"), (run / "best.yaml").read_bytes()
        assert Path("model.keras") in final
        shutil.rmtree(run)
        assert "comes back from its copy in s3://bucket/studies/study" in " ".join(search().split())
        assert content(run / "final") == final
        assert (run / "best.yaml").read_bytes() == best
    assert stores.SECRET not in "".join(path.read_text("latin-1") for path in run.rglob("*") if path.is_file())
