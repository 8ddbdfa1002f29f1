"""What a scan does to a photograph: faded, grainy, blurred, screened gray, and the mount around the picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.scenes import shaded

Plane = NDArray[np.float32]


def age(gray: Plane, generator: np.random.Generator) -> Plane:
    """(H, W) in [0, 1] as an archive might have it; a third stay as they are."""
    if generator.random() < 0.33:
        return gray
    height, width = gray.shape
    aged = gray.clip(1e-4, 1) ** np.float32(np.exp(generator.normal(0, 0.25)))
    black, white = generator.uniform(0, 0.15), generator.uniform(0.8, 1.05)
    if generator.random() < 0.5:
        aged = black + (white - black) * aged
    if generator.random() < 0.25:
        aged = cv2.GaussianBlur(aged, (0, 0), generator.uniform(0.4, 1.2))
    if generator.random() < 0.12:  # darker towards the corners
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        aged = aged * (1 - generator.uniform(0.1, 0.4) * (x**2 + y**2) / 2)
    if generator.random() < 0.06:  # halftone
        y, x = np.mgrid[:height, :width]
        period = generator.uniform(2.5, 4)
        screen = np.cos(2 * np.pi * (x + y) / period) * np.cos(2 * np.pi * (x - y) / period)
        aged = aged + generator.uniform(0.05, 0.2) * screen
    if generator.random() < 0.5:
        aged = aged + generator.standard_normal(gray.shape, dtype=np.float32) * generator.uniform(0, 0.05)
    return aged.clip(0, 1).astype(np.float32)


def mount(
    picture: NDArray[np.float32], generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Puts a picture (H, W, 3) on a sheet of its own size, some with lines of writing and a stamp.

    Returns:
        The sheet, gray outside the picture, and (H, W) where the sheet is.
    """
    height, width = picture.shape[:2]
    sheet = shaded((height, width), generator, contrast=0.08)
    sheet = (sheet - sheet.mean() + generator.choice([0.06, 0.45, 0.75, 0.9])).clip(0, 1)
    scale = generator.uniform(0.5, 0.92)
    h, w = int(height * min(1, scale * generator.uniform(0.9, 1.1))), int(width * scale)
    top, left = int(generator.integers(0, height - h + 1)), int(generator.integers(0, width - w + 1))
    for _ in range(int(generator.integers(0, 4))):  # writing
        y = int(generator.integers(0, height - 1))
        x = int(generator.integers(0, width // 2))
        ink = np.float32(generator.uniform(0, 1))
        for _ in range(int(generator.integers(2, 12))):
            length = int(generator.integers(2, 9))
            sheet[y : y + 1, x : x + length] = ink
            x += length + 2
    if generator.random() < 0.3:
        center = (int(generator.integers(0, width)), int(generator.integers(0, height)))
        ink = float(generator.uniform(0, 0.6))
        sheet = cv2.circle(np.ascontiguousarray(sheet), center, int(generator.integers(4, 14)), (ink, ink, ink), 1)
    outside = np.ones((height, width), bool)
    outside[top : top + h, left : left + w] = False
    sheet = np.ascontiguousarray(sheet, dtype=np.float32)
    sheet[top : top + h, left : left + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
    return sheet, outside
