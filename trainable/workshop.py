"""What one process keeps between the trials of one study: TensorFlow, images, the backbone, warm networks."""

import gc
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainable.devices import apply_devices, gpu_bytes, plan_devices, visible_gpus
from trainable.hyperparameters import Hyperparameters
from trainable.memory import fair_share, own_bytes
from trainable.settings import ModelSettings

# Of a worker's share of the memory that networks lie in: optimizers' moments, 189 MB at ResNet50's depth 0, and graphs.
WARM_NETWORKS = 0.25


class Workshop:
    """What one process keeps between trials of one study."""

    def __init__(self, study: Mapping[str, Any]):
        devices = plan_devices(study["cpus"], study["gpus"], visible_gpus())
        apply_devices(devices)
        from trainable.backbone import Backbone  # TensorFlow starts here, under the limits just set
        from trainable.dataset import ImageSet
        from trainable.features import CPU_SPEED, GPU_SPEED, FeatureStore
        from trainable.inputs import Keeping
        from trainable.training import Task

        arrays: Path = study["arrays"]
        self.model = ModelSettings.model_validate(study["model"])
        self._fixed = study["training"]
        self._objective = tuple(study["objective"])
        self.task = Task(
            train=ImageSet.open(arrays, "train"),
            validation=ImageSet.open(arrays, "validation"),
            positive=study["positive"],
            view_seed=study["seed"],
        )
        store = FeatureStore(study["features"], int(self.model.features_gigabytes * 1e9))
        speed = GPU_SPEED * study["gpus"] if study["gpus"] else CPU_SPEED * study["cpus"]
        self._counted = (0, 0)
        self._keeping = Keeping(store, study["identity"], self.model.features, self.model.features_dtype, speed)
        image_size = self.task.train.images.shape[1]
        self.backbone = Backbone(self.model, image_size, study["seed"])
        self._networks: OrderedDict[Any, Any] = OrderedDict()
        self._memory = WARM_NETWORKS * min(fair_share(study["cpus"]), gpu_bytes(devices))

    def training(self, request: Mapping[str, Any], pieces: int = 1) -> Any:
        """A training at its beginning, on a warm network where there is one."""
        from trainable.training import Training

        hyperparameters = self.chosen(request)
        return Training(
            self.network(hyperparameters),
            hyperparameters,
            self.task,
            request["seed"],
            request["epochs"],
            self._objective,
            keeping=self._keeping,
            pieces=pieces,
        )

    def chosen(self, request: Mapping[str, Any]) -> Hyperparameters:
        """What the study fixes and the trial varies."""
        return Hyperparameters.model_validate({**self._fixed, **request["parameters"]})

    def usage(self) -> dict[str, float]:
        """Memory of this process, what the store holds, and how often it helped since this was last asked."""
        store, before = self._keeping.store, self._counted
        self._counted = (store.found, store.built)
        return {
            "memory_bytes": own_bytes(),
            "features_found": store.found - before[0],
            "features_built": store.built - before[1],
            "features_bytes": store.bytes,
        }

    def network(self, hyperparameters: Hyperparameters) -> Any:
        """The network for these hyperparameters; the least recently used go when they take too much memory together."""
        from trainable.network import Network, NetworkKey

        key = NetworkKey.of(hyperparameters, self.model, self.task.train.images.shape[-1], len(self.task.train.classes))
        if key not in self._networks:
            self._networks[key] = Network(self.backbone, key)
        self._networks.move_to_end(key)
        while len(self._networks) > 1 and sum(each.bytes for each in self._networks.values()) > self._memory:
            self._networks.popitem(last=False)
        return self._networks[key]

    def clear(self) -> None:
        """Let go of all warm networks: whoever ran out of memory is to have it alone."""
        self._networks.clear()
        gc.collect()  # graphs and what they are of hold each other
