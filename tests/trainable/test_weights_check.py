import pytest

from trainable import weights_check
from trainable.settings import ModelSettings
from trainable.weights_check import WeightsCheck


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def problems(architecture, weights_file, image_size=32):
    with WeightsCheck(ModelSettings(weights=weights_file, architecture=architecture), image_size) as check:
        return check.problems()


@pytest.mark.slow
def test_weights_that_fitted_once_are_not_loaded_again_for_the_same_network(cache, weights_file, monkeypatch):
    assert problems("resnet50", weights_file) == []
    monkeypatch.setattr(weights_check, "_load_weights", None)  # nothing that could load them
    assert problems("resnet50", weights_file) == []
    for architecture, image_size in (("resnet101", 32), ("resnet50", 64)):
        with pytest.raises(TypeError):
            problems(architecture, weights_file, image_size)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_tried_each_time_and_a_cache_that_cannot_be_written_harms_nothing(
    cache, weights_file
):
    cache.write_text("a file where a folder should be")
    assert problems("resnet50", weights_file) == []
    cache.unlink()
    [first] = problems("vgg16", weights_file)
    assert [first] == problems("vgg16", weights_file)
    assert not (cache / "thawline").exists()
