"""Write a checkpoint as GGUF, matrices as Q8_0 and norms as F32.

    python3 export.py build-demo/target.pt build-demo/tokenizer.json target.gguf
"""

import json
import sys
from pathlib import Path

import gguf
import numpy
from tokenizers import Tokenizer

import turns
from model import HEAD_SIZE
from train import load

NAMES = {"target": "galley-demo", "draft": "galley-demo-draft"}
CONTROL, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL


def write_shape(writer, shape):
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocab)
    if shape.exit_layer:
        writer.add_uint32("galley.early_exit_layer", shape.exit_layer)


def merge_list(tokenizer):
    """Merges as "left right"; the library gives pairs or such strings."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]


def write_tokenizer(writer, tokenizer):
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if t in turns.SPECIAL else NORMAL for t in tokens])
    writer.add_token_merges(merge_list(tokenizer))
    number = tokenizer.token_to_id
    writer.add_bos_token_id(number(turns.END_OF_TEXT))
    writer.add_eos_token_id(number(turns.TURN_END))
    writer.add_eot_token_id(number(turns.TURN_END))
    writer.add_pad_token_id(number(turns.END_OF_TEXT))
    writer.add_uint32("tokenizer.ggml.fim_pre_token_id", number(turns.FIM_PREFIX))
    writer.add_uint32("tokenizer.ggml.fim_suf_token_id", number(turns.FIM_SUFFIX))
    writer.add_uint32("tokenizer.ggml.fim_mid_token_id", number(turns.FIM_MIDDLE))
    writer.add_add_bos_token(False)
    writer.add_chat_template(turns.CHAT_TEMPLATE)


def write_tensor(writer, name, weight):
    weight = weight.float().contiguous().numpy()
    if weight.ndim == 1:
        writer.add_tensor(name, weight)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quants.quantize(weight.astype(numpy.float32), kind)
    writer.add_tensor(name, packed, raw_dtype=kind)


def export(checkpoint, tokenizer, target):
    model, state = load(checkpoint)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name(NAMES[checkpoint.stem])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    write_shape(writer, model.shape)
    write_tokenizer(writer, tokenizer)
    for name, weight in state["model"].items():
        write_tensor(writer, name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    export(Path(sys.argv[1]), Tokenizer.from_file(sys.argv[2]), sys.argv[3])
