"""One backbone cut at one depth, with its head and optimizer: what a trial trains. Kept warm from trial to trial.

The graphs are traced once, for any batch size, learning rate, dropout, label smoothing and weight decay, because all of
these are variables. A new trial only resets values, so it starts in milliseconds and computes exactly what a fresh
network would.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainable.backbone import Backbone
from trainable.forward import forward
from trainable.hyperparameters import Hyperparameters
from trainable.optimizers import build_optimizer
from trainable.settings import ModelSettings

Arrays = dict[str, np.ndarray]

# Of its graphs and what oneDNN keeps for them: a worker grew by 1.5 GB over ResNet50's six depths at 64 px, of which
# 0.86 GB are Adam's moments (2026-11).
GRAPH_BYTES = 100_000_000


@dataclass(frozen=True)
class NetworkKey:
    """What a network's graphs depend on; two trials with equal keys share them."""

    depth: int
    channels: int
    classes: int
    head_width: int
    optimizer: str
    momentum: float
    batch_norm: str
    xla: bool

    @classmethod
    def of(cls, hyperparameters: Hyperparameters, model: ModelSettings, channels: int, classes: int) -> "NetworkKey":
        """The key of the network that a trial needs."""
        return cls(
            depth=hyperparameters.freeze_depth,
            channels=channels,
            classes=classes,
            head_width=hyperparameters.head_width,
            optimizer=hyperparameters.optimizer,
            momentum=hyperparameters.momentum if hyperparameters.optimizer == "sgd" else 0.0,
            batch_norm=model.batch_norm_policy,
            xla=bool(model.xla),
        )


class Graph:
    """A function as one graph, made at the first call. A `tf.function` looks for the right trace at every call, 0.3 ms;
    here there is only one.

    Args:
        function: Of tensors.
        signature: Shapes and types of its inputs, possibly in lists.
        xla: Whether XLA compiles it.
    """

    def __init__(self, function: Any, signature: list[Any], xla: bool):
        self._function = tf.function(function, signature, autograph=False, jit_compile=xla)

    def __call__(self, *inputs: Any) -> Any:
        return self._trace(*inputs)

    @cached_property
    def _trace(self) -> Any:
        return self._function.get_concrete_function()


class Network:
    """A cut backbone with a head: steps, predictions, and the state that a checkpoint holds."""

    def __init__(self, backbone: Backbone, key: NetworkKey):
        self.key = key
        self.backbone = backbone
        # With `train`, statistics below the cut move too, so nothing is a fixed prefix: the graph starts at the image.
        self.cut = 0 if key.batch_norm == "train" else key.depth
        self._head = _build_head(backbone.features, key.head_width, key.classes)
        self._backbone_weights = _moving_weights(backbone, key)
        self._head_weights = list(self._head.trainable_variables)
        self._backbone_optimizer = build_optimizer(key.optimizer, key.momentum, self._backbone_weights)
        self._head_optimizer = build_optimizer(key.optimizer, key.momentum, self._head_weights)
        self._continued: dict[int, Graph] = {}
        self._inputs_dtype = backbone.output_dtype(self.cut)
        self._dropout = tf.Variable(0.0, trainable=False)
        self._label_smoothing = tf.Variable(0.0, trainable=False)
        self._weight_decay = tf.Variable(0.0, trainable=False)
        side = backbone.model.input_shape[1]
        images = tf.TensorSpec([None, side, side, key.channels], tf.float32)
        self.input_shape = backbone.cut_shape(self.cut)
        inputs = tf.TensorSpec([None, *self.input_shape], backbone.output_dtype(self.cut))
        labels, weights = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)
        signature = [inputs, labels, weights, tf.TensorSpec([], tf.float32), tf.TensorSpec([2], tf.int32)]
        # A free batch dimension: one trace serves every batch size, the last and smaller batch included.
        self._prefix = self._graph(self._compute_prefix, [images])
        self._step = self._graph(self._compute_step, signature)
        self._gradients = self._graph(self._compute_gradients, signature)
        moving = (*self._backbone_weights, *self._head_weights)
        self._apply = self._graph(self._compute_update, [[tf.TensorSpec(each.shape, tf.float32) for each in moving]])
        self._probabilities = self._graph(self._compute_probabilities, [inputs])

    def reset(self, hyperparameters: Hyperparameters, seed: int) -> None:
        """Become what a fresh network of these hyperparameters and this seed would be.

        Args:
            hyperparameters: Must have this network's key.
            seed: Of the head's first weights, in [0, 2**32).
        """
        self.backbone.restore()
        for weight, value in zip(self._head_weights, _first_head(self._head_weights, seed), strict=True):
            weight.assign(value)
        for optimizer in (self._backbone_optimizer, self._head_optimizer):
            for variable in optimizer.variables:
                variable.assign(tf.zeros_like(variable))
        self.factor = hyperparameters.backbone_learning_rate_factor
        self.learning_rate = hyperparameters.learning_rate
        self._dropout.assign(hyperparameters.dropout)
        self._label_smoothing.assign(hyperparameters.label_smoothing)
        self._weight_decay.assign(hyperparameters.weight_decay)

    @property
    def learning_rate(self) -> float:
        """Step size of the head; setting it scales the backbone's as well."""
        return float(self._head_optimizer.learning_rate.numpy())

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._head_optimizer.learning_rate.assign(value)
        self._backbone_optimizer.learning_rate.assign(value * self.factor)

    @property
    def trainable_share(self) -> float:
        """Share of all weights, head included, that gradients move."""
        moving = sum(int(np.prod(w.shape)) for w in (*self._backbone_weights, *self._head_weights))
        return moving / (self.backbone.parameters + sum(int(np.prod(w.shape)) for w in self._head_weights))

    @cached_property
    def bytes(self) -> int:
        """What it holds beside the backbone's weights, which networks share: head, optimizers, graphs."""
        optimizers = (*self._backbone_optimizer.variables, *self._head_optimizer.variables)
        return GRAPH_BYTES + sum(4 * int(np.prod(each.shape)) for each in (*optimizers, *self._head_weights))

    def prefix(self, pixels: Any) -> Any:
        """Images [n, height, width, channels] 0..255 to what the cut passes on; the preprocessed images at depth 0."""
        return self._prefix(tf.cast(pixels, tf.float32))

    def continue_prefix(self, depth: int, features: Any) -> Any:
        """What `prefix` gives, from the output of a shallower cut."""
        if depth not in self._continued:
            shape = self.backbone.cut_shape(depth)
            spec = tf.TensorSpec([None, *shape], self.backbone.output_dtype(depth))
            self._continued[depth] = self._graph(forward(self.backbone.between(depth, self.cut)), [spec])
        return self._continued[depth](tf.cast(features, self.backbone.output_dtype(depth)))

    def step(
        self, inputs: Any, labels: np.ndarray, weights: np.ndarray, dropout_seed: tuple[int, int], pieces: int = 1
    ) -> tuple[Any, Any]:
        """One optimizer step.

        Args:
            inputs: What `prefix` gave, [n, ...].
            labels: [n] int class indices.
            weights: [n] weight of each image in the loss; 0 for padding.
            dropout_seed: Two ints; the same pair drops the same features.
            pieces: Compute the gradient of so many pieces of the batch one after the other, for want of memory; the
                step is that of the whole batch, up to rounding (and to dropout and batch statistics, which are per
                piece).

        Returns:
            Probabilities [n, classes] before the step, and the weighted loss, which may be NaN or infinite.
        """
        batch = (self._fed(inputs), tf.constant(labels, tf.int32), tf.constant(weights, tf.float32))
        seed = tf.constant(dropout_seed, tf.int32)
        count = tf.constant(np.count_nonzero(weights), tf.float32)
        if pieces == 1:
            return self._step(*batch, count, seed)
        size = -(-len(labels) // pieces)
        parts = [
            self._gradients(*(values[start : start + size] for values in batch), count, seed)
            for start in range(0, len(labels), size)
        ]
        probabilities, losses, gradients = zip(*parts, strict=True)
        self._apply([tf.add_n(each) for each in zip(*gradients, strict=True)])
        return tf.concat(probabilities, 0), tf.add_n(losses)

    def probabilities(self, inputs: Any) -> Any:
        """[n, classes], rows adding up to 1, for what `prefix` gave."""
        return self._probabilities(self._fed(inputs))

    def state(self) -> Arrays:
        """Everything that training has moved, by name: weights above the cut, BatchNorm statistics, optimizer.

        The arrays are read-only and stay what they are. On a CPU they are the variables' own memory: the next step that
        moves a variable leaves it to them and goes on in a copy, so the state of a training that ends costs nothing.
        """
        return {name: np.asarray(variable.value.read_value()) for name, variable in self._stateful().items()}

    def load(self, state: Arrays) -> None:
        """Continue from what `state` gave, after a `reset`.

        Raises:
            ValueError: when names or shapes are not this network's.
        """
        variables = self._stateful()
        if state.keys() != variables.keys():
            raise ValueError("a checkpoint must hold exactly this network's variables")
        for name, variable in variables.items():
            variable.assign(state[name])

    def whole_model(self) -> keras.Model:
        """The trained network as one Keras model: images [n, height, width, 3] 0..255 to probabilities."""
        model = self.backbone.model
        images = keras.Input(model.input_shape[1:], name="image")
        pooled = self.backbone.suffix(0)(self.backbone.preprocess(images))
        probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(self._head(pooled))
        return keras.Model(images, probabilities, name="thawline")

    def _graph(self, function: Any, signature: list[Any]) -> Graph:
        return Graph(function, signature, self.key.xla)

    def _fed(self, inputs: Any) -> Any:
        return tf.cast(inputs, self._inputs_dtype)

    def _stateful(self) -> dict[str, Any]:
        weights = {f"backbone/{v.path}": v for v in self._backbone_weights}
        if self.key.batch_norm != "frozen":
            weights |= {f"statistics/{v.path}": v for v in self.backbone.variables if "moving_" in v.path}
        weights |= {f"head/{index}": v for index, v in enumerate(self._head_weights)}
        for name, optimizer in (("backbone", self._backbone_optimizer), ("head", self._head_optimizer)):
            weights |= {f"{name}_optimizer/{index}": v for index, v in enumerate(optimizer.variables)}
        return weights

    def _compute_prefix(self, pixels: Any) -> Any:
        images = self.backbone.preprocess(pixels)
        return forward(self.backbone.prefix(self.cut))(images) if self.cut else images

    def _pool(self, inputs: Any, training: bool) -> Any:
        if self.cut == self.backbone.depth:
            pooled = inputs
        elif self.key.batch_norm == "frozen":
            pooled = forward(self.backbone.suffix(self.cut))(inputs)
        else:
            pooled = self.backbone.suffix(self.cut)(inputs, training=training)
        return tf.cast(pooled, tf.float32)

    def _compute_step(self, inputs: Any, labels: Any, weights: Any, count: Any, dropout_seed: Any) -> tuple[Any, Any]:
        probabilities, loss, gradients = self._compute_gradients(inputs, labels, weights, count, dropout_seed)
        self._compute_update(gradients)
        return probabilities, loss

    def _compute_gradients(
        self, inputs: Any, labels: Any, weights: Any, count: Any, dropout_seed: Any
    ) -> tuple[Any, Any, Any]:
        """Probabilities, and loss and gradients as this part's share of a batch of `count` images."""
        moving = [weight.value for weight in (*self._backbone_weights, *self._head_weights)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(moving)
            pooled = _drop(self._pool(inputs, training=True), self._dropout, dropout_seed)
            logits = tf.cast(self._head(pooled), tf.float32)
            targets = _smooth(labels, self.key.classes, self._label_smoothing)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_sum(losses * weights) / count
        return tf.nn.softmax(logits), loss, tape.gradient(loss, moving)

    def _compute_update(self, gradients: Any) -> None:
        split = len(self._backbone_weights)
        tf.cond(self._weight_decay > 0, self._decay, tf.no_op)  # without any, a pass over all weights less
        if self._backbone_weights:
            self._backbone_optimizer.apply(gradients[:split], self._backbone_weights)
        self._head_optimizer.apply(gradients[split:], self._head_weights)

    def _decay(self) -> tf.Operation:
        """Decoupled weight decay (Loshchilov and Hutter 2019), of kernels only."""
        for optimizer, weights in (
            (self._backbone_optimizer, self._backbone_weights),
            (self._head_optimizer, self._head_weights),
        ):
            for weight in weights:
                if len(weight.shape) > 1:
                    weight.assign(weight * (1.0 - optimizer.learning_rate * self._weight_decay))
        return tf.no_op()

    def _compute_probabilities(self, inputs: Any) -> Any:
        return tf.nn.softmax(tf.cast(self._head(self._pool(inputs, training=False)), tf.float32))


def _moving_weights(backbone: Backbone, key: NetworkKey) -> list[Any]:
    weights = backbone.suffix_variables(key.depth, batch_norms=key.batch_norm != "frozen")
    if key.batch_norm != "train":
        return weights
    chosen = {weight.path for weight in weights}
    return weights + [w for w in backbone.batch_norm_weights() if w.path not in chosen]


def _build_head(features: int, width: int, classes: int) -> keras.Sequential:
    hidden = [keras.layers.Dense(width, activation="relu", name="hidden")] if width else []
    output = keras.layers.Dense(classes, name="logits", dtype="float32")
    return keras.Sequential([keras.Input((features,)), *hidden, output], name="head")


def _first_head(weights: list[Any], seed: int) -> list[np.ndarray]:
    """Glorot uniform kernels and zero biases (Glorot and Bengio 2010), drawn by NumPy so that no global state
    matters.
    """
    generator = np.random.default_rng(seed)
    values = []
    for weight in weights:
        shape = tuple(weight.shape)
        limit = np.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0
        values.append(generator.uniform(-limit, limit, shape).astype(np.float32))
    return values


def _drop(features: Any, rate: Any, seed: Any) -> Any:
    def dropped() -> Any:
        kept = tf.random.stateless_uniform(tf.shape(features), seed) >= rate
        return tf.where(kept, features / (1.0 - rate), 0.0)

    return tf.cond(rate > 0, dropped, lambda: tf.identity(features))  # a quarter of a head's step when nothing drops


def _smooth(labels: Any, classes: int, smoothing: Any) -> Any:
    return tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / classes
