"""A study to try everything on: slices that look like schematic chest CT, drawn here, of patients who never lived."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from trainable.errors import InputError
from trainable.whole_file import write_csv

CLASSES = ("clear", "lesion")

# Grey values in 0..1, roughly those of a lung window.
LUNG, FAT, MUSCLE, BLOOD, VESSEL, BONE = 0.12, 0.42, 0.58, 0.66, 0.55, 0.92


@dataclass(frozen=True)
class Patient:
    """What stays the same from slice to slice. Lengths are in half image widths, x to the right, y to the back.

    Attributes:
        width: Half the width of the body.
        depth: Half the depth of the body.
        lungs: Size of the lungs, 1 being usual.
        heart: Size of the heart, 1 being usual.
        turn: Rotation of the body on the table, in radians.
        shift: Position of the body's centre, x and y.
        gain: Contrast of the scan: grey values are multiplied by it.
        offset: Brightness of the scan: added to grey values after `gain`.
        noise: Standard deviation of the noise.
        blotches: [k, 4] ground-glass: lung (-1 or 1), angle in radians, height 0..1 and size; k is 0 in class `clear`.
    """

    width: float
    depth: float
    lungs: float
    heart: float
    turn: float
    shift: np.ndarray
    gain: float
    offset: float
    noise: float
    blotches: np.ndarray


def draw_study(folder: Path, images_per_class: int, image_size: int, seed: int) -> Path:
    """Draws the classes `clear` and `lesion` (ground-glass in the lungs), 3 to 5 slices per patient.

    The same arguments give the same images. Brightness and contrast differ between scanners by more than a lesion adds,
    and every scanner saw a patient of each class, so that they tell little about the class.

    Args:
        folder: Gets `images/<class>/patient_<number>_slice_<number>.png` and `groups.csv` (file, group).
        images_per_class: At least 1.
        image_size: Height and width in pixels, at least 32.
        seed: Any whole number from 0.

    Returns:
        `folder / "images"`, to be given as `data.path`; `data.groups` is the `groups.csv` beside it.

    Raises:
        InputError: `folder / "images"` holds files that this study does not consist of.
    """
    images = folder / "images"
    plan = [
        (f"{name}/patient_{number:04d}_slice_{index}.png", name, number, index)
        for position, name in enumerate(CLASSES)
        for number, index in _slices(images_per_class, position, seed)
    ]
    foreign = {path for path in images.glob("*/*") if path.is_file()} - {images / file for file, *_ in plan}
    if foreign:
        raise InputError(f"{images} must be empty or hold the same study, but holds {min(foreign).name}; give another")
    for file, name, number, index in plan:
        patient = _patient(name == "lesion", number, seed)
        pixels = draw_slice(patient, 0.15 + 0.15 * index, image_size, [seed, 3, number, index])
        (images / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(images / file)
    groups = ((file, f"patient_{number:04d}") for file, _, number, _ in plan)
    write_csv(folder / "groups.csv", ("file", "group"), groups)
    return images


def draw_slice(patient: Patient, height: float, image_size: int, seed: list[int]) -> np.ndarray:
    """Draws one slice.

    Args:
        patient: Who is drawn.
        height: 0 (at the collarbones) to 1 (at the diaphragm).
        image_size: Height and width in pixels.
        seed: Of vessels, texture and noise.

    Returns:
        uint8 [image_size, image_size].
    """
    random = np.random.default_rng(seed)
    canvas = _Canvas(patient, 2 * image_size)
    lungs = _paint_body(canvas, patient, height)
    _paint_vessels(canvas, lungs, random)
    _paint_blotches(canvas, lungs, patient, height, random)
    _paint_bones(canvas, patient, height)
    fine = canvas.grey.reshape(image_size, 2, image_size, 2).mean(axis=(1, 3))  # twice the size, then averaged
    grain = gaussian_filter(random.normal(size=fine.shape), 0.6)  # reconstruction filters leave correlated noise
    scan = patient.gain * fine + patient.offset + patient.noise * grain / grain.std()
    return (255 * scan.clip(0, 1)).round().astype(np.uint8)


class _Canvas:
    """Grey values [pixels, pixels] in the patient's own coordinates, painted over with soft-edged shapes."""

    def __init__(self, patient: Patient, pixels: int):
        axis = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels * 2 - 1
        x, y = np.meshgrid(axis - np.float32(patient.shift[0]), axis - np.float32(patient.shift[1]))
        cosine, sine = math.cos(patient.turn), math.sin(patient.turn)
        self.x, self.y = cosine * x + sine * y, cosine * y - sine * x
        self.edge = 3.0 / pixels
        self.grey = np.zeros_like(self.x)

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> np.ndarray:
        """Coverage in 0..1 of an ellipse turned by `angle` radians."""
        x, y = self.x - centre[0], self.y - centre[1]
        cosine, sine = math.cos(angle), math.sin(angle)
        radius = np.hypot((cosine * x + sine * y) / radii[0], (cosine * y - sine * x) / radii[1])
        return _step((1 - radius) * min(radii), self.edge)

    def stroke(self, start: tuple[float, float], step: tuple[float, float], radius: float) -> np.ndarray:
        """Coverage in 0..1 of a line from `start` to `start + step` that tapers from `radius` to a third of it."""
        x, y = self.x - start[0], self.y - start[1]
        along = ((x * step[0] + y * step[1]) / (step[0] ** 2 + step[1] ** 2)).clip(0, 1)
        distance = np.hypot(x - along * step[0], y - along * step[1])
        return _step(radius * (1 - 0.67 * along) - distance, self.edge)

    def paint(self, coverage: np.ndarray, grey: float | np.ndarray) -> None:
        self.grey += coverage * (grey - self.grey)


def _step(depth: np.ndarray, edge: float) -> np.ndarray:
    """0 outside, 1 inside, a ramp of `edge` on both sides of the rim; `depth` is the distance to the rim."""
    return (0.5 + 0.5 / edge * depth).clip(0, 1)


def _slices(count: int, position: int, seed: int) -> Iterator[tuple[int, int]]:
    """Patient number and slice of each image of a class; classes take turns with the numbers."""
    random, number = np.random.default_rng([seed, 0, position]), position
    while count > 0:
        slices = min(count, int(random.integers(3, 6)))
        yield from ((number, index) for index in range(slices))
        count, number = count - slices, number + len(CLASSES)


def _patient(ill: bool, number: int, seed: int) -> Patient:
    """Draws a patient; the two with numbers 2k and 2k + 1, one of each class, were scanned on the same machine."""
    random = np.random.default_rng([seed, 1, number])
    scanner = np.random.default_rng([seed, 2, number // 2])
    blotches = int(random.integers(6, 13)) if ill else 0
    return Patient(
        width=random.uniform(0.8, 0.94),
        depth=random.uniform(0.6, 0.74),
        lungs=random.uniform(0.9, 1.08),
        heart=random.uniform(0.85, 1.15),
        turn=random.uniform(-0.1, 0.1),
        shift=random.uniform(-0.04, 0.04, size=2),
        gain=scanner.uniform(0.7, 1.05),
        offset=scanner.uniform(0.0, 0.15),
        noise=scanner.uniform(0.015, 0.035),
        blotches=np.column_stack(
            [
                random.choice([-1, 1], size=blotches),
                random.uniform(0, 2 * np.pi, size=blotches),
                random.uniform(0, 1, size=blotches),
                random.uniform(0.2, 0.4, size=blotches),
            ]
        ),
    )


def _lung(patient: Patient, side: float, height: float) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Centre, radii and angle of a lung: narrow at the top, widest in the lower half."""
    size = patient.lungs * (0.75 + 0.35 * np.sin(np.pi * min(1.0, 0.2 + 0.6 * height)))
    centre = (side * 0.46 * patient.width, -0.02 * patient.depth)
    return centre, (0.37 * patient.width * size, 0.7 * patient.depth * size), side * 0.15


def _paint_body(canvas: _Canvas, patient: Patient, height: float) -> np.ndarray:
    """Everything soft; returns the coverage of the lungs."""
    width, depth = patient.width, patient.depth
    canvas.paint(_step(0.01 - abs(canvas.y + 0.15 * canvas.x**2 - 1.1 * depth), canvas.edge), 0.3)  # the table
    canvas.paint(canvas.ellipse((0, 0), (width, depth)), FAT)
    canvas.paint(canvas.ellipse((0, 0), (0.94 * width, 0.9 * depth)), MUSCLE)
    canvas.paint(canvas.ellipse((0, -0.1 * depth), (0.86 * width, 0.74 * depth)), FAT)
    lungs = np.maximum(*(canvas.ellipse(*_lung(patient, side, height)) for side in (-1, 1)))
    middle = np.maximum(
        canvas.ellipse((0, 0), (0.1 * width, 0.8 * depth)),
        canvas.ellipse((0, 0.5 * depth), (0.2 * width, 0.3 * depth)),
    )
    heart = patient.heart * (0.55 + 0.6 * height)
    heart_shape = canvas.ellipse((0.1 * width, -0.22 * depth), (0.3 * heart * width, 0.36 * heart * depth), 0.5)
    lungs = lungs * (1 - np.maximum(middle, heart_shape))
    canvas.paint(np.maximum(lungs, 0), LUNG)
    canvas.paint(heart_shape, BLOOD)
    canvas.paint(canvas.ellipse((0.1 * width, 0.36 * depth), (0.075 * width, 0.075 * width)), BLOOD)
    for side in (-1, 1) if height > 0.35 else (0,):  # the windpipe, below its fork the two main bronchi
        tube = (0.05 if side == 0 else 0.035) * width
        canvas.paint(canvas.ellipse((side * 0.13 * width, 0.08 * depth), (tube, tube)), 0.03)
    return lungs


def _paint_vessels(canvas: _Canvas, lungs: np.ndarray, random: np.random.Generator) -> None:
    coverage = np.zeros_like(lungs)
    for side in (-1, 1):
        for _ in range(12):  # fanning out from the root of the lung, thinner the farther
            angle, root = random.uniform(-1.4, 1.4), random.uniform(0.0, 0.3)
            start = (side * (0.14 + root * math.cos(angle)), 0.04 + root * math.sin(angle))
            length, bend = random.uniform(0.08, 0.24), angle + random.uniform(-0.4, 0.4)
            step = (side * length * math.cos(bend), length * math.sin(bend))
            radius = random.uniform(0.7, 1.2) * (0.02 - 0.035 * root)
            coverage = np.maximum(coverage, canvas.stroke(start, step, radius))
        for _ in range(14):  # cut across
            centre = (side * random.uniform(0.2, 0.75), random.uniform(-0.5, 0.5))
            radius = random.uniform(0.006, 0.016)
            coverage = np.maximum(coverage, canvas.ellipse(centre, (radius, radius)))
    canvas.paint(coverage * lungs, VESSEL)


def _paint_blotches(
    canvas: _Canvas, lungs: np.ndarray, patient: Patient, height: float, random: np.random.Generator
) -> None:
    """Ground-glass: hazy, mottled patches, mostly under the pleura; vessels still show through."""
    haze = np.zeros_like(lungs)
    for side, angle, level, size in patient.blotches:
        centre, radii, _ = _lung(patient, side, height)
        place = (centre[0] + 0.7 * radii[0] * np.cos(angle), centre[1] + 0.75 * radii[1] * np.sin(angle))
        reach = size * np.exp(-(((height - level) / 0.45) ** 2))
        distance = np.hypot(canvas.x - place[0], canvas.y - place[1])
        haze = np.maximum(haze, np.exp(-((distance / max(reach, 1e-3)) ** 4)))
    mottled = gaussian_filter(random.normal(size=haze.shape), 0.015 * len(haze))
    canvas.paint(lungs * haze * (0.6 + 0.25 * mottled / mottled.std()).clip(0, 1), MUSCLE)


def _paint_bones(canvas: _Canvas, patient: Patient, height: float) -> None:
    width, depth = patient.width, patient.depth
    spine = 0.62 * depth
    for centre, radii in [
        ((0, spine - 0.06), (0.12, 0.085)),
        ((-0.12, spine + 0.06), (0.08, 0.025)),
        ((0.12, spine + 0.06), (0.08, 0.025)),
        ((0, spine + 0.13), (0.022, 0.07)),
        ((0, -0.77 * depth), (0.11, 0.03)),
    ]:
        canvas.paint(canvas.ellipse(centre, radii), BONE)
    canvas.paint(canvas.ellipse((0, spine + 0.055), (0.038, 0.032)), MUSCLE)
    # Ribs slant, so each slice cuts them elsewhere.
    for angle in np.arange(0.25, 2 * np.pi, 0.52) + 0.3 * np.sin(7 * height):
        x, y = 0.86 * width * np.cos(angle), 0.8 * depth * np.sin(angle)
        if abs(x) > 0.25 * width:
            along = np.arctan2(0.8 * depth * np.cos(angle), -0.86 * width * np.sin(angle))
            canvas.paint(canvas.ellipse((x, y), (0.085, 0.022), along), BONE)
            canvas.paint(canvas.ellipse((x, y), (0.055, 0.009), along), 0.75)
