"""Images that look alike, found by perceptual hashes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

BLOCK = 512  # hashes compared with all others at once: 80 MB at 20,000 images


def perceptual_hash(grey: np.ndarray) -> int:
    """Hashes what an image looks like in 64 bits (pHash: Zauner, 2010; the sign of low DCT frequencies).

    Args:
        grey: uint8 [height, width], any size.

    Returns:
        An int in 0 .. 2**64 - 1. Rescaled, recompressed or slightly shifted copies differ in few bits; images of one
        colour all get nearly the same hash.
    """
    small = Image.fromarray(grey).resize((32, 32), Image.Resampling.LANCZOS)
    # Rounding keeps the noise of the transform, about 1e-13, from deciding the bits of an image of one colour.
    low = dctn(np.asarray(small, dtype=np.float64))[:8, :8].round(6)
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def near_duplicate_clusters(hashes: Sequence[int], distance: int) -> tuple[tuple[int, ...], ...]:
    """Clusters images whose hashes differ in at most `distance` bits, directly or through a chain of others.

    Args:
        hashes: One 64-bit hash per image.
        distance: Hamming distance, 0 to 64.

    Returns:
        The clusters of two or more images, as ascending positions in `hashes`, ordered by their first member.
    """
    if not hashes:
        return ()
    distinct, image_to_distinct = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    labels = _connected(distinct, distance)[image_to_distinct]
    members: dict[int, list[int]] = {}
    for image, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(image)
    return tuple(tuple(images) for images in members.values() if len(images) > 1)


def _connected(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Component labels of distinct hashes [n]; merged block by block, so that dense neighbourhoods fit into memory."""
    labels = np.arange(len(hashes))
    for start in range(0, len(hashes), BLOCK):
        difference = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, start:])
        first, second = np.nonzero(difference <= distance)
        edges = (labels[first + start], labels[second + start])
        graph = coo_matrix((np.ones(len(first), dtype=bool), edges), shape=(len(hashes), len(hashes)))
        labels = connected_components(graph, directed=False)[1][labels]
    return labels
