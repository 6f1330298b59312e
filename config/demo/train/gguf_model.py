"""Read an exported GGUF back, for checks that see what a server will see."""

import gguf
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from bpe import QWEN2
from model import Llama, Shape


def field(reader, key, default=None):
    found = reader.get_field(key)
    return default if found is None else found.contents()


def read_shape(reader):
    return Shape(
        width=field(reader, "llama.embedding_length"),
        layers=field(reader, "llama.block_count"),
        feed_forward=field(reader, "llama.feed_forward_length"),
        vocab=field(reader, "llama.vocab_size"),
        context=field(reader, "llama.context_length"),
        rope_base=field(reader, "llama.rope.freq_base"),
        norm_eps=field(reader, "llama.attention.layer_norm_rms_epsilon"),
        exit_layer=field(reader, "galley.early_exit_layer", 0))


def read_tokenizer(reader):
    """The tokenizer from tokens and merges alone, not from tokenizer.json."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in field(reader, "tokenizer.ggml.merges")]
    kinds = field(reader, "tokenizer.ggml.token_type")
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL])
    return tokenizer


def read(path):
    """Model and tokenizer of a GGUF file, weights dequantised."""
    reader = gguf.GGUFReader(path)
    model = Llama(read_shape(reader))
    weights = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type))
               for t in reader.tensors}
    model.load_state_dict(weights)
    return model.eval(), read_tokenizer(reader)
