"""Makes the files beside it; needs torch, torchvision and timm (1.0.31 was used)."""

import json

import torch
from timm.models import efficientnet
from torchvision.models import mobilenet_v2

from tests.pytorch import FOLDER, images, tensor

CLASSES = 10
# timm's functions for one width are these with a name. Odd sizes too: there symmetric
# padding and SAME are the same, and at even sizes they are not.
CASES = {
    "timm_v1_0.25_64": lambda: efficientnet._gen_mobilenet_v1(
        "mobilenetv1_100", 0.25, num_classes=CLASSES
    ),
    "timm_v1_0.5_97": lambda: efficientnet._gen_mobilenet_v1(
        "mobilenetv1_100", 0.5, num_classes=CLASSES
    ),
    "timm_v2_0.35_96": lambda: efficientnet.mobilenetv2_035(num_classes=CLASSES),
    "timm_v2_1.4_65": lambda: efficientnet.mobilenetv2_140(num_classes=CLASSES),
    "torchvision_v2_0.5_97": lambda: mobilenet_v2(width_mult=0.5, num_classes=CLASSES),
    "torchvision_v2_1.0_64": lambda: mobilenet_v2(width_mult=1.0, num_classes=CLASSES),
}


def main() -> None:
    torch.manual_seed(0)
    for case, make in CASES.items():
        model = make().eval()
        shapes = {name: list(v.shape) for name, v in model.state_dict().items()}
        state = {
            name: torch.from_numpy(tensor(name, tuple(shape)))
            for name, shape in shapes.items()
        }
        model.load_state_dict(state)
        pixels = images(int(case.rsplit("_")[-1])).transpose(0, 3, 1, 2)
        with torch.no_grad():
            logits = model(torch.from_numpy(pixels.copy())).numpy()
        assert logits.std(axis=0).mean() > 1e-2, case
        content = {
            "state": list(shapes.items()),
            "logits": [[float(f"{x:.9g}") for x in row] for row in logits],
        }
        (FOLDER / f"{case}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
