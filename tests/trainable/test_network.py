import functools

import numpy as np
import pytest

from trainable.hyperparameters import Hyperparameters

pytestmark = pytest.mark.slow

HEAD_ONLY, TOP_BLOCK = 17, 16  # freeze depths of ResNet50 by block


def run(network, chosen, parts, seed=1, steps=3):
    """Losses, probabilities before each step, and the state at the end, of a trial from its beginning."""
    network.reset(chosen, seed)
    return [*steps_of(network, chosen, parts, range(steps)), network.state()]


def steps_of(network, chosen, parts, numbers):
    given = []
    for step in numbers:
        batch = np.arange(step, step + chosen.batch_size) % len(parts[0])
        weights = np.linspace(0.5, 1.5, len(batch))
        inputs = network.prefix(parts[0].images[batch])
        probabilities, loss = network.step(inputs, parts[0].labels[batch], weights, (1, step))
        given += [np.asarray(probabilities), float(loss)]
    return given


def assert_identical(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            assert [name for name in a if not np.array_equal(a[name], b[name])] == []
        else:
            assert np.array_equal(a, b)


def trial(optimizer="adam", depth=TOP_BLOCK, **values):
    return Hyperparameters(freeze_depth=depth, optimizer=optimizer, batch_size=8, **values)


OTHER = {
    "batch_size": 5,
    "learning_rate": 0.05,
    "dropout": 0.5,
    "label_smoothing": 0.2,
    "weight_decay": 0.1,
    "backbone_learning_rate_factor": 3.0,
}


def test_a_warm_network_computes_bit_for_bit_what_a_cold_one_does(networks, parts):
    chosen = trial(dropout=0.2)
    cold = run(networks.cold(chosen), chosen, parts)
    assert np.isfinite(cold[1:-1:2]).all()
    warm = networks.warm(chosen)
    run(warm, trial().model_copy(update=OTHER), parts, seed=2)
    run(networks.warm(trial(depth=HEAD_ONLY)), trial(depth=HEAD_ONLY), parts)
    assert_identical(run(warm, chosen, parts), cold)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])  # Adam above
def test_no_optimizer_remembers_the_trial_before(networks, parts, optimizer):
    chosen = trial(optimizer, depth=HEAD_ONLY)
    network = networks.warm(chosen)
    first = run(network, chosen, parts)
    run(network, chosen.model_copy(update=OTHER), parts, seed=2)
    assert_identical(run(network, chosen, parts), first)


@pytest.mark.parametrize(("setting", "value"), [(name, value) for name, value in OTHER.items() if name != "batch_size"])
def test_every_setting_that_is_reset_has_an_effect(networks, parts, setting, value):
    chosen = trial()
    network = networks.warm(chosen)
    *_, plain = run(network, chosen, parts, steps=1)
    *_, other = run(network, chosen.model_copy(update={setting: value}), parts, steps=1)
    assert any(not np.array_equal(plain[name], other[name]) for name in plain)


def test_other_batch_sizes_and_settings_trace_nothing_anew(networks, parts, monkeypatch):
    import keras

    traced = []
    call = keras.layers.Dense.call

    @functools.wraps(call)
    def counted(layer, inputs, **named):
        traced.append(layer.name)
        return call(layer, inputs, **named)

    monkeypatch.setattr(keras.layers.Dense, "call", counted)  # Python runs a layer only while a graph is traced
    chosen = trial(depth=HEAD_ONLY, head_width=3)  # as wide as no other test's
    network = networks.warm(chosen)
    run(network, chosen, parts)
    network.probabilities(network.prefix(parts[1].images))
    once = len(traced)
    assert once > 0
    for size in (1, 7, 24):
        run(network, chosen.model_copy(update={**OTHER, "batch_size": size}), parts)
        network.probabilities(network.prefix(parts[1].images[:size]))
    assert len(traced) == once


def golden_start(networks, parts, **values):
    """A head on pooled features: the network, features [8, 2048], one-hot labels [8, 2], first kernel and bias."""
    chosen = trial("sgd", depth=HEAD_ONLY, momentum=0.0, learning_rate=0.01, **values)
    network = networks.warm(chosen)
    network.reset(chosen, seed=1)
    features = np.asarray(network.prefix(parts[0].images[:8]), np.float64)
    kernel, bias = (network.state()[f"head/{index}"].astype(np.float64) for index in (0, 1))
    return network, features, np.eye(2)[parts[0].labels[:8]], kernel, bias


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_of_the_head_is_what_the_equations_say(networks, parts, smoothing):
    network, features, truth, kernel, bias = golden_start(networks, parts, label_smoothing=smoothing)
    weights = np.array([1, 1, 2, 2, 0.5, 0.5, 3, 0])  # the last is padding
    given, loss = network.step(features.astype(np.float32), parts[0].labels[:8], weights, (1, 1))
    targets = (1 - smoothing) * truth + smoothing / 2
    probabilities = softmax(features @ kernel + bias)
    np.testing.assert_allclose(given, probabilities, rtol=1e-4)
    losses = -(targets * np.log(probabilities)).sum(axis=1)
    assert float(loss) == pytest.approx((weights * losses).sum() / 7, rel=1e-4)
    gradient = weights[:, None] * (probabilities - targets) / 7
    after = network.state()
    np.testing.assert_allclose(after["head/0"], kernel - 0.01 * features.T @ gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["head/1"], bias - 0.01 * gradient.sum(axis=0), rtol=1e-4, atol=1e-6)


def test_a_head_begins_with_a_glorot_uniform_kernel_of_its_seed_and_no_bias(networks, parts):
    network, _, _, kernel, bias = golden_start(networks, parts)
    assert bias.tolist() == [0, 0]
    limit = np.sqrt(6 / (2048 + 2))
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 0.05 * limit
    expected = np.random.default_rng(1).uniform(-limit, limit, (2048, 2)).astype(np.float32)
    assert np.array_equal(kernel, expected)
    network.reset(trial("sgd", depth=HEAD_ONLY, momentum=0.0), seed=2)
    assert not np.array_equal(network.state()["head/0"], kernel)


def test_dropout_drops_its_share_of_features_and_makes_up_for_it(networks, parts):
    network, features, _, kernel, _ = golden_start(networks, parts, dropout=0.25)
    labels, ones = parts[0].labels[:8], np.ones(8)
    unchanged = np.ones_like(features, dtype=np.float32)
    given, _ = network.step(unchanged, labels, ones, (3, 4))
    difference = np.diff(np.log(np.asarray(given, np.float64)), axis=1)[:, 0]
    full = (kernel[:, 1] - kernel[:, 0]).sum()
    # Over masks, the difference of logits has the mean `full` and this deviation.
    deviation = np.sqrt(0.25 / 0.75 * ((kernel[:, 1] - kernel[:, 0]) ** 2).sum())
    assert len(set(difference.round(6))) == 8
    assert np.abs(difference - full).max() < 4 * deviation
    assert 0.4 * deviation < (difference - full).std() < 2 * deviation
    network.reset(trial("sgd", depth=HEAD_ONLY, momentum=0.0, learning_rate=0.01, dropout=0.25), seed=1)
    again, _ = network.step(unchanged, labels, ones, (3, 4))
    assert np.array_equal(given, again)
    network.reset(trial("sgd", depth=HEAD_ONLY, momentum=0.0, learning_rate=0.01, dropout=0.25), seed=1)
    other, _ = network.step(unchanged, labels, ones, (3, 5))
    assert not np.array_equal(given, other)


def changes(network, chosen, parts, biases=0.0):
    """By name, what one step adds to each weight; biases begin at the given value."""
    network.reset(chosen, seed=1)
    before = {
        name: np.full_like(value, biases) if value.ndim == 1 and "optimizer" not in name else value
        for name, value in network.state().items()
    }
    network.load(before)
    steps_of(network, chosen, parts, [0])
    return {name: value - before[name] for name, value in network.state().items() if "optimizer" not in name}


def test_the_backbone_steps_by_its_factor_of_the_heads_learning_rate(networks, parts):
    full, tenth = (
        changes(networks.warm(chosen), chosen, parts)
        for chosen in (
            trial("sgd", momentum=0.0, learning_rate=1.0, backbone_learning_rate_factor=factor) for factor in (1.0, 0.1)
        )
    )
    for name, change in full.items():
        factor = 1.0 if name.startswith("head") else 0.1
        np.testing.assert_allclose(tenth[name], factor * change, rtol=0.01, atol=1e-6 + 1e-3 * np.abs(change).max())
    assert sum(name.startswith("backbone") and np.abs(change).max() > 1e-4 for name, change in full.items()) == 6


def test_the_learning_rate_moves_both_optimizers(networks, parts):
    chosen = trial("sgd", momentum=0.0, learning_rate=1.0, backbone_learning_rate_factor=0.1)
    network = networks.warm(chosen)
    assert network.key == networks.warm(trial("sgd", momentum=0.0)).key
    whole = changes(network, chosen, parts)
    network.reset(chosen, seed=1)
    before = network.state()
    network.learning_rate = 0.5
    assert network.learning_rate == 0.5
    steps_of(network, chosen, parts, [0])
    for name, value in network.state().items():
        if "optimizer" not in name:
            change = whole[name]
            np.testing.assert_allclose(
                value - before[name], change / 2, rtol=0.01, atol=1e-6 + 1e-3 * abs(change).max()
            )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_shrinks_kernels_apart_from_the_gradient_and_spares_biases(networks, parts, optimizer):
    plain = trial(optimizer, learning_rate=0.01, backbone_learning_rate_factor=0.5)
    decayed = plain.model_copy(update={"weight_decay": 0.1})
    network = networks.warm(plain)
    network.reset(plain, seed=1)
    first = network.state()
    without, shrunk = (changes(network, each, parts, biases=0.5) for each in (plain, decayed))
    for name, change in without.items():
        rate = 0.01 if name.startswith("head") else 0.005
        expected = -rate * 0.1 * first[name] if first[name].ndim > 1 else np.zeros_like(first[name])
        np.testing.assert_allclose(shrunk[name] - change, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("pieces", [2, 3, 9])
def test_a_step_in_pieces_is_that_of_the_whole_batch(networks, parts, pieces):
    chosen = trial("sgd", momentum=0.0, weight_decay=0.1, learning_rate=0.01)
    network = networks.warm(chosen)
    weights = np.array([1, 1, 2, 2, 0.5, 0.5, 3, 0])  # the last is padding

    def step(pieces):
        network.reset(chosen, seed=1)
        inputs = network.prefix(parts[0].images[:8])
        probabilities, loss = network.step(inputs, parts[0].labels[:8], weights, (1, 1), pieces)
        return np.asarray(probabilities), float(loss), network.state()

    (probabilities, loss, state), (in_pieces, loss_in_pieces, state_in_pieces) = step(1), step(pieces)
    np.testing.assert_allclose(in_pieces, probabilities, rtol=1e-4, atol=1e-6)
    assert loss_in_pieces == pytest.approx(loss, rel=1e-5)
    network.reset(chosen, seed=1)
    for name, first in network.state().items():
        if "optimizer" not in name:
            change = state[name] - first
            largest = np.abs(change).max()
            assert largest > 0
            np.testing.assert_allclose(state_in_pieces[name] - first, change, rtol=1e-2, atol=1e-2 * largest)


@pytest.mark.parametrize(
    ("optimizer", "batch_norm"), [("adam", "frozen"), ("sgd", "frozen"), ("adam", "frozen_prefix")]
)
def test_a_network_continues_from_its_state_as_if_nothing_had_been(networks, parts, optimizer, batch_norm):
    chosen = trial(optimizer, dropout=0.2)
    network = networks.warm(chosen, batch_norm)
    network.reset(chosen, seed=1)
    steps_of(network, chosen, parts, range(2))
    state = network.state()
    straight = [*steps_of(network, chosen, parts, range(2, 4)), network.state()]
    run(network, trial(optimizer, learning_rate=0.1), parts, seed=2)
    network.reset(chosen, seed=7)
    network.load(state)
    assert_identical([*steps_of(network, chosen, parts, range(2, 4)), network.state()], straight)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_state_stays_what_it_was_while_its_network_trains_on(networks, parts, optimizer):
    chosen = trial(optimizer)
    network = networks.warm(chosen, "frozen_prefix")
    network.reset(chosen, seed=1)
    steps_of(network, chosen, parts, [0])
    state = network.state()
    copied = {name: value.copy() for name, value in state.items()}
    steps_of(network, chosen, parts, [1, 2])
    assert not np.array_equal(network.state()["head/0"], copied["head/0"])
    network.reset(chosen, seed=2)
    network.load(state)
    steps_of(network, chosen, parts, [3])
    for name, value in state.items():
        np.testing.assert_array_equal(value, copied[name], err_msg=name)
    with pytest.raises(ValueError, match="read-only"):
        state["head/0"][:] = 0.0


def test_a_state_holds_the_weights_that_can_move(networks):
    head = {"head/0", "head/1"}
    top = {f"backbone/conv5_block3_{n}_conv/{name}" for n in (1, 2, 3) for name in ("kernel", "bias")}

    def weights(batch_norm, depth):
        return {name for name in networks.warm(trial(depth=depth), batch_norm).state() if "optimizer" not in name}

    assert weights("frozen", HEAD_ONLY) == head
    assert weights("frozen", TOP_BLOCK) == head | top
    with_batch_norms = weights("frozen_prefix", TOP_BLOCK)
    assert with_batch_norms >= head | top | {f"backbone/conv5_block3_{n}_bn/gamma" for n in (1, 2, 3)}
    assert {f"statistics/conv5_block3_{n}_bn/moving_mean" for n in (1, 2, 3)} <= with_batch_norms


@pytest.mark.parametrize("depth", [HEAD_ONLY, TOP_BLOCK])
def test_a_state_of_another_network_is_refused(networks, depth):
    state = networks.warm(trial(depth=depth)).state()
    other = networks.warm(trial(depth=HEAD_ONLY + TOP_BLOCK - depth))
    with pytest.raises(ValueError, match="exactly this network's variables"):
        other.load(state)


def test_the_share_of_weights_that_train_counts_the_head(networks):
    head_only = networks.warm(trial(depth=HEAD_ONLY))
    assert head_only.trainable_share == pytest.approx(4_098 / (23_587_712 + 4_098))
    top = 2048 * 512 + 512 + 9 * 512 * 512 + 512 + 512 * 2048 + 2048
    assert networks.warm(trial()).trainable_share == pytest.approx((4_098 + top) / (23_587_712 + 4_098))


def test_the_whole_model_saved_and_loaded_safely_gives_the_same_probabilities(networks, parts, tmp_path):
    import keras

    from trainable.training import predict

    chosen = trial(learning_rate=1e-5)
    network = networks.warm(chosen, "frozen_prefix")  # so that statistics move as well
    run(network, chosen, parts)
    images = parts[1].images
    given = predict(network, images)
    assert np.ptp(given[:, 0]) > 0.01
    network.whole_model().save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    (tmp_path / "model.keras").unlink()  # 95 MB, and pytest keeps the folders of three runs
    theirs = np.asarray(loaded(np.repeat(images, 3, axis=-1).astype(np.float32), training=False))
    np.testing.assert_allclose(theirs, given, atol=1e-3)  # folded BatchNorms round otherwise


def test_an_unknown_optimizer_is_a_programming_error(networks):
    from dataclasses import replace

    from trainable.network import Network

    key = replace(networks.warm(trial(depth=HEAD_ONLY)).key, optimizer="lion")
    with pytest.raises(ValueError, match="must be adam, sgd or rmsprop, but got 'lion'"):
        Network(networks.backbone, key)
