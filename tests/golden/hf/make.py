"""Hugging Face directories: tiny random models with transformers' logits, and tokenizers of every kind that Galley reads
with the ids that the tokenizers library makes of awkward texts. Needs torch, transformers and tokenizers; run once, results
are committed.

    python3 tests/golden/hf/make.py [FAMILY...]
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "logits"))
import make as logits  # noqa: E402

TEXTS = [
    "", " ", "  ", "Hello world", " Hello  world ", "It's 12345 o'clock, isn't it?", "tab\there\nand\r\n\r\nlines  \n",
    "caf\u00e9 na\u00efve \u4f60\u597d\u4e16\u754c \U0001f600\U0001f468\u200d\U0001f469", "x=1;y=2;z=100000", "<s>Hello</s> again",
    "<|im_start|>user\nHi<|im_end|> there", "a\u00a0b\u2003c\u3000d\u180ee", "\u2581under\u2581 score", "THE QUICK brown-fox's",
    "no  <mask>  spaces <keep> here", "cafe\u0301", "1 22 333 4444", "end with space ", "(((((())))))", "don't DON'T we'Ll",
]
CORPUS = ["Hello world, it's the quick brown fox that jumps over the lazy dog.", "The dog's name is Rex; 123 456 7890.",
          "def main(x):\n    return x + 1\n\n", "Once upon a time there was a small house. The end of the time."] * 4
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]


def bytes_tokenizer(pre, normalizer=None, post=None, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer = pre
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=360, special_tokens=[], show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens(SPECIAL + [AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
    t.add_tokens([AddedToken("<keep>", normalized=False)])
    t.decoder = decoders.ByteLevel()
    if post:
        t.post_processor = post(t)
    return t


def characters_tokenizer(normalizer, pre, decoder):
    t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    first = SPECIAL[:3] + [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=first, show_progress=False))
    spec = json.loads(t.to_str())  # the trainer makes the byte tokens special, which no real file does
    spec["added_tokens"] = [a for a in spec["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(spec))
    t.add_special_tokens(SPECIAL + [AddedToken("<mask>", lstrip=True, rstrip=True, special=True, normalized=False)])
    t.add_tokens([AddedToken("<keep>", normalized=False)])
    t.decoder = decoder
    t.post_processor = template(t)
    return t


def unigram_tokenizer(pre, byte_fallback):
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre
    t.train_from_iterator(CORPUS * 4, trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL[:3], unk_token="<unk>", show_progress=False))
    spec = json.loads(t.to_str())
    if byte_fallback:
        spec["model"]["byte_fallback"] = True
        spec["model"]["vocab"] += [[f"<0x{b:02X}>", 0.0] for b in range(256)]
    spec["model"]["unk_id"] = [token for token, _ in spec["model"]["vocab"]].index("<unk>")
    t = Tokenizer.from_str(json.dumps(spec))
    t.add_special_tokens(SPECIAL + [AddedToken("<mask>", lstrip=True, rstrip=True, special=True, normalized=False)])
    t.add_tokens([AddedToken("<keep>", normalized=False)])
    t.decoder = decoders.Metaspace()
    t.post_processor = template(t)
    return t


def template(t):
    return processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", t.token_to_id("<s>"))])


def level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(regex):
    return pre_tokenizers.Split(Regex(regex), behavior="isolated")


def kinds():
    marked = normalizers.Replace(" ", "\u2581")
    return {
        "gpt2": bytes_tokenizer(level(True)),
        "llama3": bytes_tokenizer(pre_tokenizers.Sequence([split(LLAMA3), level(False)]), ignore_merges=True,
                                  post=lambda t: processors.Sequence([processors.ByteLevel(), template(t)])),
        "qwen2": bytes_tokenizer(pre_tokenizers.Sequence([split(QWEN2), level(False)]), normalizer=normalizers.NFC()),
        "smollm": bytes_tokenizer(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level(True)])),
        "deepseek": bytes_tokenizer(pre_tokenizers.Sequence([split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u0800-\u4e00]+"),
                                                             split(r"[\r\n]|\s?\p{L}+|\s+$|\s?[!-/:-~]+"), level(False)])),
        "llama2": characters_tokenizer(normalizers.Sequence([normalizers.Prepend("\u2581"), marked]), None, decoders.Sequence([])),
        "mistral": characters_tokenizer(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), decoders.Metaspace()),
        "metaspace": characters_tokenizer(None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True), decoders.Metaspace()),
        "unigram": unigram_tokenizer(pre_tokenizers.Metaspace(prepend_scheme="always", split=True), False),
        "unigram-bytes": unigram_tokenizer(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), True),
        "gemma": characters_tokenizer(marked, pre_tokenizers.Split(" ", behavior="merged_with_previous"), decoders.Sequence([])),
    }


def write_tokenizers(only=()):
    for name, t in kinds().items():
        if only and name not in only:
            continue
        folder = HERE / "tokenizers" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        t.save(str(folder / "tokenizer.json"), pretty=False)
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}}))
        expected = [{"text": text, "ids": t.encode(text).ids} for text in TEXTS]
        (folder / "expected.json").write_text(json.dumps(expected))
        print(name, t.get_vocab_size())


MODELS = ("llama3", "mistral", "qwen3", "yarn", "smollm3", "gemma2", "gemma3", "phi3", "phi3-short", "olmo2", "granite", "mixtral",
          "qwen3moe")


def write_models():
    for name in sys.argv[1:] or MODELS:
        model, tokens, out = logits.make(name)
        config = model.config
        folder = HERE / "models" / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, max_shard_size="200KB" if name == "mistral" else "5GB")
        t = bytes_tokenizer(level(True))
        spec = json.loads(t.to_str())  # as many tokens as the model has rows: bytes, then names
        keep = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)[:256]
        spec["model"]["vocab"] = {token: i for i, token in enumerate(keep)}
        spec["model"]["merges"] = []
        spec["added_tokens"] = [dict(spec["added_tokens"][0], id=256, content="<|endoftext|>", special=True)]
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
        (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 7], "temperature": 0.6, "top_p": 0.95, "top_k": 20,
                                                                   "do_sample": True}))
        with open(folder / "logits.bin", "wb") as f:
            f.write(np.array([tokens.shape[1], config.vocab_size], "<i4").tobytes() + tokens[0].numpy().astype("<i4").tobytes() + out.tobytes())
        print(name, sorted(p.name for p in folder.iterdir()))


if __name__ == "__main__":
    if not sys.argv[1:]:
        write_tokenizers()
    write_models()
