"""Eight-bit weights, in the two forms that run fast on a CPU; activations are quantised while running.

Weights are signed and symmetric, one scale per output column: with unsigned weights the dot-product instructions of
processors without VNNI saturate, and those with it take a longer way. Only the large products inside the blocks are
quantised; the patch layer, attention's own products, norms and the head keep their precision.

onnx       DynamicQuantizeLinear → MatMulInteger: one scale per activation tensor
openvino   DequantizeLinear on the weights alone: the runtime quantises activations by token and group as it multiplies
"""

import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LARGEST = 127  # symmetric: -128 is not used


def block_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The matrix products with constant weights (K, N); those of activations with each other are not among them."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def quantise_dynamically(model: onnx.ModelProto, path: Path) -> None:
    """Write the model with integer products, for ONNX Runtime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    del model.graph.value_info[:]  # the quantiser infers shapes again and stumbles over those that torch wrote
    logging.getLogger().addFilter(_is_no_advice)
    try:
        quantize_dynamic(
            model,
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in block_products(model)],
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.getLogger().removeFilter(_is_no_advice)


def compress_weights(model: onnx.ModelProto) -> None:
    """Replace the blocks' float weights by int8 ones with a scale per column, in place, for OpenVINO."""
    floats = {tensor.name: tensor for tensor in model.graph.initializer}
    names = dict.fromkeys(node.input[1] for node in block_products(model))
    readers = []
    for name in names:
        quantised, scales = quantise_columns(numpy_helper.to_array(floats[name]))
        model.graph.initializer.remove(floats[name])
        parts = {"int8": quantised, "scale": scales, "zero": np.zeros(scales.shape, np.int8)}
        model.graph.initializer.extend(numpy_helper.from_array(v, f"{name}_{part}") for part, v in parts.items())
        inputs = [f"{name}_{part}" for part in parts]
        readers.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], f"{name}_dequantize", axis=1))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*readers, *rest])


def quantise_columns(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round float weights (K, N) to int8 (K, N) and scales float32 (N,), so that int8 * scale is nearest."""
    scales = np.abs(weights).max(axis=0) / LARGEST
    scales = np.where(scales == 0, 1, scales).astype(np.float32)  # a column of zeros stays one
    return np.round(weights / scales).astype(np.int8), scales


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Lets through all but the quantiser's advice to prepare the graph first, which ours does not need."""
    return "pre-processing before quantization" not in record.getMessage()
