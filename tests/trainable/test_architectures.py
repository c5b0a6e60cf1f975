import pytest

from trainable.architectures import ARCHITECTURES

SHAPES = {  # stages, blocks
    "resnet50": (5, 17),
    "resnet101": (5, 34),
    "mobilenetv2": (5, 19),
    "vgg16": (5, 14),
    "densenet121": (5, 59),
}


def test_every_architecture_has_its_stages_and_blocks():
    assert {name: (len(each.cuts("stage")), len(each.cuts("block"))) for name, each in ARCHITECTURES.items()} == SHAPES


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_cuts_are_in_order_without_repeats_and_end_at_the_pooled_output(architecture):
    stages, blocks = architecture.cuts("stage"), architecture.cuts("block")
    assert len(set(blocks)) == len(blocks)
    assert stages[-1] == blocks[-1] == "pooled"
    # VGG's pools come after its blocks of convolutions and are not blocks themselves.
    shared = [name for name in blocks if name in stages]
    assert shared == [name for name in stages if name in blocks]


def test_resnet50_is_cut_where_its_residual_blocks_end():
    resnet = ARCHITECTURES["resnet50"]
    assert resnet.stages == ("pool1_pool", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "pooled")
    assert resnet.blocks[:5] == (
        "pool1_pool",
        "conv2_block1_out",
        "conv2_block2_out",
        "conv2_block3_out",
        "conv3_block1_out",
    )
    assert resnet.blocks[-3:] == ("conv5_block1_out", "conv5_block2_out", "pooled")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_nothing_goes_around_a_cut(architecture, cpus):
    import keras

    make = getattr(keras.applications, architecture.keras_name)
    model = make(include_top=False, weights=None, input_shape=(32, 32, 3))
    order = [layer.name for layer in model.layers]
    for cuts in (architecture.stages[:-1], architecture.blocks[:-1]):
        assert [order.index(name) for name in cuts] == sorted(order.index(name) for name in cuts)
    for name in {*architecture.stages[:-1], *architecture.blocks[:-1]}:
        # Keras refuses this where another way leads from the images to the output.
        above = keras.Model(model.get_layer(name).output, model.output)
        assert 1 < len(above.layers) < len(model.layers), name


@pytest.mark.slow
def test_inside_a_residual_block_is_no_cut(networks):
    import keras

    model = networks.backbone.model
    with pytest.raises(ValueError, match="not connected"):
        keras.Model(model.get_layer("conv3_block2_1_relu").output, model.output)
