import math

import numpy as np
import pytest

from trainable.checkpoint import Checkpoints
from trainable.errors import TrialError
from trainable.hyperparameters import Hyperparameters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cpus")]  # its module imports TensorFlow

HEAD_ONLY, TOP_BLOCK = 17, 16  # freeze depths of ResNet50 by block


@pytest.fixture
def new_training(networks, parts):
    """A training at its beginning on a warm network."""
    from trainable.training import Task, Training

    def make(chosen=None, epochs=3, network=None, task=None, **values):
        chosen = chosen or settings()
        task = task or Task(*parts, positive=1, view_seed=1)
        return Training(network or networks.warm(chosen), chosen, task, seed=3, epochs=epochs, **values)

    return make


def settings(depth=HEAD_ONLY, **values):
    return Hyperparameters(**{"freeze_depth": depth, "batch_size": 8, "learning_rate": 1e-3, **values})


def run(training):
    results = []
    while not results or not results[-1].last:
        results.append(training.run_epoch())
    return results


@pytest.mark.parametrize(
    ("patience", "losses", "factors"),
    [
        (2, [3, 2, 1, 0.5], [1, 1, 1, 1]),
        (2, [1, 1, 1, 1, 1], [1, 1, 0.5, 1, 0.5]),
        (1, [1, 2, 0.5, 2, 2], [1, 0.5, 1, 0.5, 0.5]),
        (2, [1, 2, 0.9, 2, 2], [1, 1, 1, 1, 0.5]),  # an improvement begins the wait again
        (1, [1, 0.99995, 0.9998], [1, 0.5, 1]),  # less than 1e-4 is no improvement
        (1, [1, math.nan, 0.5], [1, 0.5, 1]),
        (0, [1, 2, 3, 4], [1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_falls_after_so_many_epochs_without_a_lower_loss(patience, losses, factors):
    from trainable.training import Plateau

    plateau = Plateau(patience, factor=0.5)
    assert [plateau.update(loss) for loss in losses] == factors


@pytest.mark.parametrize(
    ("patience", "sign", "values", "stops"),
    [
        (2, 1, [0.5, 0.6, 0.7, 0.8], [False, False, False, False]),
        (2, 1, [0.5, 0.5, 0.5], [False, False, True]),
        (2, 1, [0.5, 0.4, 0.6, 0.5, 0.6], [False, False, False, False, True]),
        (1, -1, [3.0, 2.0, 1.0, 1.5], [False, False, False, True]),
        (1, -1, [-1.0, -2.0, -1.0], [False, False, True]),
        (2, 1, [math.nan, math.nan, 0.5], [False, True, False]),
        (0, 1, [0.5, 0.1, 0.1, 0.1], [False, False, False, False]),
    ],
)
def test_a_training_ends_after_so_many_epochs_without_a_better_value(patience, sign, values, stops):
    from trainable.training import Stopping

    stopping = Stopping(patience, sign)
    assert [stopping.update(value) for value in values] == stops


@pytest.mark.parametrize(
    ("labels", "classes", "rule", "expected"),
    [
        ([0, 0, 0, 1], 2, "balanced", [2 / 3, 2]),
        ([0, 1, 2, 2], 3, "balanced", [4 / 3, 4 / 3, 2 / 3]),
        ([0, 1], 2, "balanced", [1, 1]),
        ([0, 0, 0, 1], 2, "none", [1, 1]),
    ],
)
def test_balanced_classes_weigh_the_same_together_and_an_image_one_on_average(labels, classes, rule, expected):
    from trainable.training import class_weights

    weights = class_weights(np.array(labels), classes, rule)
    assert weights == pytest.approx(expected)
    assert weights[labels].mean() == pytest.approx(1)


def test_a_class_without_images_has_a_finite_weight():
    from trainable.training import class_weights

    assert np.isfinite(class_weights(np.array([0, 0]), 2, "balanced")).all()


def test_batches_hold_every_image_once_and_are_sorted_inside():
    from trainable.training import batches

    order = np.array([6, 2, 5, 0, 1, 4, 3])
    assert [batch.tolist() for batch in batches(order, 3)] == [[2, 5, 6], [0, 1, 4], [3]]


def test_the_identity_of_an_image_is_that_of_its_file_wherever_it_stands():
    from trainable.training import image_keys

    files = ["ill/a.png", "ill/ä.png", "well/a.png", "ill/\udcff.png"]
    keys = image_keys(files)
    assert len(set(keys.tolist())) == 4
    assert image_keys(files[::-1]).tolist() == keys[::-1].tolist()
    assert image_keys(files[2:3]).tolist() == [keys[2]]
    assert keys[0] == 9_875_314_204_889_393_354  # views must be the same in every release


def test_epochs_report_every_score_for_both_parts_and_the_last_one_says_so(new_training):
    training = new_training(epochs=2)
    results = run(training)
    scores = {"accuracy", "balanced_accuracy", "auc", "f1", "sensitivity", "specificity", "loss"}
    assert [(result.epoch, result.last) for result in results] == [(1, False), (2, True)]
    for result in results:
        assert result.metrics.keys() == {*scores, *(f"val_{n}" for n in scores), "learning_rate", "trainable_share"}
        assert all(math.isfinite(value) for value in result.metrics.values())
        assert result.seconds.keys() >= {"train", "validation"}
    assert training.history == [{"epoch": result.epoch, **result.metrics} for result in results]


def test_training_learns_the_images_it_sees(new_training):
    results = run(new_training(settings(augmentation_strength=0, learning_rate=3e-3), epochs=8))
    assert results[-1].metrics["auc"] > 0.95
    assert results[-1].metrics["loss"] < results[0].metrics["loss"] / 2


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(new_training, networks, parts):
    from trainable.training import Task, Training

    first, again = (run(new_training(epochs=1)) for _ in range(2))
    assert first[0].metrics == again[0].metrics
    chosen = settings()
    task = Task(*parts, positive=1, view_seed=1)
    other = Training(networks.warm(chosen), chosen, task, seed=4, epochs=1).run_epoch()
    assert other.metrics != first[0].metrics


def test_a_resumed_training_equals_the_uninterrupted_one_metric_for_metric(new_training, networks, tmp_path):
    chosen = settings(
        TOP_BLOCK, optimizer="sgd", dropout=0.2, plateau_patience=1, plateau_factor=0.1, early_stopping_patience=3
    )
    straight = new_training(chosen)
    run(straight)
    interrupted = new_training(chosen)
    interrupted.run_epoch()
    Checkpoints(tmp_path, "it").save(interrupted.checkpoint())
    resumed = new_training(chosen, network=networks.cold(chosen))
    resumed.restore(Checkpoints(tmp_path, "it").load())
    assert resumed.epoch == 1
    run(resumed)
    assert resumed.history == straight.history
    assert len(resumed.history) == 3


def test_a_resumed_training_still_knows_how_long_it_has_waited(new_training):
    chosen = settings(plateau_patience=2, early_stopping_patience=3, learning_rate=1e-9, augmentation_strength=0)
    objective = ("val_accuracy", "maximize")
    straight = new_training(chosen, epochs=9, objective=objective)
    assert len(run(straight)) == 4  # the first sets the mark, three more don't pass it
    assert [row["learning_rate"] for row in straight.history] == pytest.approx([1e-9, 1e-9, 1e-9, 5e-10])
    interrupted = new_training(chosen, epochs=9, objective=objective)
    for _ in range(3):
        interrupted.run_epoch()
    checkpoint = interrupted.checkpoint()
    resumed = new_training(chosen, epochs=9, objective=objective)
    resumed.restore(checkpoint)
    assert len(run(resumed)) == 1
    assert resumed.history == straight.history


def test_the_arrays_of_a_checkpoint_do_not_change_when_training_goes_on(new_training):
    training = new_training(settings(optimizer="sgd"))
    training.run_epoch()
    checkpoint = training.checkpoint()
    arrays = {name: array.copy() for name, array in checkpoint.arrays.items()}
    training.run_epoch()
    assert all(np.array_equal(arrays[name], array) for name, array in checkpoint.arrays.items())
    assert any(not np.array_equal(arrays[name], array) for name, array in training.checkpoint().arrays.items())
    assert checkpoint.epoch == 1


def test_a_checkpoint_of_another_network_is_refused(new_training):
    training = new_training(settings(optimizer="sgd"))
    with pytest.raises(ValueError, match="exactly this network's variables"):
        training.restore(new_training(settings(optimizer="adam")).checkpoint())


def test_a_loss_that_is_not_finite_is_a_trial_error_that_names_epoch_and_step(new_training):
    chosen = settings(TOP_BLOCK, optimizer="sgd", learning_rate=10.0, batch_size=1)
    training = new_training(chosen)
    with pytest.raises(TrialError, match=r"the loss must stay finite, but was (nan|inf) in epoch 1, step \d+$"):
        run(training)
    after = new_training(settings(TOP_BLOCK, optimizer="sgd"), epochs=1).run_epoch()
    assert math.isfinite(after.metrics["loss"])


def test_given_learning_rates_replace_plateaus_and_the_last_one_stays(new_training):
    training = new_training(settings(plateau_patience=1), epochs=4, learning_rates=[1e-3, 1e-9, 1e-10])
    run(training)
    assert [row["learning_rate"] for row in training.history] == pytest.approx([1e-3, 1e-9, 1e-10, 1e-10])


def test_without_validation_images_the_training_loss_decides(new_training, parts):
    from trainable.training import Task

    task = Task(parts[0], None, positive=1, view_seed=1)
    chosen = settings(plateau_patience=1, early_stopping_patience=1, learning_rate=1e-9, augmentation_strength=0)
    training = new_training(chosen, task=task)
    results = run(training)
    assert [result.last for result in results] == [False, False, True]  # no val_loss, so nothing to stop early by
    assert not any(name.startswith("val_") for name in results[0].metrics)
    assert results[1].metrics["learning_rate"] == pytest.approx(1e-9)
    assert results[2].metrics["learning_rate"] == pytest.approx(5e-10)


@pytest.mark.parametrize(("objective", "epochs"), [(("val_auc", "maximize"), 2), (("val_auc", "minimize"), 2)])
def test_early_stopping_looks_at_the_objective(new_training, objective, epochs):
    chosen = settings(early_stopping_patience=1, learning_rate=1e-9, augmentation_strength=0)
    assert len(run(new_training(chosen, epochs=5, objective=objective))) == epochs


def test_a_network_that_the_last_step_of_an_epoch_ruined_is_not_scored(new_training, monkeypatch):
    from trainable.network import Network

    step, steps = Network.step, []

    def ruining(network, *given):
        result = step(network, *given)
        steps.append(1)
        if len(steps) == 3:  # 21 images in batches of 8
            network._head_weights[0].assign(np.full(network._head_weights[0].shape, np.nan, np.float32))
        return result

    monkeypatch.setattr(Network, "step", ruining)
    with pytest.raises(TrialError, match="probabilities must stay finite, but some are not after epoch 1"):
        new_training(objective=("val_accuracy", "maximize")).run_epoch()
    assert len(steps) == 3


def test_epochs_see_new_views_or_cycle_through_a_finite_number(new_training):
    def losses(**values):
        # At this learning rate nothing is learnt, so the loss tells which pixels were seen.
        chosen = settings(learning_rate=1e-12, batch_size=64, **values)
        return [round(result.metrics["loss"], 4) for result in run(new_training(chosen, epochs=4))]

    first, second, third, fourth = losses(augmentation_strength=1.0, views=2)
    assert (first, second) == (third, fourth)
    assert first != second
    assert len(set(losses(augmentation_strength=1.0))) == 4
    assert len(set(losses(augmentation_strength=0.0))) == 1


def test_every_epoch_takes_every_image_once_in_an_order_of_its_own(new_training, parts, monkeypatch):
    from trainable.network import Network

    step, taken = Network.step, []

    def recorded(network, inputs, labels, *others):
        taken.extend(labels.tolist())
        return step(network, inputs, labels, *others)

    monkeypatch.setattr(Network, "step", recorded)
    count = len(parts[0])
    orders = []
    for _ in range(2):
        taken.clear()
        run(new_training(settings(batch_size=1), epochs=2))
        orders.append((taken[:count], taken[count:]))
    first, second = orders[0]
    assert orders[1] == orders[0]
    assert sorted(first) == sorted(second) == sorted(parts[0].labels.tolist())
    assert first != second


def test_the_epochs_of_a_pass_share_out_its_images_and_its_view(new_training, parts, monkeypatch):
    from trainable.inputs import Inputs
    from trainable.network import Network

    step, training, taken, passes = Network.step, Inputs.training, [], []

    def recorded(network, inputs, *others):
        taken.append(np.asarray(inputs, np.float64).sum(axis=1).tolist())
        return step(network, inputs, *others)

    def counted(inputs, pictures, number):
        passes.append(number)
        return training(inputs, pictures, number)

    monkeypatch.setattr(Network, "step", recorded)
    monkeypatch.setattr(Inputs, "training", counted)
    chosen = settings(batch_size=64, augmentation_strength=0, epochs_per_pass=3)
    results = run(new_training(chosen, epochs=6))
    first, second = (sorted(value for part in taken[start : start + 3] for value in part) for start in (0, 3))
    assert [len(each) for each in taken[:3]] == [7, 7, 7]
    assert len(set(first)) == len(parts[0]) == 21
    assert second == pytest.approx(first)
    assert sorted(taken[3]) != pytest.approx(sorted(taken[0]))
    assert passes == [1, 1, 1, 2, 2, 2]
    assert all(math.isfinite(result.metrics["loss"]) for result in results)


def test_patience_is_counted_in_passes(new_training):
    chosen = settings(early_stopping_patience=1, learning_rate=1e-9, augmentation_strength=0, epochs_per_pass=2)
    assert len(run(new_training(chosen, epochs=9, objective=("val_auc", "maximize")))) == 4
    chosen = settings(plateau_patience=1, plateau_factor=0.5, learning_rate=1e-9, epochs_per_pass=2)
    rates = [result.metrics["learning_rate"] for result in run(new_training(chosen, epochs=6))]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-9, 1e-9, 5e-10, 5e-10])


def test_a_training_resumed_within_a_pass_equals_the_uninterrupted_one(new_training):
    chosen = settings(epochs_per_pass=3, dropout=0.1)
    whole = [result.metrics for result in run(new_training(chosen, epochs=5))]
    first = new_training(chosen, epochs=5)
    first.run_epoch()
    first.run_epoch()
    left = first.checkpoint()
    resumed = new_training(chosen, epochs=5)
    resumed.restore(left)
    assert [result.metrics for result in run(resumed)] == whole[2:]


def test_every_epoch_drops_other_features(new_training):
    chosen = settings(augmentation_strength=0, learning_rate=1e-12, batch_size=64, dropout=0.5)
    assert len({round(result.metrics["loss"], 4) for result in run(new_training(chosen))}) == 3


def test_a_prediction_does_not_depend_on_the_batch_size(networks, parts):
    from trainable.training import predict

    network = networks.warm(settings())
    network.reset(settings(), seed=1)
    whole = predict(network, parts[0].images)
    assert whole.shape == (len(parts[0]), 2)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(predict(network, parts[0].images, batch_size=5), whole, rtol=1e-4, atol=1e-6)
