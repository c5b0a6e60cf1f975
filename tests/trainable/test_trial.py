import json
import pickle
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from trainable.checkpoint import Checkpoints
from trainable.hyperparameters import Hyperparameters
from trainable.image_trainable import ImageTrainable
from trainable.preparation import prepare
from trainable.whole_file import sha256

pytestmark = pytest.mark.slow

HEAD_ONLY, TOP_BLOCK = 17, 16  # freeze depths of ResNet50 by block


@pytest.fixture(scope="module")
def prepared(drawn, model_settings, tmp_path_factory):
    """What a driver tells every worker of a study, without the folder of its trials."""
    # Whether keeping features pays is measured, and computing them in other batches moves the last bits.
    model = model_settings.model_copy(update={"features": "off"})
    largest = Hyperparameters(freeze_depth=HEAD_ONLY, batch_size=8).model_dump()
    folder = tmp_path_factory.mktemp("study")
    return prepare(drawn, model, largest, folder, 1, lambda *_: None)


@pytest.fixture(scope="module")
def study(prepared, cpus):
    training = Hyperparameters(batch_size=8, freeze_depth=HEAD_ONLY, augmentation_strength=0.5)
    return {
        **prepared.context,
        "training": training.model_dump(mode="json"),
        "objective": ["val_loss", "minimize"],
        "cpus": cpus,
        "gpus": 0,
    }


def test_f29_every_worker_is_told_the_sha256_of_the_weights_that_the_study_began_with(study, weights_file):
    assert study["model"]["weights_sha256"] == sha256(weights_file)


def request(key=(0, 0), epochs=2, epochs_reported=0, seed=3, **parameters):
    return {
        "key": list(key),
        "parameters": parameters,
        "seed": seed,
        "epochs": epochs,
        "epochs_reported": epochs_reported,
    }


class Worker:
    """A Ray actor's trainable, driven by hand."""

    def __init__(self, study):
        self.study = study
        self._trainable = None

    def begin(self, asked, trials, waiting=()):
        from trainable.trial import ImageTrial

        told = {"study": {**self.study, "trials": trials}, "trial": asked, "waiting": list(waiting)}
        config = pickle.loads(pickle.dumps(told))
        if self._trainable is None:
            self._trainable = object.__new__(ImageTrial)  # its own __init__ would write to the user's home
            self._trainable.setup(config)
        else:
            assert self._trainable.reset_config(config) is True

    def step(self):
        [message] = self._trainable.step()["thawline"]
        json.dumps(message)  # plain values, whatever they say
        return message

    def run(self, asked, trials):
        """All messages of a trial up to its last."""
        self.begin(asked, trials)
        messages = [self.step()]
        while messages[-1]["kind"] != "failed" and not messages[-1].get("last"):
            messages.append(self.step())
        return messages

    def end(self):
        if self._trainable is not None:
            self._trainable.cleanup()


class WorkerEnded(BaseException):
    """Instead of the end of the process that tests run in."""


@pytest.fixture(autouse=True)
def _no_end_of_the_process(monkeypatch):
    def end(code):
        raise WorkerEnded

    monkeypatch.setattr("os._exit", end)


@pytest.fixture(scope="module")
def worker(study):
    """One that other tests have used before."""
    worker = Worker(study)
    yield worker
    worker.end()


def metrics(messages):
    return [message["metrics"] for message in messages if message["kind"] == "epoch"]


def test_a_trial_says_that_it_started_then_tells_every_epoch_and_which_is_the_last(worker, tmp_path):
    started, *epochs = worker.run(request((7, 0), epochs=3), tmp_path)
    assert started["kind"] == "started"
    assert "/" in started["worker"]
    assert [(each["kind"], each["epoch"], each["last"]) for each in epochs] == [
        ("epoch", 1, False),
        ("epoch", 2, False),
        ("epoch", 3, True),
    ]
    for each in epochs:
        assert each["metrics"].keys() == {*ImageTrainable.metrics, "learning_rate", "trainable_share"}
        assert {"train", "validation", "checkpoint", "setup"} <= each["seconds"].keys()
        assert min(each["seconds"].values()) >= 0
        assert each["usage"].keys() == {"memory_bytes", "features_found", "features_built", "features_bytes"}
        assert each["usage"]["memory_bytes"] > 1e8
    assert epochs[0]["seconds"]["setup"] > epochs[1]["seconds"]["setup"] == 0


def test_a_trial_owns_a_folder_with_its_log_and_a_rerun_another(worker, tmp_path):
    worker.run(request((7, 0)), tmp_path)
    worker.run(request((7, 2), learning_rate=0.002), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "7.2"]
    log = (tmp_path / "7.2" / "log.txt").read_text()
    assert "trial 7.2 on " in log
    assert "{'learning_rate': 0.002}" in log
    assert log.count("epoch ") == 2
    assert "{'learning_rate': 0.002}" not in (tmp_path / "7" / "log.txt").read_text()


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoint").iterdir())


def test_the_epoch_that_ends_a_trial_is_not_checkpointed_and_the_others_are(worker, tmp_path):
    worker.begin(request(epochs=3), tmp_path)
    assert [worker.step()["kind"] for _ in range(3)] == ["started", "epoch", "epoch"]
    assert saved(tmp_path / "0") == [1, 2]
    assert worker.step()["last"] is True
    assert saved(tmp_path / "0") == [1, 2]


def test_where_the_best_is_to_be_kept_the_last_epoch_is_checkpointed_when_it_is_the_best(study, worker, tmp_path):
    from trainable.trial import owner

    keeping = Worker({**study, "keeps_best": True})
    keeping._trainable = worker._trainable
    for number, rate in enumerate((1e-4, 0.3)):
        asked = request((number, 0), epochs=3, learning_rate=rate)
        losses = [each["val_loss"] for each in metrics(keeping.run(asked, tmp_path))]
        best = 1 + losses.index(min(losses))
        assert saved(tmp_path / str(number)) == sorted({best, 1, 2} if best < 3 else {2, 3})
        checkpoint = Checkpoints(tmp_path / str(number) / "checkpoint", owner(study, asked)).load()
        assert [row["val_loss"] for row in checkpoint.values["history"]] == losses[: checkpoint.epoch]


def test_a_trial_that_waits_at_a_rung_is_saved_when_its_worker_takes_another(study, worker, tmp_path):
    pausing = Worker({**study, "pauses": [1, 2], "checkpoint_every": 9})
    pausing._trainable = worker._trainable
    whole = metrics(worker.run(request((0, 0), epochs=3), tmp_path / "whole"))
    for number, waits in ((0, True), (1, False)):
        pausing.begin(request((number, 0), epochs=3), tmp_path)
        assert [pausing.step()["kind"] for _ in range(2)] == ["started", "epoch"]
        assert not (tmp_path / str(number) / "checkpoint").exists()
        pausing.begin(request((9, 0), epochs=3), tmp_path, [[7, 0], [0, 0]] if waits else [[7, 0]])
        assert (tmp_path / str(number) / "checkpoint").exists() == waits
    pausing.begin(request((0, 0), epochs=3, epochs_reported=1), tmp_path)
    assert [pausing.step()["kind"] for _ in range(2)] == ["started", "epoch"]
    assert saved(tmp_path / "0") == [1]
    pausing.begin(request((9, 0), epochs=3), tmp_path, [[0, 0]])
    assert saved(tmp_path / "0") == [1, 2]
    pausing.begin(request((0, 0), epochs=3, epochs_reported=2), tmp_path)
    assert metrics([pausing.step() for _ in range(2)]) == whole[2:]


def test_a_trial_that_goes_on_at_once_on_the_worker_that_it_waited_on_loses_nothing(study, worker, tmp_path):
    pausing = Worker({**study, "pauses": [1, 2], "checkpoint_every": 9})
    pausing._trainable = worker._trainable
    whole = metrics(worker.run(request((0, 0), epochs=2), tmp_path / "whole"))
    pausing.begin(request((0, 0), epochs=2), tmp_path)
    assert [pausing.step()["kind"] for _ in range(2)] == ["started", "epoch"]
    pausing.begin(request((0, 0), epochs=2, epochs_reported=1), tmp_path)
    assert metrics([pausing.step() for _ in range(2)]) == whole[1:]


def test_networks_stay_warm_within_their_share_of_memory_and_the_least_recently_used_goes(
    worker, tmp_path, monkeypatch
):
    worker.run(request((0, 0), epochs=1), tmp_path)
    workshop = worker._trainable._workshop

    def depths():
        return [key.depth for key in workshop._networks]

    worker.run(request((1, 0), epochs=1, freeze_depth=TOP_BLOCK), tmp_path)
    assert depths()[-2:] == [HEAD_ONLY, TOP_BLOCK]
    worker.run(request((2, 0), epochs=1), tmp_path)
    assert depths()[-2:] == [TOP_BLOCK, HEAD_ONLY]
    monkeypatch.setattr(workshop, "_memory", sum(each.bytes for each in workshop._networks.values()) - 1)
    before = depths()
    worker.run(request((3, 0), epochs=1), tmp_path)
    assert depths() == before[1:]
    monkeypatch.setattr(workshop, "_memory", 0)
    worker.run(request((4, 0), epochs=1), tmp_path)
    assert depths() == [HEAD_ONLY]


def test_f31_a_trial_whose_checkpoints_are_gone_begins_anew_and_says_so(worker, tmp_path):
    whole = metrics(worker.run(request(epochs=3), tmp_path / "whole"))
    worker.begin(request(epochs=3), tmp_path)
    for _ in range(3):
        worker.step()
    worker.run(request((5, 0), epochs=1), tmp_path)  # so that the worker no longer has its state
    shutil.rmtree(tmp_path / "0" / "checkpoint" / "000002")
    assert metrics(worker.run(request(epochs=3, epochs_reported=2), tmp_path)) == whole[1:]
    worker.run(request((5, 0), epochs=1), tmp_path)
    shutil.rmtree(tmp_path / "0" / "checkpoint")
    assert metrics(worker.run(request(epochs=3, epochs_reported=2), tmp_path)) == whole
    assert "no checkpoint is left of 2 epochs: they are done again" in (tmp_path / "0" / "log.txt").read_text()


def test_parameters_of_a_trial_replace_the_fixed_ones(worker, tmp_path):
    [fixed] = metrics(worker.run(request((0, 0), epochs=1), tmp_path))
    [chosen] = metrics(worker.run(request((1, 0), epochs=1, learning_rate=0.004), tmp_path))
    assert fixed["learning_rate"] == pytest.approx(0.001)
    assert chosen["learning_rate"] == pytest.approx(0.004)
    assert fixed["loss"] != chosen["loss"]


def test_after_a_trial_that_diverged_the_next_one_computes_what_a_network_that_never_did_computes(
    worker, networks, parts, tmp_path
):
    from trainable.training import Task, Training

    same = {"freeze_depth": TOP_BLOCK, "optimizer": "sgd", "augmentation_strength": 0.5}
    diverging = request((0, 0), **same, learning_rate=10.0, batch_size=1, dropout=0.1)
    started, failed = worker.run(diverging, tmp_path)
    assert started["kind"] == "started"
    assert failed["kind"] == "failed"
    assert not failed["infeasible"]  # the loss says nothing about how much fits
    assert failed["reason"].startswith("the loss must stay finite, but was ")
    assert "in epoch 1, step " in failed["reason"]
    [after] = metrics(worker.run(request((1, 0), epochs=1, **same), tmp_path))
    chosen = Hyperparameters(batch_size=8, **same)
    training = Training(networks.warm(chosen), chosen, Task(*parts, positive=1, view_seed=1), seed=3, epochs=1)
    assert after == training.run_epoch().metrics


def test_a_worker_goes_on_after_a_trial_that_cannot_be(worker, tmp_path):
    _, failed = worker.run(request((0, 0), learning_rate=-1), tmp_path)
    assert failed["kind"] == "failed"
    assert "learning_rate" in failed["reason"]
    assert "Traceback" in (tmp_path / "0" / "log.txt").read_text()
    assert worker.run(request((1, 0), epochs=1), tmp_path)[-1]["last"] is True


def test_a_trial_continues_from_its_own_checkpoint_and_tells_the_epochs_that_the_driver_lacks(worker, tmp_path):
    straight = worker.run(request(epochs=4), tmp_path / "straight")
    worker.begin(request(epochs=4), tmp_path / "lost")
    for _ in range(3):
        worker.step()  # started, epoch 1, epoch 2; then the worker is gone
    for reported, told in ((0, [1, 2, 3, 4]), (1, [2, 3, 4]), (2, [3, 4])):
        copy = tmp_path / f"after {reported}"
        shutil.copytree(tmp_path / "lost", copy)
        worker.run(request((5, 0), epochs=1, learning_rate=0.1), tmp_path)  # another trial in between
        again = worker.run(request(epochs=4, epochs_reported=reported), copy)
        assert [each["epoch"] for each in again[1:]] == told
        assert metrics(again) == metrics(straight)[reported:]
        assert [each["last"] for each in again[1:]] == [epoch == 4 for epoch in told]
        assert "continuing after epoch 2" in (copy / "0" / "log.txt").read_text()


def test_a_damaged_checkpoint_costs_one_epoch(worker, tmp_path):
    straight = worker.run(request(epochs=4), tmp_path / "straight")
    worker.begin(request(epochs=4), tmp_path / "lost")
    for _ in range(4):
        worker.step()
    (tmp_path / "lost" / "0" / "checkpoint" / "000003" / "arrays.npz").write_bytes(b"damaged")
    again = worker.run(request(epochs=4, epochs_reported=3), tmp_path / "lost")
    assert "continuing after epoch 2" in (tmp_path / "lost" / "0" / "log.txt").read_text()
    assert metrics(again) == metrics(straight)[2:]  # epoch 3 is told again, the same


def test_checkpoints_that_cannot_be_written_do_not_end_a_trial(worker, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "checkpoint").write_text("in the way")
    messages = worker.run(request(epochs=2), tmp_path)
    assert [message["kind"] for message in messages] == ["started", "epoch", "epoch"]
    assert "no checkpoint after epoch 1" in (tmp_path / "0" / "log.txt").read_text()


def test_a_trial_that_stops_early_says_that_this_was_its_last_epoch(worker, tmp_path):
    messages = worker.run(request(epochs=9, learning_rate=10.0, early_stopping_patience=1, optimizer="sgd"), tmp_path)
    assert messages[-1]["last"] is True
    assert len(messages) < 10


@pytest.fixture
def memory(monkeypatch):
    """How many `images` at once a step may have before memory runs out; and how often steps were `tried` in pieces."""
    from trainable.network import Network

    step, memory = Network.step, SimpleNamespace(images=1000, tried=[])

    def limited(network, inputs, labels, weights, dropout_seed, pieces=1):
        memory.tried.append(pieces)
        if len(labels) / pieces > memory.images:
            raise MemoryError
        return step(network, inputs, labels, weights, dropout_seed, pieces)

    monkeypatch.setattr(Network, "step", limited)
    return memory


def test_when_memory_runs_out_batches_are_halved_then_the_trial_is_infeasible_and_its_worker_ends(
    study, worker, memory, tmp_path
):
    whole = worker.run(request(), tmp_path / "whole")
    memory.images, memory.tried = 4, []
    short_of_memory = Worker(study)
    short_of_memory.begin(request(), tmp_path / "halves")
    assert short_of_memory.step()["kind"] == "started"
    epoch = short_of_memory.step()
    assert memory.tried[0] == 1
    assert set(memory.tried[1:]) == {2}
    assert epoch["epoch"] == 1
    assert epoch["metrics"] == pytest.approx(whole[1]["metrics"], rel=1e-3)
    assert "out of memory in epoch 1: batches are now computed in halves" in (tmp_path / "halves/0/log.txt").read_text()

    memory.images = 3
    failed = short_of_memory.step()
    assert (failed["kind"], failed["infeasible"]) == ("failed", True)
    assert failed["reason"] == "a batch of 8 must fit into memory, but even half of it did not in epoch 2"
    with pytest.raises(WorkerEnded):
        short_of_memory.begin(request((1, 0)), tmp_path)


def test_memory_that_runs_out_in_set_up_is_made_room_for_like_any_other(study, monkeypatch, tmp_path):
    from trainable.network import Network

    reset, warm = Network.reset, []

    def limited(network, chosen, seed):
        if network.key.depth == TOP_BLOCK and len(short_of_memory._trainable._workshop._networks) > 1:
            warm.append(len(short_of_memory._trainable._workshop._networks))
            raise MemoryError
        return reset(network, chosen, seed)

    short_of_memory = Worker(study)
    assert short_of_memory.run(request((0, 0), epochs=1), tmp_path)[-1]["last"] is True
    monkeypatch.setattr(Network, "reset", limited)
    messages = short_of_memory.run(request((1, 0), epochs=1, freeze_depth=TOP_BLOCK), tmp_path)
    assert [message["kind"] for message in messages] == ["started", "epoch"]
    assert warm == [2]
    with pytest.raises(WorkerEnded):
        short_of_memory.begin(request((2, 0)), tmp_path)


@pytest.fixture
def four_at_a_time(monkeypatch):
    """Lets memory run out when a method of networks is given more than four images; how many each call was given."""
    from trainable.network import Network

    def limit(method):
        whole, asked = getattr(Network, method), []

        def limited(network, images):
            asked.append(len(images))
            if len(images) > 4:
                raise MemoryError
            return whole(network, images)

        monkeypatch.setattr("trainable.inputs.FEW", 4)
        monkeypatch.setattr(Network, method, limited)
        return asked

    return limit


def test_where_memory_is_short_scoring_takes_few_images_at_a_time(study, worker, parts, four_at_a_time, tmp_path):
    whole = worker.run(request(), tmp_path / "whole")
    asked = four_at_a_time("probabilities")
    messages = Worker(study).run(request(), tmp_path / "few")
    assert [message["kind"] for message in messages] == ["started", "epoch", "epoch"]
    assert asked[0] == len(parts[1]) > 4 >= max(asked[1:])
    assert messages[-1]["metrics"] == pytest.approx(whole[-1]["metrics"], rel=1e-3)


def test_where_memory_is_short_the_frozen_part_takes_few_images_at_a_time(study, worker, four_at_a_time, tmp_path):
    whole = worker.run(request(), tmp_path / "whole")
    asked = four_at_a_time("prefix")
    messages = Worker(study).run(request(), tmp_path / "few")
    assert [message["kind"] for message in messages] == ["started", "epoch", "epoch"]
    assert asked[0] == 8 > 4 == max(asked[1:])
    assert messages[-1]["metrics"] == pytest.approx(whole[-1]["metrics"], rel=1e-3)


def test_a_trial_that_can_keep_no_log_runs_without(worker, tmp_path):
    (tmp_path / "0").write_text("in the way of the folder, as a full disk would be")
    assert worker.run(request(epochs=1), tmp_path)[-1]["kind"] == "epoch"


@pytest.mark.parametrize(
    ("trials", "memory_ran_out", "own", "reason"),
    [
        (0, False, 10, None),
        (499, False, 2 * 10**9, None),
        (500, False, 10, "it has run 500 trials"),
        (1, True, 10, "memory ran out in its last trial"),
        (1, False, 2 * 10**9 + 1, "it has 2.0 GB of memory, its share is 2.0 GB"),
    ],
)
def test_a_worn_worker_makes_room_for_a_fresh_one(trials, memory_ran_out, own, reason):
    from trainable.trial import Wear

    assert Wear(trials, memory_ran_out).reason(own, share=2 * 10**9) == reason


def test_importing_the_trial_class_starts_ray_and_not_tensorflow():
    code = "import sys, trainable.trial; print(*({'ray', 'tensorflow', 'keras'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.split() == ["ray"]
