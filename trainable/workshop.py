"""What one process keeps between the trials of one study: TensorFlow, images, the backbone, warm networks."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainable.devices import apply_devices, plan_devices, visible_gpus
from trainable.hyperparameters import Hyperparameters
from trainable.settings import ModelSettings

WARM_NETWORKS = 0.25  # of a worker's share of memory: optimizers' moments, 189 MB at ResNet50's depth 0, and graphs


class Workshop:
    """What one process keeps between trials of one study."""

    def __init__(self, study: Mapping[str, Any]):
        apply_devices(plan_devices(study["cpus"], study["gpus"], visible_gpus()))
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
        self._memory = WARM_NETWORKS * fair_share(study["cpus"])

    def training(self, request: Mapping[str, Any], pieces: int = 1) -> Any:
        """A training at its beginning, on a warm network where there is one."""
        from trainable.training import Training

        hyperparameters = Hyperparameters.model_validate({**self._fixed, **request["parameters"]})
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

    def usage(self) -> dict[str, float]:
        """Memory of this process, what the store holds, and how often it helped since this was last asked."""
        store, before = self._keeping.store, self._counted
        self._counted = (store.found, store.built)
        return {
            "memory_bytes": resident_bytes(),
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


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def fair_share(cpus: float) -> int:
    """Bytes of the machine's memory for a worker with so many of its CPUs, a fifth left to others."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(0.8 * total * min(1.0, cpus / (os.cpu_count() or 1)))
