import numpy as np
import pytest

from trainable.augmentation import View, draw_view
from trainable.hyperparameters import Hyperparameters

ALL = ("flip_horizontal", "flip_vertical", "zoom", "shift", "rotation", "brightness", "contrast")
# Computed once, the brightness also in plain Python integers; the second image is flipped upside down.
GOLDEN_MATRICES = [
    [1.01394248, 0.12423785, -2.71528411, -0.12423785, 1.01394248, 1.61923158, 0, 0],
    [0.90902847, 0.08115813, 1.19541979, 0.08115813, -0.90902847, 60.83492279, 0, 0],
    [1.08466697, -0.13300121, -1.26396978, 0.13300121, 1.08466697, -5.51864195, 0, 0],
]
GOLDEN_GAIN = [0.99098599, 1.05592847, 1.10241008]
GOLDEN_BIAS = [-0.03157662, 17.17971611, 3.15696502]

KEYS = np.random.default_rng(0).integers(0, 2**64, 200, dtype=np.uint64)


def draw(keys=KEYS, *, seed=1, view=0, strength=1.0, transforms=ALL, size=32):
    return draw_view(keys, seed, view, strength, transforms, size)


def assert_same(first, second):
    for name in ("matrices", "gain", "bias"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_strength_zero_is_the_identity():
    view = draw(strength=0.0)
    assert np.array_equal(view.matrices, np.tile(np.float32([1, 0, 0, 0, 1, 0, 0, 0]), (200, 1)))
    assert set(view.gain) == {1.0}
    assert set(view.bias) == {0.0}


def test_without_transforms_every_strength_is_the_identity():
    assert_same(draw(transforms=()), draw(strength=0.0))


def test_brightness_contrast_and_rotation_are_off_unless_asked_for():
    view = draw(transforms=Hyperparameters().transforms)
    assert set(view.gain) == {1.0}
    assert set(view.bias) == {0.0}
    assert not view.matrices[:, [1, 3]].any()


@pytest.mark.parametrize("transform", ALL)
def test_every_transform_does_something_by_itself(transform):
    alone, none = draw(transforms=(transform,)), draw(transforms=())
    differing = [n for n in ("matrices", "gain", "bias") if not np.array_equal(getattr(alone, n), getattr(none, n))]
    assert differing == [{"brightness": "bias", "contrast": "gain"}.get(transform, "matrices")]


def test_a_view_does_not_depend_on_which_images_are_drawn_together_nor_on_their_order():
    whole, order = draw(), np.random.default_rng(1).permutation(200)
    assert_same(draw(KEYS[order]), View(whole.matrices[order], whole.gain[order], whole.bias[order]))
    for index in (0, 7, 199):
        alone = draw(KEYS[index : index + 1])
        assert_same(alone, View(whole.matrices[[index]], whole.gain[[index]], whole.bias[[index]]))


def test_images_views_and_seeds_all_give_other_numbers():
    first = draw()
    assert len(np.unique(first.matrices, axis=0)) == len(np.unique(first.gain)) == len(np.unique(first.bias)) == 200
    for other in (draw(view=1), draw(seed=2)):
        assert np.all((other.matrices != first.matrices).any(axis=1))
        assert np.all(other.gain != first.gain)
        assert np.all(other.bias != first.bias)


def test_transforms_are_drawn_apart_from_each_other():
    view = draw(np.arange(5000, dtype=np.uint64), transforms=("shift", "brightness", "contrast"))
    drawn = np.stack([view.matrices[:, 2], view.matrices[:, 5], view.gain, view.bias])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.06  # four standard deviations


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_a_strength_flips_half_its_share_of_images(strength):
    keys = np.arange(10_000, dtype=np.uint64)
    view = draw(keys, strength=strength, transforms=("flip_horizontal", "flip_vertical"))
    assert set(view.matrices[:, 0]) == set(view.matrices[:, 4]) == {-1.0, 1.0}
    for column in (0, 4):
        assert np.mean(view.matrices[:, column] < 0) == pytest.approx(strength / 2, abs=0.02)


def test_every_transform_stays_within_its_bounds_and_comes_near_them():
    keys = np.arange(5000, dtype=np.uint64)
    for strength in (0.5, 1.0):
        shift = draw(keys, strength=strength, transforms=("shift",), size=100).matrices
        zoom = 1 / draw(keys, strength=strength, transforms=("zoom",)).matrices[:, 0]
        turned = draw(keys, strength=strength, transforms=("rotation",)).matrices
        view = draw(keys, strength=strength, transforms=("brightness", "contrast"))
        for values, largest in (
            (shift[:, 2], 15),
            (shift[:, 5], 15),
            (zoom - 1, 0.2),
            (np.rad2deg(np.arctan2(turned[:, 3], turned[:, 0])), 20),
            (view.bias, 0.15 * 255),
            (view.gain - 1, 0.3),
        ):
            assert 0.99 * strength * largest < values.max() <= strength * largest * 1.0001
            assert -0.99 * strength * largest > values.min() >= -strength * largest * 1.0001
            assert abs(values.mean()) < 0.05 * strength * largest


def test_a_stronger_view_is_the_same_change_but_larger():
    half, full = draw(strength=0.5), draw(strength=1.0)
    np.testing.assert_allclose(2 * half.bias, full.bias, rtol=1e-5)
    np.testing.assert_allclose(2 * (half.gain - 1), full.gain - 1, atol=1e-6)
    half, full = (draw(strength=s, transforms=("shift",)).matrices for s in (0.5, 1.0))
    np.testing.assert_allclose(2 * half[:, [2, 5]], full[:, [2, 5]], rtol=1e-5)
    half, full = (draw(strength=s, transforms=("zoom",)).matrices[:, 0] for s in (0.5, 1.0))
    np.testing.assert_allclose(2 * (1 / half - 1), 1 / full - 1, atol=1e-5)
    half, full = (draw(strength=s, transforms=("rotation",)).matrices for s in (0.5, 1.0))
    np.testing.assert_allclose(2 * np.arcsin(half[:, 3]), np.arcsin(full[:, 3]), atol=1e-5)
    half, full = (draw(strength=s, transforms=("flip_horizontal",)).matrices[:, 0] < 0 for s in (0.5, 1.0))
    assert np.all(full[half])
    assert full.sum() > half.sum() > 0


def test_a_turn_and_a_zoom_leave_the_centre_where_it_is():
    a0, a1, a2, b0, b1, b2, *_ = draw(transforms=("zoom", "rotation", "flip_horizontal", "flip_vertical")).matrices.T
    np.testing.assert_allclose(a0 * 15.5 + a1 * 15.5 + a2, 15.5, rtol=1e-5)
    np.testing.assert_allclose(b0 * 15.5 + b1 * 15.5 + b2, 15.5, rtol=1e-5)


def test_flips_turns_and_zooms_together_keep_right_angles_and_shapes():
    a0, a1, _, b0, b1, *_ = draw(transforms=("flip_horizontal", "flip_vertical", "zoom", "rotation")).matrices.T
    np.testing.assert_allclose(a0 * a1 + b0 * b1, 0, atol=1e-6)
    np.testing.assert_allclose(np.hypot(a0, b0), np.hypot(a1, b1), rtol=1e-5)
    assert {-1.0, 1.0} == set(np.sign(a0 * b1 - a1 * b0))


def test_views_are_the_same_on_every_machine_and_in_every_release():
    view = draw_view(np.array([1, 3, 2**64 - 1], np.uint64), 7, 3, 0.5, ALL, 64)
    np.testing.assert_allclose(view.matrices, GOLDEN_MATRICES, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(view.gain, GOLDEN_GAIN, rtol=1e-5)
    np.testing.assert_allclose(view.bias, GOLDEN_BIAS, rtol=1e-5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (40, 32, 32, 1)).astype(np.uint8)


@pytest.fixture
def apply(cpus):
    """Applies a view to pixels; NumPy in and out."""
    from trainable.augmentation import apply_view

    return lambda pixels, view: np.asarray(apply_view(pixels, view.matrices, view.gain, view.bias))


def moved(count, *matrix):
    """A view that moves all images by one matrix and leaves their grey values."""
    return View(np.tile(np.float32(matrix), (count, 1)), np.ones(count, np.float32), np.zeros(count, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_at_strength_zero_pixels_come_back_exactly(apply, images, channels):
    pixels = np.repeat(images, channels, axis=-1)
    given = apply(pixels, draw(KEYS[:40], strength=0.0))
    assert given.dtype == np.float32
    assert np.array_equal(given, pixels)


@pytest.mark.slow
@pytest.mark.parametrize(("transform", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
def test_a_flip_is_numpys_flip(apply, images, transform, axis):
    view = draw(KEYS[:40], transforms=(transform,))
    given, mirrored = apply(images, view), np.flip(images, axis)
    flipped = view.matrices[:, 0 if axis == 2 else 4] < 0
    assert 5 < flipped.sum() < 35
    assert np.array_equal(given[flipped], mirrored[flipped])
    assert np.array_equal(given[~flipped], images[~flipped])


@pytest.mark.slow
@pytest.mark.parametrize(("right", "down"), [(3, 0), (-2, 0), (0, 4), (-1, 5)])
def test_a_shift_moves_whole_pixels_and_mirrors_at_the_border(apply, images, right, down):
    given = apply(images, moved(40, 1, 0, right, 0, 1, down, 0, 0))
    padded = np.pad(images, ((0, 0), (5, 5), (5, 5), (0, 0)), mode="symmetric")
    assert np.array_equal(given, padded[:, 5 + down : 37 + down, 5 + right : 37 + right])


@pytest.mark.slow
def test_contrast_acts_about_mid_grey_and_brightness_after_it_within_the_range(apply):
    pixels = np.array([0, 100, 127, 200, 255], np.uint8).reshape(1, 1, 5, 1)
    plain = moved(1, 1, 0, 0, 0, 1, 0, 0, 0)
    brighter = View(plain.matrices, np.float32([0.5]), np.float32([20]))
    assert apply(pixels, brighter).ravel().tolist() == [83.75, 133.75, 147.25, 183.75, 211.25]
    beyond = View(plain.matrices, np.float32([2.0]), np.float32([-10]))
    assert apply(pixels, beyond).ravel().tolist() == [0, 62.5, 116.5, 255, 255]


@pytest.mark.slow
def test_pixels_do_not_depend_on_the_other_images_of_a_batch(apply, images):
    view = draw(KEYS[:40])
    whole = apply(images, view)
    assert whole.min() >= 0
    assert whole.max() <= 255
    for index in (0, 17, 39):
        alone = apply(images[[index]], View(view.matrices[[index]], view.gain[[index]], view.bias[[index]]))
        assert np.array_equal(alone[0], whole[index])
