"""Makes the golden files of data's tests with Pillow.

    pip install pillow==12.0.0 && python3 make_golden.py

Synthetic pictures (gradients, shapes, mild noise) are resized and augmented by
Pillow; the tests compare with what SemVQ makes of the same sources.
"""

import math
import os
import random

import PIL
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

PILLOW = "12.0.0"
HERE = os.path.dirname(os.path.abspath(__file__))

# source size, then target sizes (width, height): down, up, squashed, a strip.
CASES = [
    ((97, 61), [(64, 64), (16, 16), (33, 50)]),
    ((40, 30), [(96, 96), (41, 29)]),
    ((160, 12), [(32, 32)]),
]
FACTOR = 1.36


def picture(size, seed):
    rng = random.Random(seed)
    width, height = size
    image = Image.new("RGB", size)
    for y in range(height):
        for x in range(width):
            wave = 60 * math.sin(x / 3.0 + seed) * math.cos(y / 5.0)
            image.putpixel((x, y), tuple(
                max(0, min(255, int(v + wave + rng.randint(-6, 6))))
                for v in (30 + 190 * x / width, 210 - 150 * y / height, 40 + 170 * (x + y) / (width + height))))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width * 0.2, height * 0.2, width * 0.5, height * 0.8), fill=(250, 20, 30))
    draw.rectangle((width * 0.6, height * 0.1, width * 0.8, height * 0.5), fill=(0, 0, 0))
    draw.line((0, height - 1, width - 1, 0), fill=(255, 255, 255))
    return image


def save(image, name):
    image.save(os.path.join(HERE, name), optimize=True)


def main():
    if PIL.__version__ != PILLOW:
        raise SystemExit("Pillow is %s, but the golden files are of %s" % (PIL.__version__, PILLOW))
    for seed, (size, targets) in enumerate(CASES):
        source = picture(size, seed)
        stem = "resize_%dx%d" % size
        save(source, stem + ".png")
        for target in targets:
            save(source.resize(target, Image.BICUBIC), "%s_to_%dx%d.png" % ((stem,) + target))

    # Low contrast, so that autocontrast and equalise have work.
    image = picture((48, 40), 7).point(lambda v: 60 + v * 130 // 255)
    save(image, "augment.png")
    save(ImageOps.autocontrast(image), "augment_autocontrast.png")
    save(ImageOps.equalize(image), "augment_equalize.png")
    save(ImageEnhance.Brightness(image).enhance(FACTOR), "augment_brightness.png")
    save(ImageEnhance.Sharpness(image).enhance(FACTOR), "augment_sharpness.png")
    save(ImageEnhance.Sharpness(image).enhance(0.1 + 1.8), "augment_sharpness_largest.png")

    cmyk = picture((32, 24), 3).convert("CMYK")
    cmyk.save(os.path.join(HERE, "cmyk.jpg"), quality=92)
    save(Image.open(os.path.join(HERE, "cmyk.jpg")).convert("RGB"), "cmyk_rgb.png")


if __name__ == "__main__":
    main()
