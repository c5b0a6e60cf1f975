import numpy as np
import pytest

pytestmark = pytest.mark.slow


def moved(optimizer, steps=5):
    """Weights after steps with drawn gradients, at a learning rate that changes on the way."""
    import keras

    generator = np.random.default_rng(3)
    weights = [keras.Variable(generator.normal(size=shape).astype(np.float32)) for shape in ((4, 3), (3,))]
    optimizer.build(weights)
    for step in range(steps):
        optimizer.learning_rate.assign(0.1 / (step + 1))
        optimizer.apply([generator.normal(size=weight.shape).astype(np.float32) for weight in weights], weights)
    return [np.asarray(weight) for weight in weights]


def test_adam_in_one_pass_moves_weights_as_the_equations_of_keras_do(cpus):
    import keras

    from trainable.optimizers import OnePassAdam

    ours, theirs = moved(OnePassAdam()), moved(keras.optimizers.Adam())
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    assert not np.allclose(theirs[0], moved(keras.optimizers.Adam(), steps=4)[0])


@pytest.mark.parametrize(("name", "variables"), [("adam", 6), ("sgd", 4), ("rmsprop", 4)])
def test_an_optimizer_has_its_variables_before_anything_is_traced(cpus, name, variables):
    import keras

    from trainable.optimizers import build_optimizer

    weights = [keras.Variable(np.ones(3, np.float32)), keras.Variable(np.ones(2, np.float32))]
    assert len(build_optimizer(name, 0.9, weights).variables) == variables
