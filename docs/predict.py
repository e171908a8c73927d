"""python predict.py MODEL.tflite IMAGE.npy ...: the best classes of uint8 images."""

import json
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def resized(image, rows, shift):  # bilinear, along the first axis
    size = len(image)
    at = np.clip((np.arange(rows) + shift) * size / rows - shift, 0, size - 1)
    low, high = at.astype(int), np.minimum(at.astype(int) + 1, size - 1)
    return image[low] + (image[high] - image[low]) * (at - low)[:, None, None]


info = json.loads(zipfile.ZipFile(sys.argv[1]).read("keras_mobilenets.json"))
how, pixels = info["preparation"], info["input"] == "uint8"
shift = 0.5 if how["resize"] == "half_pixel" else 0
run = Interpreter(model_path=sys.argv[1]).get_signature_runner("classify")
_, height, width, _ = run.get_input_details()["image"]["shape"]
for path in sys.argv[2:]:
    image = np.load(path) / 255  # [height, width, channels]
    top, left = (int((n - n * (how["eval_crop"] or 1)) / 2) for n in image.shape[:2])
    image = image[top : len(image) - top, left : image.shape[1] - left]
    image = resized(resized(image, height, shift).swapaxes(0, 1), width, shift)
    image = image.swapaxes(0, 1) * (255 if pixels else 2) + (0.5 if pixels else -1)
    said = run(image=image[None].astype(info["input"]))["probabilities"][0]
    print(path, *(f"{info['classes'][i]} {said[i]:.1%}" for i in (-said).argsort()[:3]))
