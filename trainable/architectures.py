"""Backbones as plain values: their names in Keras, what they expect, and where they may be cut.

A cut is a layer whose output is all that the rest of the network sees, so everything before it can be frozen and its
output stored. The last cut is the pooled output of the whole backbone.
"""

from dataclasses import dataclass
from typing import Literal

POOLED = "pooled"


@dataclass(frozen=True)
class Architecture:
    """One `keras.applications` network without its top.

    Attributes:
        keras_name: Class in `keras.applications`.
        module: Module in `keras.applications` with its `preprocess_input`.
        stages: Layer after each stage, from the stem up; the last is `POOLED`.
        blocks: The same by residual (or dense, or convolution) block.
    """

    keras_name: str
    module: str
    stages: tuple[str, ...]
    blocks: tuple[str, ...]

    def cuts(self, unit: Literal["stage", "block"]) -> tuple[str, ...]:
        """Layers to cut after, by freeze depth minus one."""
        return self.stages if unit == "stage" else self.blocks


def _resnet(keras_name: str, *blocks: int) -> Architecture:
    outputs = [
        f"conv{stage}_block{block}_out" for stage, count in enumerate(blocks, 2) for block in range(1, count + 1)
    ]
    ends = [f"conv{stage}_block{count}_out" for stage, count in enumerate(blocks, 2)]
    return Architecture(keras_name, "resnet", ("pool1_pool", *ends[:-1], POOLED), ("pool1_pool", *outputs[:-1], POOLED))


def _densenet(keras_name: str, *blocks: int) -> Architecture:
    outputs = [
        f"conv{stage}_block{block}_concat" for stage, count in enumerate(blocks, 2) for block in range(1, count + 1)
    ]
    pools = tuple(f"pool{stage}_pool" for stage in range(2, len(blocks) + 1))
    return Architecture(keras_name, "densenet", ("pool1", *pools, POOLED), ("pool1", *outputs[:-1], POOLED))


def _mobilenetv2() -> Architecture:
    shortcuts = {2, 4, 5, 7, 8, 9, 11, 12, 14, 15}  # blocks whose input is added to their output
    blocks = tuple(f"block_{n}_{'add' if n in shortcuts else 'project_BN'}" for n in range(1, 17))
    return Architecture(
        "MobileNetV2",
        "mobilenet_v2",
        ("expanded_conv_project_BN", "block_2_add", "block_5_add", "block_12_add", POOLED),
        ("Conv1_relu", "expanded_conv_project_BN", *blocks, POOLED),
    )


ARCHITECTURES = {
    "resnet50": _resnet("ResNet50", 3, 4, 6, 3),
    "resnet101": _resnet("ResNet101", 3, 4, 23, 3),
    "mobilenetv2": _mobilenetv2(),
    "vgg16": Architecture(
        "VGG16",
        "vgg16",
        (*(f"block{n}_pool" for n in range(1, 5)), POOLED),
        (
            *(
                f"block{stage}_conv{layer}"
                for stage, layers in enumerate((2, 2, 3, 3, 3), 1)
                for layer in range(1, layers + 1)
            ),
            POOLED,
        ),
    ),
    "densenet121": _densenet("DenseNet121", 6, 12, 24, 16),
}
