#!/usr/bin/env python3
"""Writes a list of records like ALBEF's pretraining lists: annotations.py 5000000 >list.json"""

import random
import sys

WORDS = ("a the of in on with and man woman dog cat street table red blue white black small large old young sitting "
         "standing holding riding playing wearing front background city beach field water snow night day photo view "
         "close group people children train bus car bicycle kitchen window building tree grass flower food plate").split()


def main():
    count = int(sys.argv[1])
    draw = random.Random(1)
    captions = [" ".join(draw.choices(WORDS, k=draw.randint(6, 16))) for _ in range(100003)]
    sys.stdout.write("[")
    for i in range(count):
        # Five captions an image; every record has one of its own.
        sys.stdout.write(f'{"," if i else ""}{{"image": "coco/images/train2014/COCO_train2014_{i // 5:012}.jpg", '
                         f'"caption": "{captions[i % len(captions)]} {i}", "image_id": "coco_{i // 5}"}}\n')
    sys.stdout.write("]\n")


if __name__ == "__main__":
    main()
