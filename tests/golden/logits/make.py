"""Golden logits: a tiny random model of each family from Hugging Face transformers, as GGUF with F32 tensors, and the
logits that transformers computes for a fixed prompt. Needs torch, transformers and gguf; run once, results are committed.

    python3 tests/golden/logits/make.py
"""
import pathlib

import gguf
import numpy as np
import torch
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).parent
N_TOK = 48
SIZES = dict(vocab_size=272, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=4096, rms_norm_eps=1e-5, attn_implementation="eager")


def rope(theta, **extra):
    return dict(rope_theta=theta, rope_type=extra.pop("rope_type", "default"), **extra)


LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=rope(10000.0))),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters=rope(500000.0, **LLAMA3))),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=16, sliding_window=11, tie_word_embeddings=False,
                                                  rope_parameters=rope(10000.0))),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True, rope_parameters=rope(1000000.0))),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True, rope_parameters=rope(1000000.0))),
}


def interleave(weight, n_head):
    """From transformers' rotate-halves order to the adjacent pairs that GGUF's llama architecture rotates."""
    rows, cols = weight.shape
    return weight.reshape(n_head, 2, rows // n_head // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def llama3_factors(model):
    """What rope_freqs.weight holds: how much slower each pair rotates than without scaling."""
    c = model.config
    plain = 1.0 / c.rope_parameters["rope_theta"] ** (np.arange(0, 16, 2) / 16)
    return (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)


def byte_tokens():
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(rest)) for b in range(256)]


def write_tokenizer(w):
    tokens = byte_tokens() + ["<|endoftext|>", "th"] + [f"<|extra_{i}|>" for i in range(14)]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([1] * 256 + [3, 1] + [3] * 14)
    w.add_token_merges(["t h"])
    w.add_eos_token_id(256)


def write_gguf(name, model):
    c = model.config
    arch = {"llama3": "llama", "mistral": "llama"}.get(name, name)
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", arch)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w.add_name(f"golden {name}")
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_rope_dimension_count(head_dim)
    if name == "mistral":
        w.add_sliding_window(c.sliding_window)
    write_tokenizer(w)
    renames = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
               "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
               "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
               "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for key, value in model.state_dict().items():
        value = value.float().numpy()
        if key == "model.embed_tokens.weight":
            w.add_tensor("token_embd.weight", value)
        elif key == "model.norm.weight":
            w.add_tensor("output_norm.weight", value)
        elif key == "lm_head.weight":
            if not c.tie_word_embeddings:
                w.add_tensor("output.weight", value)
        else:
            _, _, layer, rest = key.split(".", 3)
            module, kind = rest.rsplit(".", 1)
            if arch == "llama" and module == "self_attn.q_proj":
                value = interleave(value, c.num_attention_heads)
            if arch == "llama" and module == "self_attn.k_proj":
                value = interleave(value, c.num_key_value_heads)
            w.add_tensor(f"blk.{layer}.{renames[module]}.{kind}", np.ascontiguousarray(value))
    if name == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(model))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def enliven(model):
    """Livelier than the initialisation: sharp attention, norms off 1, biases off 0."""
    for key, p in model.named_parameters():
        with torch.no_grad():
            if "norm" in key:
                p.normal_(1.0, 0.2)
            elif key.endswith("bias"):
                p.normal_(0.0, 0.3)
            else:
                p.normal_(0.0, 0.15 if "embed" not in key else 0.6)


def some_tokens(seed):
    return torch.randint(0, 256, (1, N_TOK), generator=torch.Generator().manual_seed(seed))


def main():
    for seed, (name, (cls, config)) in enumerate(FAMILIES.items()):
        torch.manual_seed(seed)
        model = cls(config).float().eval()
        enliven(model)
        tokens = some_tokens(seed)
        with torch.no_grad():
            logits = model(tokens).logits[0].numpy().astype("<f4")
        write_gguf(name, model)
        with open(HERE / f"{name}.bin", "wb") as f:
            f.write(np.array([N_TOK, config.vocab_size], "<i4").tobytes() + tokens[0].numpy().astype("<i4").tobytes() + logits.tobytes())
        print(name, "max |logit|", np.abs(logits).max())


if __name__ == "__main__":
    main()
