"""Image transforms by Pillow and OpenCV, with the draws of a given stream."""

import math

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from reference.random_stream import Stream

NAMES = ["identity", "autocontrast", "equalize", "brightness", "sharpness",
         "shear_x", "shear_y", "translate_x", "translate_y", "rotate"]
GREY = (128, 128, 128)


def picture(width, height, seed, low=0, high=255):
    """Waves, noise and shapes between two grey levels: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    planes = [rng.uniform(0, 180) + rng.uniform(20, 90) * np.sin(
        x / rng.uniform(2, 9) + rng.uniform(0, 6)) * np.cos(
            y / rng.uniform(2, 9)) + rng.normal(0, 5, x.shape)
              for _ in range(3)]
    image = Image.fromarray(
        np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        r = rng.uniform(0.05, 0.25) * min(width, height)
        draw.ellipse((cx - r, cy - r, cx + r, cy + r),
                     fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw.line((0, height - 1, width - 1, 0), fill=(255, 255, 255))
    return (low + np.asarray(image).astype(np.int64) * (high - low) // 255
            ).astype(np.uint8)


def resize(array, height, width):
    return np.asarray(
        Image.fromarray(array).resize((width, height), Image.BICUBIC))


def apply(array, op, value):
    """One operation of the RandAugment set, by its number in AugmentOp."""
    name = NAMES[op]
    image = Image.fromarray(array)
    height, width = array.shape[:2]
    if name == "identity":
        return array
    if name == "autocontrast":
        return np.asarray(ImageOps.autocontrast(image))
    if name == "equalize":
        return np.asarray(ImageOps.equalize(image))
    if name == "brightness":
        return np.asarray(ImageEnhance.Brightness(image).enhance(value))
    if name == "sharpness":
        return np.asarray(ImageEnhance.Sharpness(image).enhance(value))
    if name == "rotate":
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), value, 1)
    else:
        matrix = np.float64([[1, 0, 0], [0, 1, 0]])
        row, column, sign = {"shear_x": (0, 1, 1), "shear_y": (1, 0, 1),
                             "translate_x": (0, 2, -1),
                             "translate_y": (1, 2, -1)}[name]
        matrix[row, column] += sign * value
    return cv2.warpAffine(array, matrix, (width, height), borderValue=GREY)


def magnitude_value(op, magnitude, sign, height, width):
    """ALBEF's level functions; translation in proportion to 256 pixels."""
    m = magnitude / 10
    name = NAMES[op]
    if name.startswith("shear"):
        return sign * 0.3 * m
    if name == "translate_x":
        return sign * 10 * m * width / 256
    if name == "translate_y":
        return sign * 10 * m * height / 256
    if name == "rotate":
        return sign * 30 * m
    return 0.1 + 1.8 * m


def randaugment(array, key, count, magnitude):
    stream = Stream(key)
    for _ in range(count):
        op = stream.below(10)
        used = stream.bernoulli(0.5)
        sign = -1.0 if stream.bernoulli(0.5) else 1.0
        if used:
            value = magnitude_value(op, magnitude, sign, *array.shape[:2])
            array = apply(array, op, value)
    return array


def crop_box(stream, height, width, scale, ratio):
    """torchvision's RandomResizedCrop.get_params on the stream's draws."""
    for _ in range(10):
        area = height * width * stream.uniform(*scale)
        aspect = math.exp(stream.uniform(math.log(ratio[0]),
                                         math.log(ratio[1])))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = stream.below(height - h + 1)
            return top, stream.below(width - w + 1), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(w / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(h * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(array, key, size, scale, ratio, flip):
    """float32 [3, size, size] in [0, 1]."""
    stream = Stream(key)
    top, left, h, w = crop_box(stream, *array.shape[:2], scale, ratio)
    out = resize(np.ascontiguousarray(array[top:top + h, left:left + w]),
                 size, size)
    if stream.bernoulli(flip):
        out = out[:, ::-1]
    return np.ascontiguousarray(out.transpose(2, 0, 1)).astype(np.float32) / 255


def expected(inputs):
    """What the case `images` must give (tests/golden/cases.h)."""
    image = inputs["image"]
    out = {}
    for i, (h, w) in enumerate(inputs.get("resize", [])):
        out[f"resize/{i}"] = resize(image, int(h), int(w))
    for i, (op, value) in enumerate(inputs.get("ops", [])):
        kind = "geometric" if op >= 5 else "photometric"
        out[f"{kind}/{i}"] = apply(image, int(op), float(value))
    for i, (key, size, low, high, r0, r1, flip) in enumerate(
            inputs.get("crops", [])):
        out[f"crop/{i}"] = random_resized_crop(
            image, int(key), int(size), (low, high), (r0, r1), flip)
    for i, (key, count, magnitude) in enumerate(inputs.get("randaugment", [])):
        out[f"randaugment/{i}"] = randaugment(
            image, int(key), int(count), int(magnitude))
    return {k: np.ascontiguousarray(v) for k, v in out.items()}
