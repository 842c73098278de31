"""Writes checkpoints of the structure that EG3D and My3DGen training write, from a state dict.

Real pickles by Python's own pickler: persistent objects that carry program text, ordinary objects
of `training.*` classes, storages nested as byte strings (EG3D spec 2.3, 5.5).
"""

import pickle
import sys
import types
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import torch

from my3dgen.config import PRESETS

SMALL = replace(
    PRESETS["tiny"],
    superresolution="2X",
    superresolution_input=None,
    superresolution_channels=None,
    img_resolution=128,
    plane_mode="xy_xz_zx",
    white_back=False,
    c_gen_conditioning_zero=False,
    render_features=32,
    plane_features=8,
    neural_rendering_resolution=48,
    camera_pivot=(0.0, 0.0, 0.2),
)
"""A configuration of EG3D's own architecture that is quick to write."""

SOURCE = "class Anything:\n    pass\n" * 20


class Persistent:
    """Pickles as EG3D's self-describing objects do."""

    def __init__(self, class_name, state, source=SOURCE):
        self.class_name, self.state, self.source = class_name, state, source

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def fake_modules():
    """name -> module, for the names that such pickles refer to. Put them in sys.modules to write."""
    names = [
        "torch_utils",
        "torch_utils.persistence",
        "dnnlib",
        "dnnlib.util",
        "training",
        "training.triplane",
    ]
    names += ["training.volumetric_rendering", "training.volumetric_rendering.renderer"]
    modules = {name: types.ModuleType(name) for name in names}

    def _reconstruct_persistent_obj(meta):
        exec(meta["module_src"], {})  # what the real one does

    place(modules["torch_utils.persistence"], _reconstruct_persistent_obj)
    place(modules["dnnlib.util"], type("EasyDict", (dict,), {}))
    place(modules["training.triplane"], type("OSGDecoder", (), {}))
    place(modules["training.volumetric_rendering.renderer"], type("ImportanceRenderer", (), {}))
    return modules


def place(module, thing):
    thing.__module__ = module.__name__
    thing.__qualname__ = thing.__name__
    setattr(module, thing.__name__, thing)


def plain(path, attributes):
    """An ordinary object of a fake `training.*` class."""
    module, name = path.rsplit(".", 1)
    thing = getattr(sys.modules[module], name)()
    thing.__dict__.update(attributes)
    return thing


def easy(values):
    return sys.modules["dnnlib.util"].EasyDict(values)


def tree_of(state, is_buffer):
    """Nested {"parameters", "buffers", "children"} from dotted names."""
    root = {"parameters": {}, "buffers": {}, "children": {}}
    for key, tensor in state.items():
        *path, name = key.split(".")
        node = root
        for part in path:
            node = node["children"].setdefault(part, {"parameters": {}, "buffers": {}, "children": {}})
        node["buffers" if is_buffer(key) else "parameters"][name] = tensor
    return root


def module_state(node, children, **attributes):
    return {
        "training": False,
        "_parameters": OrderedDict((k, torch.nn.Parameter(v)) for k, v in node["parameters"].items()),
        "_buffers": OrderedDict(node["buffers"]) | {"unused": None},
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict(children),
        "_init_args": (),
        "_init_kwargs": easy({}),
        **attributes,
    }


def module(node, path, source, scaling):
    """The object that a node of the tree pickles as."""
    children = {
        name: module(child, f"{path}.{name}", source, scaling) for name, child in node["children"].items()
    }
    if path == ".decoder.net":
        children = {"0": children["0"], "1": torch.nn.Softplus(), "2": children["2"]}
        sequence = torch.nn.Sequential()
        sequence.__dict__["_modules"] = children
        return sequence
    if path == ".decoder":
        return plain("training.triplane.OSGDecoder", module_state(node, children, hidden_dim=64))
    own = {"act_gain": np.float64(np.sqrt(2)), "in_features": 3}
    if "lora_A" in node["parameters"]:
        own |= scaling
    return Persistent("SomeLayer", module_state(node, children, **own), source)


def generator_object(config, state, *, source=SOURCE, scaling=None):
    """The pickled form of a whole generator."""
    root = tree_of(state, lambda key: key.endswith(("noise_const", "resample_filter", "w_avg", "label_std")))
    children = {
        name: module(node, f".{name}", source, scaling or {}) for name, node in root["children"].items()
    }
    children["renderer"] = plain(
        "training.volumetric_rendering.renderer.ImportanceRenderer",
        {"_parameters": {}, "_buffers": {}, "_modules": {}, "plane_axes": torch.eye(3)},
    )
    arguments = init_kwargs(config) | {"mapping_kwargs": easy({"num_layers": config.mapping_layers})}
    top = module_state(root, children, _init_kwargs=easy(arguments), **attributes(config))
    return Persistent("TriPlaneGenerator", top, source)


def attributes(config):
    return {
        "neural_rendering_resolution": config.neural_rendering_resolution,
        "rendering_kwargs": rendering_kwargs(config),
    }


def init_kwargs(config):
    return {
        "z_dim": config.z_dim,
        "w_dim": config.w_dim,
        "c_dim": 25,
        "img_resolution": config.img_resolution,
        "img_channels": 3,
        "mapping_kwargs": {"num_layers": config.mapping_layers},
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "num_fp16_res": 0,
        "conv_clamp": None,
        "sr_num_fp16_res": 4,
        "rendering_kwargs": {"depth_resolution": 7},  # replaced while training
    }


def rendering_kwargs(config):
    return {
        "depth_resolution": config.depth_resolution,
        "depth_resolution_importance": config.depth_resolution_importance,
        "ray_start": config.ray_start,
        "ray_end": config.ray_end,
        "box_warp": config.box_warp,
        "avg_camera_radius": config.camera_radius,
        "avg_camera_pivot": list(config.camera_pivot),
        "superresolution_module": f"training.superresolution.SuperresolutionHybrid{config.superresolution}",
        "c_gen_conditioning_zero": config.c_gen_conditioning_zero,
        "c_scale": 1.0,
        "superresolution_noise_mode": "none",
        "sr_antialias": True,
        "decoder_lr_mul": 1.0,
        "clamp_mode": "softplus",
        "gpc_reg_prob": 0.8,
    }


def write_snapshot(path, generator, *, protocol=4, **others):
    """The dictionary that a training run writes."""
    snapshot = {
        "training_set_kwargs": easy({"path": "nowhere.zip", "use_labels": True, "max_size": None}),
        "G": generator,
        "D": None,
        "G_ema": generator,
        "augment_pipe": None,
        **others,
    }
    path.write_bytes(pickle.dumps(snapshot, protocol=protocol))
    return path


def wrapped_name(key):
    """The name that My3DGen's wrappers give a plain entry (EG3D spec 5.5)."""
    if key.startswith("backbone.synthesis."):
        head, rest = "backbone.synthesis.synthesis.", key.removeprefix("backbone.synthesis.")
    elif key.startswith("superresolution.block"):
        head, rest = "superresolution.superresolution_module.", key.removeprefix("superresolution.")
    elif key.startswith("superresolution."):
        return key.replace("superresolution.", "superresolution.superresolution_module.", 1)
    else:
        return key
    block, rest = rest.split(".", 1)
    layer, dot, rest = rest.partition(".")
    if not dot:
        return f"{head}{block}.synthesis_block.{layer}"
    inner = "to_rgb_layer" if layer == "torgb" else "synthesis_layer"
    low_rank = rest in ("lora_A", "lora_B")
    middle = "" if low_rank else f".{inner}"
    if rest.startswith("affine.") and not rest.endswith(("lora_A", "lora_B")):
        rest = rest.replace("affine.", "affine.fully_connected_layer.")
    return f"{head}{block}.synthesis_block.{layer}{middle}.{rest}"
