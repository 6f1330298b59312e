"""Golden logits: a tiny random model of each family from Hugging Face transformers, as GGUF with F32 tensors, and the
logits that transformers computes for a fixed prompt. Needs torch, transformers and gguf; run once, results are committed.

    python3 tests/golden/logits/make.py [FAMILY...]
"""
import pathlib
import sys
import zlib

import gguf
import numpy as np
import torch
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GraniteConfig,
                          GraniteForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, MixtralConfig,
                          MixtralForCausalLM, Olmo2Config, Olmo2ForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM, SmolLM3Config,
                          SmolLM3ForCausalLM)

HERE = pathlib.Path(__file__).parent
N_TOK = 48
SIZES = dict(vocab_size=272, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=4096, rms_norm_eps=1e-5, attn_implementation="eager")


SMALL = dict(SIZES, hidden_size=32, intermediate_size=48, max_position_embeddings=256, bos_token_id=None, eos_token_id=256,
             pad_token_id=256)


SEEDS = {"llama": 0, "llama3": 1, "mistral": 2, "qwen2": 3, "qwen3": 4}


def rope(theta, **extra):
    return dict(rope_theta=theta, rope_type=extra.pop("rope_type", "default"), **extra)


LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=rope(10000.0))),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters=rope(500000.0, **LLAMA3))),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=16, sliding_window=11, tie_word_embeddings=False,
                                                  rope_parameters=rope(10000.0))),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True, rope_parameters=rope(1000000.0))),
    "yarn": (Qwen2ForCausalLM, Qwen2Config(**SMALL, tie_word_embeddings=True, rope_parameters=rope(
        100.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=64))),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config(**dict(SMALL, num_hidden_layers=4), tie_word_embeddings=True,
                                                  rope_parameters=rope(50000.0))),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**dict(SMALL, num_hidden_layers=4), head_dim=16, sliding_window=11,
                                               query_pre_attn_scalar=16, attn_logit_softcapping=3.0,
                                               final_logit_softcapping=9.0, rope_parameters=rope(10000.0))),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**dict(SMALL, num_hidden_layers=7, rms_norm_eps=1e-6), head_dim=8, sliding_window=9,
                                                   query_pre_attn_scalar=8, rope_parameters=dict(
        full_attention=rope(1000000.0, rope_type="linear", factor=8.0), sliding_attention=rope(10000.0)))),
    "phi3": (Phi3ForCausalLM, Phi3Config(**SMALL, sliding_window=200, tie_word_embeddings=True, partial_rotary_factor=0.75,
                                         original_max_position_embeddings=16, rope_parameters=rope(
        10000.0, rope_type="longrope", partial_rotary_factor=0.75, original_max_position_embeddings=16,
        short_factor=[1.0, 1.1, 1.3], long_factor=[1.2, 3.0, 7.5]))),
    "phi3-short": (Phi3ForCausalLM, Phi3Config(**SMALL, sliding_window=13, tie_word_embeddings=False, partial_rotary_factor=0.75,
                                               original_max_position_embeddings=64, rope_parameters=rope(
        10000.0, rope_type="longrope", partial_rotary_factor=0.75, original_max_position_embeddings=64,
        short_factor=[1.0, 1.1, 1.3], long_factor=[1.2, 3.0, 7.5]))),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(**SMALL, tie_word_embeddings=False, rope_parameters=rope(500000.0))),
    "granite": (GraniteForCausalLM, GraniteConfig(**SMALL, tie_word_embeddings=True, embedding_multiplier=3.0, residual_multiplier=0.3,
                                                  attention_multiplier=0.2, logits_scaling=2.5, rope_parameters=rope(10000.0))),
    "mixtral": (MixtralForCausalLM, MixtralConfig(**SMALL, tie_word_embeddings=False, num_local_experts=5, num_experts_per_tok=2,
                                                  rope_parameters=rope(1000000.0))),
    "qwen3moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig(**dict(SMALL, num_hidden_layers=3), head_dim=16, tie_word_embeddings=True,
                                                     num_experts=20, num_experts_per_tok=3, moe_intermediate_size=16,
                                                     norm_topk_prob=False, mlp_only_layers=[1], rope_parameters=rope(1000000.0))),
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


ARCHITECTURES = {"llama3": "llama", "mistral": "llama", "mixtral": "llama", "yarn": "qwen2", "phi3-short": "phi3"}
PAIRS = ("llama", "smollm3", "granite")  # rotate adjacent pairs
RENAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
           "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
           "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
           "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp"}
POST_NORMS = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
              "post_feedforward_layernorm": "post_ffw_norm"}  # of families that norm what a half of a layer gives


def add_features(w, name, c):
    """The keys that only some families have, as llama.cpp's converters write them."""
    if name in ("mistral", "gemma2", "gemma3") or name.startswith("phi3"):
        w.add_sliding_window(c.sliding_window)
    if name == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(4.0)
        w.add_rope_scaling_orig_ctx_len(64)
    if name == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    if name == "gemma3":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(8.0)
    if name.startswith("phi3"):
        original, scale = c.original_max_position_embeddings, c.max_position_embeddings / c.original_max_position_embeddings
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(original))))
        for kind in ("long", "short"):
            w.add_tensor(f"rope_factors_{kind}.weight", np.array(c.rope_parameters[f"{kind}_factor"], np.float32))
    if name == "granite":
        w.add_embedding_scale(c.embedding_multiplier)
        w.add_residual_scale(c.residual_multiplier)
        w.add_attention_scale(c.attention_multiplier)
        w.add_logit_scale(c.logits_scaling)
    if name in ("mixtral", "qwen3moe"):
        w.add_expert_count(c.num_local_experts)
        w.add_expert_used_count(c.num_experts_per_tok)
    if name == "qwen3moe":
        w.add_expert_feed_forward_length(c.moe_intermediate_size)
        w.add_expert_weights_norm(c.norm_topk_prob)


def add_experts(w, layer, key, value, n_ff):
    if key.endswith("gate_up_proj"):
        w.add_tensor(f"blk.{layer}.ffn_gate_exps.weight", np.ascontiguousarray(value[:, :n_ff]))
        w.add_tensor(f"blk.{layer}.ffn_up_exps.weight", np.ascontiguousarray(value[:, n_ff:]))
    else:
        w.add_tensor(f"blk.{layer}.ffn_down_exps.weight", value)


def write_gguf(name, model):
    c = model.config
    arch = ARCHITECTURES.get(name, name)
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
    parameters = c.rope_parameters.get("full_attention", c.rope_parameters)
    w.add_rope_freq_base(parameters["rope_theta"])
    w.add_rope_dimension_count(int(head_dim * parameters.get("partial_rotary_factor", 1)))
    add_features(w, name, c)
    write_tokenizer(w)
    renames = RENAMES | (POST_NORMS if arch in ("gemma2", "gemma3", "olmo2") else {})
    for key, value in model.state_dict().items():
        value = value.float().numpy()
        if arch.startswith("gemma") and "norm" in key:
            value = value + 1
        if key == "model.embed_tokens.weight":
            w.add_tensor("token_embd.weight", value)
        elif key == "model.norm.weight":
            w.add_tensor("output_norm.weight", value)
        elif key == "lm_head.weight":
            if not c.tie_word_embeddings:
                w.add_tensor("output.weight", value)
        else:
            _, _, layer, rest = key.split(".", 3)
            if ".experts." in key:
                add_experts(w, layer, key, value, getattr(c, "moe_intermediate_size", c.intermediate_size))
                continue
            module, kind = rest.rsplit(".", 1)
            if arch in PAIRS and module == "self_attn.q_proj":
                value = interleave(value, c.num_attention_heads)
            if arch in PAIRS and module == "self_attn.k_proj":
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
    scale = (64 / model.config.hidden_size) ** 0.5
    for key, p in model.named_parameters():
        with torch.no_grad():
            if "norm" in key:
                p.normal_(0.0 if model.config.model_type.startswith("gemma") else 1.0, 0.2)
            elif "mlp.gate." in key:
                p.normal_(0.0, 0.6)
            elif key.endswith("bias"):
                p.normal_(0.0, 0.3)
            else:
                p.normal_(0.0, 0.15 * scale if "embed" not in key else 0.6)


def some_tokens(seed):
    return torch.randint(0, 256, (1, N_TOK), generator=torch.Generator().manual_seed(seed))


def make(name):
    """A family's model, its tokens and what it makes of them. A family's seed is its own: adding one changes no other."""
    cls, config = FAMILIES[name]
    seed = SEEDS.get(name, zlib.crc32(name.encode()))
    torch.manual_seed(seed)
    model = cls(config).float().eval()
    enliven(model)
    tokens = some_tokens(seed)
    with torch.no_grad():
        return model, tokens, model(tokens).logits[0].numpy().astype("<f4")


def main():
    for name in sys.argv[1:] or FAMILIES:
        model, tokens, logits = make(name)
        config = model.config
        write_gguf(name, model)
        with open(HERE / f"{name}.bin", "wb") as f:
            f.write(np.array([N_TOK, config.vocab_size], "<i4").tobytes() + tokens[0].numpy().astype("<i4").tobytes() + logits.tobytes())
        print(name, "max |logit|", np.abs(logits).max())


if __name__ == "__main__":
    main()
