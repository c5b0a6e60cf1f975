import numpy as np
from PIL import Image

from trainable.near_duplicates import near_duplicate_clusters, perceptual_hash


def smooth_image(seed, size=96):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def distance(first, second):
    return (first ^ second).bit_count()


def test_a_rescaled_brighter_copy_keeps_nearly_the_same_hash():
    image = smooth_image(0)
    copy = np.asarray(Image.fromarray((image * 0.8 + 20).astype(np.uint8)).resize((61, 70)))
    assert distance(perceptual_hash(image), perceptual_hash(copy)) <= 4


def test_different_images_have_distant_hashes():
    hashes = [perceptual_hash(smooth_image(seed)) for seed in range(20)]
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 10
    assert all(0 <= each < 2**64 for each in hashes)


def test_images_of_one_colour_count_as_near_duplicates():
    hashes = [perceptual_hash(np.full((5, 9), value, dtype=np.uint8)) for value in (0, 1, 100, 255)]
    assert max(distance(a, b) for a in hashes for b in hashes) <= 1


def test_clusters_hold_what_is_near_directly_or_through_others():
    chain = [0b0, 0b1, 0b11, 0b111]
    far = 2**63 + 2**50 + 2**40
    assert near_duplicate_clusters([far, *chain], 1) == ((1, 2, 3, 4),)
    assert near_duplicate_clusters([far, *chain], 0) == ()
    assert near_duplicate_clusters([], 4) == ()
    assert near_duplicate_clusters([2**64 - 1, 7, 2**64 - 1, 7], 0) == ((0, 2), (1, 3))


def test_clusters_equal_those_of_the_slow_definition_across_blocks():
    random = np.random.default_rng(3)
    centres = random.integers(0, 2**63, 300, dtype=np.uint64)
    flips = np.uint64(1) << random.integers(0, 63, 1200, dtype=np.uint64)
    hashes = [int(value) for value in centres[random.integers(0, 300, 1200)] ^ flips]
    found = near_duplicate_clusters(hashes, 2)
    assert found == slow_clusters(hashes, 2)
    assert len(hashes) > 1024  # more than two blocks


def slow_clusters(hashes, limit):
    label = list(range(len(hashes)))
    for i, first in enumerate(hashes):
        for j in range(i):
            if (first ^ hashes[j]).bit_count() <= limit and label[i] != label[j]:
                old, new = sorted((label[i], label[j]), reverse=True)
                label = [new if each == old else each for each in label]
    clusters = {}
    for index, each in enumerate(label):
        clusters.setdefault(each, []).append(index)
    return tuple(tuple(members) for members in clusters.values() if len(members) > 1)


def test_twenty_thousand_equal_hashes_make_one_cluster():
    assert len(near_duplicate_clusters([5] * 20_000, 4)[0]) == 20_000
